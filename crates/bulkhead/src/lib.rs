//! Bulkheads for Tower services: so many calls at once, and no more.
//!
//! A ship with bulkheads does not sink from one hole. A service that lets each of its dependencies, tenants or routes use only
//! so many calls at once keeps the rest of itself when one of them hangs.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use buttress_bulkhead::BulkheadLayer;
//! use buttress_core::Error;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let layer = BulkheadLayer::new(64);
//! let handle = layer.handle();
//! let service = layer.layer(service_fn(|n: u64| async move { Ok::<_, Error<std::io::Error>>(n + 1) }));
//!
//! assert_eq!(service.oneshot(1).await.unwrap(), 2);
//! handle.set_limit(32).unwrap();
//! assert_eq!(handle.snapshot().limit, 32);
//! # }
//! ```
//!
//! On an HTTP server a refusal is a response, and any error type will do:
//!
//! ```
//! # #[cfg(feature = "http")] {
//! use buttress_bulkhead::BulkheadLayer;
//! use buttress_core::http::HttpServer;
//!
//! let layer = BulkheadLayer::new(64).protocol(HttpServer::new()); // `Router::layer` takes it
//! # let _ = layer;
//! # }
//! ```
//!
//! # Which one
//!
//! | you want | you take |
//! |---|---|
//! | a refusal at once when it is full | [`BulkheadLayer`]: the default, and right for most |
//! | short bursts to wait a little | [`QueuedBulkheadLayer`]: a bounded queue (`max_queue`), a bounded wait (`max_wait`); the inner service is `Clone` |
//! | a caller that stops when told to | [`BulkheadLayer`] with [`AdmissionMode::BackPressure`] |
//! | a compartment per host, tenant or route | [`KeyedBulkheadLayer`], [below](#compartments-per-key) |
//! | to guard what is no service | [`Bulkhead`] itself: [`call`](Bulkhead::call), [`acquire`](Bulkhead::acquire), [`try_acquire`](Bulkhead::try_acquire) |
//!
//! # What it does
//!
//! * **It refuses** with [`Reason::AtCapacity`](buttress_core::Reason::AtCapacity) when it is full and, with a queue, that is
//!   full too; with [`Reason::QueueTimeout`](buttress_core::Reason::QueueTimeout) a call that waited for `max_wait`. Under HTTP
//!   both are a 503 with `Retry-After`, under gRPC `RESOURCE_EXHAUSTED`; to a breaker or a retry further out they say nothing
//!   about the health of the service.
//! * **A permit is held to the call's real end**: under HTTP, to the last byte of the body, its trailers, or its drop.
//!   [`Release::Head`] gives it back with the response head. The permit of an upgraded connection is in the extensions of its
//!   response (`buttress_core::http::Tunnel`): a proxy keeps it there until the tunnel closes; axum drops it with the head.
//! * **What counts as failure**: nothing. A bulkhead asks how many, not how well.
//! * **Clones share it**: the state is made in `BulkheadLayer::new`; every service, clone, route and connection counts against
//!   one limit. [`fresh`](buttress_core::GateLayer::fresh) makes another.
//! * **Cancel** at any point gives everything back: a call that is dropped frees its permit; one that waits leaves the queue,
//!   and if it had been granted a permit by then, the next one gets it. So does a panic.
//! * **Resize** while it runs ([`Bulkhead::set_limit`], [`Bulkhead::update`]): no permit is lost, nobody is admitted above the
//!   new limit.
//! * **Waiting** is fair: nobody overtakes those who wait, except newer ones with [`QueueOrder::Lifo`]. A waiting call costs no
//!   polls.
//!
//! An admission takes no lock and allocates nothing: one compare-and-swap to take the permit, one subtraction to give it back,
//! on a cache line that threads only share when the limit is small (see [`BulkheadConfig::stripes`]). For the same reason
//! admitted calls are not counted.
//!
//! # Where it stands
//!
//! On a server: deadline > **bulkhead** > handler. On a client, one per endpoint: deadline > breaker > **bulkhead** > per-try
//! deadline > transport. A deadline belongs outside of a bulkhead with a queue, so that the wait counts.
//!
//! # Compartments per key
//!
//! ```
//! use buttress_bulkhead::{Bulkhead, KeyedBulkheadLayer};
//! use buttress_core::KeyedConfig;
//! # struct Request { tenant: u64 }
//!
//! // At most 1000 tenants are known at once; each may have 8 calls in flight.
//! let per_tenant = KeyedConfig::new(1_000).build(|req: &Request| req.tenant, |_tenant| Bulkhead::from(8))?;
//! let layer = KeyedBulkheadLayer::<u64, _>::new(per_tenant);
//!
//! layer.handle().for_each(|tenant, bulkhead| println!("{tenant}: {:?}", bulkhead.snapshot()));
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! [`Keyed`](buttress_core::Keyed) says what happens when there are more. A tenant whose calls are in flight, or whose bulkhead
//! was changed by hand, is never forgotten.
//!
//! # Differences from `tower::limit::ConcurrencyLimit`
//!
//! * It refuses, or waits within bounds. `ConcurrencyLimit` waits in `poll_ready` without any, and under servers that clone
//!   their service per request (axum, tonic) nobody sees that: requests pile up. [`AdmissionMode::BackPressure`] does the same
//!   where it is wanted.
//! * A permit is taken in `call`. One that was reserved in `poll_ready` by a clone that is then kept is lost for the others.
//! * A permit is held to the end of the body; there, to the head.
//! * The limit can change, the state can be read, an operator can override it.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod bulkhead;
mod config;
mod layer;
mod line;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod queue;
#[cfg(all(test, not(buttress_loom)))]
mod tests;

pub use bulkhead::{Bulkhead, BulkheadPermit, BulkheadSnapshot};
pub use buttress_core::{Release, permits::MAX_LIMIT};
pub use config::{AdmissionMode, BulkheadConfig, QueueOrder};
pub use layer::{
    BulkheadLayer, BulkheadService, KeyedBulkheadLayer, KeyedQueuedBulkheadLayer, QueuedBulkheadLayer,
    QueuedBulkheadService, Turn,
};
pub use queue::Waiting;
