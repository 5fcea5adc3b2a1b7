use super::Unsent;
use crate::{BoxError, ChainError, Rejection, error::chain};
use std::{error::Error as StdError, fmt, io};

/// What a transport failed with, as one type with a name: for transports whose own error says too little (a tonic `Channel`, a
/// connector of your own), and in place of a [`BoxError`], which generated tonic clients cannot take into a spawned task.
///
/// ```
/// use buttress_core::{ChainError, http::{TransportError, is_unsent}};
/// use std::io;
///
/// // `.service(channel.map_err(TransportError::unsent_if_refused))`
/// let refused = TransportError::unsent_if_refused(io::Error::from(io::ErrorKind::ConnectionRefused));
/// assert!(is_unsent(&refused));
/// let reset = TransportError::unsent_if_refused(io::Error::from(io::ErrorKind::ConnectionReset));
/// assert!(!is_unsent(&reset));
/// ```
#[derive(Debug)]
pub struct TransportError(Kind);

#[derive(Debug)]
enum Kind {
    Rejected(Rejection),
    Unsent(Unsent),
    Other(BoxError),
}

impl TransportError {
    /// An error of which nothing more is known than its sources say.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(Kind::Other(error.into()))
    }

    /// One after which nothing of the request was processed: it may be sent again, whatever its method ([`Unsent`]).
    pub fn unsent(error: impl Into<BoxError>) -> Self {
        Self(Kind::Unsent(Unsent::new(error)))
    }

    /// [`unsent`](Self::unsent) if its sources hold a connection that was refused.
    ///
    /// Only for a transport that makes one connection for a request and no second one: a client that follows redirects, or a
    /// service that does something and then calls another, may have done its work before.
    pub fn unsent_if_refused(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        let is_refused = |cause: &(dyn StdError + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
        };
        if chain(&*error).any(is_refused) { Self::unsent(error) } else { Self::new(error) }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Rejected(rejection) => rejection.fmt(f),
            Kind::Unsent(error) => error.fmt(f),
            Kind::Other(error) => error.fmt(f),
        }
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(match &self.0 {
            Kind::Rejected(rejection) => rejection,
            Kind::Unsent(error) => error,
            Kind::Other(error) => &**error,
        })
    }
}

impl From<Rejection> for TransportError {
    fn from(rejection: Rejection) -> Self {
        Self(Kind::Rejected(rejection))
    }
}

impl ChainError for TransportError {
    fn rejection(&self) -> Option<Rejection> {
        match &self.0 {
            Kind::Rejected(rejection) => Some(*rejection),
            Kind::Unsent(_) => None,
            Kind::Other(error) => Rejection::find(&**error),
        }
    }

    fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self)
    }
}
