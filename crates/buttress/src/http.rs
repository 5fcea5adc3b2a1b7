//! HTTP and gRPC: the protocols, and layers that speak HTTP as a server, for one-line use.
//!
//! ```
//! use axum::{Router, routing::get};
//!
//! let app: Router = Router::new().route("/", get(async || "hello")).layer(buttress::http::BulkheadLayer::new(64));
//! ```

pub use crate::origin::{Origin, OriginLayer};
pub use buttress_core::http::*;

/// [`BreakerLayer`](crate::BreakerLayer) that speaks HTTP as a server.
#[cfg(feature = "breaker")]
pub type BreakerLayer = crate::GateLayer<crate::Breaker, HttpServer>;
/// [`BulkheadLayer`](crate::BulkheadLayer) that speaks HTTP as a server.
#[cfg(feature = "bulkhead")]
pub type BulkheadLayer = crate::GateLayer<crate::Bulkhead, HttpServer>;
/// [`QueuedBulkheadLayer`](crate::QueuedBulkheadLayer) that speaks HTTP as a server.
#[cfg(feature = "bulkhead")]
pub type QueuedBulkheadLayer = crate::QueueLayer<crate::Bulkhead, HttpServer>;
/// [`ChaosLayer`](crate::ChaosLayer) that speaks HTTP as a server.
#[cfg(feature = "chaos")]
pub type ChaosLayer = buttress_chaos::InjectLayer<HttpServer>;
/// [`DeadlineLayer`](crate::DeadlineLayer) that speaks HTTP as a server.
#[cfg(feature = "deadline")]
pub type DeadlineLayer = buttress_deadline::CutLayer<HttpServer>;
/// [`TelemetryLayer`](crate::TelemetryLayer) that speaks HTTP as a server.
#[cfg(feature = "telemetry")]
pub type TelemetryLayer = crate::GateLayer<crate::Telemetry, HttpServer>;
