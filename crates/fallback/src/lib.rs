//! Degradation for Tower services: reduced service instead of failure, and never silently.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backup;
mod fallback;
mod mark;

pub use backup::{Backup, Instead, NoBackup};
#[cfg(feature = "http")]
pub use backup::StaticResponse;
pub use buttress_core::ConfigError;
pub use fallback::{
    AnswerFuture, AnswerLayer, AnswerService, ByVerdict, Fallback, FallbackConfig, FallbackLayer, FallbackRule,
    FallbackSnapshot, Trigger, Triggers,
};
