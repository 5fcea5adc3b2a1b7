//! A body that is fed by hand, and wakers that count.

mod attempts;
mod bodies;
mod model;

use super::{
    body::{Reader, ReplayBody},
    store::Store,
    *,
};
use crate::http::RequestBodyError;
use http_body::{Frame, SizeHint};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context as Cx, Poll, Wake, Waker},
};

/// A body, and the hand that feeds it. Like a channel, it wakes the last one who asked.
#[derive(Clone, Default)]
struct Feed(Arc<Mutex<Fed>>);

#[derive(Default)]
struct Fed {
    coming: VecDeque<Result<Frame<Bytes>, &'static str>>,
    closed: bool,
    /// Whether it says at its last frame that it was the last.
    says_end: bool,
    says_length: bool,
    panics: bool,
    /// How often it wakes its waker and has nothing, as tokio makes tasks yield.
    yields: u32,
    waker: Option<Waker>,
    polls: u32,
    gone: bool,
    /// Runs in the next poll.
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Feed {
    fn body(&self) -> Fodder {
        Fodder(self.clone())
    }
    fn with<T>(&self, change: impl FnOnce(&mut Fed) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
    fn push(&self, frame: Result<Frame<Bytes>, &'static str>) {
        let waker = self.with(|fed| {
            fed.coming.push_back(frame);
            fed.waker.take()
        });
        waker.into_iter().for_each(Waker::wake);
    }
    fn data(&self, text: &'static str) {
        self.push(Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
    }
    fn close(&self) {
        let waker = self.with(|fed| {
            fed.closed = true;
            fed.waker.take()
        });
        waker.into_iter().for_each(Waker::wake);
    }
    /// A body that is all there.
    fn of(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Self {
        let feed = Self::default();
        feed.with(|fed| {
            fed.coming = frames.into_iter().map(Ok).collect();
            fed.closed = true;
        });
        feed
    }
}

struct Fodder(Feed);

impl Body for Fodder {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if let Some(meanwhile) = self.0.with(|fed| fed.meanwhile.take()) {
            meanwhile();
        }
        self.0.with(|fed| {
            fed.polls += 1;
            assert!(!fed.panics, "as it was told to");
            if let Some(left) = fed.yields.checked_sub(1) {
                fed.yields = left;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match fed.coming.pop_front() {
                None if !fed.closed => {
                    fed.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                frame => Poll::Ready(frame),
            }
        })
    }
    fn is_end_stream(&self) -> bool {
        self.0.with(|fed| fed.says_end && fed.closed && fed.coming.is_empty())
    }
    fn size_hint(&self) -> SizeHint {
        self.0.with(|fed| {
            let coming = fed.coming.iter().flatten().filter_map(|frame| frame.data_ref());
            match fed.says_length {
                true => SizeHint::with_exact(coming.map(|data| data.len() as u64).sum()),
                false => SizeHint::default(),
            }
        })
    }
}

impl Drop for Fodder {
    fn drop(&mut self) {
        if let Ok(mut fed) = self.0.0.lock() {
            fed.gone = true;
        }
    }
}

/// A task that counts how often it was woken.
#[derive(Default)]
struct Task(AtomicU32);

impl Task {
    fn new() -> (Arc<Self>, Waker) {
        let task = Arc::new(Self::default());
        (task.clone(), task.into())
    }
    fn woken(&self) -> u32 {
        self.0.swap(0, SeqCst)
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// What a poll gave, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Pending,
    Data(Vec<u8>),
    Trailers(Vec<(String, String)>),
    Error(String),
    End,
}

fn poll_with<B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin>(body: &mut B, waker: &Waker) -> Got {
    match Pin::new(body).poll_frame(&mut Cx::from_waker(waker)) {
        Poll::Pending => Got::Pending,
        Poll::Ready(None) => Got::End,
        Poll::Ready(Some(Err(error))) => Got::Error(error.to_string()),
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) => Got::Data(data.to_vec()),
            Err(frame) => Got::Trailers(
                (frame.into_trailers().unwrap().iter())
                    .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                    .collect(),
            ),
        },
    }
}

fn poll<B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin>(body: &mut B) -> Got {
    poll_with(body, Waker::noop())
}

fn got(text: &str) -> Got {
    Got::Data(text.as_bytes().to_vec())
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn trailers() -> Frame<Bytes> {
    Frame::trailers([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))].into_iter().collect())
}

/// The attempts of one body.
struct Attempts(Arc<Store<Fodder>>);

impl Attempts {
    fn of(feed: &Feed, cap: usize) -> Self {
        Self(Store::new(feed.body(), cap))
    }
    fn join(&self) -> ReplayBody<Fodder> {
        ReplayBody::shared(Reader::new(&self.0))
    }
    fn succeed(&self) -> Option<ReplayBody<Fodder>> {
        Reader::succeed(&self.0).map(ReplayBody::shared)
    }
}
