//! Retries for Tower services.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
#[cfg(feature = "http")]
mod body;
mod config;
mod decide;
mod future;
#[cfg(feature = "http")]
mod http;
mod layer;
mod resend;
mod retry;
mod rule;
mod rules;

pub use backoff::{Backoff, Delays};
#[cfg(feature = "http")]
pub use body::RetryBody;
pub use config::RetryConfig;
pub use decide::{Cause, Course, Decision, Wait, Why};
pub use future::RetryFuture;
#[cfg(feature = "http")]
pub use http::Idempotent;
pub use layer::{RetryLayer, RetryService};
pub use resend::{Repeat, Resend};
pub use retry::{Retry, RetrySnapshot};
pub use rule::{ByTable, Repeatable, RetryRule};

#[cfg(test)]
mod tests;
