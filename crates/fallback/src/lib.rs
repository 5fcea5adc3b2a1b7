//! Degradation for Tower services: reduced service instead of failure, and never silently.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use buttress_core::ConfigError;

mod coalesce;
#[cfg(feature = "http")]
mod stale;

pub use coalesce::*;
#[cfg(feature = "http")]
pub use stale::*;
