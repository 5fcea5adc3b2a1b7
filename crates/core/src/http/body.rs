use super::{Classify, HttpCall, grpc, refuse::grpc_status};
use crate::{
    BoxError, Cut, Outcome, Pushback, Rejection, Settle, Status, abandon,
    settle::{or_fail, settle_in_place, tell_refused},
};
use ::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    any::Any,
    error::Error as StdError,
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

/// A response body that layers can watch over: bytes, and errors that can be boxed. Every such [`Body`] is one.
pub trait ResponseBody: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static> ResponseBody for B {}

/// Why a body ended before its end: a boxed error that has a name.
///
/// The compiler forgets inside of async blocks that a boxed error is `'static`, and then takes no layer around a body that has
/// one. A body with this error can be there; layers look into it as they look into a box.
#[derive(Debug)]
pub struct BodyError(BoxError);

impl BodyError {
    /// With the error behind it.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for BodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

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

/// What [`Call::tie`](crate::Call::tie) takes of an HTTP call: its permit, until the body is at its end.
#[allow(missing_debug_implementations, reason = "a part of `Tracked`, which shows what there is to see")]
pub struct Tie<G: Settle, K> {
    /// `None`: it is settled, or there was nothing to settle.
    guard: Option<G>,
    /// Bytes still to come, as declared; `u64::MAX`: not declared.
    left: u64,
    /// What the head said for good; `None`: trailers will say.
    known: Option<(Outcome, Option<Pushback>)>,
    /// A frame has come. Until then somebody who polls a gRPC body waits for the answer, and that takes the call's time;
    /// while nobody polls, it does not.
    begun: bool,
    call: K,
}

impl<G: Settle, K> Tie<G, K> {
    #[inline]
    pub(super) fn new(guard: Option<G>, known: Option<(Outcome, Option<Pushback>)>, left: u64, call: K) -> Self {
        Self { guard, left, known, begun: false, call }
    }

    /// Nothing is left to settle.
    #[inline]
    pub(super) fn settled(call: K) -> Self {
        Self::new(None, None, u64::MAX, call)
    }

    #[inline]
    fn settle(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        settle_in_place(&mut self.guard, outcome, pushback);
    }
}

impl<G: Settle, K> Drop for Tie<G, K> {
    /// An early drop says what the head already told: a bad response that a retry or a fallback throws away is still bad, a
    /// good one that its reader abandons says nothing (the guard's own drop decides).
    #[inline]
    fn drop(&mut self) {
        if let Some((outcome @ (Outcome::Failure | Outcome::Overload), pushback)) = self.known {
            self.settle(outcome, pushback);
        }
    }
}

impl<G: Settle, M, C: Classify> Tie<G, HttpCall<M, C>> {
    #[inline]
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        let (outcome, pushback) = self.known.unwrap_or_else(|| {
            if G::HEEDS_STATUS
                && let Some(guard) = &mut self.guard
            {
                guard.status(Status::Grpc(trailers.and_then(grpc::said).unwrap_or(grpc::INTERNAL)));
            }
            self.call.judge_trailers(trailers)
        });
        self.settle(outcome, pushback);
    }

    /// Somebody asked for a frame, and there was none.
    #[inline]
    fn wait(&mut self, cx: &Context<'_>) {
        if self.is_waiting()
            && let Some(guard) = &mut self.guard
        {
            // The first message of an answer may need more of the request.
            let upload = self.call.upload.as_ref();
            match upload.is_some_and(|upload| upload.waits(cx)) {
                true => guard.pause(),
                false => guard.pending(),
            }
        }
    }

    #[inline]
    fn is_waiting(&self) -> bool {
        self.known.is_none() && !self.begun
    }

    /// The inner body gave this.
    #[inline]
    fn see<E: 'static>(&mut self, frame: Option<Result<&Frame<Bytes>, &E>>, is_end_stream: impl FnOnce() -> bool) {
        match frame {
            None => self.end(None),
            Some(Ok(frame)) => {
                if self.is_waiting()
                    && let Some(guard) = &mut self.guard
                {
                    guard.head();
                    guard.timed(Outcome::Success);
                }
                self.begun = true;
                if self.left != u64::MAX {
                    self.left = self.left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                // hyper stops polling a body that says it is at its end, or that has given all it declared.
                if frame.is_trailers() || self.left == 0 || is_end_stream() {
                    self.end(frame.trailers_ref());
                }
            }
            Some(Err(error)) => {
                // A boxed error may be a cut of a layer further in, and say that the client chose it.
                let any: &dyn Any = error;
                let boxed = any.downcast_ref::<BoxError>().map(|error| &**error as &(dyn StdError + 'static));
                let boxed = boxed.or_else(|| any.downcast_ref::<BodyError>().map(|error| error as _));
                let outcome = boxed.map_or(Outcome::Failure, super::error_outcome);
                if G::HEEDS_REFUSALS {
                    tell_refused(&mut self.guard, boxed.and_then(Rejection::find));
                }
                self.settle(self.call.excused(outcome), None);
            }
        }
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
        tie: Tie<G, K>,
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
    pub(super) fn own(bytes: Bytes, call: K) -> Self {
        Self { content: Content::Own { bytes }, tie: Tie::settled(call) }
    }

    #[inline]
    pub(super) fn inner(body: T::Body<B>, tie: Tie<G, K>) -> Self {
        Self { content: Content::Inner { body }, tie }
    }
}

impl<B, G, T, K> fmt::Debug for Tracked<B, G, T, K>
where
    B: ResponseBody,
    G: Settle,
    T: Cut,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").field("settled", &self.tie.guard.is_none()).finish_non_exhaustive()
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
        let polled = or_fail(&mut this.tie.guard, || body.as_mut().poll_piece(cx, &mut cut));
        let Poll::Ready(frame) = polled else {
            this.tie.wait(cx);
            return Poll::Pending;
        };
        if let Some(rejection) = cut {
            let outcome = rejection.reason.outcome();
            tell_refused(&mut this.tie.guard, cut);
            this.tie.settle(outcome, None);
            abandon(outcome, || this.content.set(Content::Own { bytes: Bytes::new() }));
            return Poll::Ready(Some(if this.tie.call.is_grpc() {
                let mut trailers = HeaderMap::new();
                grpc_status(rejection, &mut trailers);
                Ok(Frame::trailers(trailers))
            } else {
                Err(<T::Body<B> as CutBody<B>>::cut_error(rejection))
            }));
        }
        if this.tie.guard.is_some() {
            this.tie.see(frame.as_ref().map(Result::as_ref), || body.is_end_stream());
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
