use super::stack::boxed;
use crate::{AnyBody, wire::HttpService};
use buttress_core::BoxError;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use std::fmt;
use tower::util::BoxCloneSyncService;
use tower_layer::Layer;
use tower_service::Service;

/// The inner service that the suite gives to a layer, whatever is inside.
pub type HttpInner = BoxCloneSyncService<Request<AnyBody>, Response<AnyBody>, BoxError>;

/// The protocol that a layer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// [`Opaque`](buttress_core::Opaque): a call is over when it returns, a refusal is an error.
    Opaque,
    /// [`HttpServer`](buttress_core::http::HttpServer): a call is over with its body, a refusal is a response.
    Server,
    /// [`HttpClient`](buttress_core::http::HttpClient): a call is over with its body, a refusal is an error.
    Client,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Self::Opaque, Self::Server, Self::Client];
    /// Those that know bodies.
    pub(super) const HTTP: [Role; 2] = [Self::Server, Self::Client];
}

type Number = Box<dyn Fn() -> u64>;

/// A layer that is held to the contract, with a state of its own, and what can be read back from it.
///
/// Every knob is optional, and every knob makes rules sharper: a layer that has the thing should give it.
pub struct Subject {
    layers: [Box<dyn Fn(HttpInner) -> HttpService>; 3],
    in_flight: Option<Number>,
    at_rest: Vec<(&'static str, Number)>,
    pub(super) outcomes: Option<Box<dyn Fn() -> (u64, u64)>>,
    pub(super) shut: Option<Box<dyn Fn(bool)>>,
    pub(super) asks_first: bool,
    pub(super) limit: Option<u64>,
    pub(super) back_pressure: bool,
}

impl Subject {
    /// One layer, with one state, as it speaks [`Opaque`](buttress_core::Opaque),
    /// [`HttpServer`](buttress_core::http::HttpServer) and [`HttpClient`](buttress_core::http::HttpClient).
    pub fn new<O, S, C, OB, SB, CB>(opaque: O, server: S, client: C) -> Self
    where
        O: Layer<HttpInner> + 'static,
        O::Service: Service<Request<AnyBody>, Response = Response<OB>, Error = BoxError> + Clone + Send + 'static,
        <O::Service as Service<Request<AnyBody>>>::Future: Send,
        OB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        S: Layer<HttpInner> + 'static,
        S::Service: Service<Request<AnyBody>, Response = Response<SB>, Error = BoxError> + Clone + Send + 'static,
        <S::Service as Service<Request<AnyBody>>>::Future: Send,
        SB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        C: Layer<HttpInner> + 'static,
        C::Service: Service<Request<AnyBody>, Response = Response<CB>, Error = BoxError> + Clone + Send + 'static,
        <C::Service as Service<Request<AnyBody>>>::Future: Send,
        CB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self {
            layers: [
                Box::new(move |inner| boxed(opaque.layer(inner))),
                Box::new(move |inner| boxed(server.layer(inner))),
                Box::new(move |inner| boxed(client.layer(inner))),
            ],
            in_flight: None,
            at_rest: Vec::new(),
            outcomes: None,
            shut: None,
            asks_first: false,
            limit: None,
            back_pressure: false,
        }
    }

    /// How many calls are in flight: admitted, and not at their real end. For layers that hold a permit per call.
    pub fn in_flight(mut self, read: impl Fn() -> u64 + 'static) -> Self {
        self.in_flight = Some(Box::new(read));
        self
    }

    /// Any other number that must be back at its start when no call is left: waiting calls, probes, tasks.
    pub fn at_rest(mut self, name: &'static str, read: impl Fn() -> u64 + 'static) -> Self {
        self.at_rest.push((name, Box::new(read)));
        self
    }

    /// The successes and failures counted so far. For layers that count outcomes.
    pub fn outcomes(mut self, read: impl Fn() -> (u64, u64) + 'static) -> Self {
        self.outcomes = Some(Box::new(read));
        self
    }

    /// Makes it refuse every call (`true`), and stop that (`false`).
    pub fn shut(mut self, shut: impl Fn(bool) + 'static) -> Self {
        self.shut = Some(Box::new(shut));
        self
    }

    /// It decides before it asks the inner service whether it is ready: shut, it needs no inner service at all (a breaker).
    pub fn asks_first(mut self) -> Self {
        self.asks_first = true;
        self
    }

    /// At most so many calls run at once; at least 4. Further ones are refused, or wait.
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// It reserves in `poll_ready`, and documents it.
    pub fn back_pressure(mut self) -> Self {
        self.back_pressure = true;
        self
    }

    /// A `layer()` call.
    pub(super) fn layer(&self, role: Role, inner: HttpInner) -> HttpService {
        self.layers[role as usize](inner)
    }

    /// Everything that must be back at its start, by name.
    pub(super) fn rest(&self) -> Vec<(&'static str, u64)> {
        let in_flight = self.in_flight.iter().map(|read| ("in flight", read()));
        in_flight.chain(self.at_rest.iter().map(|(name, read)| (*name, read()))).collect()
    }

    /// Calls in flight, if it says so.
    pub(super) fn running(&self) -> Option<u64> {
        self.in_flight.as_ref().map(|read| read())
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("rest", &self.rest()).finish_non_exhaustive()
    }
}
