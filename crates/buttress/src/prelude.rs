//! What a module that builds chains imports: `use buttress::prelude::*;`.

#[cfg(feature = "breaker")]
pub use crate::{Breaker, BreakerConfig, BreakerLayer};
#[cfg(feature = "bulkhead")]
pub use crate::{Bulkhead, BulkheadConfig, BulkheadLayer, QueuedBulkheadLayer};
#[cfg(feature = "deadline")]
pub use crate::{DeadlineConfig, DeadlineLayer};
pub use crate::{
    Error, Handle as _, Mode, Outcome, Reason, Registry, Rejection, ServiceBuilderExt as _, ServiceExt as _,
};
