//! x
mod balancer;
mod choice;
mod config;
#[cfg(feature = "discover")]
mod discover;
mod endpoints;
mod future;
mod load;
mod node;
mod now;
mod permit;
mod pick;
mod search;
mod service;
mod snapshot;
pub use balancer::Balancer;
pub use config::BalanceConfig;
pub use endpoints::{Endpoint, Endpoints};
pub use future::BalanceFuture;
pub use permit::BalancePermit;
pub use service::Balance;
pub use snapshot::{BalanceSnapshot, EndpointSnapshot};
#[cfg(all(test, buttress_loom))]
mod loom_tests;
#[cfg(all(test, not(buttress_loom)))]
mod tests;
