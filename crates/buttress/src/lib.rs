//! Resilience layers for [Tower](https://docs.rs/tower): they keep a service useful while the things it depends on fail.
//!
//! | layer | keeps you from | refuses with |
//! |---|---|---|
//! | [`BreakerLayer`] | calling what is down, and waiting for it | 503 / `UNAVAILABLE`, with `Retry-After` |
//! | [`BulkheadLayer`] | one dependency taking all there is | 503 / `RESOURCE_EXHAUSTED` |
//! | [`DeadlineLayer`] | waiting longer than anyone waits for you | 503, 504 in a gateway / `DEADLINE_EXCEEDED` |
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
//! The innermost service lifts its errors once; then any layer can refuse, and none changes the type again:
//!
//! ```
//! use buttress::prelude::*;
//! use std::time::Duration;
//! use tower::{ServiceBuilder, service_fn};
//!
//! let transport = service_fn(|id: u64| async move { Ok::<_, std::io::Error>(id) });
//! let client = ServiceBuilder::new()
//!     .deadline(Duration::from_secs(2))
//!     .breaker(Breaker::default())
//!     .bulkhead(8)
//!     .service(transport.lift_errors());
//! # buttress::check::<u64, _>(&client);
//! ```
//!
//! [`stack`] builds a standard chain, checked across its layers.
//!
//! # What the layers have in common
//!
//! - **State is shared** by every service, clone, route and connection of one layer value; `.fresh()` makes another.
//! - **The error type stays.** On servers a refusal is a response ([`http::HttpServer`]); in clients it is an error that the
//!   innermost service's lifted error can carry.
//! - **Calls end where they really end**: permits are held, and outcomes known, at the end of the body; for gRPC when its
//!   trailers say so.
//! - **Everything can be seen and changed while it runs**: each layer has a `.handle()`, and a [`Registry`] holds them all.
//! - **Time is tokio's**, so `#[tokio::test(start_paused = true)]` tests them without sleeping.
//!
//! # Features
//!
//! On by default: `http`, and one per layer (`breaker`, `bulkhead`, `deadline`). Off: `h2` (recognise HTTP/2 stream errors),
//! `reqwest` (`Reqwest`, the adapter for its clients), `serde` (configs from files, snapshots to JSON).
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "http")]
pub mod http;
pub mod prelude;
mod registry;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod scope;
mod service;
#[cfg(all(feature = "http", feature = "breaker", feature = "bulkhead", feature = "deadline"))]
pub mod stack;

#[cfg(feature = "reqwest")]
pub use crate::reqwest::Reqwest;
#[cfg(feature = "breaker")]
pub use buttress_breaker::{self as breaker, Breaker, BreakerConfig, BreakerLayer};
#[cfg(feature = "bulkhead")]
pub use buttress_bulkhead::{self as bulkhead, Bulkhead, BulkheadConfig, BulkheadLayer, QueuedBulkheadLayer};
pub use buttress_core as core;
pub use buttress_core::{
    BoxError, ChainError, ConfigError, Context, Error, GateLayer, Handle, Mode, Opaque, Outcome, Priority, Pushback,
    QueueLayer, Reason, Rejection, Signal, Value,
};
#[cfg(feature = "deadline")]
pub use buttress_deadline::{self as deadline, DeadlineConfig, DeadlineLayer, Deadlines};
pub use registry::{Entry, Registry};
pub use scope::{Scope, ServiceBuilderExt, Speak};
pub use service::{ServiceExt, check};
