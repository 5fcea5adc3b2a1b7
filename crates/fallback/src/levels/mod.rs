//! Levels: a service that gives up one thing after the other while there is too much to do.
//!
//! "Full", "no recommendations", "read only", "static": what is given up first is decided in quiet times. [`Levels`] move by pressure, or by
//! an operator's word; toggles and code follow.
//!
//! ```
//! use buttress_fallback::{LevelsConfig, ToggleConfig};
//!
//! let levels = LevelsConfig::new("full").level("no recommendations", 0.7).level("read only", 0.9).build()?;
//! # let queue = || 0.2;
//! levels.source(move || queue()); // or `levels.watch(signal)`
//! levels.on_change(|change| println!("{} -> {} at {}", change.from, change.to, change.pressure));
//!
//! let recommendations = ToggleConfig::new("recommendations").level(&levels, "no recommendations")?.build()?;
//! let read_only = levels.at_least("read only")?;
//! assert!(recommendations.is_on() && !read_only.is_reached());
//!
//! levels.pin("read only")?;
//! assert!(!recommendations.is_on() && read_only.is_reached());
//! levels.unpin();
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! # How they move
//!
//! Pressure is the highest of what the sources say, 0 to 1. It gets one level worse when the pressure has been what the next one begins at for
//! [`worse_after`](LevelsConfig::worse_after), and one better when it has been lower than the present one begins at, by the
//! [`hysteresis`](LevelsConfig::hysteresis) at least, for [`better_after`](LevelsConfig::better_after). After each step these times begin
//! anew: no level is left out, in either direction. What lies between two looks is not seen.
//!
//! # Who drives them
//!
//! Whoever asks: the sources are looked at in the call of one of them, at most once [`every`](LevelsConfig::every) so long. There is no
//! task, so where nobody asks nothing moves. To ask costs one relaxed load and a look at the clock. Clones are handles of the same levels.
//!
//! # When not to use them
//!
//! * To shed load: that refuses calls one by one, by priority, and is quicker. Levels are for what takes seconds and helps for minutes.
//! * Where giving something up does not make the pressure less: they would go to the last level and stay there.
//! * With levels that differ in more than one respect, so that nobody knows what "level 3" does without: use toggles.

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
