//! Toggles: named features that are switched off when they fail, and on again.

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
