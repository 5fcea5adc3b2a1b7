//! Deadlines.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod carry;
mod config;
mod future;
mod layer;
mod policy;
mod watch;
pub mod wire;

pub use body::{Covered, Cutoff};
pub use carry::Carry;
pub use config::{DeadlineConfig, Headers};
pub use future::DeadlineFuture;
pub use layer::{CutLayer, DeadlineLayer, DeadlineService};
pub use policy::{DeadlineSnapshot, Deadlines};
