//! One upstream endpoint: a connection pool, and what its errors mean.

mod connector;
mod pool;

use crate::{
    config, tls, tunnel,
    upload::{Carried, Fault, Notes},
};
use buttress::{
    BoxError, ConfigError, Error, Hyper, HyperError, Reason, Rejection,
    http::{ReplayBody, RequestBodyError, Unsent, error_outcome},
    hyper::HyperFuture,
};
use bytes::Bytes;
use connector::Connector;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header, uri};
use http_body::{Body, Frame, SizeHint};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use pool::{Connections, Failure, Received, Sending};
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
    /// Marked where nothing of the request was sent.
    error: BoxError,
    /// No connection was made.
    is_connect: bool,
    /// The client failed, and the call with it.
    fault: Option<Fault>,
}

impl From<Failure> for PoolError {
    fn from(failure: Failure) -> Self {
        let is_connect = matches!(failure, Failure::Connect(_));
        let error = match failure {
            Failure::Broken(_) => failure.into(),
            Failure::Connect(_) | Failure::Unsent(_) => Unsent::new(failure).into(),
        };
        Self { error, is_connect, fault: None }
    }
}

impl From<HyperError> for PoolError {
    fn from(error: HyperError) -> Self {
        Self { is_connect: error.is_connect(), error: error.into(), fault: None }
    }
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
pub(crate) type Attempt = ReplayBody<Carried>;

/// The innermost service of a chain.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    client: Transport,
    scheme: uri::Scheme,
    authority: uri::Authority,
}

enum Transport {
    Http1(Arc<Connections>),
    Http2(Box<Hyper<Connector, Sent>>),
}

/// [`Attempt`] as it is sent. Most requests have no body, and what has none is small: hyper moves it many times.
pub(crate) struct Sent(Option<Pin<Box<Attempt>>>);

impl Body for Sent {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| body.as_mut().poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |body| body.size_hint())
    }
}

impl Pool {
    pub(crate) fn new(config: &config::Cluster, authority: uri::Authority) -> Result<Self, ConfigError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(config.connect_timeout));
        let connector = tls::connector(config.tls.as_ref(), connector, config.http2)?;
        let connector = Connector::new(connector, config.connect_timeout);
        let scheme = if config.tls.is_some() { uri::Scheme::HTTPS } else { uri::Scheme::HTTP };
        let client = if config.http2 {
            let client = Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(config.pool_idle)
                .http2_only(true)
                // Attempts are ours to make and to count.
                .retry_canceled_requests(false)
                .build(connector);
            Transport::Http2(Box::new(Hyper(client)))
        } else {
            Transport::Http1(Connections::new(connector, &scheme, &authority, config.pool_idle))
        };
        Ok(Self(Arc::new(Inner { client, scheme, authority })))
    }
}

impl Inner {
    fn send(&self, mut req: Request<Sent>, asked: Option<&tunnel::Asked>) -> Reply {
        *req.version_mut() = Version::HTTP_11;
        let path = req.uri().path_and_query().cloned().unwrap_or_else(|| uri::PathAndQuery::from_static("/"));
        match &self.client {
            Transport::Http1(connections) => {
                // A target that has no more than a path is one already.
                if req.uri().authority().is_some() {
                    *req.uri_mut() = path.into();
                }
                let has_length = req.body().size_hint().exact().is_some();
                let headers = req.headers_mut();
                // hyper sends no body with a GET or a HEAD whose head does not say that there is one.
                if !has_length && !headers.contains_key(header::CONTENT_LENGTH) {
                    headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                if !headers.contains_key(header::HOST) {
                    let authority = HeaderValue::from_str(self.authority.as_str());
                    headers.insert(header::HOST, authority.expect("an authority is a header value"));
                }
                // RFC 9110, 10.1.4: TE is a header of this connection.
                let te = headers.contains_key(header::TE);
                let options = match asked {
                    Some(tunnel::Asked(protocol)) => {
                        headers.insert(header::UPGRADE, protocol.clone());
                        Some(if te { "upgrade, te" } else { "upgrade" })
                    }
                    None => te.then_some("te"),
                };
                if let Some(options) = options {
                    headers.insert(header::CONNECTION, HeaderValue::from_static(options));
                }
                Reply::Http1(connections.send(req))
            }
            Transport::Http2(client) => {
                let mut parts = uri::Parts::default();
                parts.scheme = Some(self.scheme.clone());
                parts.authority = Some(self.authority.clone());
                parts.path_and_query = Some(path);
                *req.uri_mut() = Uri::from_parts(parts).expect("a scheme, an authority and a path are a URI");
                // `:authority` says it.
                req.headers_mut().remove(header::HOST);
                Reply::Http2((&**client).call(req))
            }
        }
    }
}

impl Service<Request<Attempt>> for Pool {
    type Response = Response<Received>;
    type Error = PoolError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PoolError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Request<Attempt>) -> Answer {
        let (notes, asked) = (Notes::of(&req), req.extensions().get().cloned());
        let req = req.map(|body| Sent((!body.is_end_stream()).then(|| Box::pin(body))));
        Answer { reply: self.0.send(req, asked.as_ref()), notes, asked }
    }
}

/// The pool's future.
pub(crate) struct Answer {
    reply: Reply,
    /// `None`: there is no body to fail.
    notes: Option<Arc<Notes>>,
    asked: Option<tunnel::Asked>,
}

enum Reply {
    Http1(Sending),
    Http2(HyperFuture),
}

impl Future for Answer {
    type Output = Result<Response<Received>, PoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.reply {
            Reply::Http1(sending) => ready!(Pin::new(sending).poll(cx)).map_err(PoolError::from),
            Reply::Http2(future) => match ready!(Pin::new(future).poll(cx)) {
                Ok(res) => Ok(res.map(|body| Received::new(body, None))),
                Err(error) => Err(error.into()),
            },
        };
        Poll::Ready(match result {
            Ok(res) => {
                self.notes.iter().for_each(|notes| notes.answered());
                Ok(misframed_is_failed(unasked_is_failed(res, self.asked.as_ref())))
            }
            Err(error) => Err(PoolError { fault: self.notes.as_ref().and_then(|notes| notes.fault()), ..error }),
        })
    }
}

/// An upstream that switches to a protocol that nobody asked for has broken HTTP. The layers see a failure; nothing of the
/// answer goes further.
fn unasked_is_failed(res: Response<Received>, asked: Option<&tunnel::Asked>) -> Response<Received> {
    if !res.status().is_informational() || asked.is_some_and(|asked| tunnel::is_accepted(&res, asked)) {
        return res;
    }
    broken(res)
}

/// An answer in a coding other than chunks would lose it on its way, and be another one. Of one in chunks only they say how long
/// it is (RFC 9112, 6.3).
fn misframed_is_failed(mut res: Response<Received>) -> Response<Received> {
    let mut codings = res.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {
            // hyper takes `2, 2` for what it means; it goes on as one.
            let length = res.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
            if let Some((first, _)) = length.and_then(|length| length.split_once(','))
                && let Ok(length) = first.trim().parse::<u64>()
            {
                res.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            res
        }
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            res.headers_mut().remove(header::CONTENT_LENGTH);
            res
        }
        _ => broken(res),
    }
}

/// What is left of an answer that breaks HTTP.
fn broken(res: Response<Received>) -> Response<Received> {
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
    let reason = match error.is_connect {
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
