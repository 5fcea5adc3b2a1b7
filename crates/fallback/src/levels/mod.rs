//! Levels: a service that gives up one thing after the other while there is too much to do.

mod config;
mod handle;
mod ladder;
#[expect(clippy::module_inception, reason = "the module is about more than the handle")]
mod levels;
#[cfg(all(test, buttress_loom))]
mod loom_tests;

pub use config::{LevelConfig, LevelsConfig};
pub use handle::{LevelSnapshot, LevelsSnapshot};
pub use levels::{LevelChange, LevelGuard, Levels, SteppedBy};
