//! Resilience layers for [Tower](https://docs.rs/tower): they keep a service useful while the things it depends on fail.
//!
//! | layer | keeps you from | refuses with |
//! |---|---|---|
//! | [`BreakerLayer`] | calling what is down, and waiting for it | 503 / `UNAVAILABLE`, with `Retry-After` |
//! | [`BulkheadLayer`] | one dependency taking all there is | 503 / `RESOURCE_EXHAUSTED` |
//! | [`ShedLayer`] | taking more calls than can be answered in time: it finds out how many, and the important ones come first | 503 / `RESOURCE_EXHAUSTED`, with `Retry-After` |
//! | [`RateLimitLayer`], [`KeyedRateLimitLayer`] | one client, tenant or key asking more than its share | 429 / `RESOURCE_EXHAUSTED`, with `Retry-After` |
//! | [`ThrottleLayer`] | sending what a service that says "too much" would refuse | 503 / `RESOURCE_EXHAUSTED`, with `Retry-After` |
//! | [`PressureLayer`] | what is less important taking the last of CPU, memory or the event loop | 503 / `RESOURCE_EXHAUSTED`, with `Retry-After` |
//! | [`RampedGateLayer`] | sending all calls at once to a fleet that fails, or has just come back | 503 / `UNAVAILABLE` |
//! | [`DeadlineLayer`] | waiting longer than anyone waits for you | 503, 504 in a gateway / `DEADLINE_EXCEEDED` |
//! | [`RetryLayer`] | failing for what would work the next time; and, by its [`Budget`], from retries that make an outage worse | nothing: the last answer is returned |
//! | [`Balance`] | sending calls to the endpoint that is slow, fails or is shut | 503 / `UNAVAILABLE` where all are shut |
//! | [`CanaryLayer`] | a new version that fails more often than the old one getting more calls | nothing |
//! | [`FallbackLayer`], `StaleLayer` | having no answer: a backup's, or the last good one, marked as such | nothing |
//! | [`ToggleLayer`] and [`Levels`] | all of the service failing for the least of its features | 503 / `UNAVAILABLE`, unless there is a backup |
//! | [`FailoverLayer`] | one service being the only one: the next in order is asked | nothing of its own |
//! | [`CoalesceLayer`] | asking the same for a thousand callers at once | nothing of its own |
//! | [`VoteLayer`] | believing the one of several versions that is wrong | 502 / `UNAVAILABLE` without a majority |
//! | `ChaosLayer` (feature `chaos`) | finding out on the worst day whether the others work: it injects faults | what it is told to imitate |
//! | [`TelemetryLayer`] | not knowing: it measures times, outcomes and refusals, for Prometheus | nothing |
//!
//! # On a server
//!
//! One line, no `HandleErrorLayer`, no boxed error, the right status on the wire:
//!
//! ```
//! # #[cfg(feature = "http")] {
//! use axum::{Router, routing::get};
//!
//! let app: Router = Router::new()
//!     .route("/", get(async || "hello"))
//!     .layer(buttress::http::BulkheadLayer::new(64));
//! # }
//! ```
//!
//! or a whole chain, outermost first, that says once which protocol it speaks:
//!
//! ```
//! # #[cfg(feature = "http")] {
//! use axum::{Router, routing::get};
//! use buttress::prelude::*;
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//!
//! let registry = Registry::new();
//! let app: Router = Router::new().route("/", get(async || "hello")).layer(
//!     ServiceBuilder::new()
//!         .http_server()
//!         .registry(&registry)
//!         .deadline(Duration::from_secs(2))
//!         .bulkhead(64),
//! );
//! # }
//! ```
//!
//! # In a client
//!
//! The innermost service lifts its errors once; then any layer can refuse, and none changes the error type again (the response
//! body is wrapped, because permits are held to its end):
//!
//! ```
//! # #[cfg(feature = "http")] #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), buttress::ConfigError> {
//! use buttress::prelude::*;
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//!
//! // Retries of its own are off, so that attempts are counted.
//! let hyper = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
//! let client = ServiceBuilder::new()
//!     .http_client()
//!     .deadline(Duration::from_secs(2))
//!     .breaker(BreakerConfig::default().failure_rate(0.3).open_for(Duration::from_secs(5)).build()?)
//!     .bulkhead(8)
//!     .service(hyper.lift_errors());
//! buttress::check::<http::Request<Full<Bytes>>, _>(&client); // where something is missing, this says what
//! # Ok(()) }
//! # #[cfg(not(feature = "http"))] fn main() {}
//! ```
//!
//! What is no HTTP (a database, a queue of jobs) leaves the line with the protocol out; then `Ok` and `Err` are the outcomes.
//! [`stack`] builds a standard chain, checked across its layers.
//!
//! # In which order
//!
//! Outermost first, each where there is need of it:
//!
//! * Server: telemetry > rate limit > fallback > stale > deadline > pressure > shed > bulkhead > handler. A call that is shed has cost a permit of the rate limit.
//! * Client: telemetry > fallback > stale > deadline > retry > throttle > shed > ramped gate > balance > per endpoint: breaker > bulkhead > per-try deadline >
//!   transport.
//!
//! [`stack`] builds the most common of these.
//!
//! # Several servers
//!
//! [`stack::ClientStack::balanced`] does this in one call. By hand, each endpoint has layers of its own, and the balancer is told
//! of its breaker, so that it skips an endpoint whose circuit is open:
//!
//! ```
//! # #[cfg(feature = "http")] #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), buttress::ConfigError> {
//! use buttress::{BreakerLayer, http::OriginLayer, prelude::*};
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//!
//! let hyper = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
//! let mut endpoints = Vec::new();
//! for server in ["http://10.0.0.1:8080", "http://10.0.0.2:8080"] {
//!     let breaker = BreakerLayer::new(BreakerConfig::default().consecutive(5).build()?);
//!     let signal = breaker.handle().signal();
//!     let service = ServiceBuilder::new()
//!         .http_client()
//!         .with(breaker)
//!         .layer(OriginLayer::new(server)?)
//!         .service(hyper.clone().lift_errors());
//!     endpoints.push(Endpoint::new(server, service).signal(signal));
//! }
//! let client = ServiceBuilder::new()
//!     .http_client()
//!     .deadline(Duration::from_secs(5))
//!     .retry(Retry::default())
//!     .balance(Balance::new(endpoints)?); // not `.service(..)`, which would not tell it the protocol
//! buttress::check::<http::Request<Full<Bytes>>, _>(&client);
//! # Ok(()) }
//! # #[cfg(not(feature = "http"))] fn main() {}
//! ```
//!
//! # Bodies in a chain with retries
//!
//! Inside of a retry requests have a body that can be sent again, [`http::ReplayBody<B>`](http::ReplayBody). hyper's client takes any
//! body, so it need not be written; where the client's type is, it is `Client<_, ReplayBody<B>>`. For a service that asks for a body of its own
//! (a tonic channel) a layer around it makes one: `.layer(MapRequestLayer::new(|req: http::Request<_>| req.map(Body::new)))`.
//!
//! # Per tenant, host or route
//!
//! A policy per key, in a bounded table: what a key is made of, and which policy it gets.
//!
//! ```
//! # #[cfg(feature = "http")] fn main() -> Result<(), buttress::ConfigError> {
//! use axum::{Router, body::Body, routing::get};
//! use buttress::{KeyedBulkheadLayer, KeyedConfig, prelude::*};
//! use http::{HeaderValue, Request};
//! use tower::ServiceBuilder;
//!
//! // At most 10 000 tenants are known at once; each may have 8 requests under way. Those without the header share one.
//! let per_tenant = KeyedConfig::new(10_000)
//!     .build(|req: &Request<Body>| req.headers().get("x-tenant").cloned(), |_tenant| Bulkhead::from(8))?;
//! let layer = KeyedBulkheadLayer::<Option<HeaderValue>, _>::new(per_tenant);
//! let tenants = layer.handle();
//!
//! let app: Router = Router::new()
//!     .route("/", get(async || "hello"))
//!     .layer(ServiceBuilder::new().http_server().with(layer));
//!
//! tenants.for_each(|tenant, bulkhead| println!("{tenant:?}: {} in flight", bulkhead.snapshot().in_flight));
//! # let _ = app;
//! # Ok(()) }
//! # #[cfg(not(feature = "http"))] fn main() {}
//! ```
//!
//! [`Keyed`] says what happens when the table is full. [`KeyedBreakerLayer`] does the same with a circuit per key. For a few
//! routes that are known beforehand a layer value each is enough: [`fresh`](GateLayer::fresh) makes another with the same config.
//!
//! # Keeping a client in a struct
//!
//! The service of a standard stack has a name; any other chain goes into a box:
//!
//! ```
//! # #[cfg(feature = "http")] fn main() -> Result<(), buttress::ConfigError> {
//! use axum::body::Body;
//! use buttress::{Error, Lift, http::ReplayBody, prelude::*, stack::ClientService};
//! use http::{Request, Response};
//! use hyper_util::{client::legacy::{Client, connect::HttpConnector}, rt::TokioExecutor};
//! use tower::{Layer, ServiceBuilder, ServiceExt as _, util::BoxCloneSyncService};
//!
//! // The standard stack has retries, so its transport gets bodies that can be sent again.
//! type Hyper = Client<HttpConnector, ReplayBody<Body>>;
//! type Failed = Error<hyper_util::client::legacy::Error>;
//!
//! struct Api {
//!     users: ClientService<Lift<Hyper>>,
//!     orders: BoxCloneSyncService<Request<Body>, Response<Body>, Failed>,
//! }
//!
//! let hyper: Hyper = Client::builder(TokioExecutor::new()).build_http();
//! let orders = ServiceBuilder::new().http_client().retry(Retry::default()).bulkhead(8).service(hyper.clone().lift_errors());
//! let api = Api {
//!     users: buttress::stack::client().build()?.layer(hyper.lift_errors()),
//!     // The body that was wrapped becomes one with a name again.
//!     orders: BoxCloneSyncService::new(orders.map_response(|response| response.map(Body::new))),
//! };
//! buttress::check::<Request<Body>, _>(&api.users);
//! buttress::check::<Request<Body>, _>(&api.orders);
//! # Ok(()) }
//! # #[cfg(not(feature = "http"))] fn main() {}
//! ```
//!
//! Over several servers it is [`stack::BalancedService`] around `Origin<Hyper>`. Clones are cheap and share everything: clone the service for each call (`api.users.clone().oneshot(request)`).
//!
//! # What the layers have in common
//!
//! - **State is shared** by every service, clone, route and connection of one layer value; `.fresh()` makes another.
//! - **The error type stays.** On servers a refusal is a response ([`http::HttpServer`]); in clients it is an error that the
//!   innermost service's lifted error can carry.
//! - **Calls end where they really end**: permits are held, and outcomes known, at the end of the body; for gRPC when its
//!   trailers say so.
//! - **Clients cannot harm others**: their short deadlines, aborted uploads and slow reading accuse no service; with
//!   [`http::UploadLayer`] outermost neither do slow uploads.
//! - **Everything can be seen and changed while it runs**: each layer has a `.handle()`, and a [`Registry`] holds them all.
//! - **Time is tokio's**, so `#[tokio::test(start_paused = true)]` tests them without sleeping.
//!
//! # What it does, seen from outside
//!
//! [`telemetry`] has a layer that measures, spans and a W3C trace context for `tracing`, and access records. With the feature
//! `prometheus` a [`Registry`] is what `/metrics` answers; its page shows the three lines that an axum server needs.
//! Around a standard stack: `ServiceBuilder::new().http_server().telemetry(Telemetry::server()).layer(stack)`.
//!
//! # Where the rest is
//!
//! This page re-exports what chains are built from. Everything else of a layer's crate is in [`balance`], [`breaker`],
//! [`bulkhead`], [`deadline`], [`mod@fallback`], [`retry`] and [`mod@shed`], and with its feature in `chaos`; what layers are written with is in [`core`].
//!
//! # Features
//!
//! On by default: `http`, and one per layer (`balance`, `breaker`, `bulkhead`, `deadline`, `fallback`, `retry`, `shed`, `telemetry`). Off: `chaos` (fault
//! injection), `prometheus` (a registry for `/metrics`), `h2` (recognise HTTP/2 stream errors),
//! `discover` (endpoints that come and go by themselves), `hyper-util` and `reqwest` (`Hyper` and `Reqwest`, the adapters for their
//! clients), `serde` (configs from files, snapshots to JSON).
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "hyper-util")]
pub mod hyper;
#[cfg(feature = "http")]
mod origin;
mod policy;
pub mod prelude;
#[cfg(feature = "prometheus")]
mod prometheus;
mod registry;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod scope;
mod service;
#[cfg(all(
    feature = "http",
    feature = "balance",
    feature = "breaker",
    feature = "bulkhead",
    feature = "deadline",
    feature = "retry",
    feature = "shed"
))]
pub mod stack;
#[cfg(feature = "telemetry")]
pub mod telemetry;

#[cfg(feature = "hyper-util")]
pub use crate::hyper::{Hyper, HyperError};
#[cfg(feature = "reqwest")]
pub use crate::reqwest::Reqwest;
#[cfg(feature = "balance")]
pub use buttress_balance::{
    self as balance, Balance, BalanceConfig, Balancer, Canary, CanaryConfig, CanaryLayer, Endpoint, Endpoints,
};
#[cfg(feature = "breaker")]
pub use buttress_breaker::{
    self as breaker, Breaker, BreakerConfig, BreakerLayer, KeyedBreakerLayer, RampedGate, RampedGateConfig,
    RampedGateLayer, State, Window,
};
#[cfg(feature = "bulkhead")]
pub use buttress_bulkhead::{
    self as bulkhead, Bulkhead, BulkheadConfig, BulkheadLayer, KeyedBulkheadLayer, QueuedBulkheadLayer,
};
#[cfg(feature = "chaos")]
pub use buttress_chaos::{self as chaos, Chaos, ChaosConfig, ChaosLayer, Fault};
pub use buttress_core as core;
#[cfg(feature = "http")]
pub use buttress_core::http::{HttpClient, HttpGateway, HttpServer};
pub use buttress_core::{
    BoxError, Budget, BudgetConfig, Cause, ChainError, ConfigError, Context, Degraded, Error, GateLayer, Handle, Keyed,
    KeyedConfig, Lift, Mode, Opaque, Outcome, Priority, Pushback, QueueLayer, Reason, Rejection, Signal, Value,
};
#[cfg(feature = "deadline")]
pub use buttress_deadline::{self as deadline, DeadlineConfig, DeadlineLayer, Deadlines};
#[cfg(feature = "fallback")]
pub use buttress_fallback::{
    self as fallback, AnswerLayer, Back, Coalesce, CoalesceConfig, CoalesceLayer, Failover, FailoverConfig,
    FailoverLayer, Fallback, FallbackConfig, FallbackLayer, Levels, LevelsConfig, Need, Switch, SwitchLayer,
    TierConfig, Toggle, ToggleConfig, ToggleLayer, Toggles, Trigger, VoteConfig, VoteLayer, backup,
};
#[cfg(all(feature = "fallback", feature = "http"))]
pub use buttress_fallback::{Stale, StaleConfig, StaleLayer, StaticResponse};
#[cfg(feature = "retry")]
pub use buttress_retry::{self as retry, Backoff, ResendLayer, Retry, RetryConfig, RetryLayer};
#[cfg(feature = "shed")]
pub use buttress_shed::{
    self as shed, Ask, KeyedShedLayer, QueueConfig, Shed, ShedConfig, ShedLayer,
    pressure::{Pressure, PressureGate, PressureGateConfig, PressureLayer},
    rate::{KeyedRateLimit, KeyedRateLimitLayer, RateLimit, RateLimitConfig, RateLimitLayer},
    throttle::{Throttle, ThrottleConfig, ThrottleLayer},
};
pub use policy::IntoPolicy;
pub use registry::{Entry, Registry};
pub use scope::{Scope, ServiceBuilderExt, Speak};
pub use service::{ServiceExt, check};
#[cfg(feature = "telemetry")]
pub use telemetry::{Telemetry, TelemetryConfig, TelemetryLayer};
