//! Load shedding for Tower services.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod ask;
mod config;
mod layer;
pub mod limit;
mod line;
mod meter;
mod permit;
mod shared;
mod shed;
mod snapshot;
#[cfg(all(test, not(buttress_loom)))]
mod tests;
mod waiters;
mod waiting;

pub use ask::{Ask, Describe, FromContext};
pub use buttress_core::Release;
pub use config::{Algorithm, QueueConfig, ShedConfig};
pub use layer::{KeyedShedLayer, ShedLayer, ShedLayerBy, ShedService};
pub use permit::ShedPermit;
pub use shed::Shed;
pub use snapshot::{ClassSnapshot, ShedSnapshot};
pub use waiting::Waiting;
