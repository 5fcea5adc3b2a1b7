//! Toggles: named features that are switched off when they fail, and on again.
//!
//! A shop without recommendations sells; a shop that waits for them does not. A [`Toggle`] is one such feature. An operator switches it,
//! or it is switched off by itself: by the first failure, by the share of failures, by the [`Signal`](buttress_core::Signal) of a breaker, by
//! a [level](crate::levels). The way back is by hand, by probes, or a ramp.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress_core::Error;
//! use buttress_fallback::{Back, ToggleConfig, Toggles, backup};
//! use std::{io, time::Duration};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let toggles = Toggles::builder()
//!     .add(ToggleConfig::new("reviews").first_failure(true).back(Back::Probe { after: Duration::from_secs(30), successes: 3 }))
//!     .add(ToggleConfig::new("chat"))
//!     .build()?;
//!
//! // A service, which is not called while its toggle is off ...
//! let reviews = service_fn(|_: u64| async { Err::<&str, _>(Error::Inner(io::Error::other("down"))) });
//! let reviews = toggles.layer("reviews", backup::value("no reviews today"))?.layer(reviews);
//! // ... and code that asks.
//! let chat = toggles.reader("chat")?;
//! toggles.check_read()?;
//!
//! assert!(reviews.clone().oneshot(7).await.is_err());
//! assert_eq!(reviews.oneshot(7).await?, "no reviews today");
//! assert!(chat.is_on());
//! # Ok(()) }
//! ```
//!
//! # States
//!
//! | state | who passes | it ends |
//! |---|---|---|
//! | on | everyone | when a condition is met: off |
//! | off | nobody | [`after`](Back::Probe::after) a time: probing, or ramping; if a signal switched it off, with the signal |
//! | probing | one call at a time | so many good ones: on; a bad one, or one that takes as long as it is off: off |
//! | ramping | a share that rises linearly | at its end: on; a condition that is met: off |
//!
//! Outcomes are those of the real end: a body that breaks has failed, gRPC trailers decide. A failure counts; "too much", and what says
//! nothing about health (most refusals of layers further in), do not. As probes, "too much" is a bad one, and what says nothing is none. A call that began in an older state
//! says nothing about this one.
//!
//! What wins: an operator ([`Switch`]), then the level, then the state.
//!
//! # What the caller gets
//!
//! The call that fails gets its failure: a toggle answers in place of nothing that was called, so put a
//! [fallback](crate::fallback) around it where that is wanted. While it is off the backup answers, marked as
//! [`Degraded`](buttress_core::Degraded); where that has nothing the call is refused:
//! [`Reason::SwitchedOff`](buttress_core::Reason::SwitchedOff), 503.
//!
//! # Where it stands
//!
//! Around the one feature, outside of its breaker if it heeds that one's signal: while the signal is due, calls pass, or nothing would ever close the
//! circuit.
//!
//! # Shared by clones
//!
//! Everything: a `Toggle` is a handle, whoever has a clone of it sees and switches the same one.
//!
//! # Cancel
//!
//! A probe that is dropped gives its place back, and says nothing, unless a deadline of ours cut it off: then it has failed.
//!
//! # When not to use it
//!
//! * To protect a dependency: that is a circuit breaker's work, with a window that is made for it. A toggle is for a feature that one can do without.
//! * For experiments and for releases to a share of users: everybody has the same toggle, and it knows no users.
//! * As configuration: what nobody would switch while the program runs is no toggle.
//! * With `first_failure` where single failures are normal: it will be off most of the time.

mod config;
mod future;
mod layer;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod machine;
mod permit;
mod state;
#[expect(clippy::module_inception, reason = "the module is about more than the handle")]
mod toggle;
mod toggles;

pub use config::{Back, ToggleConfig};
pub use future::SwitchFuture;
pub use layer::{SwitchLayer, SwitchService, ToggleLayer};
pub use permit::TogglePermit;
pub use state::{Switch, SwitchedBy, ToggleChange, ToggleState};
pub use toggle::{Toggle, ToggleSnapshot};
pub use toggles::{Toggles, TogglesBuilder};

/// The kind of layer, in refusals and for a registry.
const LAYER: &str = "toggle";
