//! One upstream endpoint: a connection pool, and what its errors mean.

use crate::config;
use buttress::{
    Error, Reason, Rejection,
    http::{RequestBodyError, error_outcome},
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, Version, header, uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, ResponseFuture, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tower::Service;

/// The pool's own error.
pub(crate) type PoolError = hyper_util::client::legacy::Error;

/// The innermost service of a chain.
#[derive(Clone)]
pub(crate) struct Pool {
    client: Client<HttpConnector, RequestBody>,
    authority: uri::Authority,
    http2: bool,
}

impl Pool {
    pub(crate) fn new(config: &config::Upstream) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(config.connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.pool_idle)
            .http2_only(config.http2)
            // Attempts are ours to make and to count.
            .retry_canceled_requests(false)
            .build(connector);
        Self { client, authority: config.address.clone(), http2: config.http2 }
    }

    fn address(&self, req: &mut Request<RequestBody>) {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query =
            Some(req.uri().path_and_query().cloned().unwrap_or_else(|| uri::PathAndQuery::from_static("/")));
        *req.uri_mut() = Uri::from_parts(parts).expect("a scheme, an authority and a path are a URI");
        *req.version_mut() = Version::HTTP_11;
        if self.http2 {
            // `:authority` says it.
            req.headers_mut().remove(header::HOST);
        } else if req.headers().contains_key(header::TE) {
            // RFC 9110, 10.1.4: TE is a header of this connection.
            req.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
    }
}

impl Service<Request<RequestBody>> for Pool {
    type Response = Response<Incoming>;
    type Error = PoolError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PoolError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut req: Request<RequestBody>) -> ResponseFuture {
        self.address(&mut req);
        self.client.request(req)
    }
}

/// Why a call did not get a response.
pub(crate) enum Failed {
    /// The client broke off its own request.
    Client,
    /// Ours or the upstream's doing.
    Refused(Rejection),
}

/// What the error of a chain means to the client.
pub(crate) fn failed(error: &Error<PoolError>) -> Failed {
    let error = match error {
        Error::Rejected(rejection) => return Failed::Refused(*rejection),
        Error::Inner(error) => error,
    };
    if let Some(rejection) = Rejection::find(error) {
        return Failed::Refused(rejection);
    }
    if sources(error).any(|e| e.is::<RequestBodyError>()) {
        return Failed::Client;
    }
    let timed_out =
        || sources(error).filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::TimedOut);
    let reason = match error.is_connect() {
        true if timed_out() => Reason::ConnectTimeout,
        true => Reason::ConnectRefused,
        false => Reason::PeerClosed,
    };
    tracing::debug!(%reason, outcome = ?error_outcome(error), error = error as &dyn StdError, "an upstream failed");
    Failed::Refused(Rejection::new(reason, "pool"))
}

fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

/// A client's request body on its way to an upstream. Its errors are the client's, and say so.
pub(crate) struct RequestBody(Incoming);

impl RequestBody {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(body)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(RequestBodyError::new)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
