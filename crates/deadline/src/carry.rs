use crate::wire::{Said, Wire};
use buttress_core::{
    Opaque, Protocol,
    http::{Http, is_grpc},
};
use http::{Method, Request};
use std::time::Duration;

/// A protocol whose requests this layer can bound: it knows where a request carries its deadline.
///
/// [`Opaque`]: nowhere. HTTP: in the headers that the config names, and in the [`Context`](buttress_core::Context).
#[diagnostic::on_unimplemented(
    message = "the deadline layer does not know where requests of type `{Req}` carry their deadline under the protocol `{Self}`",
    note = "`HttpServer` and `HttpClient` speak `http::Request<_>`; `Opaque` speaks any request"
)]
pub trait Carry<Req>: Protocol<Req> + private::Sealed {
    /// Whether its requests can carry a context at all; if not, nobody reads the clock for one.
    #[doc(hidden)]
    const CONTEXT: bool;

    /// What the headers say.
    #[doc(hidden)]
    fn read(&self, req: &Req, wire: private::WireRef<'_>) -> private::Heard;

    /// Writes what is left.
    #[doc(hidden)]
    fn write(&self, req: &mut Req, wire: private::WireRef<'_>, remaining: Duration);
}

/// Names that the trait's signatures need and nobody else.
pub(crate) mod private {
    pub trait Sealed {}
    #[derive(Clone, Copy)]
    pub struct WireRef<'a>(pub(crate) &'a super::Wire);
    pub struct Heard(pub(crate) super::Said);
}
use private::{Heard, WireRef};

impl<C> private::Sealed for Opaque<C> {}

impl<C: Clone, Req> Carry<Req> for Opaque<C> {
    const CONTEXT: bool = false;

    #[inline]
    fn read(&self, _: &Req, _: WireRef<'_>) -> Heard {
        Heard(Said::Nothing)
    }
    #[inline]
    fn write(&self, _: &mut Req, _: WireRef<'_>, _: Duration) {}
}

impl<M, C> private::Sealed for Http<M, C> {}

impl<M: Clone, C: Clone, B> Carry<Request<B>> for Http<M, C> {
    const CONTEXT: bool = true;

    fn read(&self, req: &Request<B>, WireRef(wire): WireRef<'_>) -> Heard {
        Heard(wire.read(req.headers(), speaks_grpc(req)))
    }
    fn write(&self, req: &mut Request<B>, WireRef(wire): WireRef<'_>, remaining: Duration) {
        let grpc = speaks_grpc(req);
        wire.write(req.headers_mut(), grpc, remaining);
    }
}

fn speaks_grpc<B>(req: &Request<B>) -> bool {
    req.method() == Method::POST && is_grpc(req.headers())
}
