use crate::sync::{Arc, Mutex, lock};
use ::http::{Extensions, Method, Request, header};
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

/// In the extensions of a request: it opens a tunnel, though its head does not say so. For intermediaries, which take `Upgrade` out of a
/// head, as it is for the next hop alone, and write it anew at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpensTunnel;

/// Whether a request opens a tunnel: it is a CONNECT, has an `Upgrade`, or is marked as [`OpensTunnel`]. Such a request is neither sent twice nor
/// answered by anybody else.
pub fn opens_tunnel<B>(req: &Request<B>) -> bool {
    req.method() == Method::CONNECT
        || req.headers().contains_key(header::UPGRADE)
        || req.extensions().get::<OpensTunnel>().is_some()
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("permits", &self.len()).finish()
    }
}
