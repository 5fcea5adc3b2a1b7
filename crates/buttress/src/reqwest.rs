//! [`Reqwest`]: reqwest clients that speak `http::Request`, so that every HTTP layer fits (feature `reqwest`).

use buttress_core::BoxError;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tower_service::Service;

/// A [`reqwest::Client`] that takes `http::Request<B>` and gives `http::Response<reqwest::Body>`.
///
/// `reqwest::Response: From<http::Response<..>>`, so the comfortable methods (`.json()`, `.text()`) are one `into()` away:
/// see the `reqwest-client` example. Make the client with its own retries off, so that attempts are counted.
///
/// The error stays `reqwest::Error`, of which nobody can tell whether a redirect came before: so retries send a request again
/// after it only if its method is idempotent. A client that follows no redirects may say more, and then any method is sent again where
/// no connection could be made:
///
/// ```
/// use buttress::{Reqwest, http::TransportError, prelude::*};
/// use tower::{ServiceBuilder, util::MapErr};
///
/// # fn main() -> Result<(), reqwest::Error> {
/// let direct = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
/// let marked = MapErr::new(Reqwest(direct), |error: reqwest::Error| match error.is_connect() {
///     true => TransportError::unsent(error),
///     false => TransportError::new(error),
/// });
/// let client = ServiceBuilder::new().http_client().retry(Retry::default()).service(marked);
/// buttress::check::<http::Request<reqwest::Body>, _>(&client);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Reqwest(pub reqwest::Client);

impl<B> Service<Request<B>> for Reqwest
where
    B: Body<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = ReqwestFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, req: Request<B>) -> ReqwestFuture {
        let wrap = |body: B| if body.is_end_stream() { reqwest::Body::default() } else { reqwest::Body::wrap(body) };
        match reqwest::Request::try_from(req.map(wrap)) {
            Ok(req) => ReqwestFuture { state: State::Sent { inner: self.0.call(req) } },
            Err(error) => ReqwestFuture { state: State::Wrong { error: Some(error) } },
        }
    }
}

pin_project! {
    /// The future of [`Reqwest`].
    pub struct ReqwestFuture {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    enum State {
        Sent { #[pin] inner: <reqwest::Client as Service<reqwest::Request>>::Future },
        Wrong { error: Option<reqwest::Error> },
    }
}

impl fmt::Debug for ReqwestFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestFuture").finish_non_exhaustive()
    }
}

impl Future for ReqwestFuture {
    type Output = Result<Response<reqwest::Body>, reqwest::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Sent { inner } => inner.poll(cx).map_ok(Into::into),
            StateProj::Wrong { error } => {
                Poll::Ready(Err(error.take().expect("a future was polled after it had completed")))
            }
        }
    }
}
