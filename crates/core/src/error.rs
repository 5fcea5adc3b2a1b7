use crate::Rejection;
use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tower_service::Service;

/// The error type of tower's own middleware.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The flat error of a chain: a refusal of ours, or the error of the innermost service.
///
/// Made once, at the bottom, by `.lift_errors()`; no layer above changes the type again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// A layer refused the call.
    Rejected(Rejection),
    /// The service failed by itself.
    Inner(E),
}

impl<E> Error<E> {
    /// The refusal, if it is one.
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Inner(_) => None,
        }
    }

    /// The service's own error, if it is one.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Rejected(_) => None,
            Self::Inner(error) => Some(error),
        }
    }
}

impl<E> From<Rejection> for Error<E> {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: StdError + 'static> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Inner(error) => error.source(),
        }
    }
}

/// An error that a chain can refuse with, and in which it recognises a refusal.
///
/// [`Error<E>`] and [`BoxError`] are; an error type of your own needs `From<Rejection>` and this one line:
///
/// ```
/// use buttress_core::{ChainError, Rejection};
///
/// enum DbError {
///     Refused(Rejection),
///     Lost,
/// }
/// impl From<Rejection> for DbError {
///     fn from(rejection: Rejection) -> Self {
///         Self::Refused(rejection)
///     }
/// }
/// impl ChainError for DbError {
///     fn rejection(&self) -> Option<Rejection> {
///         if let Self::Refused(rejection) = self { Some(*rejection) } else { None }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a layer cannot refuse a call with the error `{Self}`",
    label = "this service's error cannot carry a `Rejection`",
    note = "HTTP or gRPC server: let refusals be responses: take the layer of `buttress::http` (`buttress::http::BulkheadLayer`), or after `ServiceBuilder::new().http_server()` add it by its own method or with `.with(..)`; `.layer(..)` leaves it as it is",
    note = "client: `.lift_errors()` on the innermost service turns its error into `Error<{Self}>`",
    note = "own error type: implement `From<Rejection>` and `ChainError` for it"
)]
pub trait ChainError: From<Rejection> {
    /// The refusal this error stands for, if it does.
    fn rejection(&self) -> Option<Rejection>;

    /// The error whose sources tell what happened (a client's aborted upload, an HTTP/2 CANCEL). `None`: nobody looks.
    fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        None
    }
}

impl<E: StdError + 'static> ChainError for Error<E> {
    fn rejection(&self) -> Option<Rejection> {
        match self {
            Self::Rejected(rejection) => Some(*rejection),
            Self::Inner(error) => Rejection::find(error),
        }
    }
    fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Rejected(_) => None,
            Self::Inner(error) => Some(error),
        }
    }
}

/// For a box of any lifetime, or a chain could not be awaited in a spawned async block: there the compiler forgets that it is
/// `'static`. Such a box shows its sources, and they are enough.
impl ChainError for Box<dyn StdError + Send + Sync + '_> {
    fn rejection(&self) -> Option<Rejection> {
        self.source().and_then(Rejection::find)
    }
    fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        self.source()
    }
}

/// Turns a service's error `E` into [`Error<E>`], so that layers above can refuse. Made by `.lift_errors()`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lift<S>(S);

impl<S> Lift<S> {
    /// Lifts the errors of `inner`.
    pub fn new(inner: S) -> Self {
        Self(inner)
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.0
    }
}

impl<S: Service<Req>, Req> Service<Req> for Lift<S> {
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = LiftFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Error::Inner)
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        LiftFuture { inner: self.0.call(req) }
    }
}

pin_project_lite::pin_project! {
    /// The future of [`Lift`].
    #[derive(Debug)]
    pub struct LiftFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F: Future<Output = Result<T, E>>, T, E> Future for LiftFuture<F> {
    type Output = Result<T, Error<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map_err(Error::Inner)
    }
}

/// An error and its sources. An [`std::io::Error`] made of another error shows that one, too (its `source()` skips it).
pub(crate) fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| match e.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()) {
        Some(inner) => Some(inner as _),
        None => e.source(),
    })
}
