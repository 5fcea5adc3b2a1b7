//! What the attempts of one request share: its body, and what was read of it.
//!
//! The lock is held for a few loads and stores per frame. The body is taken out to be polled, so that nobody else's code (the
//! body, a waker, what is dropped) runs under it.

use crate::{
    BoxError, Lost, Parked, Wakers,
    http::RequestBodyError,
    sync::{Mutex, lock},
};
use ::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    error::Error as StdError,
    fmt, mem,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Wake, Waker},
};

/// A piece below it is copied, unless it is the first: it may be a slice of a read buffer much larger than itself.
const COPY_BELOW: usize = 1024;
/// What a frame costs beyond its bytes, about: a body of tiny frames would take many times its cap.
const FRAME_COST: usize = 64;
/// So many frames are fine whatever the cap.
const FEW_FRAMES: usize = 16;

pub(super) struct Store<B> {
    state: Mutex<State<B>>,
    /// Made for the first attempt that has to wait: a body in memory needs none.
    alarm: OnceLock<Alarm>,
    cap: usize,
}

struct State<B> {
    source: Source<B>,
    /// What the body said of itself at first, and what it says of the rest. A later attempt says the same, though more is known
    /// by then: it would be framed in another way (`Content-Length` where the first was chunked).
    whole: SizeHint,
    rest: SizeHint,
    /// Whether its last frame was known to be the last.
    said_end: bool,
    /// How many frames were read from the body.
    frames: usize,
    /// The last of these frames.
    kept: VecDeque<Piece>,
    /// How large they are.
    size: usize,
    /// Whether there may be further attempts.
    keeping: bool,
    lost: Option<Lost>,
    /// How often all attempts there were ended: those before are over, and count no more.
    epoch: u32,
    /// How many attempts there are.
    readers: usize,
    /// How many frames they have read, all together: where the last of them is, once it is the last.
    passed: usize,
    /// Attempts that came while another was reading.
    waiting: Vec<Waker>,
}

enum Source<B> {
    Here(Pin<Box<B>>),
    /// Somebody is polling it.
    Out,
    Over,
    Failed(SharedError),
}

enum Piece {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

/// What an attempt that asks for a frame gets.
pub(super) enum Turn<'a, B> {
    Frame(Frame<Bytes>),
    Read(Borrowed<'a, B>),
    /// It will be woken.
    Wait,
    End,
    Failed(RequestBodyError),
}

/// Where an attempt is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) frames: usize,
    epoch: u32,
}

struct Alarm {
    /// Attempts that wait for the body.
    parked: Wakers,
    /// Wakes them all. The body gets it: a waker of one attempt would be useless to the others when that one is slow, or gone.
    // It does not hold the store: the body would hold itself.
    waker: Waker,
}

impl Default for Alarm {
    fn default() -> Self {
        let parked = Wakers::default();
        Self { waker: Arc::new(WakeAll(parked.clone())).into(), parked }
    }
}

struct WakeAll(Wakers);

impl Wake for WakeAll {
    fn wake(self: Arc<Self>) {
        self.0.wake_all();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake_all();
    }
}

impl<B> Store<B> {
    pub(super) fn new(body: B, cap: usize) -> Arc<Self>
    where
        B: Body,
    {
        let rest = body.size_hint();
        let state = State {
            source: Source::Here(Box::pin(body)),
            whole: rest,
            rest,
            said_end: false,
            frames: 0,
            kept: VecDeque::new(),
            size: 0,
            keeping: true,
            lost: None,
            epoch: 0,
            readers: 0,
            passed: 0,
            waiting: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), alarm: OnceLock::new(), cap })
    }

    /// One more attempt, beside those there are.
    pub(super) fn join(&self) -> Place {
        lock(&self.state).join()
    }

    /// An attempt in place of those there are: they get an error from now on, and leave the body to this one. `None`: there is
    /// nothing to begin again with, and they go on.
    // A server may answer before it has read the request, and the connection goes on with sending it. That must not run the
    // body past what is kept of it while the next attempt waits for its time.
    pub(super) fn succeed(&self) -> Option<Place> {
        let mut state = lock(&self.state);
        if state.lost.is_some() {
            return None;
        }
        state.epoch += 1;
        (state.readers, state.passed) = (0, 0);
        let place = state.join();
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        self.wake_parked();
        Some(place)
    }

    fn wake_parked(&self) {
        if let Some(alarm) = self.alarm.get() {
            alarm.parked.wake_all();
        }
    }

    /// Whether anybody had to wait.
    #[cfg(all(test, not(buttress_loom)))]
    pub(super) fn has_alarm(&self) -> bool {
        self.alarm.get().is_some()
    }

    pub(super) fn leave(&self, place: Place) {
        let mut state = lock(&self.state);
        if place.epoch != state.epoch {
            return;
        }
        state.readers -= 1;
        state.passed -= place.frames;
        let freed = state.trim();
        drop(state);
        drop(freed);
    }

    /// No attempt will join: what the last reader has read is free.
    pub(super) fn keep_no_more(&self) {
        let mut state = lock(&self.state);
        state.keeping = false;
        let freed = state.trim();
        drop(state);
        drop(freed);
    }

    /// Whether the body was read to its end.
    pub(super) fn is_over(&self) -> bool {
        matches!(lock(&self.state).source, Source::Over | Source::Failed(_))
    }

    pub(super) fn lost(&self) -> Option<Lost> {
        lock(&self.state).lost
    }

    pub(super) fn buffered(&self) -> usize {
        lock(&self.state).size
    }

    pub(super) fn is_end(&self, frames: usize) -> bool {
        let state = lock(&self.state);
        frames == state.frames && state.said_end
    }

    /// What is to come for a reader of so many frames and bytes.
    pub(super) fn size_hint(&self, frames: usize, bytes: u64) -> SizeHint {
        let state = lock(&self.state);
        if frames == state.frames {
            return state.rest;
        }
        let mut hint = SizeHint::new();
        hint.set_lower(state.whole.lower().saturating_sub(bytes));
        if let Some(upper) = state.whole.upper() {
            hint.set_upper(upper.saturating_sub(bytes));
        }
        hint
    }

    /// The turn of a reader at `place`.
    pub(super) fn turn(&self, place: Place, cx: &Context<'_>) -> Turn<'_, B> {
        let Place { frames, epoch } = place;
        let mut waker = None;
        loop {
            let mut state = lock(&self.state);
            if epoch != state.epoch {
                // Who has all of it may say so, and keep its connection.
                let has_all = frames == state.frames && matches!(state.source, Source::Over);
                return if has_all { Turn::End } else { Turn::Failed(RequestBodyError::new(Succeeded)) };
            }
            if let Source::Failed(error) = &state.source {
                return Turn::Failed(RequestBodyError::new(error.clone()));
            }
            if frames < state.frames {
                let Some(index) = state.kept.len().checked_sub(state.frames - frames) else {
                    return Turn::Failed(RequestBodyError::new(Overtaken));
                };
                let frame = state.kept[index].frame();
                state.passed += 1;
                let freed = state.trim();
                drop(state);
                drop(freed);
                return Turn::Frame(frame);
            }
            match mem::replace(&mut state.source, Source::Out) {
                Source::Here(body) => return Turn::Read(Borrowed { store: self, epoch, body: Some(body) }),
                Source::Out => match waker.take() {
                    Some(waker) => {
                        state.waiting.push(waker);
                        return Turn::Wait;
                    }
                    None => {
                        drop(state);
                        waker = Some(cx.waker().clone());
                    }
                },
                over => {
                    state.source = over;
                    return Turn::End;
                }
            }
        }
    }

    /// Takes the body back from a reader, with what it read, and wakes who waits for that. Whether the reader is over.
    fn give_back(&self, epoch: u32, back: Source<B>, frame: Option<(Option<Piece>, SizeHint)>) -> bool {
        let news = frame.is_some() || !matches!(back, Source::Here(_));
        let mut state = lock(&self.state);
        state.source = back;
        let mut freed = None;
        let is_over = epoch != state.epoch;
        if let Some((piece, rest)) = frame {
            state.said_end = matches!(state.source, Source::Over);
            freed = state.add(piece, rest, self.cap, is_over);
        } else if matches!(state.source, Source::Failed(_)) {
            freed = state.lose(Lost::Failed);
        }
        let waiting = mem::take(&mut state.waiting);
        let others = state.readers > 1;
        drop(state);
        drop(freed);
        waiting.into_iter().for_each(Waker::wake);
        if news && others {
            self.wake_parked();
        }
        is_over
    }
}

impl<B> State<B> {
    /// Whether only one reader is left to want anything.
    fn is_last(&self) -> bool {
        !self.keeping && self.readers == 1
    }

    fn join(&mut self) -> Place {
        self.readers += 1;
        Place { frames: 0, epoch: self.epoch }
    }

    /// What the last reader has read, taken from what is kept.
    fn trim(&mut self) -> Option<VecDeque<Piece>> {
        if !self.is_last() {
            return None;
        }
        let wanted = self.frames - self.passed;
        let freed: VecDeque<_> = self.kept.drain(..self.kept.len().saturating_sub(wanted)).collect();
        self.size -= freed.iter().map(Piece::size).sum::<usize>();
        Some(freed)
    }

    /// A frame was read: keeps it where somebody may want it and it fits, or frees everything. `None` cannot be kept.
    ///
    /// What a reader that `is_over` had begun to read is the next one's, who has not got it: it is kept, fit or not.
    fn add(&mut self, piece: Option<Piece>, rest: SizeHint, cap: usize, is_over: bool) -> Option<VecDeque<Piece>> {
        self.frames += 1;
        self.passed += usize::from(!is_over);
        // A body that says it will not fit is not kept in vain.
        let to_come = usize::try_from(rest.lower()).unwrap_or(usize::MAX);
        self.rest = rest;
        if self.lost.is_some() {
            return None;
        }
        if self.is_last() && !is_over {
            return Some(self.clear());
        }
        let fits = |piece: &Piece| {
            is_over
                || self.size.saturating_add(piece.size()).saturating_add(to_come) <= cap
                    && self.kept.len() < FEW_FRAMES.max(cap / FRAME_COST)
        };
        let Some(piece) = piece.filter(fits) else { return self.lose(Lost::TooLarge) };
        self.size += piece.size();
        let piece = if self.kept.is_empty() { piece } else { piece.compact() };
        self.kept.push_back(piece);
        None
    }

    fn lose(&mut self, why: Lost) -> Option<VecDeque<Piece>> {
        self.lost = Some(why);
        Some(self.clear())
    }

    fn clear(&mut self) -> VecDeque<Piece> {
        self.size = 0;
        mem::take(&mut self.kept)
    }
}

impl Piece {
    fn of(frame: &Frame<Bytes>) -> Option<Self> {
        let data = frame.data_ref().map(|data| Self::Data(data.clone()));
        data.or_else(|| frame.trailers_ref().map(|trailers| Self::Trailers(Box::new(trailers.clone()))))
    }

    fn frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(trailers) => Frame::trailers((**trailers).clone()),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum(),
        }
    }

    fn compact(self) -> Self {
        match self {
            Self::Data(data) if data.len() < COPY_BELOW => Self::Data(Bytes::copy_from_slice(&data)),
            piece => piece,
        }
    }
}

/// The body, in the hands of the attempt whose turn it is.
pub(super) struct Borrowed<'a, B> {
    store: &'a Store<B>,
    epoch: u32,
    body: Option<Pin<Box<B>>>,
}

impl<B> Borrowed<'_, B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    /// Reads one frame.
    pub(super) fn read(
        mut self,
        parked: &mut Parked,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let polled = self.poll(parked, cx);
        if polled.is_ready() {
            // Who has its frame need not be told of it.
            parked.leave();
        }
        let Some(body) = &self.body else { unreachable!("it is given back once") };
        let (over, news) = match &polled {
            Poll::Pending => (None, None),
            Poll::Ready(Some(Ok(frame))) => {
                (body.is_end_stream().then_some(Source::Over), Some((Piece::of(frame), body.size_hint())))
            }
            Poll::Ready(Some(Err(error))) => (Some(Source::Failed(error.clone())), None),
            Poll::Ready(None) => (Some(Source::Over), None),
        };
        let body = self.body.take();
        let is_over = match (over, body) {
            (None, Some(body)) => self.store.give_back(self.epoch, Source::Here(body), news),
            (over, body) => {
                // What it holds (a connection) is free before anybody hears that it is over.
                drop(body);
                self.store.give_back(self.epoch, over.unwrap_or(Source::Over), news)
            }
        };
        if is_over && !matches!(polled, Poll::Ready(None)) {
            parked.leave();
            return Poll::Ready(Some(Err(RequestBodyError::new(Succeeded))));
        }
        polled.map_err(RequestBodyError::new)
    }

    fn poll(&mut self, parked: &mut Parked, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SharedError>>> {
        let Some(body) = &mut self.body else { unreachable!("it is given back once") };
        let alarm = &self.store.alarm;
        let waker = alarm.get().map_or(Waker::noop(), |alarm| &alarm.waker);
        let mut polled = body.as_mut().poll_frame(&mut Context::from_waker(waker));
        if polled.is_pending() {
            let alarm = alarm.get_or_init(Alarm::default);
            parked.park(&alarm.parked, cx);
            // An alarm before that woke nobody.
            polled = body.as_mut().poll_frame(&mut Context::from_waker(&alarm.waker));
        }
        polled.map_err(|error| SharedError(Arc::new(error.into())))
    }
}

impl<B> Drop for Borrowed<'_, B> {
    fn drop(&mut self) {
        // Still here: it panicked.
        if self.body.take().is_some() {
            let failed = Source::Failed(SharedError(Arc::new("the request body panicked".into())));
            self.store.give_back(self.epoch, failed, None);
        }
    }
}

/// The error of the body, for every attempt that meets it.
#[derive(Clone, Debug)]
struct SharedError(Arc<BoxError>);

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for SharedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&**self.0)
    }
}

/// The error of an attempt whose part of the body is not there any more.
#[derive(Debug)]
struct Overtaken;

impl fmt::Display for Overtaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body is larger than what is kept of it, and another attempt is further ahead")
    }
}

impl StdError for Overtaken {}

/// The error of an attempt that another was made in place of.
#[derive(Debug)]
struct Succeeded;

impl fmt::Display for Succeeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this attempt is over: the request is sent again")
    }
}

impl StdError for Succeeded {}
