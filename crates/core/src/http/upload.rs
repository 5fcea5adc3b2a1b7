//! Request bodies that come from somebody else: a client's upload on its way through a proxy, or into a handler.

use super::RequestBodyError;
use crate::{
    BoxError,
    sync::{
        Arc, AtomicU8, Mutex,
        Ordering::{Acquire, Relaxed, Release},
        lock,
    },
};
use ::http::Request;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};
use tower_layer::Layer;
use tower_service::Service;

/// Where a client's request body stands, seen from the call that it belongs to: layers find it in the request's
/// [`Context`](crate::Context), where [`UploadBody::track`] puts it.
///
/// While the service waits for its client, time is not the service's: a permit is [paused](crate::Settle::pause) then, and
/// a deadline that passes accuses nobody. A body that failed excuses the failure that follows from it.
#[derive(Clone, Default)]
pub struct Upload(Arc<State>);

#[derive(Default)]
struct State {
    phase: AtomicU8,
    /// Who wants to hear of the next change.
    tasks: Mutex<Vec<Waker>>,
}

/// The service has the word: it has not asked for more, or is at what it got.
const FLOWING: u8 = 0;
/// The service has asked for more, and the client has not sent it.
const WAITING: u8 = 1;
/// All was read, or nobody reads it any more.
const OVER: u8 = 2;
/// The client broke off.
const FAILED: u8 = 3;

impl Upload {
    /// Whether the call waits for its client right now. If that may still change, the task of `cx` is woken when it does.
    pub fn waits(&self, cx: &Context<'_>) -> bool {
        if self.0.phase.load(Acquire) >= OVER {
            return false;
        }
        let known = |tasks: &[Waker]| tasks.iter().any(|task| task.will_wake(cx.waker()));
        if !known(&lock(&self.0.tasks)) {
            // A waker is cloned outside the lock: it may be anyone's code.
            let mine = cx.waker().clone();
            lock(&self.0.tasks).push(mine);
        }
        // After the registration: a change in between is seen here or wakes.
        self.0.phase.load(Acquire) == WAITING
    }

    /// Whether the call waits for its client right now.
    pub fn is_waiting(&self) -> bool {
        self.0.phase.load(Relaxed) == WAITING
    }

    /// Whether the body failed: the client went away, was too slow, sent what is no body.
    pub fn has_failed(&self) -> bool {
        self.0.phase.load(Relaxed) == FAILED
    }

    fn enter(&self, phase: u8) {
        // Only the body writes, and it is in one place at a time.
        if self.0.phase.swap(phase, Release) != phase {
            let tasks = std::mem::take(&mut *lock(&self.0.tasks));
            tasks.into_iter().for_each(Waker::wake);
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = ["flowing", "waiting", "over", "failed"][usize::from(self.0.phase.load(Relaxed))];
        f.debug_tuple("Upload").field(&phase).finish()
    }
}

/// The same upload.
impl PartialEq for Upload {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Upload {}

pin_project! {
    /// A request body that comes from somebody else. Layers further in learn when it waits for its client, and its errors
    /// are marked as the client's ([`RequestBodyError`]).
    pub struct UploadBody<B> {
        #[pin]
        body: B,
        // `None`: there is nothing to wait for, or somebody further out tracks it.
        upload: Option<Upload>,
    }

    impl<B> PinnedDrop for UploadBody<B> {
        fn drop(this: Pin<&mut Self>) {
            this.project().upload.take().inspect(|upload| upload.enter(OVER));
        }
    }
}

/// One that nobody waits for: what a layer sends by itself.
impl<B: Default> Default for UploadBody<B> {
    fn default() -> Self {
        Self { body: B::default(), upload: None }
    }
}

impl<B: Body> UploadBody<B> {
    /// Tracks the body of `req`: everything further in than this knows of it.
    pub fn track(mut req: Request<B>) -> Request<Self> {
        let is_tracked = crate::Context::of(req.extensions()).is_some_and(|context| context.upload.is_some());
        let upload = (!is_tracked && !req.body().is_end_stream()).then(Upload::default);
        if let Some(upload) = &upload {
            crate::Context::of_mut(req.extensions_mut()).upload = Some(upload.clone());
        }
        req.map(|body| Self { body, upload })
    }
}

impl<B> UploadBody<B> {
    /// The body inside.
    pub fn get_ref(&self) -> &B {
        &self.body
    }
}

impl<B> fmt::Debug for UploadBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadBody").field("upload", &self.upload).finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>>> Body for UploadBody<B> {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let mut this = self.project();
        let polled = this.body.as_mut().poll_frame(cx);
        let Some(upload) = this.upload else { return polled.map(|frame| frame.map(|f| f.map_err(marked))) };
        let phase = match &polled {
            Poll::Pending => WAITING,
            Poll::Ready(None) => OVER,
            Poll::Ready(Some(Err(_))) => FAILED,
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() || this.body.is_end_stream() => OVER,
            Poll::Ready(Some(Ok(_))) => FLOWING,
        };
        upload.enter(phase);
        if phase >= OVER {
            *this.upload = None;
        }
        Poll::Ready(ready!(polled).map(|frame| frame.map_err(marked)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn marked(error: impl Into<BoxError>) -> RequestBodyError {
    RequestBodyError::new(error)
}

/// [Tracks](UploadBody::track) the body of every request. It stands outside all layers that are to know of it.
///
/// A proxy needs it, and so does a server whose breaker or deadline must not mistake slow clients for a slow service; a
/// client that sends what it has itself does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct UploadLayer;

impl<S> Layer<S> for UploadLayer {
    type Service = Uploads<S>;

    fn layer(&self, inner: S) -> Uploads<S> {
        Uploads { inner }
    }
}

/// The service of [`UploadLayer`].
#[derive(Clone, Debug)]
pub struct Uploads<S> {
    inner: S,
}

impl<S: Service<Request<UploadBody<B>>>, B: Body> Service<Request<B>> for Uploads<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request<B>) -> S::Future {
        self.inner.call(UploadBody::track(req))
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;
    use crate::http::{HttpClient, HttpServer};
    use crate::{Call, Context as Ctx, Error, NoCut, Outcome, Protocol, Settle};
    use ::http::Response;
    use http_body_util::{Empty, Full};
    use std::{
        io,
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
    };

    /// Frames, waits (`None`) and errors in the order of the script, then the end.
    struct Script(Vec<Option<Result<&'static str, &'static str>>>);

    impl Body for Script {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            match self.0.is_empty() {
                true => Poll::Ready(None),
                false => match self.0.remove(0) {
                    None => Poll::Pending,
                    Some(next) => Poll::Ready(Some(next.map(|text| Frame::data(Bytes::from(text))))),
                },
            }
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn tracked(script: Vec<Option<Result<&'static str, &'static str>>>) -> (Request<UploadBody<Script>>, Upload) {
        let req = UploadBody::track(Request::post("/").body(Script(script)).unwrap());
        let upload = Ctx::of(req.extensions()).unwrap().upload.clone().unwrap();
        (req, upload)
    }

    #[test]
    fn it_waits_only_while_the_service_asks_and_the_client_does_not_send() {
        let (req, upload) = tracked(vec![None, Some(Ok("a")), None, Some(Ok("b"))]);
        let (task, cx) = (std::sync::Arc::new(Count::default()), &mut Context::from_waker(Waker::noop()));
        let waker = task.clone().into();
        let watcher = Context::from_waker(&waker);
        let mut body = pin!(req.into_body());
        let mut seen = vec![upload.waits(&watcher)];
        for _ in 0..5 {
            let _ = body.as_mut().poll_frame(cx);
            seen.push(upload.waits(&watcher));
        }
        assert_eq!(seen, [false, true, false, true, false, false]);
        assert_eq!(task.0.load(SeqCst), 5, "every change wakes once");
        assert!(!upload.waits(&watcher) && lock(&upload.0.tasks).is_empty(), "nobody is kept for what is over");
    }

    #[test]
    fn a_body_that_nobody_reads_any_more_is_not_waited_for() {
        let (req, upload) = tracked(vec![None]);
        let cx = &mut Context::from_waker(Waker::noop());
        let mut body = Box::pin(req.into_body());
        assert!(body.as_mut().poll_frame(cx).is_pending() && upload.is_waiting());
        drop(body);
        assert!(!upload.waits(cx) && !upload.has_failed());
    }

    #[test]
    fn an_empty_body_is_not_tracked_and_a_tracked_one_only_once() {
        let empty = UploadBody::track(Request::new(Empty::<Bytes>::new()));
        assert!(Ctx::of(empty.extensions()).is_none());
        let (req, upload) = tracked(vec![None]);
        let twice = UploadBody::track(req);
        assert_eq!(Ctx::of(twice.extensions()).unwrap().upload.as_ref(), Some(&upload));
        let mut body = pin!(twice.into_body());
        assert!(body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(upload.is_waiting());
    }

    struct Told(Option<Outcome>);
    impl Settle for &'static std::sync::Mutex<Told> {
        fn conclude(&mut self, outcome: Outcome, _: Option<crate::Pushback>) {
            self.lock().unwrap().0 = Some(outcome);
        }
    }

    fn outcome_of<P>(protocol: P, fails: bool, result: Result<Response<Full<Bytes>>, Error<io::Error>>) -> Outcome
    where
        P: Protocol<Request<UploadBody<Script>>>,
        P::Call: Call<Response<Full<Bytes>>, Error<io::Error>>,
    {
        let (req, upload) = tracked(vec![Some(if fails { Err("reset") } else { Ok("a") })]);
        let call = protocol.start(&req);
        let mut body = pin!(req.into_body());
        let _ = body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop()));
        assert_eq!(upload.has_failed(), fails);
        let told: &'static _ = Box::leak(Box::new(std::sync::Mutex::new(Told(None))));
        let _ = call.finish(result, &mut Some(told), NoCut);
        told.lock().unwrap().0.take().expect("an outcome")
    }

    #[test]
    fn a_failed_body_excuses_the_failure_that_follows_and_nothing_else() {
        let bad = || Response::builder().status(502).body(Full::default()).unwrap();
        let lost = || Err(Error::Inner(io::Error::other("closed")));
        assert_eq!(outcome_of(HttpServer::new(), true, Ok(bad())), Outcome::Ignored);
        assert_eq!(outcome_of(HttpServer::new(), false, Ok(bad())), Outcome::Failure);
        assert_eq!(outcome_of(HttpClient::new(), true, lost()), Outcome::Ignored);
        assert_eq!(outcome_of(HttpClient::new(), false, lost()), Outcome::Failure);
        assert_eq!(outcome_of(HttpServer::new(), true, Ok(Response::new(Full::default()))), Outcome::Success);
    }
}
