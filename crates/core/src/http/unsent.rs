use crate::{BoxError, Reason, Rejection, error::chain};
use std::{error::Error as StdError, fmt, io};

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

/// Whether nothing of the request was processed, read from the error's sources: the mark ([`Unsent`]), a connection that was
/// refused, a refusal of ours that says so ([`Reason::ConnectRefused`], [`Reason::ConnectTimeout`]), and with the feature `h2`
/// a stream that the peer refused, or left out of its GOAWAY.
///
/// `false` means that nobody knows.
pub fn is_unsent(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(says_unsent)
}

fn says_unsent(cause: &(dyn StdError + 'static)) -> bool {
    if cause.is::<Unsent>() || cause.is::<Mark>() {
        return true;
    }
    if let Some(rejection) = Rejection::of(cause) {
        return matches!(rejection.reason, Reason::ConnectRefused | Reason::ConnectTimeout);
    }
    if let Some(io) = cause.downcast_ref::<io::Error>() {
        return matches!(io.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::AddrNotAvailable);
    }
    #[cfg(feature = "h2")]
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        return error.is_remote() && (refused || error.is_go_away());
    }
    false
}
