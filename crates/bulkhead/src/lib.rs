//! Bulkheads for Tower services.

mod bulkhead;
mod config;
mod layer;
mod permits;
mod queue;

pub use bulkhead::{Bulkhead, BulkheadPermit, BulkheadSnapshot};
pub use config::{AdmissionMode, BulkheadConfig, MAX_LIMIT, QueueOrder, Release};
pub use layer::{
    BulkheadLayer, BulkheadService, KeyedBulkheadLayer, KeyedQueuedBulkheadLayer, QueuedBulkheadLayer,
    QueuedBulkheadService, Turn,
};
pub use queue::Waiting;
