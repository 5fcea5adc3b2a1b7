//! Rate limits: so many calls in a period, and so many at once.
//!
//! ```
//! use buttress_shed::rate::{RateLimitConfig, RateLimitLayer};
//!
//! let layer = RateLimitLayer::new(RateLimitConfig::per_second(100).burst(20).build()?);
//! let handle = layer.handle(); // shared by every service and clone of the layer
//! assert_eq!(handle.snapshot().remaining, 20);
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! # What it does
//!
//! * **It counts by GCRA**, the generic cell rate algorithm (ITU-T I.371; the crate `governor` decides): a bucket of
//!   [`burst`](RateLimitConfig::burst) permits that fills evenly, one permit after each `period / permits`. There is no window at whose seam twice
//!   as much passes, and all the state is one word.
//! * **It is exact** to the sixteenth of a nanosecond per permit, and errs towards fewer calls. A fractional rate is a longer period: one call in
//!   2 s is `RateLimitConfig::new(1, 2 s)`.
//! * **It refuses** with [`Reason::RateLimited`](buttress_core::Reason::RateLimited): under HTTP a 429, under gRPC `RESOURCE_EXHAUSTED`. Its
//!   `retry_after` is exact: who comes back then finds a permit if nobody else came; `Retry-After` is that in whole seconds, rounded up.
//! * **It never waits.** A call that waits for its permit holds memory and its client's patience, and what waits under a limit that is exceeded for
//!   long waits for ever. Who wants to send more slowly does so where the calls come from.
//! * **What counts as failure**: nothing. Every call that passes takes a permit, however it ends, and cancelling gives none back.
//! * **Clones share it**: the state is made once; [`fresh`](buttress_core::GateLayer::fresh) makes another.
//!
//! # Per host, tenant, client
//!
//! ```
//! use buttress_core::KeyedConfig;
//! use buttress_shed::rate::{KeyedRateLimitLayer, RateLimitConfig};
//! # struct Request { tenant: u64 }
//!
//! // What is wrong is said here, and not at the first request.
//! let per_tenant = RateLimitConfig::per_second(10).keyed(KeyedConfig::new(10_000), |req: &Request| req.tenant)?;
//! let layer = KeyedRateLimitLayer::<u64, _>::new(per_tenant);
//! let handle = layer.handle(); // of all tenants: `handle.update(..)`, `handle.set_mode(..)`, `handle.snapshot()`
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! A tenant's bucket is kept until it is full again: forgotten sooner, a client could invent names to get a new one. So the table needs room for all
//! tenants that are seen in the time a bucket takes to fill; those for which there is none share one bucket, which is counted
//! ([`Keyed`](buttress_core::Keyed)).
//!
//! # Where it stands
//!
//! Outside of everything that costs something: **rate limit** > fallback > stale > deadline > shed > bulkhead > handler, inside of telemetry alone. So a call that is
//! [shed](crate) (or refused otherwise further in) has cost a permit. A rate limit protects against *who* asks too much; it
//! knows nothing of how the service fares. Against overload take an adaptive limit.
#![cfg_attr(feature = "http", doc = "")]
#![cfg_attr(feature = "http", doc = "[`RateLimitHeadersLayer`] tells clients how much they have left.")]

mod config;
mod gcra;
#[cfg(feature = "http")]
mod headers;
mod keyed;
mod limit;
#[cfg(all(test, buttress_loom))]
mod loom_tests;

pub use config::RateLimitConfig;
#[cfg(feature = "http")]
pub use headers::{HasRateLimit, RateLimitHeaders, RateLimitHeadersFuture, RateLimitHeadersLayer};
pub use keyed::{KeyedRateLimit, KeyedRateLimitLayer, KeyedRateLimitSnapshot, LimitOf};
pub use limit::{Quota, RateLimit, RateLimitLayer, RateLimitService, RateLimitSnapshot};
