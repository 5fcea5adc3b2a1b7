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
/// [`FallbackLayer`](crate::FallbackLayer) that speaks HTTP as a server: `FallbackLayer::new(FallbackConfig::default(), page)`.
#[cfg(feature = "fallback")]
pub type FallbackLayer<B> = buttress_fallback::AnswerLayer<B, HttpServer>;
/// [`StaleLayer`](crate::StaleLayer), which speaks HTTP as a server.
#[cfg(feature = "fallback")]
pub type StaleLayer = buttress_fallback::StaleLayer<HttpServer>;
/// [`ToggleLayer`](crate::ToggleLayer) that speaks HTTP as a server.
#[cfg(feature = "fallback")]
pub type ToggleLayer<B> = buttress_fallback::SwitchLayer<B, HttpServer>;
/// [`RampedGateLayer`](crate::RampedGateLayer) that speaks HTTP as a server.
#[cfg(feature = "breaker")]
pub type RampedGateLayer = crate::GateLayer<crate::RampedGate, HttpServer>;
/// [`ShedLayer`](crate::ShedLayer) that speaks HTTP as a server: `ShedLayer::new(ShedConfig::default().build()?)`.
#[cfg(feature = "shed")]
pub type ShedLayer<D = crate::shed::FromContext> = crate::QueueLayer<crate::Shed<D>, HttpServer>;
/// [`RateLimitLayer`](crate::RateLimitLayer) that speaks HTTP as a server.
#[cfg(feature = "shed")]
pub type RateLimitLayer = crate::GateLayer<crate::RateLimit, HttpServer>;
/// [`PressureLayer`](crate::PressureLayer) that speaks HTTP as a server.
#[cfg(feature = "shed")]
pub type PressureLayer = crate::GateLayer<crate::PressureGate, HttpServer>;
/// [`TelemetryLayer`](crate::TelemetryLayer) that speaks HTTP as a server.
#[cfg(feature = "telemetry")]
pub type TelemetryLayer = crate::GateLayer<crate::Telemetry, HttpServer>;
