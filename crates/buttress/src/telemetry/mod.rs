//! What calls do: how long they take, how they end, who refused them, where they belong.
//!
//! # Metrics
//!
//! With the feature `prometheus` these are the lines that give an axum server its `/metrics`:
//!
//! ```
//! # #[cfg(all(feature = "prometheus", feature = "bulkhead"))] {
//! use axum::{Router, http::header::CONTENT_TYPE, routing::get};
//! use buttress::{Telemetry, prelude::*};
//! use tower::ServiceBuilder;
//!
//! let registry = Registry::new();
//! let chain = ServiceBuilder::new().http_server().registry(&registry).named("api").telemetry(Telemetry::server()).bulkhead(64);
//! let app: Router = Router::new().route("/", get(async || "hello")).layer(chain)
//!     // Outside the chain: it answers when everything else is full.
//!     .route("/metrics", get(async move || ([(CONTENT_TYPE, Registry::OPENMETRICS)], registry.encode_prometheus())));
//! # }
//! ```
//!
//! and this is what they see, every series there from the start:
//!
//! ```text
//! http_server_request_duration_seconds_bucket{name="api.telemetry",outcome="success",le="0.005"} 812
//! http_server_request_duration_seconds_count{name="api.telemetry",outcome="failure"} 3
//! buttress_telemetry_refusals_total{name="api.telemetry",error_type="at_capacity"} 17
//! buttress_telemetry_responses_total{name="api.telemetry",class="5xx"} 20
//! buttress_telemetry_in_flight{name="api.telemetry"} 5.0
//! buttress_bulkhead_limit{name="api.bulkhead"} 64.0
//! buttress_bulkhead_mode{name="api.bulkhead",mode="auto"} 1.0
//! ```
//!
//! - [`TelemetryLayer`] stands outermost (or around whatever is to be measured) and never refuses. It sees a call to its real end:
//!   the end of the response body, for gRPC the trailers. A call that its caller drops ends as [`End::Abandoned`].
//! - The time of a [snapshot](Telemetry::snapshot) is right to a sixteenth ([`Histogram::RELATIVE_ERROR`](crate::core::Histogram)); so are the
//!   buckets of Prometheus.
//! - Where a response is a refusal of a layer further in, or its body was cut by one, it is counted by [`Reason`](crate::Reason).
//! - Labels are bound when it is built ([`TelemetryConfig::route`]): one layer value per route, never a path of a request.
//! - It costs two readings of the clock per call (three where a body follows the head), and no allocation.
//! - With [`Mode::Disabled`](crate::Mode) nothing is measured.
//!
#![cfg_attr(
    feature = "http",
    doc = "
# Traces

[`RequestSpanLayer`] takes over the caller's [`TraceContext`] ([W3C](https://www.w3.org/TR/trace-context-1/)) or begins one, and opens a
`tracing` span `request`; [`AttemptSpanLayer`], innermost in a client, opens a span `attempt` per attempt and writes the context
into it. Both are at the level DEBUG under the target `buttress::telemetry`. When no subscriber wants them, the context is passed on
all the same.

```
# #[cfg(feature = \"deadline\")] {
use axum::{Router, routing::get};
use buttress::{prelude::*, telemetry::{AccessLog, RequestSpanLayer}};
use std::time::Duration;
use tower::ServiceBuilder;

let spans = RequestSpanLayer::new().route(\"/hello\").access(AccessLog::Failed);
let app: Router = Router::new()
    .route(\"/hello\", get(async || \"hello\"))
    .layer(ServiceBuilder::new().http_server().with(spans).deadline(Duration::from_secs(2)));
# }
```

A client that is called while a request is served continues its trace if the request it sends has the same [`TraceContext`] ([`TraceContext::of`] the one, [`put`](TraceContext::put) into the other).

# Access records

With [`AccessLog::All`] or [`AccessLog::Failed`] a [`RequestSpanLayer`] emits an INFO event under the target `access` at the real end of
each call, when its client went away, too: client and priority (what the request's [`Context`](crate::Context) says as it comes in), method, path (without the query), route, status, outcome, reason and layer of a refusal, times to the head and to the end,
attempts and trace id."
)]

#[cfg(feature = "http")]
mod access;
#[cfg(feature = "http")]
mod attempt;
mod config;
mod permit;
mod policy;
#[cfg(feature = "http")]
mod request;
mod snapshot;
#[cfg(feature = "http")]
mod span;
#[cfg(test)]
mod tests;

#[cfg(feature = "http")]
pub use access::AccessLog;
#[cfg(feature = "http")]
pub use attempt::{AttemptSpanLayer, AttemptSpans};
#[cfg(feature = "http")]
pub use buttress_core::http::TraceContext;
pub use config::{Side, TelemetryConfig};
pub use permit::Measured;
pub use policy::Telemetry;
#[cfg(feature = "http")]
pub use request::{RequestSpanLayer, RequestSpans};
pub use snapshot::{End, TelemetrySnapshot};
#[cfg(feature = "http")]
pub use span::{SpanFuture, SpanPermit};

/// The layer of [`Telemetry`], for any request; `buttress::http::TelemetryLayer` speaks HTTP as a server.
pub type TelemetryLayer = crate::GateLayer<Telemetry>;
