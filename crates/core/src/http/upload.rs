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
        // A waker is cloned outside the lock: it may be anyone's code.
        let mine = cx.waker().clone();
        let mut tasks = lock(&self.0.tasks);
        let known = tasks.iter().any(|task| task.will_wake(&mine));
        let spare = if known {
            Some(mine)
        } else {
            tasks.push(mine);
            None
        };
        drop(tasks);
        drop(spare);
        // After the registration: a change in between is seen here or wakes.
        self.0.phase.load(Acquire) == WAITING
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
