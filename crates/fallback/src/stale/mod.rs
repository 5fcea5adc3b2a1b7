//! The last good answers, given where there is none now. See [`StaleLayer`].

mod cache_control;
mod config;
mod entry;
mod future;
mod layer;
mod policy;
mod record;
mod request;
mod revalidate;
mod rules;
mod snapshot;
mod store;

#[doc(hidden)]
pub use cache_control::CacheControl;
pub use config::StaleConfig;
pub use future::StaleFuture;
pub use layer::{StaleLayer, StaleService};
pub use policy::Stale;
pub use record::{Record, StaleBody};
pub use rules::NotStored;
pub(crate) use rules::vary;
pub use snapshot::StaleSnapshot;
