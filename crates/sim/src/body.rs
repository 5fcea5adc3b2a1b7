use buttress_core::BoxError;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use std::{
    collections::VecDeque,
    fmt,
    future::pending,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Any body: what the scripted services of this crate take and give. By default it is empty.
#[derive(Debug, Default)]
pub struct AnyBody(UnsyncBoxBody<Bytes, BoxError>);

/// Boxes a body.
pub fn any<B>(body: B) -> AnyBody
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    AnyBody(UnsyncBoxBody::new(http_body_util::BodyExt::map_err(body, Into::into)))
}

impl Body for AnyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A body that does what its script says, frame by frame.
///
/// By default it is as unhelpful as a streamed body may be: it declares no length, and tells its end only by `None`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use buttress_sim::Frames;
/// use http_body_util::BodyExt;
///
/// let body = Frames::new().data("data: 1\n\n").pause().data("data: 2\n\n").trailers([("grpc-status", "0")]);
/// let got = body.collect().await.unwrap();
/// assert_eq!(got.trailers().unwrap()["grpc-status"], "0");
/// assert_eq!(got.to_bytes(), "data: 1\n\ndata: 2\n\n");
/// # }
/// ```
#[derive(Default)]
pub struct Frames {
    steps: VecDeque<Step>,
    waiting: Option<BoxFuture<'static, ()>>,
    end_known: bool,
    declared: bool,
}

enum Step {
    Frame(Frame<Bytes>),
    Error(BoxError),
    Wait(BoxFuture<'static, ()>),
    Panic,
}

impl Frames {
    /// An empty script.
    pub fn new() -> Self {
        Self::default()
    }

    /// Then a data frame.
    pub fn data(self, data: impl Into<Bytes>) -> Self {
        self.then(Step::Frame(Frame::data(data.into())))
    }

    /// Then trailers.
    pub fn trailers<const N: usize>(self, pairs: [(&'static str, &'static str); N]) -> Self {
        self.then(Step::Frame(Frame::trailers(headers(pairs))))
    }

    /// Then an error.
    pub fn error(self, error: impl Into<BoxError>) -> Self {
        self.then(Step::Error(error.into()))
    }

    /// Then it is pending once.
    pub fn pause(self) -> Self {
        self.wait(crate::pauses(1))
    }

    /// Then it waits for `future`.
    pub fn wait(self, future: impl Future<Output = ()> + Send + 'static) -> Self {
        self.then(Step::Wait(Box::pin(future)))
    }

    /// Then it hangs: it never comes to its end.
    pub fn never(self) -> Self {
        self.wait(pending())
    }

    /// Then it panics.
    pub fn panic(self) -> Self {
        self.then(Step::Panic)
    }

    /// `is_end_stream` says so as soon as nothing is left.
    pub fn end_known(mut self) -> Self {
        self.end_known = true;
        self
    }

    /// `size_hint` is exact.
    pub fn declared(mut self) -> Self {
        self.declared = true;
        self
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push_back(step);
        self
    }

    fn left(&self) -> u64 {
        let data = self.steps.iter().filter_map(|step| match step {
            Step::Frame(frame) => frame.data_ref().map(Bytes::len),
            _ => None,
        });
        data.sum::<usize>() as u64
    }
}

impl From<Frames> for AnyBody {
    fn from(frames: Frames) -> AnyBody {
        any(frames)
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Some(Step::Error(error)) => return Poll::Ready(Some(Err(error))),
                Some(Step::Wait(future)) => self.waiting = Some(future),
                Some(Step::Panic) => panic!("{PANIC}"),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.end_known && self.steps.is_empty() && self.waiting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.declared { SizeHint::with_exact(self.left()) } else { SizeHint::default() }
    }
}

/// What scripted panics say.
pub const PANIC: &str = "a scripted panic";

/// A header map.
pub fn headers<const N: usize>(pairs: [(&'static str, &'static str); N]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}
