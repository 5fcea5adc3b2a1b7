//! Degradation for Tower services: reduced service instead of failure, and never silently.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backup;
pub mod fallback;
pub mod levels;
mod mark;
pub mod toggle;

#[cfg(feature = "http")]
pub use backup::StaticResponse;
pub use backup::{Backup, Instead, NoBackup};
pub use buttress_core::ConfigError;
pub use fallback::{
    AnswerFuture, AnswerLayer, AnswerService, ByVerdict, Fallback, FallbackConfig, FallbackLayer, FallbackRule,
    FallbackSnapshot, Trigger, Triggers,
};
pub use levels::{
    LevelChange, LevelConfig, LevelGuard, LevelSnapshot, Levels, LevelsConfig, LevelsSnapshot, SteppedBy,
};
pub use toggle::{
    Back, Switch, SwitchFuture, SwitchLayer, SwitchService, SwitchedBy, Toggle, ToggleChange, ToggleConfig,
    ToggleLayer, TogglePermit, ToggleSnapshot, ToggleState, Toggles, TogglesBuilder,
};

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::fallback";

/// Where draws begin that nobody gave a seed for.
fn any_seed() -> u64 {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new().hash_one(0)
}
