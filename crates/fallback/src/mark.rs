//! How an answer that was given in place of another one is marked, and tied to its end.

use buttress_core::{Call, Degraded, NoCut, OpaqueCall, Outcome, Pushback, Settle};

use crate::Instead;

/// A call whose answers say that they are degraded, where there is a place for it.
///
/// The calls of `Opaque` have none; those of HTTP mark the response.
#[diagnostic::on_unimplemented(message = "degraded answers cannot be given by the protocol whose calls are `{Self}`")]
pub trait Degrade<Res, Err>: Call<Res, Err> + sealed::Sealed {
    #[doc(hidden)]
    fn mark_own(own: &mut Self::Answer, degraded: Degraded, pushback: Option<Pushback>);

    #[doc(hidden)]
    fn mark_other(other: &mut Res, degraded: Degraded);
}

mod sealed {
    pub trait Sealed {}
}

impl<C> sealed::Sealed for OpaqueCall<C> {}
impl<Res, Err, C> Degrade<Res, Err> for OpaqueCall<C>
where
    Self: Call<Res, Err>,
{
    fn mark_own(_: &mut Self::Answer, _: Degraded, _: Option<Pushback>) {}
    fn mark_other(_: &mut Res, _: Degraded) {}
}

#[cfg(feature = "http")]
mod over_http {
    use super::{Degrade, sealed::Sealed};
    use buttress_core::{Call, Degraded, Pushback, Rejection, http::HttpCall};
    use bytes::Bytes;
    use http::{HeaderValue, Response, StatusCode, header};

    impl<M, C> Sealed for HttpCall<M, C> {}
    impl<M, C, B, Err> Degrade<Response<B>, Err> for HttpCall<M, C>
    where
        Self: Call<Response<B>, Err, Answer = Response<Bytes>>,
    {
        fn mark_own(own: &mut Response<Bytes>, degraded: Degraded, pushback: Option<Pushback>) {
            let status = own.status();
            if (status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS)
                && let Some(delay) = pushback.and_then(Pushback::delay)
            {
                let secs = delay.as_millis().div_ceil(1000).max(1);
                let secs = HeaderValue::from(u64::try_from(secs).unwrap_or(u64::MAX));
                own.headers_mut().entry(header::RETRY_AFTER).or_insert(secs);
            }
            mark(own, degraded);
        }
        fn mark_other(other: &mut Response<B>, degraded: Degraded) {
            mark(other, degraded);
        }
    }

    /// An answer that is degraded already says more than we know. It is none of a refusal any more.
    fn mark<B>(res: &mut Response<B>, degraded: Degraded) {
        res.extensions_mut().remove::<Rejection>();
        if Degraded::of(res).is_none() {
            degraded.mark(res);
        }
    }
}

/// The response that `instead` becomes. An error that was made here says when to come back as the original did (`pushback`), if it does not
/// say so itself. The call itself, where another service's answer is no better than the one it stands for.
pub(crate) fn give<K, Res, Err, G>(
    call: K,
    instead: Instead<Res, K::Answer>,
    degraded: Degraded,
    pushback: Option<Pushback>,
) -> Result<K::Response<G, NoCut>, K>
where
    K: Degrade<Res, Err>,
    G: Settle,
{
    match instead {
        Instead::Own(mut own) => {
            K::mark_own(&mut own, degraded, pushback);
            Ok(call.answer(own))
        }
        Instead::Other(mut other) => {
            let verdict = call.judge(Ok(&other));
            if verdict.rejection.is_some() || matches!(verdict.outcome, Outcome::Failure | Outcome::Overload) {
                return Err(call);
            }
            K::mark_other(&mut other, degraded);
            let tie = call.tie(Ok(&mut other), &mut None);
            Ok(K::bind(other, tie, NoCut))
        }
    }
}
