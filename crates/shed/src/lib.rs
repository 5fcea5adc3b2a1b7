//! Load shedding for Tower services: as many calls at once as the service can use, the important ones first, and a quick no for
//! the rest.
//!
//! A service that takes every call that comes is slow for all as soon as more come than it can serve; when their callers have
//! given up, it works for nobody. A [`Shed`] keeps the calls in flight at a limit, lets a few wait, and refuses what cannot be
//! served in time.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use buttress_core::Error;
//! use buttress_shed::ShedConfig;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let layer = ShedConfig::default().layer().unwrap();
//! let handle = layer.handle();
//! let service = layer.layer(service_fn(|n: u64| async move { Ok::<_, Error<std::io::Error>>(n + 1) }));
//!
//! assert_eq!(service.oneshot(1).await.unwrap(), 2);
//! assert_eq!(handle.snapshot().shed_total(), 0);
//! # }
//! ```
//!
//! Who asks, and how important it is, comes from the request's [`Context`](buttress_core::Context); requests that have none, and tenants,
//! are described by a closure:
//!
//! ```
//! use buttress_core::Priority;
//! use buttress_shed::{Ask, ShedConfig};
//!
//! struct Job { tenant: u64, urgent: bool }
//! let layer = ShedConfig::default().layer_by(|job: &Job| {
//!     let ask = Ask::new().tenant(job.tenant);
//!     if job.urgent { ask.priority(Priority::Critical) } else { ask }
//! })?;
//! # let _ = layer;
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! Over HTTP whoever stands further out says it, in a request's [`Context`](buttress_core::Context): a layer around the shedder's
//! (`axum::middleware::map_request`, tower's `map_request`); only a tenant needs the closure. Take it from what *you* know (the route, who is logged in):
//! a stranger's header that claims `critical` must not be believed, or all will claim it.
//!
//! ```
//! # #[cfg(feature = "http")] {
//! use buttress_core::{Context, Priority};
//! use buttress_shed::{Ask, ShedConfig};
//!
//! fn prioritize<B>(mut req: http::Request<B>) -> http::Request<B> {
//!     let priority = match req.uri().path() {
//!         "/checkout" => Priority::Critical,
//!         path if path.starts_with("/recommendations") => Priority::Sheddable,
//!         _ => Priority::Normal,
//!     };
//!     Context::of_mut(req.extensions_mut()).priority = priority;
//!     req
//! }
//!
//! let tenant = |req: &http::Request<String>| Ask::new().tenant(req.headers().get("x-tenant")); // who is logged in
//! let layer = ShedConfig::default().layer_by(tenant)?; // over HTTP: `.protocol(HttpServer::new())`, or the facade's `.http_server().shed(..)`
//! let chain = tower::ServiceBuilder::new().map_request(prioritize::<String>).layer(layer);
//! # let _ = chain;
//! # }
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! # Which one
//!
//! | you want | you take |
//! |---|---|
//! | a service that answers as much as it can, whatever comes | [`ShedConfig`] with its defaults: [`limit::Adaptive`] finds out how many calls at once that is |
//! | the same where the number is known | [`Algorithm::Fixed`]; without a queue and without classes a bulkhead will do |
//! | so many calls a second per client, tenant, key | [`rate`] |
//! | a client that sends less while it is told "too much" | [`throttle`] |
//! | less important calls refused as CPU, memory or the event loop come under pressure | [`pressure`] |
//! | a gate in front of a fleet that fails | `RampedGate`, in `buttress-breaker` |
//!
//! **When not to use it**: around calls that take long because they wait for something else on purpose (long polls), unless the head of their
//! answer comes at once; in front of a service that has an adaptive limit itself and a network alone between; as a quota: that is a rate limit.
//!
//! # What it does
//!
//! * **It refuses** with [`Reason::Shed`](buttress_core::Reason::Shed) a call for which there is no room, and none to wait either; one that made
//!   room in the queue for a more important one; one that could not meet its deadline any more. With
//!   [`Reason::QueueTimeout`](buttress_core::Reason::QueueTimeout) one that waited as long as its class may; with
//!   [`Reason::DeadlinePassed`](buttress_core::Reason::DeadlinePassed) (the client's own:
//!   [`ClientDeadlinePassed`](buttress_core::Reason::ClientDeadlinePassed)) one that came too late and found no room. Under HTTP a 503 with a
//!   `Retry-After` by when the queue will have drained: at least 1 s, about 30 s at most, and with jitter up to a half more, so that not all come back at once (a
//!   header says whole seconds, and up to a fifth more again). To a breaker or a retry further out it says nothing about the health of the service.
//! * **The limit** is an algorithm's ([`limit`]), which is shown a [`Window`](limit::Window) of calls at a time. What counts as what:
//!   [`ShedPermit`]. Calls faster than the limit needs to know are not timed: one in 2^k is, so that a window fills in a tenth
//!   of a second.
//! * **A permit is held until the head of the answer is there**; with [`Release::BodyEnd`] to the last byte of the body, its trailers, or its
//!   drop. The time of a call is over at its head; under gRPC, where a head may go out before the work begins, with the first message: its permit is
//!   back by then, as a subscription that waits for news must not hold one. Waiting for the client's upload is none of it.
//! * **Those who wait** are served by class, and inside a class tenants take turns; nobody overtakes by coming at the right moment. See
//!   [`QueueConfig`].
//! * **Deadlines** are [looked at](#deadlines) where calls wait.
//! * **Clones share it**: the state is made with the layer. [`fresh`](buttress_core::QueueLayer::fresh) makes another.
//! * **Cancel** at any point gives everything back: a call that is dropped frees its permit; one that waits leaves the queue,
//!   and a permit it was granted by then goes to the next. So does a panic.
//!
//! An admission takes no lock and allocates nothing; neither does a refusal without a queue.
//!
//! # Deadlines
//!
//! A call for which there is room goes at once, whatever its deadline, and nothing that runs is cut off: both are for a deadline layer further out. Without a
//! queue (`max = 0`) nobody waits, and no deadline is looked at. Of a call that would wait, the deadline in its [`Ask`] or its context is compared with the clock three times;
//! *typical* is how long the fastest four fifths of the calls took that were timed last, on the mean and once they ran; 0 while nobody knows it.
//!
//! | when | it is refused if | reason | cause in metrics |
//! |---|---|---|---|
//! | it comes | the deadline has passed | `DeadlinePassed`, `ClientDeadlinePassed`; no `Retry-After` | `deadline` |
//! | it comes | now, and what those before it will take, and a typical call, end after the deadline | `Shed` | `too_late` |
//! | it comes | those before it will take as long as it may wait, or longer | `Shed` | `full` |
//! | it is its turn | now and a typical call end after the deadline | `Shed` | `too_late` |
//! | its wait is over | | `QueueTimeout`; `Shed` if it could not meet the deadline any more | `waited`; `too_late` |
//!
//! It may wait for [`burst_share`](QueueConfig::burst_share) of what is left to its deadline (0.6), and no longer than to a typical call's time before it; while the queue
//! stands, for its class's wait at most. Without a deadline that is [`burst_wait`](QueueConfig::burst_wait), and the third line is left out.
//!
//! # Its handle
//!
//! A layer gives its handle before it goes into a chain; the handle shows and changes all services of that layer, while they run:
//!
//! ```
//! use buttress_core::{Handle, Mode};
//! use buttress_shed::{Ask, QueueConfig, ShedConfig};
//!
//! let shed = ShedConfig::default().layer_by(|tenant: &u64| Ask::new().tenant(*tenant))?;
//! let handle = shed.handle();
//! let chain = tower::ServiceBuilder::new().layer(shed); // with the facade: `.http_server().with(shed)`
//!
//! handle.set_mode(Mode::OBSERVE_ONLY)?; // counts what it would refuse
//! handle.update(handle.config().queue(QueueConfig::default().max(100)))?;
//! assert_eq!(handle.snapshot().in_flight, 0);
//! # let _ = chain;
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! # Where it stands
//!
//! On a server: [rate limit](rate) > deadline > [pressure] > **shed** > bulkhead > handler. A rate limit outside of it is cheap, and sees all that a client
//! sends; a call that is shed then has cost its client a permit all the same. On a client or a gateway: deadline > retry > [throttle] > **shed** > ramped gate >
//! balance, one per upstream cluster. Two adaptive limits in series fight for the same queue: take one.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod algorithm;
mod ask;
mod config;
mod layer;
pub mod limit;
mod line;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod meter;
mod permit;
pub mod pressure;
pub mod rate;
mod sampled;
mod shared;
mod shed;
mod snapshot;
#[cfg(all(test, not(buttress_loom)))]
mod tests;
pub mod throttle;
mod waiters;
mod waiting;

pub use algorithm::Algorithm;
pub use ask::{Ask, Describe, FromContext};
pub use buttress_core::Release;
pub use config::{QueueConfig, ShedConfig};
pub use layer::{KeyedShedLayer, ShedLayer, ShedLayerBy, ShedService};
pub use permit::ShedPermit;
pub use shed::Shed;
pub use snapshot::{ClassSnapshot, ShedSnapshot};
pub use waiting::Waiting;
