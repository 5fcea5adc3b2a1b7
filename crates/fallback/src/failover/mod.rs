//! A primary and its backups: each call is served by the first tier that serves it well.
//!
//! These are recovery blocks (B. Randell, *System Structure for Software Fault Tolerance*, 1975): alternates in order, each judged by an
//! acceptance test, for services that run already. Around them a state decides which tier comes first, so that a primary that is down does not
//! cost every call its share of the time.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress_core::Error;
//! use buttress_fallback::{FailoverConfig, TierConfig};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! type Answer = Result<&'static str, Error<std::io::Error>>;
//! let here = service_fn(|_: u32| async { Answer::Err(Error::Inner(std::io::Error::other("down"))) });
//! let elsewhere = service_fn(|_: u32| async { Answer::Ok("from elsewhere") });
//!
//! let layer = FailoverConfig::default()
//!     .any_request(true) // these are reads: two tiers may process one
//!     .tier(TierConfig::new("elsewhere").max_concurrent(100), elsewhere)
//!     .build()?;
//! let failover = layer.handle();
//! let service = layer.layer(here); // over HTTP: `layer.protocol(HttpClient::new())`, or a builder's `.with(layer)`
//!
//! for n in 0..5 {
//!     assert_eq!(service.clone().oneshot(n).await?, "from elsewhere");
//! }
//! assert_eq!(failover.snapshot().active, "elsewhere"); // the primary is asked once a second now
//! failover.prefer("primary")?; // an operator knows better
//! # Ok(()) }
//! ```
//!
//! # Which results go on to the next tier
//!
//! | seen | goes on |
//! |---|---|
//! | a refusal before anything was done: an open circuit, no capacity, load shed, no endpoint, no connection, a feature that is switched off; an error that says that nothing was sent; gRPC `UNAVAILABLE` before any message | any request, but one that goes to one tier only |
//! | another refusal of a layer inside (a deadline that passed there), a failure, a tier that had its share of the time | a request that two tiers may process |
//! | an overload (429, 503 with `Retry-After`, gRPC `RESOURCE_EXHAUSTED`), if [`on`](FailoverConfig::on) names it; not by default | a request that two tiers may process |
//! | an answer that is not [accepted](FailoverLayer::accept) | a request that two tiers may process |
//! | a refusal that is the client's fault (4xx, a deadline that it made too short), a call that it cancelled | none |
//! | a body that fails after its head went to the caller | none, but it counts |
//!
//! Two tiers may process GET, HEAD, OPTIONS, TRACE, PUT and DELETE ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2)); others, and
//! opaque requests, only if [`any_request`](FailoverConfig::any_request) or a [rule](FailoverRule::repeatable) says so. A CONNECT or an upgrade goes to one tier, and so does
//! a POST or another request of no such method with an `Idempotency-Key`, whatever a config or a rule says: only the origin that has seen the key knows what it did for it, and a retry inside of
//! the tier may have sent it before an attempt that was refused. Its client may repeat it; while failed over that goes to another origin. A body of more than
//! [`max_body`](FailoverConfig::max_body) bytes that was read goes to no second one. Which of the first three rows are looked at, [`on`](FailoverConfig::on) says.
//!
//! What the caller gets is always real. An answer of a backup is marked ([`Degraded`](buttress_core::Degraded), `x-degraded` over HTTP) with the cause why
//! the first tier was passed over: what it answered, `failed_over` if it was not asked as it had failed before, `switched_off` if an operator [prefers](Failover::prefer) another. If no tier serves the call well, it is the last answer or error that a service gave, else the last refusal. For that a bad answer is kept,
//! with its connection and its permits, while the next tier is asked; it is dropped when that one answers.
//!
//! # Time
//!
//! A tier that may be followed by another has a [share](FailoverConfig::share) of the time that is left before the deadline (of the request's
//! [`Context`](buttress_core::Context), or [`timeout`](FailoverConfig::timeout)); its time to become ready is a part of it. A slow tier is
//! given up only for one that takes the call: where every other is full, it has all the rest. The call that is given up is dropped as a failure
//! ([`abandon`](buttress_core::abandon)), so that a breaker inside counts it; unless the client chose the deadline, or is waited for: that
//! accuses nobody. The deadline in the request stays what it is: it covers the body as well, and an answer whose head came in its tier's share may take its time.
//! A request that brings no deadline, in a layer without a time-out, waits for a tier that hangs.
//!
//! # Which tier comes first
//!
//! Overloads do not count, as for a breaker: "too much" may be meant for one client, who would move all the others with it. Nor does what a
//! limit inside of the tier refused (no capacity, load shed, a wait for a turn that was too long): what it lets in is served, and if a
//! peak moved every call, the backup would have a load that it was never to have.
//! After [`fail_after`](FailoverConfig::fail_after) bad results in a row calls go to the first backup at once, and no more to the primary, but for one in
//! [`probe_every`](FailoverConfig::probe_every). After [`return_after`](FailoverConfig::return_after) of those that were good they come back. A probe that fails goes on to the backup like any
//! call. While failed over the primary comes last: if no backup takes a call or serves it well, it is asked after all. Results of calls that began before a change say nothing about what is after it.
//!
//! A backup is not to go down with the primary: [`max_concurrent`](TierConfig::max_concurrent) bounds its calls, and a [budget](FailoverTiers::budget) their rate. What neither lets through stays
//! with the tiers that are left.
//!
//! # Where it stands
//!
//! Outside of what belongs to a tier (its retry, balancer, breakers, time-outs), inside of the total deadline: fallback > deadline (total) > **failover** > per tier: retry > balance > ..
//! A breaker inside of a tier makes its failures cheap; the share of the time makes its hangs bounded.
//!
//! HTTP tiers get a `ReplayBody` (of `buttress_core::http`): a service that takes one body type only is adapted with tower's `MapRequest`, as inside of a retry.
//!
//! # Shared by clones
//!
//! State, counts and places, made in [`FailoverTiers::build`]. The service is always ready: which tier a call needs, only the call knows.
//!
//! # Cancel
//!
//! A call that is dropped gives back its place and drops the tier it waits for. Nothing goes on in the background; it says nothing about the
//! tier, but for an HTTP answer with a good head, which is a good one whoever leaves in the middle of it.
//!
//! # What it costs
//!
//! An opaque call that the primary answers at once: about 60 ns and no allocation, a clone of the request among them. HTTP: a copy of the head, as any request may be refused
//! a connection, and where there is a body what it is kept in. The clock is read, and a timer made, only for a call that is not ready at once and has a deadline.
//!
//! # When not to use it
//!
//! * Where the backups are replicas of one service: that is what a balancer is for. It uses all of them all the time, and so knows that they work; a backup
//!   that gets calls only in an emergency fails in it. Send it some of the traffic, or test it on purpose.
//! * Where the tiers share what fails (one database, one network): the second call only adds load.
//! * Where a backup that lags behind is worse than none: writes to one and reads from the other are not each other's order.
//! * For an answer made beforehand: a fallback needs no second service.

mod config;
mod future;
mod layer;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod more;
mod permit;
mod policy;
mod relay;
mod rule;
mod snapshot;
mod state;
#[cfg(all(test, not(buttress_loom)))]
mod tests;
mod word;

pub use config::{FailoverConfig, TierConfig};
pub use future::FailoverFuture;
pub use layer::{FailoverLayer, FailoverService, FailoverTiers};
pub use permit::FailoverPermit;
pub use policy::{Failover, FailoverChange, FailoverWhy};
pub use relay::Relay;
pub use rule::{ByVerdict, FailoverRule};
pub use snapshot::{FailoverSnapshot, TierSnapshot};
