use super::{Fail, Gateway, Render, Reply, RequestBodyError, TransportError, outcome};
use crate::{BoxError, ChainError, Reason, Rejection, error::chain};
use std::{any::Any, error::Error as StdError, fmt};

/// Marks an error of a transport that knows that nothing of the request was processed: sending it again is safe, whatever its
/// method.
///
/// For who knows better than the error's sources say:
///
/// ```
/// # use buttress_core::{BoxError, http::Unsent};
/// # #[derive(Debug)] struct Error; impl Error { fn is_connect(&self) -> bool { true } }
/// # impl std::fmt::Display for Error { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
/// # impl std::error::Error for Error {}
/// // with hyper-util: tower's `.map_err(mark)` around the client
/// fn mark(error: Error /* hyper_util::client::legacy::Error */) -> BoxError {
///     if error.is_connect() { Unsent::new(error).into() } else { error.into() }
/// }
/// # assert!(buttress_core::http::is_unsent(&*mark(Error)));
/// ```
#[derive(Debug)]
pub struct Unsent(Mark);

/// The mark is a source of its own, so that it is seen behind any box.
#[derive(Debug)]
struct Mark(BoxError);

impl Unsent {
    /// Marks `error`.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(Mark(error.into()))
    }

    /// The error that was marked.
    pub fn get_ref(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.0.0
    }
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not sent")
    }
}

impl StdError for Unsent {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Mark {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

/// Whether nothing of the request was processed, read from the error's sources: the mark ([`Unsent`]), a refusal of ours that says
/// so ([`Reason::ConnectRefused`], [`Reason::ConnectTimeout`]), and with the feature `h2` a stream that the peer refused
/// (REFUSED_STREAM).
///
/// `false` means that nobody knows:
///
/// - A GOAWAY. RFC 9113, 6.8 says that the streams above its last were not processed; but hyper's client (1.12) reports the
///   GOAWAY for a stream, too, that it opened in the very moment in which it came, and which the peer may yet serve. Of 10^5
///   requests over connections that go away all the time a few are processed in spite of it: enough to charge somebody twice.
///   A transport that knows which streams were left out says so by the mark.
/// - A connection that was refused, by itself: a client that follows redirects, or a service that does something and then calls
///   another, may have done its work before. Who makes one connection for a request marks it: the facade's `Hyper` and `Reqwest`,
///   [`TransportError::unsent_if_refused`](super::TransportError::unsent_if_refused).
pub fn is_unsent(error: &(dyn StdError + 'static)) -> bool {
    // What a request *body* met (a connection it would be read from) says nothing of the request it was sent in.
    let is_of_body = |cause: &(dyn StdError + 'static)| cause.is::<RequestBodyError>() || cause.is::<outcome::Mark>();
    chain(error).take_while(|&cause| !is_of_body(cause)).any(says_unsent)
}

fn says_unsent(cause: &(dyn StdError + 'static)) -> bool {
    if cause.is::<Unsent>() || cause.is::<Mark>() {
        return true;
    }
    if let Some(rejection) = Rejection::of(cause) {
        return matches!(rejection.reason, Reason::ConnectRefused | Reason::ConnectTimeout);
    }
    #[cfg(feature = "h2")]
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        return error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    }
    false
}

/// What a kind of protocol knows of errors: whether one says that nothing of the request was processed. For layers that may send a
/// request elsewhere then.
#[doc(hidden)]
pub trait SaysUnsent<Err> {
    fn says_unsent(error: &Err) -> bool;
}

impl<Err: ChainError> SaysUnsent<Err> for Fail {
    fn says_unsent(error: &Err) -> bool {
        error.cause().is_some_and(is_unsent)
    }
}

/// A server's protocol takes any error, and sees through those that it knows.
fn any_unsent<Err: 'static>(error: &Err) -> bool {
    let error = error as &dyn Any;
    let boxed = error.downcast_ref::<BoxError>().map(|error| &**error as &(dyn StdError + 'static));
    let named = || error.downcast_ref::<TransportError>().map(|error| error as _);
    boxed.or_else(named).is_some_and(is_unsent)
}

macro_rules! says_unsent {
    ($($protocol:ty $(, $param:ident)?);*) => {$(
        impl<Err: 'static $(, $param)?> SaysUnsent<Err> for $protocol {
            fn says_unsent(error: &Err) -> bool {
                any_unsent(error)
            }
        }
    )*};
}
says_unsent!(Reply; Gateway; Render<F>, F);

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;
    use crate::{ChainError, Error};
    use std::io;

    #[test]
    fn the_mark_is_seen_behind_any_box() {
        let marked = || Unsent::new("no connection");
        assert!(is_unsent(&marked()));
        assert!(is_unsent(&io::Error::other(marked())));
        let boxed: BoxError = marked().into();
        assert!(is_unsent(ChainError::cause(&boxed).unwrap()), "all that a chain can see of a box");
        assert!(is_unsent(ChainError::cause(&Error::Inner(marked())).unwrap()));
        assert!(chain(&Unsent::new(io::Error::from(io::ErrorKind::TimedOut))).any(|cause| cause.is::<io::Error>()));
        assert_eq!(marked().get_ref().to_string(), "no connection");
        assert_eq!(
            (marked().to_string(), marked().0.to_string()),
            ("the request was not sent".into(), "no connection".into())
        );
    }

    #[test]
    fn no_kind_of_error_says_by_itself_that_nothing_was_done_before() {
        use io::ErrorKind::*;
        for kind in [ConnectionRefused, AddrNotAvailable, ConnectionReset, BrokenPipe, TimedOut, HostUnreachable] {
            assert!(!is_unsent(&io::Error::from(kind)), "{kind}");
        }
    }

    #[test]
    fn of_our_refusals_those_of_a_connection() {
        for reason in Reason::ALL {
            let unsent = matches!(reason, Reason::ConnectRefused | Reason::ConnectTimeout);
            assert_eq!(is_unsent(&Rejection::new(reason, "layer")), unsent, "{reason:?}");
        }
    }

    #[test]
    fn what_a_request_body_met_says_nothing() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(!is_unsent(&io::Error::other(RequestBodyError::new(refused))));
        assert!(!is_unsent(&io::Error::other(RequestBodyError::new(Unsent::new("of another request")))));
        // All that a chain can see of a boxed one is its mark.
        let boxed: BoxError = RequestBodyError::new(Unsent::new("of another request")).into();
        assert!(!is_unsent(ChainError::cause(&boxed).unwrap()));
    }

    /// What the peer did is told from what we did: tests/unsent.rs has both, of real connections.
    #[cfg(feature = "h2")]
    #[test]
    fn a_reset_that_nobody_sent_says_nothing() {
        assert!(!is_unsent(&io::Error::other(h2::Error::from(h2::Reason::REFUSED_STREAM))));
    }
}
