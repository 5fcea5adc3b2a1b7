//! [`Hyper`]: hyper-util's clients, with errors that say what was not sent (feature `hyper-util`).

use buttress_core::{BoxError, http::Unsent};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client, connect::Connect};
use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tower_service::Service;

/// A [`hyper_util` client](Client) whose error says whether anything of the request was sent.
///
/// Without it a POST that found no connection, or a pooled one that its peer had just closed, fails: hyper's own errors cannot be told
/// from those of a connection that broke under a request. With it the retries send any method again.
///
/// Make the client with its own retries off, so that attempts are counted.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use buttress::{Hyper, prelude::*};
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::ServiceBuilder;
///
/// let hyper = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
/// let client = ServiceBuilder::new().http_client().retry(Retry::default()).service(Hyper(hyper).lift_errors());
/// buttress::check::<http::Request<Full<Bytes>>, _>(&client);
/// # }
/// ```
pub struct Hyper<C, B>(pub Client<C, B>);

// Whatever the body is.
impl<C: Clone, B> Clone for Hyper<C, B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C, B> fmt::Debug for Hyper<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hyper").field(&self.0).finish()
    }
}

impl<C, B> Service<Request<B>> for Hyper<C, B>
where
    C: Connect + Clone + Send + Sync + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Response = Response<Incoming>;
    type Error = HyperError;
    type Future = HyperFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HyperError>> {
        (&*self).poll_ready(cx)
    }

    fn call(&mut self, req: Request<B>) -> HyperFuture {
        (&*self).call(req)
    }
}

/// For a client that is shared behind a pointer: a clone of one is some hundred bytes.
impl<C, B> Service<Request<B>> for &Hyper<C, B>
where
    C: Connect + Clone + Send + Sync + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Response = Response<Incoming>;
    type Error = HyperError;
    type Future = HyperFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HyperError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Request<B>) -> HyperFuture {
        HyperFuture(self.0.request(req))
    }
}

/// The future of [`Hyper`].
pub struct HyperFuture(legacy::ResponseFuture);

impl fmt::Debug for HyperFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HyperFuture").finish_non_exhaustive()
    }
}

impl Future for HyperFuture {
    type Output = Result<Response<Incoming>, HyperError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(HyperError::from)
    }
}

/// An error of [`Hyper`]: hyper-util's, marked ([`Unsent`]) where nothing of the request was sent.
///
/// It reads as hyper-util's own, behind "the request was not sent" where that is so.
pub struct HyperError(Kind);

enum Kind {
    Unsent(Unsent),
    Other(legacy::Error),
}

impl HyperError {
    /// Whether nothing of the request was sent: no connection was made, or the pooled one was closed before it was written.
    pub fn is_unsent(&self) -> bool {
        matches!(self.0, Kind::Unsent(_))
    }

    /// Whether no connection was made.
    pub fn is_connect(&self) -> bool {
        self.get_ref().is_connect()
    }

    /// What hyper-util said.
    pub fn get_ref(&self) -> &legacy::Error {
        match &self.0 {
            Kind::Unsent(error) => error.get_ref().downcast_ref().expect("it was made of one"),
            Kind::Other(error) => error,
        }
    }
}

impl From<legacy::Error> for HyperError {
    fn from(error: legacy::Error) -> Self {
        // hyper gives a request up as canceled only where it was queued for a connection that then took no more. Only the error's
        // own cause says so: one further down may be of a request body that is read from another connection.
        let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
        let unsent = error.is_connect() || cause.is_some_and(hyper::Error::is_canceled);
        Self(if unsent { Kind::Unsent(Unsent::new(error)) } else { Kind::Other(error) })
    }
}

impl fmt::Debug for HyperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.is_unsent() { "HyperError::Unsent" } else { "HyperError" };
        f.debug_tuple(name).field(self.get_ref()).finish()
    }
}

impl fmt::Display for HyperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Unsent(error) => error.fmt(f),
            Kind::Other(error) => error.fmt(f),
        }
    }
}

impl StdError for HyperError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            // The mark, and below it hyper-util's error.
            Kind::Unsent(error) => error.source(),
            Kind::Other(error) => error.source(),
        }
    }
}

#[cfg(all(test, feature = "retry"))]
mod tests;
