//! Single flight: requests that are the same and come at the same time share one call. See [`CoalesceLayer`].

#[cfg(feature = "http")]
mod body;
mod config;
mod flights;
mod future;
#[cfg(feature = "http")]
mod http;
mod key;
mod layer;
mod policy;
#[cfg(feature = "http")]
mod request;
mod share;
#[cfg(all(test, not(buttress_loom)))]
mod tests;

#[cfg(feature = "http")]
pub use body::SharedBody;
pub use config::CoalesceConfig;
#[cfg(feature = "http")]
pub(crate) use flights::Flights;
pub use future::CoalesceFuture;
pub use key::KeyOf;
pub use layer::{CoalesceKey, CoalesceLayer, CoalesceService};
pub use policy::{Coalesce, CoalesceSnapshot};
#[cfg(feature = "http")]
pub use request::{ByRequest, RequestKey};
pub use share::Share;
