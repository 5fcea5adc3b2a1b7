//! Degradation for Tower services: reduced service instead of failure, and never silently.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod coalesce;
#[cfg(feature = "http")]
mod stale;

pub use buttress_core::ConfigError;
#[cfg(feature = "http")]
pub use coalesce::{ByRequest, RequestKey, SharedBody};
pub use coalesce::{
    Coalesce, CoalesceConfig, CoalesceFuture, CoalesceKey, CoalesceLayer, CoalesceService, CoalesceSnapshot, KeyOf,
    Share,
};
#[cfg(feature = "http")]
#[doc(hidden)]
pub use stale::CacheControl;
#[cfg(feature = "http")]
pub use stale::{
    NotStored, Record, Stale, StaleBody, StaleConfig, StaleFuture, StaleLayer, StaleService, StaleSnapshot,
};
