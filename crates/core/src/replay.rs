use crate::{Opaque, Protocol};

/// A protocol whose requests can be sent again: what a layer that makes further attempts (retry, hedge) is written against.
///
/// [`Opaque`] clones the request. `HttpServer`, `HttpGateway` and `HttpClient` (feature `http`) clone the head once per attempt
/// and keep of the body what was sent of it, up to a cap.
#[diagnostic::on_unimplemented(
    message = "requests of type `{Req}` cannot be sent again under the protocol `{Self}`",
    note = "`Opaque` needs `{Req}: Clone`",
    note = "`HttpServer` and `HttpClient` need `http::Request<B>` where `B: http_body::Body<Data = bytes::Bytes> + Send + 'static`"
)]
pub trait Replay<Req>: Protocol<Req> {
    /// What the inner service gets: the request itself for [`Opaque`], `http::Request<ReplayBody<B>>` for HTTP.
    type Attempt;
    /// What is kept of a request, to send it again.
    type Kept;

    /// The only attempt of a request that is not to be sent again: nothing is kept, nothing is allocated.
    fn once(&self, req: Req) -> Self::Attempt;

    /// The first attempt, and what makes further ones; at most `cap` bytes of its body are kept.
    fn record(&self, req: Req, cap: usize) -> (Self::Attempt, Self::Kept);

    /// A further attempt in place of the ones before, of which there were `attempt` (1 is the first retry). `None`: it cannot be
    /// sent again, [`lost`](Self::lost) says why, and the last attempt goes on.
    ///
    /// An earlier attempt that is still being sent is over by this: its body fails, so that it does not use up this one's. Ask only
    /// for what will be sent.
    fn again(&self, kept: &mut Self::Kept, attempt: u32) -> Option<Self::Attempt>;

    /// Why the request cannot be sent again, as far as is known now. `None`: it can.
    fn lost(&self, kept: &Self::Kept) -> Option<Lost> {
        let _ = kept;
        None
    }

    /// Whether all of the request is on its way: nothing more is to come from whoever sends it. `true` where it has no parts.
    fn is_sent(&self, kept: &Self::Kept) -> bool {
        let _ = kept;
        true
    }

    /// How often somebody further out, in this process or before it, sent the request before; 0 where nobody says.
    fn tried_before(&self, req: &Req) -> u32 {
        let _ = req;
        0
    }
}

/// Why a request cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lost {
    /// Its body was read, and is larger than what may be kept of one.
    TooLarge,
    /// Its body failed.
    Failed,
}

impl Lost {
    /// The label in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "body_too_large",
            Self::Failed => "body_failed",
        }
    }
}

impl<C: Clone, Req: Clone> Replay<Req> for Opaque<C> {
    type Attempt = Req;
    type Kept = Req;

    #[inline]
    fn once(&self, req: Req) -> Req {
        req
    }

    #[inline]
    fn record(&self, req: Req, _: usize) -> (Req, Req) {
        (req.clone(), req)
    }

    #[inline]
    fn again(&self, kept: &mut Req, _: u32) -> Option<Req> {
        Some(kept.clone())
    }
}
