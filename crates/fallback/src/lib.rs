//! Degradation for Tower services: reduced service instead of failure, and never silently.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod failover;
pub mod vote;

pub use buttress_core::ConfigError;
pub use failover::{Failover, FailoverConfig, FailoverLayer, TierConfig};
pub use vote::{Need, Vote, VoteConfig, VoteLayer};
