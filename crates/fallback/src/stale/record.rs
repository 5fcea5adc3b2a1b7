use super::{Stale, entry::StoredHead, request::Key, rules::NotStored};
use buttress_core::{
    Cut, Rejection,
    http::{CutBody, ResponseBody},
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// Keeps a copy of a body that passes by. (A [`Cut`] that never cuts: what watches over a body.)
#[derive(Default)]
pub struct Record(Option<Box<Recorder>>);

pub(super) struct Recorder {
    key: Key,
    head: StoredHead,
    /// Bytes that are to come; `None`: nobody says.
    declared: Option<usize>,
    max_body: usize,
    /// One buffer of its own: frames are slices of what their connection read, and would hold all of it.
    kept: Vec<u8>,
    room: Room,
}

/// Room for a copy, given back when it is stored or dropped.
struct Room {
    policy: Arc<Stale>,
    bytes: usize,
}

impl Room {
    /// Has room for so many bytes, or says that there is none.
    fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let fits = more == 0 || self.policy.reserve(more);
        self.bytes += if fits { more } else { 0 };
        fits
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.policy.release(self.bytes);
    }
}

impl Record {
    /// Nothing is kept.
    pub(super) fn nothing() -> Self {
        Self(None)
    }

    /// An error: there is no room even for the head.
    pub(super) fn begin(
        policy: Arc<Stale>,
        key: Key,
        head: StoredHead,
        declared: Option<usize>,
        max_body: usize,
    ) -> Result<Self, NotStored> {
        let mut room = Room { policy, bytes: 0 };
        if !room.grow(head.weight()) {
            return Err(NotStored::Busy);
        }
        Ok(Self(Some(Box::new(Recorder { key, head, declared, max_body, kept: Vec::new(), room }))))
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Record").field(&self.0.is_some()).finish()
    }
}

impl Cut for Record {
    type Body<B>
        = StaleBody<B>
    where
        B: ResponseBody;

    fn cover<B: ResponseBody>(mut self, body: B) -> StaleBody<B> {
        // A body that is empty is often not asked for anything.
        if body.is_end_stream()
            && let Some(recorder) = self.0.take()
        {
            recorder.finish();
        }
        StaleBody { body, recorder: self.0 }
    }
}

pin_project! {
    /// The inner body as it is, of which a copy may be kept.
    pub struct StaleBody<B> {
        #[pin]
        body: B,
        recorder: Option<Box<Recorder>>,
    }

    impl<B> PinnedDrop for StaleBody<B> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(recorder) = this.project().recorder.take() {
                recorder.give_up(NotStored::Incomplete);
            }
        }
    }
}

impl<B> StaleBody<B> {
    /// Whether a copy is still being made.
    pub(super) fn is_recording(&self) -> bool {
        self.recorder.is_some()
    }
}

impl<B> fmt::Debug for StaleBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleBody").field("recording", &self.recorder.is_some()).finish_non_exhaustive()
    }
}

impl<B: ResponseBody> CutBody<B> for StaleBody<B> {
    type Error = B::Error;

    #[inline]
    fn poll_piece(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut Option<Rejection>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(recorder) = this.recorder.take() {
            let frame = frame.as_ref().map(|frame| frame.as_ref().ok());
            *this.recorder = recorder.see(frame, || this.body.is_end_stream());
        }
        Poll::Ready(frame)
    }

    fn cut_error(_: Rejection) -> B::Error {
        unreachable!("this body never cuts")
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Recorder {
    /// The body gave this: a frame, an error (`Some(None)`), its end. What is left of the recorder goes on.
    fn see(
        mut self: Box<Self>,
        frame: Option<Option<&Frame<Bytes>>>,
        ended: impl FnOnce() -> bool,
    ) -> Option<Box<Self>> {
        let Some(frame) = frame else { return self.finish() };
        let Some(frame) = frame else { return self.give_up(NotStored::Incomplete) };
        let Some(data) = frame.data_ref() else {
            return self.give_up(NotStored::Trailers);
        };
        let most = self.declared.unwrap_or(self.max_body);
        if self.kept.len() + data.len() > most {
            let why = if self.declared.is_some() { NotStored::Incomplete } else { NotStored::TooLarge };
            return self.give_up(why);
        }
        let len = self.kept.len() + data.len();
        if len > self.kept.capacity() {
            // What was declared, or by doubling.
            let capacity = self.declared.unwrap_or_else(|| most.min(len.max(2 * self.kept.capacity())));
            if !self.room.grow(self.head.weight() + capacity) {
                return self.give_up(NotStored::Busy);
            }
            self.kept.reserve_exact(capacity - self.kept.len());
        }
        self.kept.extend_from_slice(data);
        // hyper stops polling a body that says it is at its end, or that has given all it declared.
        if self.declared == Some(self.kept.len()) || ended() {
            return self.finish();
        }
        Some(self)
    }

    fn finish(self: Box<Self>) -> Option<Box<Self>> {
        let Self { key, head, declared, kept, room, .. } = *self;
        let policy = &room.policy;
        if declared.is_some_and(|declared| declared != kept.len()) {
            policy.not_stored(NotStored::Incomplete);
        } else {
            policy.keep(key, head.with(kept.into_boxed_slice().into()));
        }
        None
    }

    fn give_up(self: Box<Self>, why: NotStored) -> Option<Box<Self>> {
        self.room.policy.not_stored(why);
        None
    }
}
