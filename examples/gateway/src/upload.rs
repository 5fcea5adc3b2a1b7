//! A client's request body on its way to an upstream: what it did wrong, when its silence has
//! lasted too long, and when it is too large.

use crate::message;
use buttress::{
    BoxError,
    http::{ReplayBody, RequestBodyError, UploadBody, is_grpc},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
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
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep, timeout},
};

/// What a client did to its own request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It closed its connection, or sent what is no body.
    BrokeOff,
    /// It sent nothing for too long.
    Stalled,
    /// It sent more than it may.
    TooLarge,
}

/// What the two halves of a call tell each other. (A connection whose request body fails tells its response no reason.)
#[derive(Debug, Default)]
pub(crate) struct Notes {
    fault: OnceLock<Fault>,
    answered: AtomicBool,
    over: AtomicBool,
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

/// Held with the client's answer, whichever attempt it is of: when it is dropped, the answer is over.
pub(crate) struct Answering(Option<Arc<Notes>>);

impl Answering {
    /// The answer to `req`.
    pub(crate) fn to<B>(req: &Request<B>) -> Self {
        Self(Notes::of(req))
    }

    /// One that no request body waits for.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.iter().for_each(|notes| notes.over.store(true, Relaxed));
    }
}

/// A client's request body on its way to a tier: as it is, or kept for the next one.
pub(crate) enum Carried {
    Once(RequestBody),
    Kept(ReplayBody<RequestBody>),
}

impl Body for Carried {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match &mut *self {
            Self::Once(body) => Pin::new(body).poll_frame(cx),
            Self::Kept(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Once(body) => body.is_end_stream(),
            Self::Kept(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Once(body) => body.size_hint(),
            Self::Kept(body) => body.size_hint(),
        }
    }
}

/// A client's request body; the layers of a chain know when they wait for it.
pub(crate) type RequestBody = UploadBody<Bounded>;

/// A body that fails when it is silent for too long, or too large.
pub(crate) struct Bounded {
    /// Gone when it was taken in, or is drained.
    body: Option<Incoming>,
    /// What was taken in: the data, then the trailers.
    early: (Bytes, Option<HeaderMap>),
    /// How many more bytes there may be.
    left: Option<u64>,
    /// For how long there may be no frame while the upstream waits for one.
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    /// When what is left of the body after its answer is given up: nothing else bounds it then.
    last: Option<Pin<Box<Sleep>>>,
    /// A gRPC client that has its head may have nothing to say for as long as the call lasts.
    grpc: bool,
    /// The client waits for a 100 and sends nothing before.
    expects: bool,
    /// What is not read is read all the same, so that the client, which writes, gets to see its answer.
    drains: bool,
    notes: Option<Arc<Notes>>,
}

/// No body: that of a request which nobody sent.
impl Default for Bounded {
    fn default() -> Self {
        Self {
            body: None,
            early: (Bytes::new(), None),
            left: None,
            patience: Duration::ZERO,
            waiting: None,
            last: None,
            grpc: false,
            expects: false,
            drains: false,
            notes: None,
        }
    }
}

/// How much of a body that nobody wants is read before the connection is closed, and for how long.
const DRAINED: usize = 64 << 10;
const DRAINING: Duration = Duration::from_secs(2);

impl Bounded {
    /// A body whose client may be silent for `patience` and send `most` bytes; `expects`: it waits to be told to send it.
    pub(crate) fn wrap(req: Request<Incoming>, patience: Duration, most: Option<u64>, expects: bool) -> Request<Self> {
        // Who waits for a 100 sends nothing. (An HTTP/2 stream is reset without harm to others, but some clients take the reset
        // for the answer.)
        let drains = !expects;
        let grpc = is_grpc(req.headers());
        // Without a body there is nothing to tell.
        let notes = (!req.body().is_end_stream()).then(Arc::<Notes>::default);
        let mut req = req.map(|body| Self {
            body: Some(body),
            early: (Bytes::new(), None),
            left: most,
            patience,
            waiting: None,
            last: None,
            grpc,
            expects,
            drains,
            notes: notes.clone(),
        });
        if let Some(notes) = notes {
            req.extensions_mut().insert(notes);
        }
        req
    }

    /// Whether the body is one that its client sends in any case, of at most `most` bytes: its length is declared, and nobody
    /// waits for an answer in the middle of it.
    pub(crate) fn may_be_taken_in(&self, most: u64) -> bool {
        let length = self.size_hint().exact();
        !self.grpc && !self.expects && length.is_some_and(|length| (1..=most).contains(&length))
    }

    /// Reads the whole body before anybody waits for it, in `total` at most: until then it takes no place of anybody else's.
    pub(crate) async fn take_in(&mut self, total: Duration) -> Result<(), Fault> {
        let whole = async {
            let (mut data, mut trailers) = (BytesMut::new(), None);
            while let Some(frame) = self.frame().await {
                match frame.map_err(|_| self.notes.as_ref().and_then(|notes| notes.fault()))?.into_data() {
                    Ok(more) => data.extend_from_slice(&more),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            (self.body, self.early) = (None, (data.freeze(), trailers));
            Ok(())
        };
        match timeout(total, whole).await {
            Ok(taken) => taken.map_err(|fault: Option<Fault>| fault.unwrap_or(Fault::BrokeOff)),
            Err(_) => Err(Fault::Stalled),
        }
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
        if self.notes.as_ref().is_some_and(|notes| notes.over.load(Relaxed)) {
            let last = self.last.get_or_insert_with(|| Box::pin(sleep(DRAINING)));
            if last.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err("the answer is over".into())));
            }
        }
        let Some(body) = &mut self.body else {
            let (data, trailers) = &mut self.early;
            return Poll::Ready(match std::mem::take(data) {
                data if data.is_empty() => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
                data => Some(Ok(Frame::data(data))),
            });
        };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            return self.poll_stalled(cx).map(|error| Some(Err(error)));
        };
        self.waiting = None;
        let mut frame = match frame {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(self.failed(Fault::BrokeOff, error)))),
        };
        if let Some(trailers) = frame.trailers_mut() {
            message::clean_trailers(trailers);
        }
        if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
            match left.checked_sub(data.len() as u64) {
                Some(less) => *left = less,
                None => return Poll::Ready(Some(Err(self.failed(Fault::TooLarge, "the client sends too much")))),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let (data, trailers) = &self.early;
        self.body.as_ref().map_or(data.is_empty() && trailers.is_none(), Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(self.early.0.len() as u64), Body::size_hint)
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        if self.drains
            && !self.is_end_stream()
            && matches!(self.notes.as_ref().and_then(|notes| notes.fault()), None | Some(Fault::TooLarge))
            && let Some(body) = self.body.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(drain(body));
        }
    }
}

/// Leaves a body that nobody wants.
pub(crate) fn leave(req: Request<Incoming>) {
    if !req.body().is_end_stream() && !req.headers().contains_key(header::EXPECT) {
        tokio::spawn(drain(req.into_body()));
    }
}

/// Reads some of a body that nobody wants: a connection that is closed before takes the answer with it.
async fn drain(mut body: Incoming) {
    let read = async {
        let mut left = DRAINED;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = less;
        }
    };
    let _ = timeout(DRAINING, read).await;
}
