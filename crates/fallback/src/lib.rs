//! Degradation for Tower services: reduced service instead of failure, and never silently.
//!
//! | layer | what a caller gets where there is no good answer | when *not* to use it |
//! |---|---|---|
//! | [`FallbackLayer`] | a [backup]: a value, a page, what a function makes, another service's answer | where a wrong answer is worse than none |
//! | `StaleLayer` (feature `http`) | the last good answer, as RFC 9111 and RFC 5861 allow | for answers that are one user's, or true for a moment only |
//! | [`CoalesceLayer`] | not asked for here: equal calls at the same time become one | for what must run once per call; for streams |
//! | [`ToggleLayer`] | a [backup], while a feature is switched off | as a circuit breaker: it does not guard what it calls |
//! | [`Levels`] | decide which features are off: the more pressure, the fewer | for one feature: a toggle does |
//! | [`FailoverLayer`] | the answer of the next service in order | where the second place does what the first has already done |
//! | [`VoteLayer`] | the answer that enough of several versions give | where versions are copies: they are wrong together |
//!
//! # What the layers have in common
//!
//! **Degraded answers are recognisable**: over HTTP by the header `x-degraded` (`stale; cause=breaker_open`), by the extension
//! [`Degraded`](buttress_core::Degraded), by telemetry, and by each layer's own counts. Opaque responses have no place for a mark.
//!
//! **Their place**, inside of telemetry: fallback > stale > toggle > deadline > coalesce > bulkhead > failover > retry > the rest of the chain;
//! a vote stands in place of a failover. So a call that hangs gets its fallback when its deadline passes, calls that are shared take one
//! place, a tier is given up when its retries are, and what is thrown away frees its permits first. [`Levels`] stand nowhere: toggles ask them.
//!
//! **What accuses the client** is passed on: refusals with a 4xx, a deadline that the client made itself, 4xx answers.
//!
//! **State** is shared by every service, clone, route and connection of one layer value; each has a `.handle()`. **Cancelled** at any
//! point, a call leaves nothing behind. **A backup that fails** gives way to the original result.
//!
//! With the facade `buttress` this crate is `buttress::fallback`, and `buttress_core` is `buttress::core`.
//!
//! # Differences from tower
//!
//! Tower has none of these. `tower::steer` chooses a service before the call; a failover chooses the next one after it.
//!
//! # Features
//!
//! `http`: static responses, the stale store, marks, and what the other layers know of HTTP. `serde`: configs and snapshots.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backup;
pub mod coalesce;
pub mod failover;
pub mod fallback;
pub mod levels;
mod mark;
#[cfg(feature = "http")]
pub mod stale;
pub mod toggle;
mod trigger;
pub mod vote;

#[cfg(feature = "http")]
pub use backup::StaticResponse;
pub use backup::{Backup, Instead};
pub use buttress_core::ConfigError;
pub use coalesce::{Coalesce, CoalesceConfig, CoalesceLayer};
pub use failover::{Failover, FailoverConfig, FailoverLayer, TierConfig};
pub use fallback::{AnswerLayer, Fallback, FallbackConfig, FallbackLayer};
pub use levels::{LevelConfig, LevelGuard, Levels, LevelsConfig, SteppedBy};
pub use mark::Degrade;
#[cfg(feature = "http")]
#[doc(hidden)]
pub use stale::CacheControl;
#[cfg(feature = "http")]
pub use stale::{NotStored, Stale, StaleConfig, StaleLayer, StaleService};
pub use toggle::{
    Back, Switch, SwitchLayer, SwitchedBy, Toggle, ToggleConfig, ToggleLayer, TogglePermit, ToggleState, Toggles,
};
pub use trigger::{Trigger, Triggers};
pub use vote::{Need, Vote, VoteConfig, VoteLayer};

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::fallback";
