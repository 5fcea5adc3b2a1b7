//! Degradation for Tower services: reduced service instead of failure, and never silently.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod failover;

pub use buttress_core::ConfigError;
pub use failover::{Failover, FailoverConfig, FailoverLayer, TierConfig};
