//! Bulkheads for Tower services.

mod bulkhead;
mod config;
mod layer;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod permits;
mod queue;
#[cfg(all(test, not(buttress_loom)))]
mod tests;

pub use bulkhead::{Bulkhead, BulkheadPermit, BulkheadSnapshot};
pub use config::{AdmissionMode, BulkheadConfig, MAX_LIMIT, QueueOrder, Release};
pub use layer::{
    BulkheadLayer, BulkheadService, KeyedBulkheadLayer, KeyedQueuedBulkheadLayer, QueuedBulkheadLayer,
    QueuedBulkheadService, Turn,
};
pub use queue::Waiting;
