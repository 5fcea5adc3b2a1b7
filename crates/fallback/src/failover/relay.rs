use buttress_core::{Call, ChainError, Deadline, Degraded, Opaque, Reason, Replay};
use private::{Ask, Repeat};

/// A protocol whose requests can be taken from one tier to another.
///
/// [`Opaque`]: the request is `Clone`. HTTP (feature `http`): the head is copied, and of the body what was sent is kept.
#[diagnostic::on_unimplemented(
    message = "requests of type `{Req}` cannot go to another tier under the protocol `{Self}` where they are answered with `{Res}` or the error `{Err}`",
    note = "`Opaque` (the default) needs `{Req}: Clone` and an error that can carry a refusal: `{Err}: ChainError`",
    note = "`HttpServer` and `HttpClient` need `http::Request<B>` and `http::Response<R>`, both with bodies of `bytes::Bytes`",
    note = "client: `.lift_errors()` on the innermost service turns its error into `Error<{Err}>`"
)]
pub trait Relay<Req, Res, Err>: Replay<Req, Call: Call<Res, Err>> + private::Sealed {
    /// What is known of a request.
    #[doc(hidden)]
    fn ask(&self, req: &Req) -> Ask;

    /// Whether the result itself says that any such request may go elsewhere.
    #[doc(hidden)]
    fn is_free(ask: Ask, result: Result<&Res, &Err>) -> bool;

    /// Marks the answer of a backup.
    #[doc(hidden)]
    fn mark(res: &mut Res, degraded: Degraded);
}

/// Names that the trait's signatures need and nobody else.
pub(super) mod private {
    use super::Deadline;

    pub trait Sealed {}

    /// Whether two tiers may process a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Repeat {
        /// Yes.
        Safe,
        /// No: only one that has not done anything for it may hand it on.
        Unsafe,
        /// It opens a tunnel, or has a key that one origin honours: only one tier is ever asked.
        Never,
    }

    /// What is known of a request.
    #[derive(Clone, Copy, Debug)]
    pub struct Ask {
        pub(crate) repeat: Repeat,
        #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "what HTTP alone asks for"))]
        pub(crate) grpc: bool,
        pub(crate) deadline: Option<Deadline>,
    }

    impl Ask {
        /// What somebody says who knows the request better.
        #[inline]
        pub(crate) fn allow(&mut self, repeatable: Option<bool>) {
            match repeatable {
                Some(safe) if self.repeat != Repeat::Never => {
                    self.repeat = if safe { Repeat::Safe } else { Repeat::Unsafe };
                }
                _ => {}
            }
        }
    }
}

/// Whether what was refused for this reason was not begun.
pub(super) fn is_unbegun(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BreakerOpen
            | Reason::AtCapacity
            | Reason::Shed
            | Reason::QueueTimeout
            | Reason::ConnectRefused
            | Reason::ConnectTimeout
            | Reason::NotLeader
            | Reason::NoEndpoint
            | Reason::SwitchedOff
    )
}

/// Whether a limit refused that stands in front of the tier: it says "too much", and nothing of whether the tier would have served the call.
pub(super) fn is_of_limit(reason: Reason) -> bool {
    matches!(reason, Reason::AtCapacity | Reason::Shed | Reason::QueueTimeout)
}

/// Whether nothing of a request was processed, by the sources of its error.
fn is_unsent(error: &impl ChainError) -> bool {
    #[cfg(feature = "http")]
    return error.cause().is_some_and(buttress_core::http::is_unsent);
    #[cfg(not(feature = "http"))]
    {
        let _ = error;
        false
    }
}

impl<C> private::Sealed for Opaque<C> {}

impl<C, Req, Res, Err> Relay<Req, Res, Err> for Opaque<C>
where
    C: buttress_core::ClassifyResult<Res, Err>,
    Req: Clone,
    Err: ChainError,
{
    #[inline]
    fn ask(&self, _: &Req) -> Ask {
        Ask { repeat: Repeat::Unsafe, grpc: false, deadline: None }
    }

    fn is_free(_: Ask, result: Result<&Res, &Err>) -> bool {
        result.is_err_and(is_unsent)
    }

    fn mark(_: &mut Res, _: Degraded) {}
}

#[cfg(feature = "http")]
mod http {
    use super::{Ask, Degraded, Relay, Repeat, private::Sealed};
    use ::http::{HeaderName, Method, Request, Response};
    use buttress_core::{
        BoxError, Context,
        http::{Classify, Http, Refuse, ResponseBody, SaysUnsent, grpc, is_grpc, opens_tunnel},
    };
    use bytes::Bytes;
    use http_body::Body;

    const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

    impl<M, C> Sealed for Http<M, C> {}

    impl<M, C, B, R, Err> Relay<Request<B>, Response<R>, Err> for Http<M, C>
    where
        M: Refuse<Err> + SaysUnsent<Err>,
        C: Classify,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        R: ResponseBody,
    {
        #[inline]
        fn ask(&self, req: &Request<B>) -> Ask {
            let method = req.method();
            let repeat = if opens_tunnel(req) {
                Repeat::Never
            } else if method.is_idempotent() {
                Repeat::Safe
            } else if req.headers().contains_key(IDEMPOTENCY_KEY) {
                // A retry inside of the tier may have sent it, whatever the last attempt says.
                Repeat::Never
            } else {
                Repeat::Unsafe
            };
            Ask {
                repeat,
                grpc: method == Method::POST && is_grpc(req.headers()),
                deadline: Context::of(req.extensions()).and_then(|context| context.deadline),
            }
        }

        fn is_free(ask: Ask, result: Result<&Response<R>, &Err>) -> bool {
            match result {
                // UNAVAILABLE before any message: nothing was committed (gRFC A6).
                Ok(res) => ask.grpc && grpc::code(res.status(), res.headers()) == Some(grpc::UNAVAILABLE),
                Err(error) => M::says_unsent(error),
            }
        }

        fn mark(res: &mut Response<R>, degraded: Degraded) {
            degraded.mark(res);
        }
    }
}
