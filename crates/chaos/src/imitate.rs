use crate::Injected;
use buttress_core::{
    Call, Opaque, OpaqueCall,
    http::{Http, HttpCall},
};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use std::time::Duration;

/// A protocol whose calls can be harmed.
#[diagnostic::on_unimplemented(message = "the chaos layer does not know the protocol `{Self}`")]
pub trait Imitate: sealed::Sealed {
    /// Whether its calls have statuses and bodies.
    #[doc(hidden)]
    const HTTP: bool;
}

/// A call of such a protocol.
pub trait Imitated<Res, Err>: Call<Res, Err> + sealed::Sealed {
    /// An answer with this status, as if by the service; `None`: this protocol has no statuses.
    #[doc(hidden)]
    fn status(status: u16, retry_after: Option<Duration>) -> Option<Self::Answer>;
}

mod sealed {
    pub trait Sealed {}
}

impl<C> sealed::Sealed for Opaque<C> {}
impl<C> Imitate for Opaque<C> {
    const HTTP: bool = false;
}

impl<M, C> sealed::Sealed for Http<M, C> {}
impl<M, C> Imitate for Http<M, C> {
    const HTTP: bool = true;
}

impl<C> sealed::Sealed for OpaqueCall<C> {}
impl<Res, Err, C> Imitated<Res, Err> for OpaqueCall<C>
where
    Self: Call<Res, Err>,
{
    fn status(_: u16, _: Option<Duration>) -> Option<Self::Answer> {
        None
    }
}

impl<M, C> sealed::Sealed for HttpCall<M, C> {}
impl<Res, Err, M, C> Imitated<Res, Err> for HttpCall<M, C>
where
    Self: Call<Res, Err, Answer = Response<Bytes>>,
{
    fn status(status: u16, retry_after: Option<Duration>) -> Option<Response<Bytes>> {
        let mut res = Response::new(Bytes::from_static(b"injected fault"));
        *res.status_mut() = StatusCode::from_u16(status).ok()?;
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        res.headers_mut().insert(header::CONTENT_TYPE, text);
        if let Some(delay) = retry_after {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            res.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        res.extensions_mut().insert(Injected);
        Some(res)
    }
}
