//! A primary and its backups.

mod config;
mod future;
mod layer;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod permit;
mod policy;
mod relay;
mod rule;
mod snapshot;
mod state;
#[cfg(all(test, not(buttress_loom)))]
mod tests;
mod word;

pub use config::{FailoverConfig, FailoverOn, TierConfig};
pub use future::FailoverFuture;
pub use layer::{FailoverLayer, FailoverService, FailoverTiers};
pub use permit::FailoverPermit;
pub use policy::{Failover, FailoverChange, FailoverWhy};
pub use relay::Relay;
pub use rule::{ByVerdict, FailoverRule};
pub use snapshot::{FailoverSnapshot, TierSnapshot};
