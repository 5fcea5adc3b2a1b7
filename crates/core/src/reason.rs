use crate::Outcome;
use std::{error::Error as StdError, fmt, ops::Deref, time::Duration};

/// Why a call was refused or ended early. The single source of everything a person can see of it: HTTP status, gRPC code,
/// `Proxy-Status` error ([RFC 9209](https://www.rfc-editor.org/rfc/rfc9209)), metric labels, log fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
// A whole word, so that an `Option<Rejection>` says `None` in a word, too. With half a word every move of one waits for the
// half to be written: a third more for a refusal, and for a call that is let in.
#[repr(u64)]
#[non_exhaustive]
pub enum Reason {
    /// A circuit breaker is open, or every endpoint is ejected.
    BreakerOpen,
    /// A bulkhead, connection or concurrency limit is full.
    AtCapacity,
    /// Load was shed: overload, low priority.
    Shed,
    /// The call waited for its turn longer than it may.
    QueueTimeout,
    /// A rate limit of ours was exceeded.
    RateLimited,
    /// A deadline of ours passed: it accuses what is behind it.
    DeadlinePassed,
    /// A deadline passed that the client had made shorter than ours: it accuses nobody.
    ClientDeadlinePassed,
    /// A peer refused the connection.
    ConnectRefused,
    /// A connection could not be made in time.
    ConnectTimeout,
    /// A peer closed the connection before it answered.
    PeerClosed,
    /// A body ended before its end.
    BodyCut,
    /// This member does not lead, or there is no quorum.
    NotLeader,
    /// A fault injected on purpose.
    Injected,
    /// A service of ours panicked.
    Panicked,
    /// A balancer has no endpoint at all.
    NoEndpoint,
    /// The client's request is none that can be served, or passed on.
    BadRequest,
    /// Nothing here is for such a request.
    NoRoute,
    /// What is here does not take the method.
    MethodNotAllowed,
    /// The target of the request is too long.
    UriTooLong,
    /// The head of the request is too large.
    HeaderTooLarge,
    /// The body of the request is too large.
    BodyTooLarge,
    /// The client did not send the rest of the request's body in time.
    UploadStalled,
    /// The client broke the request's body off.
    UploadBroken,
    /// What the request asks for is not done here.
    NotImplemented,
    /// The request has been here before.
    Loop,
    /// The feature is switched off, and there is nothing in its place.
    SwitchedOff,
    /// The client asked for a stored answer only, and there is none that may be used.
    NotStored,
    /// A call that this one shared came to nothing.
    SharedCallFailed,
    /// Too few of those that were asked gave the same answer.
    NoMajority,
}

/// One row of the table.
struct Row {
    label: &'static str,
    title: &'static str,
    origin: u16,
    gateway: u16,
    grpc: u8,
    proxy_error: &'static str,
}

const fn row(
    label: &'static str,
    title: &'static str,
    origin: u16,
    gateway: u16,
    grpc: u8,
    proxy_error: &'static str,
) -> Row {
    Row { label, title, origin, gateway, grpc, proxy_error }
}

impl Reason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Reason; 29] = [
        Self::BreakerOpen,
        Self::AtCapacity,
        Self::Shed,
        Self::QueueTimeout,
        Self::RateLimited,
        Self::DeadlinePassed,
        Self::ClientDeadlinePassed,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::PeerClosed,
        Self::BodyCut,
        Self::NotLeader,
        Self::Injected,
        Self::Panicked,
        Self::NoEndpoint,
        Self::BadRequest,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::UriTooLong,
        Self::HeaderTooLarge,
        Self::BodyTooLarge,
        Self::UploadStalled,
        Self::UploadBroken,
        Self::NotImplemented,
        Self::Loop,
        Self::SwitchedOff,
        Self::NotStored,
        Self::SharedCallFailed,
        Self::NoMajority,
    ];

    /// The table of reasons.
    const fn row(self) -> Row {
        match self {
            Self::BreakerOpen => row("breaker_open", "circuit breaker open", 503, 503, 14, "destination_unavailable"),
            Self::AtCapacity => row("at_capacity", "at capacity", 503, 503, 8, "connection_limit_reached"),
            Self::Shed => row("shed", "overloaded", 503, 503, 8, "proxy_internal_response"),
            Self::QueueTimeout => {
                row("queue_timeout", "waited too long for a turn", 503, 503, 8, "proxy_internal_response")
            }
            Self::RateLimited => row("rate_limited", "rate limited", 429, 429, 8, "http_request_error;status-code=429"),
            Self::DeadlinePassed => row("deadline_passed", "deadline passed", 503, 504, 4, "http_response_timeout"),
            Self::ClientDeadlinePassed => {
                row("client_deadline_passed", "the client's deadline passed", 503, 504, 4, "http_response_timeout")
            }
            Self::ConnectRefused => row("connect_refused", "connection refused", 502, 502, 14, "connection_refused"),
            Self::ConnectTimeout => row("connect_timeout", "connection timed out", 504, 504, 14, "connection_timeout"),
            Self::PeerClosed => {
                row("peer_closed", "connection closed before the response", 502, 502, 14, "connection_terminated")
            }
            Self::BodyCut => row("body_cut", "response incomplete", 502, 502, 15, "http_response_incomplete"),
            Self::NotLeader => row("not_leader", "not the leader", 503, 503, 14, "destination_unavailable"),
            Self::Injected => row("injected", "injected fault", 503, 503, 14, "proxy_internal_response"),
            Self::Panicked => row("panicked", "internal error", 500, 500, 13, "proxy_internal_response"),
            Self::NoEndpoint => row("no_endpoint", "no endpoint", 503, 503, 14, "destination_unavailable"),
            Self::BadRequest => row("bad_request", "bad request", 400, 400, 13, "http_request_error"),
            Self::NoRoute => row("no_route", "no such route", 404, 404, 12, "destination_not_found"),
            Self::MethodNotAllowed => {
                row("method_not_allowed", "method not allowed", 405, 405, 12, "http_request_error")
            }
            Self::UriTooLong => row("uri_too_long", "request target too long", 414, 414, 13, "http_request_error"),
            Self::HeaderTooLarge => {
                row("header_too_large", "request header too large", 431, 431, 8, "http_request_error")
            }
            Self::BodyTooLarge => row("body_too_large", "request body too large", 413, 413, 8, "http_request_error"),
            Self::UploadStalled => row("upload_stalled", "the request body stalled", 408, 408, 4, "http_request_error"),
            Self::UploadBroken => row("upload_broken", "the request body broke off", 400, 400, 1, "http_request_error"),
            Self::NotImplemented => row("not_implemented", "not implemented", 501, 501, 12, "http_request_error"),
            Self::Loop => row("loop", "the request goes in a circle", 502, 502, 13, "proxy_loop_detected"),
            Self::SwitchedOff => row("switched_off", "switched off", 503, 503, 14, "proxy_internal_response"),
            Self::NotStored => row("not_stored", "no stored answer", 504, 504, 14, "proxy_internal_response"),
            Self::SharedCallFailed => {
                row("shared_call_failed", "the call this one shared failed", 502, 502, 14, "destination_unavailable")
            }
            Self::NoMajority => row("no_majority", "no majority", 502, 502, 14, "destination_unavailable"),
        }
    }

    /// The label in metrics, logs and `error.type`.
    pub const fn as_str(self) -> &'static str {
        self.row().label
    }

    /// The short text a person reads.
    pub const fn title(self) -> &'static str {
        self.row().title
    }

    /// The HTTP status of an origin server's answer.
    pub const fn status(self) -> u16 {
        self.row().origin
    }

    /// The HTTP status of a gateway's answer: a passed deadline is 504 there.
    pub const fn gateway_status(self) -> u16 {
        self.row().gateway
    }

    /// The [gRPC status code](https://grpc.github.io/grpc/core/md_doc_statuscodes.html).
    pub const fn grpc(self) -> u8 {
        self.row().grpc
    }

    /// The `error` parameter of `Proxy-Status`.
    pub const fn proxy_error(self) -> &'static str {
        self.row().proxy_error
    }

    /// Whether it is the request that is at fault, or what its client wants of it, and not what is behind: the refusal is the answer then, and nothing is
    /// to stand in its place. All that a client is told with a 4xx, a deadline that it made itself, and what it asks for that there is not.
    pub const fn accuses_request(self) -> bool {
        let is_of_request =
            matches!(self, Self::ClientDeadlinePassed | Self::NotImplemented | Self::Loop | Self::NotStored);
        is_of_request || self.status() < 500
    }

    /// What it says to layers further out. Our own refusals say nothing about health, a failed connection does, and so does
    /// a passed deadline, or a breaker around a per-try time-out would never open.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::BreakerOpen
            | Self::AtCapacity
            | Self::Shed
            | Self::QueueTimeout
            | Self::RateLimited
            | Self::ClientDeadlinePassed
            | Self::NotLeader
            | Self::NoEndpoint
            | Self::BadRequest
            | Self::NoRoute
            | Self::MethodNotAllowed
            | Self::UriTooLong
            | Self::HeaderTooLarge
            | Self::BodyTooLarge
            | Self::UploadStalled
            | Self::UploadBroken
            | Self::NotImplemented
            | Self::Loop
            | Self::SwitchedOff
            | Self::NotStored
            | Self::SharedCallFailed => Outcome::Ignored,
            Self::DeadlinePassed
            | Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::PeerClosed
            | Self::BodyCut
            | Self::Injected
            | Self::Panicked
            | Self::NoMajority => Outcome::Failure,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: which layer said no, why, and when to come back.
///
/// It is an error, and the marker in the extensions of a response that a refusal became, so layers further out recognise it.
/// Making one allocates nothing. Its [`Details`] are read as fields: `rejection.reason`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rejection(Details);

/// What a [`Rejection`] says.
///
/// They are its `source()`, too: an error behind a box with any lifetime cannot be asked for its own type, but for its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Details {
    /// Why.
    pub reason: Reason,
    /// The kind of layer that refused: `"breaker"`.
    pub layer: &'static str,
    /// When it is worth coming back.
    pub retry_after: Option<Duration>,
}

impl Rejection {
    /// A refusal by `layer`.
    pub const fn new(reason: Reason, layer: &'static str) -> Self {
        Self(Details { reason, layer, retry_after: None })
    }

    /// Why: for constants, which cannot read it as a field.
    pub(crate) const fn reason(&self) -> Reason {
        self.0.reason
    }

    /// It is worth coming back after `delay`.
    pub const fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// The refusal in an error or in its sources.
    pub fn find(error: &(dyn StdError + 'static)) -> Option<Self> {
        crate::error::chain(error).find_map(Self::of)
    }

    /// The refusal that this one error is, whatever its sources are.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        error.downcast_ref::<Self>().copied().or_else(|| error.downcast_ref().copied().map(Self))
    }
}

impl Deref for Rejection {
    type Target = Details;

    #[inline]
    fn deref(&self) -> &Details {
        &self.0
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("reason", &self.reason)
            .field("layer", &self.layer)
            .field("retry_after", &self.retry_after)
            .finish()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused by the {}: {}", self.layer, self.reason.title())?;
        if let Some(delay) = self.retry_after {
            // Up, or who comes back that early is refused again.
            let millis = u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            write!(f, " (retry after {:?})", Duration::from_millis(millis))?;
        }
        Ok(())
    }
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.title())
    }
}

impl StdError for Rejection {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

impl StdError for Details {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_its_labels_are_unique() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            assert!((400..=504).contains(&reason.status()), "{reason}");
            assert!(reason.grpc() <= 16 && reason.grpc() > 0);
            assert_eq!(Reason::ALL.iter().filter(|r| r.as_str() == reason.as_str()).count(), 1);
        }
    }

    #[test]
    fn who_is_told_of_his_own_mistake_gets_no_other_answer_and_what_failed_accuses_no_request() {
        for reason in Reason::ALL {
            let is_clients = (400..500).contains(&reason.status());
            assert!(!is_clients || reason.accuses_request(), "{reason}");
            assert!(reason.outcome() != Outcome::Failure || !reason.accuses_request(), "{reason}");
        }
        let theirs = [Reason::ClientDeadlinePassed, Reason::NotImplemented, Reason::Loop, Reason::NotStored];
        assert!(theirs.into_iter().all(Reason::accuses_request));
        let ours = [Reason::BreakerOpen, Reason::AtCapacity, Reason::Shed, Reason::QueueTimeout, Reason::SwitchedOff];
        assert!(!ours.into_iter().any(Reason::accuses_request));
    }

    #[test]
    fn no_refusal_is_said_in_a_whole_word() {
        assert_eq!((size_of::<Reason>(), size_of::<Option<Rejection>>()), (8, size_of::<Rejection>()));
        assert_eq!(std::mem::offset_of!(Details, reason) % 8, 0);
    }

    #[test]
    fn a_refusal_is_found_among_the_sources_of_an_error() {
        let refused = Rejection::new(Reason::Shed, "shed").retry_after(Duration::from_secs(2));
        let wrapped = std::io::Error::other(refused);
        assert_eq!(Rejection::find(&wrapped), Some(refused));
        assert_eq!(Rejection::find(&std::io::Error::other("else")), None);
        assert_eq!(refused.to_string(), "refused by the shed: overloaded (retry after 2s)");
        let odd = refused.retry_after(Duration::from_nanos(2_911_541_701));
        assert_eq!(odd.to_string(), "refused by the shed: overloaded (retry after 2.912s)");
    }
}
