use super::{Classify, HttpCall, refuse::grpc_status};
use crate::{BoxError, Cut, Outcome, Pushback, Rejection, Settle, abandon, settle::settle_in_place};
use ::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// A response body that layers can watch over: bytes, and errors that can be boxed. Every such [`Body`] is one.
pub trait ResponseBody: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static> ResponseBody for B {}

/// A body that may be ended early, made by [`Cut::cover`].
pub trait CutBody<B: ResponseBody> {
    /// The error it shows: the inner one's own where it never cuts.
    type Error: Into<BoxError> + 'static;

    /// The next frame; one that is ready never loses to the cut. `None` where it was cut: then `cut` says why, and the inner
    /// body is gone.
    // The cut is said apart, because a frame is large: it goes through layers without being wrapped and unwrapped.
    #[allow(clippy::type_complexity, reason = "what `Body::poll_frame` returns")]
    fn poll_piece(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cut: &mut Option<Rejection>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>>;

    /// The cut as an error.
    fn cut_error(rejection: Rejection) -> Self::Error;

    /// See [`Body::is_end_stream`].
    fn is_end_stream(&self) -> bool;

    /// See [`Body::size_hint`].
    fn size_hint(&self) -> SizeHint;
}

pin_project! {
    /// The [`CutBody`] of [`NoCut`](crate::NoCut): the inner body as it is.
    #[derive(Debug)]
    pub struct Uncut<B> {
        #[pin]
        body: B,
    }
}

impl<B> Uncut<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body }
    }
}

impl<B: ResponseBody> CutBody<B> for Uncut<B> {
    type Error = B::Error;

    #[inline]
    fn poll_piece(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut Option<Rejection>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().body.poll_frame(cx)
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

/// What [`Call::tie`](crate::Call::tie) takes of an HTTP call.
#[allow(missing_debug_implementations, reason = "lives between two lines of a future's poll")]
pub struct HttpTie<G: Settle, K> {
    pub(super) tie: Option<Tie<G, K>>,
    pub(super) grpc: bool,
}

/// The permit of a call whose body is not at its end.
pub(super) struct Tie<G: Settle, K> {
    guard: Option<G>,
    /// What the head said for good; `None`: trailers will say.
    known: Option<(Outcome, Option<Pushback>)>,
    /// Bytes still to come, as declared; `u64::MAX`: not declared.
    left: u64,
    call: K,
}

impl<G: Settle, K> Tie<G, K> {
    #[inline]
    pub(super) fn new(guard: Option<G>, known: Option<(Outcome, Option<Pushback>)>, left: u64, call: K) -> Self {
        Self { guard, known, left, call }
    }

    #[inline]
    fn settle(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        settle_in_place(&mut self.guard, outcome, pushback);
    }
}

impl<G: Settle, K> Drop for Tie<G, K> {
    /// An early drop says what the head already told: a bad response that a retry or a fallback throws away is still bad, a
    /// good one that its reader abandons says nothing (the guard's own drop decides).
    fn drop(&mut self) {
        if let Some((outcome @ (Outcome::Failure | Outcome::Overload), pushback)) = self.known {
            self.settle(outcome, pushback);
        }
    }
}

impl<G: Settle, M, C: Classify> Tie<G, HttpCall<M, C>> {
    #[inline]
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        let (outcome, pushback) = self.known.unwrap_or_else(|| self.call.judge_trailers(trailers));
        self.settle(outcome, pushback);
    }
}

pin_project! {
    /// A response body that settles a permit (`G`) at its real end and may be cut short (`T`).
    ///
    /// It also carries the short texts that layers answer by themselves, so a refusal needs no `B: Default`.
    pub struct Tracked<B, G, T, K>
    where
        B: ResponseBody,
        G: Settle,
        T: Cut,
    {
        #[pin]
        content: Content<T::Body<B>>,
        tie: Option<Tie<G, K>>,
        grpc: bool,
    }
}

pin_project! {
    #[project = ContentProj]
    enum Content<B> {
        Inner { #[pin] body: B },
        Own { bytes: Bytes },
    }
}

impl<B, G, T, K> Tracked<B, G, T, K>
where
    B: ResponseBody,
    G: Settle,
    T: Cut,
{
    pub(super) fn own(bytes: Bytes, grpc: bool) -> Self {
        Self { content: Content::Own { bytes }, tie: None, grpc }
    }

    #[inline]
    pub(super) fn inner(body: T::Body<B>, HttpTie { tie, grpc }: HttpTie<G, K>) -> Self {
        Self { content: Content::Inner { body }, tie, grpc }
    }
}

impl<B, G, T, K> fmt::Debug for Tracked<B, G, T, K>
where
    B: ResponseBody,
    G: Settle,
    T: Cut,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("settled", &self.tie.is_none())
            .field("grpc", &self.grpc)
            .finish_non_exhaustive()
    }
}

impl<B, G, T, M, C> Body for Tracked<B, G, T, HttpCall<M, C>>
where
    B: ResponseBody,
    G: Settle,
    T: Cut,
    C: Classify,
{
    type Data = Bytes;
    type Error = <T::Body<B> as CutBody<B>>::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut this = self.project();
        let mut body = match this.content.as_mut().project() {
            ContentProj::Own { bytes } if bytes.is_empty() => return Poll::Ready(None),
            ContentProj::Own { bytes } => return Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
            ContentProj::Inner { body } => body,
        };
        let mut cut = None;
        let frame = ready!(body.as_mut().poll_piece(cx, &mut cut));
        if let Some(rejection) = cut {
            let outcome = rejection.reason.outcome();
            if let Some(mut tie) = this.tie.take() {
                tie.settle(outcome, None);
            }
            abandon(outcome, || this.content.set(Content::Own { bytes: Bytes::new() }));
            return Poll::Ready(Some(if *this.grpc {
                let mut trailers = HeaderMap::new();
                grpc_status(rejection, &mut trailers);
                Ok(Frame::trailers(trailers))
            } else {
                Err(<T::Body<B> as CutBody<B>>::cut_error(rejection))
            }));
        }
        let Some(tie) = this.tie else { return Poll::Ready(frame) };
        let ended = match &frame {
            None => {
                tie.end(None);
                true
            }
            Some(Ok(frame)) => {
                if *this.grpc
                    && let Some(guard) = &mut tie.guard
                {
                    guard.head();
                }
                let data = frame.data_ref().map_or(0, |data| data.len() as u64);
                if tie.left != u64::MAX {
                    tie.left = tie.left.saturating_sub(data);
                }
                // hyper stops polling a body that says it is at its end, or that has given all it declared.
                let ended = frame.is_trailers() || tie.left == 0 || body.is_end_stream();
                if ended {
                    tie.end(frame.trailers_ref());
                }
                ended
            }
            Some(Err(error)) => {
                // A boxed error may be a cut of a layer further in, and say that the client chose it.
                let boxed = (error as &dyn std::any::Any).downcast_ref::<BoxError>();
                tie.settle(boxed.map_or(Outcome::Failure, |error| super::error_outcome(&**error)), None);
                tie.known = None;
                true
            }
        };
        if ended {
            *this.tie = None;
        }
        Poll::Ready(frame)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Inner { body } => body.is_end_stream(),
            Content::Own { bytes } => bytes.is_empty(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Inner { body } => body.size_hint(),
            Content::Own { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
