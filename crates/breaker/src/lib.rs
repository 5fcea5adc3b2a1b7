//! A circuit breaker for Tower services: it stops calling what does not work, and finds out when it works again. And a
//! [ramped gate](#the-ramped-gate), its sibling in front of a fleet.
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
//! A call while the circuit is open, while it is half-open and all probes are out, and most calls at the start of a ramp. On an HTTP server the refusal is a 503
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
//! # The way back
//!
//! Half-open has two phases. First a few probes: as soon as enough of them are good, or too many bad, that is decided. Then, where
//! the config has a [`ramp`](RampConfig), a share of the calls, which each good tick doubles: 10 %, 20 %, 40 %, 80 %, closed. A bad
//! tick opens the circuit again. Which calls pass is drawn, and one passes for certain when none has for a while; so neither
//! phase waits for ever however few calls come, and calls that hang are seen in both. A ramp is for a server that comes back
//! cold: its first second is not to be all of its load. Without one the circuit closes after the probes.
//!
//! # Where it stands, and what is shared
//!
//! In a client chain innermost but for bulkhead and per-try deadline, one per endpoint: deadline > **breaker** > bulkhead >
//! per-try deadline > transport. The circuit is made by [`BreakerLayer::new`](buttress_core::GateLayer::new); all services,
//! clones and connections of one layer share it, [`fresh`](buttress_core::GateLayer::fresh) makes another one with the same
//! config.
//!
//! # The ramped gate
//!
//! A breaker is binary: around a fleet of which every second call fails it serves nobody. [`RampedGate`] lets a share of the calls
//! through instead. It stands in front of a whole cluster, outside of its balancer, and the breakers stand inside, one per
//! endpoint; so an endpoint that fails is the breaker's and the balancer's business, and the gate moves when all of them do.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress_breaker::{Error, RampedGateConfig, RampedGateLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! let layer = RampedGateLayer::new(RampedGateConfig::default().build()?);
//! let gate = layer.handle();
//! let fleet = ServiceBuilder::new().layer(layer).service(service_fn(async |n: u64| Ok::<_, Error<std::io::Error>>(n)));
//! assert_eq!(fleet.oneshot(7).await?, 7);
//! assert_eq!(gate.share(), 1.0);
//! # Ok(()) }
//! ```
//!
//! Every result is weighed as it comes (a cumulative sum test; Page, Biometrika 41, 1954): a bad one counts 1 against the fleet, a
//! good one 3 for it, so a fleet that answers a quarter of its calls well is left where it is. Wide open, a sum of 40 that has
//! lasted for 100 ms halves the share. Narrow, 10 more halve it again, and two good ones double it. After each step only calls
//! that were sent since then are heard, so it widens by a factor of two per round trip at most. `Failure`, `Overload` (from gRPC
//! only with a pushback) and a call that hangs are bad, `Ignored` says nothing, and neither does a 429: it is for the client that
//! sent too much, and would narrow the gate for all the others.
//!
//! Why no ticks, of 20 results or a quarter of a second: in a tick of five calls of which every second one fails, all five fail once in 32
//! ticks, and a gate that believes that narrows for nothing. A sum takes as many calls as it needs, whatever their rate: where half
//! of them fails it reaches 40 about once in 10^10 calls, where one in five
//! fails, never. And while all is well it is zero, so
//! nothing is written. The 100 ms are for the replica that goes down with a hundred calls in flight: they fail in one moment, and the
//! others answer in the next.
//!
//! Simulated (ten seeds, the worst of them; 10 ms per call, everything down for 10 s): at 2000 calls per second the share was below
//! a half after 0.14 s, the fleet got 2.5 % of the load, and the gate was wide open again 0.4 s after the repair; at 20 per second,
//! after 4 s and 4 s. The floor is two calls per second, or `min_share` if that is more: where that is one of a hundred calls, the way
//! back takes that much longer.
//!
//! Do not use it in front of a single endpoint (a breaker leaves that alone, the gate goes on sending it calls), nor as a limiter: a
//! fleet that is slow and answers well is wide open to it. What it refuses carries [`Reason::BreakerOpen`], the layer `"gate"`, and as `Retry-After`
//! the time until a call passes for certain, if nobody comes before.
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
//! A closed circuit, and a gate that is wide open, take no lock, allocate nothing, and read no clock for a call that never waits. Such a
//! gate writes nothing but its lease for a healthy one. With a count window a healthy call writes nothing but its lease;
//! with a time window one word on a line of its own thread's stripe. Memory is constant, whatever the rate.
//!
//! # Differences from other breakers
//!
//! tower has none. Here the window slides call by call or bucket by bucket in constant memory, a result of an earlier state
//! never moves a later one, half-open cannot get stuck (it has its own count, a probe has a deadline, and a ramp lets one call through
//! for certain), calls in flight
//! are seen, and gRPC failures in trailers count (with the protocols of the feature `http`).
//!
//! # Features
//!
//! `http` (default): the HTTP and gRPC protocols of `buttress-core`. `serde`: configs and snapshots.
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
