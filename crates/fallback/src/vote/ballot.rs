use buttress_core::{Call, ChainError, NoCut, Opaque, Protocol, Reason, Rejection, Verdict};
use std::{
    borrow::Cow,
    future::{Future, Ready, ready},
};

/// A protocol whose requests can be given to several services at once, and whose answers can be compared.
///
/// [`Opaque`]: the request is `Clone`. HTTP (feature `http`): the body of the request is read to its end first, and so are those of the responses.
#[diagnostic::on_unimplemented(
    message = "versions cannot vote on requests of type `{Req}` under the protocol `{Self}` where they are answered with `{Res}` or the error `{Err}`",
    note = "`Opaque` (the default) needs `{Req}: Clone` and an error that can carry a refusal: `{Err}: ChainError`",
    note = "`HttpServer` and `HttpClient` need `http::Request<B>` and `http::Response<R>`, both with bodies of `bytes::Bytes`"
)]
pub trait Ballot<Req, Res, Err>: Ask<Req> {
    /// What is compared: the response for [`Opaque`], `WholeResponse` for HTTP.
    type Answer;
    /// What the caller gets.
    type Response;
    #[doc(hidden)]
    type Collect: Future<Output = Option<Self::Answer>>;

    /// Reads a response. `None`: it cannot be read.
    #[doc(hidden)]
    fn collect(res: Res, cap: usize) -> Self::Collect;

    #[doc(hidden)]
    fn judge(call: &Self::Call, result: Result<&Self::Answer, &Err>) -> Verdict;

    /// The answer for the caller, and who gave another one.
    #[doc(hidden)]
    fn give(
        call: Self::Call,
        result: Result<Self::Answer, Err>,
        dissenters: Vec<Cow<'static, str>>,
    ) -> Result<Self::Response, Err>;

    #[doc(hidden)]
    fn reject(call: Self::Call, rejection: Rejection) -> Result<Self::Response, Err>;
}

/// What versions get of a request: the request itself for [`Opaque`], `http::Request<VoteBody>` for HTTP.
pub trait Ask<Req>: Protocol<Req> + private::Sealed {
    /// What each version gets.
    type Copy: Clone;
    #[doc(hidden)]
    type Gather: Future<Output = Result<Self::Copy, Reason>>;

    /// Reads the request.
    #[doc(hidden)]
    fn gather(req: Req, cap: usize) -> Self::Gather;
}

pub(super) mod private {
    pub trait Sealed {}
}

impl<C> private::Sealed for Opaque<C> {}

impl<C: Clone, Req: Clone> Ask<Req> for Opaque<C> {
    type Copy = Req;
    type Gather = Ready<Result<Req, Reason>>;

    fn gather(req: Req, _: usize) -> Self::Gather {
        ready(Ok(req))
    }
}

impl<C, Req, Res, Err> Ballot<Req, Res, Err> for Opaque<C>
where
    C: buttress_core::ClassifyResult<Res, Err>,
    Req: Clone,
    Err: ChainError,
{
    type Answer = Res;
    type Response = Res;
    type Collect = Ready<Option<Res>>;

    fn collect(res: Res, _: usize) -> Self::Collect {
        ready(Some(res))
    }

    fn judge(call: &Self::Call, result: Result<&Res, &Err>) -> Verdict {
        Call::<Res, Err>::judge(call, result)
    }

    fn give(_: Self::Call, result: Result<Res, Err>, _: Vec<Cow<'static, str>>) -> Result<Res, Err> {
        result
    }

    fn reject(call: Self::Call, rejection: Rejection) -> Result<Res, Err> {
        Call::<Res, Err>::reject::<(), NoCut>(call, rejection)
    }
}
