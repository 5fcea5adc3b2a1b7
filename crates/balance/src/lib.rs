//! Load balancing for [Tower](https://docs.rs/tower) services: each call goes to the better of two endpoints drawn at random,
//! and an endpoint that fails does not look good.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use buttress_balance::{Balance, Endpoint};
//! use buttress_core::Error;
//! use tower::{ServiceExt, service_fn};
//!
//! let endpoints = ["10.0.0.1:8080", "10.0.0.2:8080"].map(|address| {
//!     let transport = service_fn(move |path: &str| {
//!         let answer = format!("{address}{path}");
//!         async move { Ok::<_, Error<std::io::Error>>(answer) }
//!     });
//!     Endpoint::new(address, transport)
//! });
//! let balance = Balance::new(endpoints).unwrap();
//! let handle = balance.handle();
//!
//! assert!(balance.oneshot("/health").await.unwrap().ends_with("/health"));
//! assert_eq!(handle.snapshot().picks_total, 1);
//! # }
//! ```
//!
//! An HTTP client says so, and gives each endpoint a breaker of its own with its signal:
//!
//! ```
//! # #[cfg(feature = "http")] {
//! # use buttress_core::{BoxError, Clock, Signal, TokioClock};
//! use buttress_balance::{Balance, Endpoint};
//! use buttress_core::http::HttpClient;
//! # async fn send(_: http::Request<String>) -> Result<http::Response<String>, BoxError> { unreachable!() }
//! # fn guarded(_: &str) -> (impl tower_service::Service<http::Request<String>> + Clone, Signal) {
//! #     (tower::service_fn(send), Signal::new(TokioClock.now()))
//! # }
//!
//! let endpoints = ["a:80", "b:80"].map(|address| {
//!     let (service, signal) = guarded(address); // BreakerLayer::new(..) around the transport; its handle().signal()
//!     Endpoint::new(address, service).signal(signal)
//! });
//! let balance = Balance::new(endpoints).unwrap().protocol(HttpClient::new());
//! # let _ = balance;
//! # }
//! ```
//!
//! # How it picks
//!
//! * **The power of two choices**: of two endpoints drawn at random, the one with the lower load. Nearly as even as comparing
//!   them all, in constant time, and without the herd that runs to the one that is best at the moment.
//! * **Load is latency x (calls in flight + 1)**, the latency in powers of two: endpoints that are about as fast are equal. Latency is a peak-EWMA, as in Finagle: a slow answer counts at once, fast ones
//!   take the time constant ([`decay`](BalanceConfig::decay)) to make it forgotten. A call is in flight to the end of its body;
//!   its latency runs from its first poll that is not ready to the response head (gRPC: to the first message). So the first call to a
//!   new endpoint may count the making of a connection, and a quiet client goes there again when that has faded: after 16 s
//!   for 5 ms where the others take 1 ms.
//! * **A failure costs what a time-out would** ([`penalty`](BalanceConfig::penalty)). By latency alone, a replica that fails in
//!   a millisecond is the best there is, and gets all the traffic. The odd failure is averaged, so that 1 % of them everywhere
//!   drive nobody away; the third in a row counts at once.
//! * **An endpoint that failed three times in a row, or at its very first call, is the last choice**, not a number: however busy the others are, it gets no
//!   calls but one after each rest, to see. It rests for as long as it has been failing, a tenth of a time constant at least and
//!   two at most (1 s to 20 s). The first success of a call that began after its last failure lifts it. If all are failing,
//!   they are picked by load. A breaker at the endpoint decides when it is open: when its probe is due, it gets the next call.
//! * **"Too much"** (429, 503 with `Retry-After`) makes an endpoint the second choice until its pushback ends.
//! * **A call given up** counts as at least as slow as it was, so that nobody looks fast whose calls time out. Clients' faults say
//!   nothing. A refusal by a layer at the endpoint makes it the last choice (an open circuit whose signal is not known here; for
//!   [`overload`](BalanceConfig::overload) at most) or counts as "too much".
//!
//! An endpoint is passed over while
//!
//! | | |
//! |---|---|
//! | its [`Signal`](buttress_core::Signal) is open or ejected | until the time of the next probe; then it gets one |
//! | an earlier attempt of the same call went there | [`Tried`](buttress_core::Tried) says so; when all others were tried too, or take no calls now, it is used again |
//! | it is failing | for as long as a good one may become ready; a call that has waited for a [`penalty`](BalanceConfig::penalty) uses it |
//! | it is not ready | another one is asked: [`picks`](BalanceConfig::picks) by load, then the others, 64 in all; the call waits for any of them, and for the next probe of one that is shut |
//! | its readiness fails | it counts as failed; the error is the call's only if every endpoint fails so |
//!
//! # What it refuses
//!
//! * Every endpoint is shut: [`Reason::BreakerOpen`](buttress_core::Reason::BreakerOpen) at once, under HTTP a 503 whose
//!   `Retry-After` is the earliest probe.
//! * There is no endpoint: [`Reason::NoEndpoint`](buttress_core::Reason::NoEndpoint), a 503. Only while nobody has named the
//!   first one yet ([`Balance::empty`], discovery at start-up), calls wait for it, as gRPC does.
//!
//! It is always ready: which endpoint is meant is known with the request, and asked by the call's future. It waits without
//! bound for an endpoint to become ready; a deadline further out bounds that. What counts as failure says the protocol. The
//! error type is the endpoints' own.
//!
//! # Where it stands
//!
//! On a client: deadline > retry > **balance** > per endpoint: breaker > bulkhead > per-try deadline > transport. The retry
//! outside of it goes somewhere else at each attempt.
//!
//! # A canary
//!
//! [`CanaryLayer`] puts a second service beside one (a new version beside the old, each perhaps a balance of its own), and gives it a
//! weighted share of the calls:
//!
//! ```
//! # fn main() -> Result<(), buttress_core::ConfigError> {
//! use buttress_balance::{CanaryConfig, CanaryLayer};
//! use std::time::Duration;
//! # let (stable, canary) = ((), ());
//! use tower_layer::Layer;
//!
//! let policy = CanaryConfig::new(5.0).margin(0.02).window(Duration::from_secs(120)).min_calls(200).build()?;
//! let layer = CanaryLayer::new(policy, canary);
//! let handle = layer.handle();
//! handle.on_trip(|trip| eprintln!("{:.1} % against {:.1} %", 100.0 * trip.canary_rate, 100.0 * trip.stable_rate));
//! let service = layer.layer(stable);
//! # let _ = service;
//! # Ok(()) }
//! ```
//!
//! * **It falls back by itself**: when the canary's share of failed calls exceeds the stable one's by more than the
//!   [`margin`](CanaryConfig::margin), it gets no calls any more, until an operator says [`reset`](Canary::reset) or
//!   [`set_weight`](Canary::set_weight). It is judged whenever a call of its own fails, by what has been seen since the last of these, and only
//!   when both sides have had [`min_calls`](CanaryConfig::min_calls): with a weight of 100 there is nothing to compare with.
//! * **What counts**: successes and failures of first attempts, at their real end (gRPC: the trailers). Overloads, clients' faults and
//!   calls that were given up count for nobody. An error that says that all circuits of a side are open, or that it has no endpoint, is a
//!   failure of it.
//! * **A further attempt goes to the stable service**, and counts for nobody: its request has failed once, which would make the
//!   stable one look worse than it is.
//! * It refuses nothing, and is always ready: the service that a call goes to is asked in the call's future. Both are `Clone`. A pick and
//!   its end take no lock and allocate nothing.
//! * Outside of it stands the retry, inside the balances: deadline > retry > **canary** > balance > per endpoint.
//!
//! # Clones, changes, cancel
//!
//! Clones share everything. [`Balance::endpoints`] adds, replaces and removes endpoints while calls run; the feature `discover`
//! follows a `tower::discover` stream. A removed endpoint finishes its calls and gets no more. A call that is dropped, at any
//! poll, leaves nothing behind; a panic inside is a failure of the endpoint and passes on.
//! [`handle`](Balance::handle) is the [`Balancer`]: its [`snapshot`](Balancer::snapshot) shows each endpoint, its
//! [`update`](Balancer::update) changes the config, its [`Mode`](buttress_core::Mode)s override it.
//!
//! A pick takes no lock and allocates nothing; nor does its end. A call that finds its first endpoint not ready allocates.
//!
//! # Differences from `tower::balance`
//!
//! * A failure is not a fast success. With one of three replicas failing in 1 ms, `tests/one_failing.rs` shows 99.98 % of the
//!   calls succeed, without retries; around tower's `PeakEwma`, 34 %.
//! * It is `Clone`: no `Buffer` in front, no task in between, and clones do not take turns.
//! * An endpoint is picked when the request is there, not in `poll_ready`; a clone that is ready and never called keeps nothing.
//! * It knows open circuits and earlier attempts.
//! * A discovery error does not end it, and an endpoint that fails its readiness stays an endpoint.
//! * Loads need no wrapper: calls are measured to the end of their bodies by the protocol, not by the response future.
//! * Endpoints are `Clone + Sync`, and their readiness is asked per call: an endpoint that does its work in `poll_ready` (it
//!   connects there) does it in front of the first call.
//!
//! # Features
//!
//! None is on by default. `http`: `buttress_core::http`. `discover`: `BalanceConfig::discover`. `serde`: configs and
//! snapshots, durations as `"250ms"`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod balancer;
mod canary;
mod choice;
mod config;
#[cfg(feature = "discover")]
mod discover;
mod endpoints;
mod future;
mod load;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod node;
mod now;
mod permit;
mod pick;
mod search;
mod service;
mod snapshot;
#[cfg(all(test, not(buttress_loom)))]
mod tests;

pub use balancer::Balancer;
pub use canary::{
    Canary, CanaryConfig, CanaryFuture, CanaryLayer, CanaryPermit, CanaryService, CanarySnapshot, Side, SideSnapshot,
    Trip,
};
pub use config::BalanceConfig;
pub use endpoints::{Endpoint, Endpoints};
pub use future::BalanceFuture;
pub use permit::BalancePermit;
pub use service::Balance;
pub use snapshot::{BalanceSnapshot, EndpointSnapshot};
