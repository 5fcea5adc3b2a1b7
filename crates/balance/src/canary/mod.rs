//! A share of calls goes to a second service, until that one fails more often than the first.

mod config;
mod future;
mod layer;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod permit;
mod policy;
mod snapshot;
mod state;
#[cfg(all(test, not(buttress_loom)))]
mod tests;
mod word;

pub use config::CanaryConfig;
pub use future::CanaryFuture;
pub use layer::{CanaryLayer, CanaryService};
pub use permit::CanaryPermit;
pub use policy::{Canary, Trip};
pub use snapshot::{CanarySnapshot, SideSnapshot};

/// Which of the two services a call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that is known to work.
    Stable,
    /// The new one.
    Canary,
}

impl Side {
    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        }
    }
}
