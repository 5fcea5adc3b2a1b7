use crate::{Cause, Wait, Why, rules::Rules};
use buttress_core::{Call, ChainError, Opaque, Outcome, Protocol, Reason, Rejection, Replay, Token, Tried, Verdict};
use std::{
    convert::Infallible,
    future::{Future, Pending},
    task::{Context, Poll},
    time::Instant,
};

/// Whether a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repeat {
    /// Yes: twice is as good as once.
    Safe,
    /// Nobody says: if the result is known to be worth it.
    Unknown,
    /// Only if nothing of it was processed.
    Unsafe,
    /// Never: somebody further out does, or it opens a tunnel.
    Never,
}

/// A protocol whose requests this layer can send again, and whose results it understands.
///
/// [`Opaque`]: the request is `Clone`, the result an error or not. HTTP (feature `http`): methods, statuses, gRPC codes, pushback.
#[diagnostic::on_unimplemented(
    message = "requests of type `{Req}` cannot be retried under the protocol `{Self}` where they are answered with `{Res}` or the error `{Err}`",
    note = "`Opaque` (the default) needs `{Req}: Clone` and an error that can carry a refusal: `{Err}: ChainError`",
    note = "`HttpServer` and `HttpClient` need `http::Request<B>` and `http::Response<R>`, both with bodies of `bytes::Bytes`",
    note = "client: `.lift_errors()` on the innermost service turns its error into `Error<{Err}>`"
)]
pub trait Resend<Req, Res, Err>: Replay<Req> + private::Sealed {
    /// What the caller gets: the response, with a body that knows when the attempt is over.
    type Response;
    /// What is left of a response that nobody will see.
    #[doc(hidden)]
    type Remains;
    /// Waits for the first message of a response.
    #[doc(hidden)]
    type Peek: Future<Output = (Self::Response, private::Finding)>;

    #[doc(hidden)]
    fn ask(&self, req: &Req, idempotency_key: bool) -> private::Ask;

    #[doc(hidden)]
    fn judge(call: &Self::Call, result: Result<&Res, &Err>) -> Verdict;

    #[doc(hidden)]
    fn find(
        verdict: &Verdict,
        ask: &private::Ask,
        rules: private::RulesRef<'_>,
        result: Result<&Res, &Err>,
    ) -> private::Finding;

    #[doc(hidden)]
    fn peek(res: Res, ask: &private::Ask, rules: private::RulesRef<'_>) -> Self::Peek;

    #[doc(hidden)]
    fn finish(res: Res) -> Self::Response;

    #[doc(hidden)]
    fn hold(res: &mut Self::Response, token: Token);

    #[doc(hidden)]
    fn remains(res: Res) -> Option<Self::Remains>;

    #[doc(hidden)]
    fn poll_drained(remains: &mut Self::Remains, cx: &mut Context<'_>) -> Poll<()>;
}

/// Names that the trait's signatures need and nobody else.
pub(crate) mod private {
    use super::{Cause, Instant, Repeat, Rules, Why};

    pub trait Sealed {}

    /// What is known of a request.
    #[derive(Clone, Copy, Debug)]
    pub struct Ask {
        pub(crate) repeat: Repeat,
        #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "what HTTP alone asks for"))]
        pub(crate) grpc: bool,
        /// It is the first attempt of anyone: it pays.
        pub(crate) pays: bool,
        pub(crate) deadline: Option<Instant>,
    }

    /// What is to be made of a result.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Finding {
        /// It goes to the caller.
        Good,
        /// So does this, though it is bad.
        Bad(Why),
        /// It is worth another attempt.
        Again(Cause, super::Wait),
        /// One endpoint refused: worth another attempt if there is another endpoint.
        Elsewhere,
        /// Its head is good; whether there is a message, the body will say.
        Peek,
    }

    #[derive(Clone, Copy)]
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "what HTTP alone asks for"))]
    pub struct RulesRef<'a>(pub(crate) &'a Rules);
}
use private::{Ask, Finding, RulesRef};

impl Ask {
    /// A result that anything may have been done for.
    pub(crate) fn if_repeatable(&self, cause: Cause, wait: Wait) -> Finding {
        match self.repeat {
            Repeat::Safe => Finding::Again(cause, wait),
            Repeat::Unknown | Repeat::Unsafe | Repeat::Never => Finding::Bad(Why::NotRepeatable),
        }
    }
}

/// The table's column "may be retried", for refusals of our own layers further in.
pub(crate) fn by_reason(rejection: Rejection, ask: &Ask) -> Finding {
    match rejection.reason {
        Reason::ConnectRefused | Reason::ConnectTimeout => Finding::Again(Cause::Unsent, Wait::Backoff),
        // The endpoint's own time to come back says nothing about another one.
        Reason::BreakerOpen | Reason::AtCapacity | Reason::NotLeader => Finding::Elsewhere,
        // The whole call's deadline is checked apart: then there is no time for another attempt either.
        Reason::DeadlinePassed => ask.if_repeatable(Cause::TimedOut, Wait::Backoff),
        Reason::PeerClosed | Reason::Injected => ask.if_repeatable(Cause::Error, Wait::Backoff),
        _ => Finding::Bad(Why::NotRetryable),
    }
}

/// An error that is no refusal of ours.
pub(crate) fn by_error(verdict: &Verdict, ask: &Ask, unsent: bool) -> Finding {
    match verdict.outcome {
        Outcome::Ignored => Finding::Bad(Why::NotRetryable),
        _ if unsent => Finding::Again(Cause::Unsent, Wait::Backoff),
        Outcome::Overload => Finding::Bad(Why::NotRetryable),
        _ => ask.if_repeatable(Cause::Error, Wait::Backoff),
    }
}

/// Whether nothing of a request was processed, by the sources of its error.
pub(crate) fn is_unsent(error: &impl ChainError) -> bool {
    #[cfg(feature = "http")]
    return error.cause().is_some_and(buttress_core::http::is_unsent);
    #[cfg(not(feature = "http"))]
    {
        let _ = error;
        false
    }
}

/// Of a layer further out that makes this attempt, if there is one: whether it is a further attempt already, and whether nobody has
/// paid for it yet.
pub(crate) fn further_out() -> (bool, bool) {
    Tried::present().map_or((false, true), |attempt| (attempt > 0, false))
}

impl<C> private::Sealed for Opaque<C> {}

impl<C, Req, Res, Err> Resend<Req, Res, Err> for Opaque<C>
where
    C: buttress_core::ClassifyResult<Res, Err>,
    Req: Clone,
    Err: ChainError,
{
    type Response = Res;
    type Remains = Infallible;
    type Peek = Pending<(Res, Finding)>;

    #[inline]
    fn ask(&self, _: &Req, _: bool) -> Ask {
        let (nested, pays) = further_out();
        let repeat = if nested { Repeat::Never } else { Repeat::Unknown };
        Ask { repeat, grpc: false, pays, deadline: None }
    }

    #[inline]
    fn judge(call: &<Self as Protocol<Req>>::Call, result: Result<&Res, &Err>) -> Verdict {
        Call::<Res, Err>::judge(call, result)
    }

    fn find(verdict: &Verdict, ask: &Ask, _: RulesRef<'_>, result: Result<&Res, &Err>) -> Finding {
        match (verdict.rejection, result) {
            (Some(rejection), _) => by_reason(rejection, ask),
            _ if verdict.is_good() => Finding::Good,
            (None, Err(error)) => by_error(verdict, ask, is_unsent(error)),
            (None, Ok(_)) => by_error(verdict, ask, false),
        }
    }

    fn peek(_: Res, _: &Ask, _: RulesRef<'_>) -> Self::Peek {
        unreachable!("an opaque response is all there")
    }

    #[inline]
    fn finish(res: Res) -> Res {
        res
    }

    #[inline]
    fn hold(_: &mut Res, token: Token) {
        drop(token);
    }

    fn remains(_: Res) -> Option<Infallible> {
        None
    }

    fn poll_drained(remains: &mut Infallible, _: &mut Context<'_>) -> Poll<()> {
        match *remains {}
    }
}
