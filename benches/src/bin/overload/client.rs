//! What clients are made of: hyper on loopback, and what stands in front of it.

use crate::{protection::before, stats::End};
use buttress_breaker::{BreakerConfig, BreakerLayer, RampedGateConfig, RampedGateLayer};
use buttress_core::{
    BoxError, ChainError, Reason,
    http::{HttpClient, TransportError},
    sync::{Mutex, lock},
};
use buttress_deadline::{DeadlineConfig, DeadlineLayer};
use buttress_retry::{RetryConfig, RetryLayer};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn, timeout::TimeoutLayer, util::BoxCloneSyncService};
use tower_resilience::circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};

/// One attempt of a client, or, where it retries by itself, one call.
pub type Chain = BoxCloneSyncService<(), End, Infallible>;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// So many attempts, at once and without asking anybody.
    Naive(u32),
    /// The same with a breaker in front of the transport: tower-resilience's, by its preset `standard`.
    StandardBreaker(u32),
    /// By its preset `fast_fail`.
    FastFailBreaker(u32),
    /// Ours, by its defaults.
    Breaker(u32),
    /// deadline > retry > deadline of an attempt, by their defaults.
    Ours,
    /// deadline > retry > ramped gate > deadline of an attempt, by their defaults.
    OursWithGate,
}

/// How often a call is tried at most by those who do not retry by chance: what our retries do by default.
const ATTEMPTS: u32 = 3;

impl Clients {
    pub fn name(self) -> &'static str {
        match self {
            Self::Naive(1) => "one attempt",
            Self::Naive(_) => "naive retries",
            Self::StandardBreaker(_) => "naive, tower-resilience standard",
            Self::FastFailBreaker(_) => "naive, tower-resilience fast_fail",
            Self::Breaker(_) => "naive, buttress breaker",
            Self::Ours => "buttress",
            Self::OursWithGate => "buttress, ramped gate",
        }
    }

    /// How often a client calls its chain, and how long it waits for each call.
    pub fn patience(self, time_out: Duration) -> (u32, Duration) {
        match self {
            Self::Naive(attempts)
            | Self::StandardBreaker(attempts)
            | Self::FastFailBreaker(attempts)
            | Self::Breaker(attempts) => (attempts, time_out),
            Self::Ours | Self::OursWithGate => (1, time_out * ATTEMPTS),
        }
    }

    pub fn chain(self, wire: Wire, time_out: Duration) -> Result<Chain, Box<dyn Error>> {
        let deadline = |patience| -> Result<_, Box<dyn Error>> {
            Ok(DeadlineLayer::new(DeadlineConfig::new(before(patience)).build()?).protocol(HttpClient::new()))
        };
        let retry = || -> Result<_, Box<dyn Error>> {
            Ok(RetryLayer::new(RetryConfig::new(ATTEMPTS).build()?).protocol(HttpClient::new()))
        };
        let by_breaker =
            |error: &CircuitBreakerError<BoxError>| if error.is_circuit_open() { End::Refused } else { End::Failed };
        let by_us = |error: &TransportError| match error.rejection().map(|refused| refused.reason) {
            Some(Reason::DeadlinePassed | Reason::ClientDeadlinePassed) => End::TimedOut,
            Some(_) => End::Refused,
            None => End::Failed,
        };
        // Inside of the breaker, which would not see that a call was dropped.
        let in_time = TimeoutLayer::new(before(time_out));
        Ok(match self {
            Self::Naive(_) => chain(wire, |_| End::Failed),
            Self::StandardBreaker(_) => {
                let breaker = CircuitBreakerLayer::standard().build()?;
                chain(ServiceBuilder::new().layer(breaker).layer(in_time).service(wire), by_breaker)
            }
            Self::FastFailBreaker(_) => {
                let breaker = CircuitBreakerLayer::fast_fail().build()?;
                chain(ServiceBuilder::new().layer(breaker).layer(in_time).service(wire), by_breaker)
            }
            Self::Breaker(_) => {
                let breaker = BreakerLayer::new(BreakerConfig::default().build()?).protocol(HttpClient::new());
                chain(ServiceBuilder::new().layer(breaker).layer(deadline(time_out)?).service(wire), by_us)
            }
            Self::Ours => {
                let stack = ServiceBuilder::new().layer(deadline(time_out * ATTEMPTS)?).layer(retry()?);
                chain(stack.layer(deadline(time_out)?).service(wire), by_us)
            }
            Self::OursWithGate => {
                let gate = RampedGateLayer::new(RampedGateConfig::default().build()?).protocol(HttpClient::new());
                let stack = ServiceBuilder::new().layer(deadline(time_out * ATTEMPTS)?).layer(retry()?);
                chain(stack.layer(gate).layer(deadline(time_out)?).service(wire), by_us)
            }
        })
    }
}

/// Sends a GET, reads the answer, and says how that ended.
fn chain<S, B>(stack: S, end: impl Fn(&S::Error) -> End + Clone + Send + Sync + 'static) -> Chain
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Body + Send,
    B::Data: Send,
{
    Chain::new(service_fn(move |()| {
        let (stack, end) = (stack.clone(), end.clone());
        async move {
            let response = match stack.oneshot(Request::new(Empty::new())).await {
                Ok(response) => response,
                Err(error) => return Ok(end(&error)),
            };
            let (head, body) = response.into_parts();
            Ok(match (head.status, body.collect().await) {
                (StatusCode::OK, Ok(_)) => End::Good,
                (StatusCode::SERVICE_UNAVAILABLE, Ok(_)) => End::Refused,
                _ => End::Failed,
            })
        }
    }))
}

/// A pool of connections to one server, which remembers when attempts were sent.
#[derive(Clone)]
pub struct Wire(Arc<Shared>);

struct Shared {
    client: Client<HttpConnector, Empty<Bytes>>,
    uri: Uri,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    sent: Vec<Instant>,
    scarce: usize,
}

impl Wire {
    pub fn to(server: SocketAddr) -> Result<Self, http::Error> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // As many connections as there are calls, kept; and each attempt is one attempt.
        let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build(connector);
        let uri = Uri::builder().scheme("http").authority(server.to_string()).path_and_query("/").build()?;
        Ok(Self(Arc::new(Shared { client, uri, log: Mutex::default() })))
    }

    /// When attempts were sent, since the last time somebody asked.
    pub fn take_sent(&self) -> Vec<Instant> {
        std::mem::take(&mut lock(&self.0.log).sent)
    }

    /// How many attempts found no port, or no file, to be sent by.
    pub fn scarce(&self) -> usize {
        lock(&self.0.log).scarce
    }
}

impl<B> Service<Request<B>> for Wire {
    type Response = Response<Incoming>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, TransportError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Nobody here sends a body.
        let (mut head, _) = request.into_parts();
        head.uri = self.0.uri.clone();
        lock(&self.0.log).sent.push(Instant::now());
        let shared = self.0.clone();
        Box::pin(async move {
            let answer = shared.client.request(Request::from_parts(head, Empty::new())).await;
            answer.map_err(|error| {
                if is_scarcity(&error) {
                    lock(&shared.log).scarce += 1;
                }
                TransportError::unsent_if_refused(error)
            })
        })
    }
}

/// Whether somewhere in the causes the system had no port or no file left.
fn is_scarcity(error: &(dyn Error + 'static)) -> bool {
    /// Linux's and macOS's numbers, which std has no kinds for.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    let is_one = |io: &io::Error| {
        io.kind() == io::ErrorKind::AddrNotAvailable || matches!(io.raw_os_error(), Some(ENFILE | EMFILE))
    };
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_one) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_ports_and_files_is_found_among_the_causes() {
        let caused_by = |error: io::Error| TransportError::new(error);
        let refused = |number| is_scarcity(&caused_by(io::Error::from_raw_os_error(number)));
        assert!(refused(24) && refused(23));
        assert!(is_scarcity(&caused_by(io::ErrorKind::AddrNotAvailable.into())));
        assert!(!is_scarcity(&caused_by(io::ErrorKind::ConnectionRefused.into())));
    }
}
