use super::{flights::Work, policy::Terms};
use buttress_core::{Call, ChainError, ClassifyResult, NoCut, Opaque, OpaqueCall, Protocol, Reason, Rejection};
use std::future::Future;

/// A protocol whose answers can be shared: [`Opaque`] clones them; HTTP collects the body.
///
/// Sealed, as [`Protocol`] is.
#[diagnostic::on_unimplemented(
    message = "answers `{Res}` to requests `{Req}` cannot be shared with the protocol `{Self}`",
    note = "`Opaque` needs responses that are `Clone + Send + Sync + 'static`, and an error that can carry a refusal",
    note = "HTTP needs `http::Response<B>` where `B: http_body::Body<Data = bytes::Bytes>`: `CoalesceLayer::http(..)`"
)]
pub trait Share<Req, Res, Err>: Protocol<Req> {
    /// What callers get.
    type Response;
    /// What the caller gets who made the call.
    #[doc(hidden)]
    type Own: Send + 'static;
    /// What the others get.
    #[doc(hidden)]
    type Kept: Send + Sync + 'static;

    /// Makes a request ready for a call that others may join; `false`: it is for itself alone.
    #[doc(hidden)]
    fn prepare(&self, req: &mut Req) -> bool;

    /// The result of a shared call. `alone` says, once the head is there, whether nobody has joined and nobody will.
    #[doc(hidden)]
    fn fly<F>(
        call: Self::Call,
        inner: F,
        alone: impl FnOnce() -> bool + Send + 'static,
        terms: Terms,
    ) -> Work<Self::Own, Common<Self::Kept>>
    where
        F: Future<Output = Result<Res, Err>> + Send + 'static;

    /// To who made the call.
    #[doc(hidden)]
    fn own(call: Self::Call, own: Self::Own) -> Result<Self::Response, Err>;

    /// To the others.
    #[doc(hidden)]
    fn copy(call: Self::Call, kept: &Self::Kept) -> Self::Response;

    #[doc(hidden)]
    fn reject(call: Self::Call, rejection: Rejection) -> Result<Self::Response, Err>;

    /// The result of a call that nobody shares.
    #[doc(hidden)]
    fn single(call: Self::Call, result: Result<Res, Err>) -> Result<Self::Response, Err>;
}

/// What the others get.
#[derive(Debug)]
#[doc(hidden)]
pub enum Common<A> {
    /// The same.
    Answer(A),
    /// A refusal: the same, or that the shared call failed.
    Refused(Rejection),
    /// The time of the caller who made the call was over: theirs is not. One of them makes another.
    Again,
    /// It cannot be shared: each makes a call of its own.
    Apart,
}

impl<A> Common<A> {
    /// Of a refusal of a layer further in, or of an error that is none.
    pub(super) fn failed(rejection: Option<Rejection>) -> Self {
        match rejection {
            Some(rejection) => match rejection.reason {
                Reason::DeadlinePassed | Reason::ClientDeadlinePassed => Self::Again,
                _ => Self::Refused(rejection),
            },
            None => Self::Refused(Rejection::new(Reason::SharedCallFailed, LAYER)),
        }
    }
}

/// Who refuses.
pub(super) const LAYER: &str = "coalesce";

impl<C, Req, Res, Err> Share<Req, Res, Err> for Opaque<C>
where
    C: ClassifyResult<Res, Err> + Send + 'static,
    Res: Clone + Send + Sync + 'static,
    Err: ChainError + Send + 'static,
{
    type Response = Res;
    type Own = Result<Res, Err>;
    type Kept = Res;

    fn prepare(&self, _: &mut Req) -> bool {
        true
    }

    fn fly<F>(
        call: OpaqueCall<C>,
        inner: F,
        alone: impl FnOnce() -> bool + Send + 'static,
        _: Terms,
    ) -> Work<Result<Res, Err>, Common<Res>>
    where
        F: Future<Output = Result<Res, Err>> + Send + 'static,
    {
        Box::pin(async move {
            let result = inner.await;
            let common = match &result {
                _ if alone() => Common::Apart,
                Ok(res) => Common::Answer(res.clone()),
                Err(error) => Common::failed(call.judge(Err(error)).rejection),
            };
            (result, common)
        })
    }

    fn own(_: OpaqueCall<C>, own: Result<Res, Err>) -> Result<Res, Err> {
        own
    }

    fn copy(_: OpaqueCall<C>, kept: &Res) -> Res {
        kept.clone()
    }

    fn reject(call: OpaqueCall<C>, rejection: Rejection) -> Result<Res, Err> {
        Call::<Res, Err>::reject::<(), NoCut>(call, rejection)
    }

    fn single(_: OpaqueCall<C>, result: Result<Res, Err>) -> Result<Res, Err> {
        result
    }
}
