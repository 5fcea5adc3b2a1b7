//! A client's request body on its way to an upstream: what it did wrong, and when its silence has lasted too long.

use buttress::{
    BoxError,
    http::{UploadBody, is_grpc},
};
use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// What a client did to its own request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It closed its connection, or sent what is no body.
    BrokeOff,
    /// It sent nothing for too long.
    Stalled,
}

/// What the two halves of a call tell each other. (A connection whose request body fails tells its response no reason.)
#[derive(Debug, Default)]
pub(crate) struct Notes {
    fault: OnceLock<Fault>,
    answered: AtomicBool,
}

impl Notes {
    /// Those of the call that `req` belongs to, where the client sends a body.
    pub(crate) fn of<B>(req: &Request<B>) -> Option<Arc<Self>> {
        req.extensions().get().cloned()
    }

    /// What the client did, if it did.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    /// The head of the response is there.
    pub(crate) fn answered(&self) {
        self.answered.store(true, Relaxed);
    }
}

/// A client's request body; the layers of a chain know when they wait for it.
pub(crate) type RequestBody = UploadBody<Bounded>;

/// A body that fails when it is silent for too long.
pub(crate) struct Bounded {
    body: Incoming,
    /// For how long there may be no frame while the upstream waits for one.
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    /// A gRPC client that has its head may have nothing to say for as long as the call lasts.
    grpc: bool,
    notes: Option<Arc<Notes>>,
}

impl Bounded {
    pub(crate) fn wrap(req: Request<Incoming>, patience: Duration) -> Request<RequestBody> {
        let grpc = is_grpc(req.headers());
        // Without a body there is nothing to tell.
        let notes = (!req.body().is_end_stream()).then(Arc::<Notes>::default);
        let mut req = req.map(|body| Self { body, patience, waiting: None, grpc, notes: notes.clone() });
        if let Some(notes) = notes {
            req.extensions_mut().insert(notes);
        }
        UploadBody::track(req)
    }

    fn failed(&self, fault: Fault, error: impl Into<BoxError>) -> BoxError {
        if let Some(notes) = &self.notes {
            let _ = notes.fault.set(fault);
        }
        error.into()
    }

    /// Pending until the client has been silent for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<BoxError> {
        loop {
            let patience = self.patience;
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(waiting.as_mut().poll(cx));
            let answered = || self.notes.as_ref().is_some_and(|notes| notes.answered.load(Relaxed));
            if !(self.grpc && answered()) {
                return Poll::Ready(self.failed(Fault::Stalled, "the client sends nothing"));
            }
            waiting.as_mut().reset(Instant::now() + patience);
        }
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return self.poll_stalled(cx).map(|error| Some(Err(error)));
        };
        self.waiting = None;
        Poll::Ready(frame.map(|frame| frame.map_err(|error| self.failed(Fault::BrokeOff, error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
