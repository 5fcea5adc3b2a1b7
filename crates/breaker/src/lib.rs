//! A circuit breaker for Tower services: it stops calling what does not work, and finds out when it works again.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress_breaker::{BreakerConfig, BreakerLayer, Error, State};
//! use std::{io, time::Duration};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! let config = BreakerConfig::default().consecutive(3).open_for(Duration::from_secs(2));
//! # let config = config.seed(1);
//! let layer = BreakerLayer::new(config.build()?);
//! let breaker = layer.handle();
//! let service = ServiceBuilder::new()
//!     .layer(layer)
//!     .service(service_fn(|_: u64| async { Err::<u64, _>(Error::Inner(io::Error::other("broken"))) }));
//!
//! for _ in 0..3 {
//!     service.clone().oneshot(7).await.unwrap_err();
//! }
//! let refusal = service.oneshot(7).await.unwrap_err();
//! assert_eq!(refusal.to_string(), "refused by the breaker: circuit breaker open (retry after 1.75s)");
//! assert!(refusal.rejection().is_some());
//! assert_eq!(breaker.snapshot().state, State::Open);
//! # Ok(()) }
//! ```
//!
//! # What it refuses, and how
//!
//! A call while the circuit is open, and while it is half-open and all probes are out. On an HTTP server the refusal is a 503
//! with `Retry-After` (the time to the next probe), on a gRPC server `UNAVAILABLE`; elsewhere it is an error that carries a
//! [`Rejection`] with [`Reason::BreakerOpen`]. `poll_ready` never fails because of the breaker: open, the service is ready
//! without asking the inner one, and the call is refused. Callers parked on an inner service that is not ready are woken when
//! the circuit opens. [`Admission::BackPressure`] makes callers wait for the next probe instead; those who come too late for
//! one of the probes are then refused.
//!
//! # What counts as a failure
//!
//! | [`Outcome`] | rates | failures in a row | a probe |
//! |---|---|---|---|
//! | `Success` | counts | begins anew | good (bad if slow, where there is a `slow_rate`) |
//! | `Failure` | counts | one more | bad |
//! | `Overload` | no (`overload_as_failure`: as a failure) | unchanged | place given back |
//! | `Ignored` | no | unchanged | place given back |
//!
//! A call is slow from `slow_after` on and a failure from `hang_after` on (default: `slow_after`, or else 5 s), whether it has
//! ended or not: a thousand calls that hang open the circuit. Nothing runs in the background; who has the clock in hand looks
//! (a call's first wait, a failure, a snapshot), so they are seen by the next call that waits. Latency ends at the
//! response head; how fast a client reads the body does not matter.
//!
//! Nor does how fast it sends its request, where an [`UploadLayer`](buttress_core::http::UploadLayer) stands further out: time
//! in which the service waits for its own client is not the service's. Put one in front of a breaker that strangers' uploads reach.
//!
//! Time that a call spends inside one poll without ever being pending is not measured: a call that is ready at once reads
//! no clock.
//!
//! # Cancelled calls
//!
//! A call dropped before its end says nothing (clients that give up cannot open the circuit for others), unless it had been in
//! flight for `hang_after` without an answer, or a deadline of ours dropped it: both are failures. So is a panic. A probe that
//! is dropped gives its place back; one that hangs loses it at `probe_deadline`, and counts as bad.
//!
//! # Where it stands, and what is shared
//!
//! In a client chain innermost but for bulkhead and per-try deadline, one per endpoint: deadline > **breaker** > bulkhead >
//! per-try deadline > transport. The circuit is made by [`BreakerLayer::new`](buttress_core::GateLayer::new); all services,
//! clones and connections of one layer share it, [`fresh`](buttress_core::GateLayer::fresh) makes another one with the same
//! config.
//!
//! # Operating it
//!
//! `layer.handle()` is the [`Breaker`] itself: [`snapshot`](Breaker::snapshot), a live [`update`](Breaker::update) that keeps state,
//! [`reset`](Breaker::reset), [`on_transition`](Breaker::on_transition) (also `tracing` events of the target
//! `buttress::breaker`, with the config's `name`), the [`signal`](Breaker::signal) that balancers read, and the [`Mode`]s: forced open, disabled, observe-only, and refusing only a share of what it would.
//!
//! Things that are not services (a database pool) use it by hand: [`Breaker::call`], or [`Breaker::try_acquire`] and the
//! [`BreakerPermit`]. With the time as an argument (`.._at`) it needs no runtime. A circuit per key (host, route): [`KeyedBreakerLayer`].
//!
//! # Cost
//!
//! A closed circuit takes no lock and allocates nothing. With a count window a healthy call writes nothing but its lease;
//! with a time window one word on a line of its own thread's stripe. Memory is constant, whatever the rate.
//!
//! # Differences from other breakers
//!
//! tower has none. Here the window slides call by call or bucket by bucket in constant memory, a result of an earlier state
//! never moves a later one, half-open cannot get stuck (it has its own count, and a probe has a deadline), calls in flight
//! are seen, and gRPC failures in trailers count (with the protocols of the feature `http`).
//!
//! # Features
//!
//! `http` (default): the HTTP and gRPC protocols of `buttress-core`. `serde`: [`BreakerConfig`] and [`BreakerSnapshot`].
#![cfg_attr(docsrs, feature(doc_cfg))]

mod breaker;
mod config;
mod gate;
mod in_flight;
mod layer;
mod machine;
mod params;
mod permit;
mod probes;
mod ramp;
mod run;
mod share;
mod snapshot;
mod state;
mod ticket;

pub use breaker::Breaker;
pub use buttress_core::{ConfigError, Error, Mode, Outcome, Pushback, Reason, Rejection, Settle};
pub use config::{Admission, BreakerConfig, Window};
pub use gate::{
    GateChange, RampedGate, RampedGateConfig, RampedGateLayer, RampedGatePermit, RampedGateSnapshot, RampedGateTurn,
};
pub use layer::{BreakerLayer, BreakerTurn, KeyedBreakerLayer};
pub use permit::BreakerPermit;
pub use ramp::RampConfig;
pub use snapshot::{BreakerSnapshot, Cause, State, Transition};

#[cfg(all(test, buttress_loom))]
mod loom_tests;
#[cfg(all(test, not(buttress_loom)))]
mod tests;
