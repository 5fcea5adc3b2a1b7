//! The fallback: another answer in place of one that failed.

mod config;
mod future;
mod layer;
mod policy;

pub use config::{FallbackConfig, Trigger, Triggers};
pub use future::AnswerFuture;
pub use layer::{AnswerLayer, AnswerService, FallbackLayer};
pub use policy::{Fallback, FallbackSnapshot};

/// The kind of layer, in refusals and for a registry.
const LAYER: &str = "fallback";

/// What a user knows better than the protocol: which results are not wanted, though they are no failures.
///
/// The values are [`ByVerdict`] (the default), and every closure `Fn(Result<&Res, &Err>) -> bool`.
pub trait FallbackRule<Res, Err>: Clone + Send + Sync + 'static {
    /// Whether a fallback is better than this result.
    fn unwanted(&self, result: Result<&Res, &Err>) -> bool;
}

/// What the protocol says of a result is all there is to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByVerdict;

impl<Res, Err> FallbackRule<Res, Err> for ByVerdict {
    #[inline]
    fn unwanted(&self, _: Result<&Res, &Err>) -> bool {
        false
    }
}

impl<Res, Err, F: Fn(Result<&Res, &Err>) -> bool + Clone + Send + Sync + 'static> FallbackRule<Res, Err> for F {
    #[inline]
    fn unwanted(&self, result: Result<&Res, &Err>) -> bool {
        self(result)
    }
}
