//! One upstream endpoint: a connection pool, and what its errors mean.

use crate::{
    config, tls, tunnel,
    upload::{Fault, Notes, RequestBody},
};
use buttress::{
    ConfigError, Error, Hyper, HyperError, Reason, Rejection,
    http::{ReplayBody, error_outcome},
    hyper::HyperFuture,
};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header, uri};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    error::Error as StdError,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tower::Service;

/// Why the pool has no response.
#[derive(Debug)]
pub(crate) struct PoolError {
    error: HyperError,
    /// The client failed, and the call with it.
    fault: Option<Fault>,
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for PoolError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

/// The body of one attempt.
pub(crate) type Attempt = ReplayBody<RequestBody>;

/// The innermost service of a chain.
#[derive(Clone)]
pub(crate) struct Pool {
    client: Hyper<HttpsConnector<HttpConnector>, Attempt>,
    scheme: uri::Scheme,
    authority: uri::Authority,
    http2: bool,
}

impl Pool {
    pub(crate) fn new(config: &config::Cluster, authority: uri::Authority) -> Result<Self, ConfigError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(config.connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.pool_idle)
            .http2_only(config.http2)
            // Attempts are ours to make and to count.
            .retry_canceled_requests(false)
            .build(tls::connector(config.tls.as_ref(), connector, config.http2)?);
        let scheme = if config.tls.is_some() { uri::Scheme::HTTPS } else { uri::Scheme::HTTP };
        Ok(Self { client: Hyper(client), scheme, authority, http2: config.http2 })
    }

    fn address(&self, req: &mut Request<Attempt>) {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query =
            Some(req.uri().path_and_query().cloned().unwrap_or_else(|| uri::PathAndQuery::from_static("/")));
        *req.uri_mut() = Uri::from_parts(parts).expect("a scheme, an authority and a path are a URI");
        *req.version_mut() = Version::HTTP_11;
        if self.http2 {
            // `:authority` says it.
            req.headers_mut().remove(header::HOST);
            return;
        }
        // RFC 9110, 10.1.4: TE is a header of this connection.
        let te = req.headers().contains_key(header::TE);
        let options = match req.extensions().get::<tunnel::Asked>().cloned() {
            Some(tunnel::Asked(protocol)) => {
                req.headers_mut().insert(header::UPGRADE, protocol);
                if te { "upgrade, te" } else { "upgrade" }
            }
            None if te => "te",
            None => return,
        };
        req.headers_mut().insert(header::CONNECTION, HeaderValue::from_static(options));
    }
}

impl Service<Request<Attempt>> for Pool {
    type Response = Response<Incoming>;
    type Error = PoolError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PoolError>> {
        self.client.poll_ready(cx).map_err(|error| PoolError { error, fault: None })
    }

    fn call(&mut self, mut req: Request<Attempt>) -> Answer {
        self.address(&mut req);
        let (notes, asked) = (Notes::of(&req), req.extensions().get().cloned());
        Answer { future: self.client.call(req), notes, asked }
    }
}

/// The pool's future.
pub(crate) struct Answer {
    future: HyperFuture,
    notes: Arc<Notes>,
    asked: Option<tunnel::Asked>,
}

impl Future for Answer {
    type Output = Result<Response<Incoming>, PoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.future).poll(cx));
        Poll::Ready(match result {
            Ok(res) => {
                self.notes.answered();
                Ok(misframed_is_failed(unasked_is_failed(res, self.asked.as_ref())))
            }
            Err(error) => Err(PoolError { error, fault: self.notes.fault() }),
        })
    }
}

/// An upstream that switches to a protocol that nobody asked for has broken HTTP. The layers see a failure; nothing of the
/// answer goes further.
fn unasked_is_failed(res: Response<Incoming>, asked: Option<&tunnel::Asked>) -> Response<Incoming> {
    if !res.status().is_informational() || asked.is_some_and(|asked| tunnel::is_accepted(&res, asked)) {
        return res;
    }
    broken(res)
}

/// An answer in a coding other than chunks would lose it on its way, and be another one. Of one in chunks only they say how long
/// it is (RFC 9112, 6.3).
fn misframed_is_failed(mut res: Response<Incoming>) -> Response<Incoming> {
    let mut codings = res.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => res,
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            res.headers_mut().remove(header::CONTENT_LENGTH);
            res
        }
        _ => broken(res),
    }
}

/// What is left of an answer that breaks HTTP.
fn broken(res: Response<Incoming>) -> Response<Incoming> {
    let mut failed = Response::new(res.into_body());
    *failed.status_mut() = StatusCode::BAD_GATEWAY;
    failed.extensions_mut().insert(Rejection::new(Reason::PeerClosed, "pool"));
    failed
}

/// Why a call did not get a response.
pub(crate) enum Failed {
    /// The client's doing.
    Client(Fault),
    /// Ours or the upstream's doing.
    Refused(Rejection),
}

/// What the error of a chain means to the client.
pub(crate) fn failed(error: &Error<PoolError>) -> Failed {
    let error = match error {
        Error::Rejected(rejection) => return Failed::Refused(*rejection),
        Error::Inner(PoolError { fault: Some(fault), .. }) => return Failed::Client(*fault),
        Error::Inner(error) => error,
    };
    if let Some(rejection) = Rejection::find(error) {
        return Failed::Refused(rejection);
    }
    let timed_out =
        || sources(error).filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::TimedOut);
    let reason = match error.error.is_connect() {
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
