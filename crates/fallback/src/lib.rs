//! Degradation for Tower services: reduced service instead of failure, and never silently.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backup;
pub mod failover;
mod fallback;
mod mark;

#[cfg(feature = "http")]
pub use backup::StaticResponse;
pub use backup::{Backup, Instead, NoBackup};
pub use buttress_core::ConfigError;
pub use failover::{Failover, FailoverConfig, FailoverLayer, TierConfig};
pub use fallback::{
    AnswerFuture, AnswerLayer, AnswerService, ByVerdict, Fallback, FallbackConfig, FallbackLayer, FallbackRule,
    FallbackSnapshot, Trigger, Triggers,
};
