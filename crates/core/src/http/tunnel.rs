use crate::sync::{Arc, Mutex, lock};
use ::http::Extensions;
use std::{any::Any, fmt};

/// The permits of an upgraded connection (101, or a successful CONNECT), in the extensions of its response.
///
/// Their outcome and latency are settled with the head. Whoever carries the tunnel [takes](Self::take) them and drops them
/// when it closes; where nobody does, they are given back with the response's extensions.
#[derive(Clone, Default)]
pub struct Tunnel(Arc<Mutex<Vec<Box<dyn Any + Send>>>>);

impl Tunnel {
    pub(crate) fn hold(extensions: &mut Extensions, permit: impl Send + 'static) {
        lock(&extensions.get_or_insert_default::<Self>().0).push(Box::new(permit));
    }

    /// The permits of the upgraded connection behind `extensions`, to be kept until it closes.
    pub fn take(extensions: &mut Extensions) -> Option<Self> {
        extensions.remove()
    }

    /// How many permits it holds.
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("permits", &self.len()).finish()
    }
}
