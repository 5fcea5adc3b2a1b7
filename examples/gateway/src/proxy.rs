//! What a reverse proxy does to requests and responses (RFC 9110, 7.6), and who answers when nobody else can.

use crate::{
    chain::{self, Chain, ResponseBody},
    config::{self, Config},
    upload::{Bounded, Fault},
    upstream::{self, Failed},
};
use buttress::{
    ConfigError, Reason, Registry, Rejection,
    core::{Call, NoCut, Protocol},
    http::{self as http_protocol, HttpCall, HttpGateway},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, poll_fn},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};
use tower::ServiceExt;

/// Our name in `Via` and `Proxy-Status`.
const NAME: &str = "buttress";

/// Routes requests and answers for them.
pub(crate) struct Gateway {
    /// Longest prefix first.
    routes: Vec<Route>,
    registry: Registry,
}

impl Gateway {
    /// Builds every chain; the config has been judged.
    pub(crate) fn build(config: &Config) -> Result<Self, ConfigError> {
        let registry = Registry::new();
        let mut clusters = BTreeMap::new();
        for (name, cluster) in &config.clusters {
            clusters.insert(name.as_str(), chain::cluster(name, cluster, &registry)?);
        }
        let mut routes = Vec::new();
        for (name, route) in &config.routes {
            let Some(cluster) = clusters.get(route.cluster.as_str()) else { continue };
            let chain = chain::route(name, route, config.retry(route), &registry, cluster.clone())?;
            routes.push(Route {
                prefix: config::prefix(route.pattern()).to_owned(),
                chain,
                body_timeout: config.body_timeout(route),
            });
        }
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Ok(Self { routes, registry })
    }

    /// The handles of all layers: `upstream.a.breaker`.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Answers a request, whatever happens.
    pub(crate) async fn serve(&self, req: Request<Incoming>, peer: SocketAddr) -> Response<ResponseBody> {
        let call = HttpGateway::new(NAME).start_refusable(&req);
        answered(call, self.forward(req, peer)).await
    }

    async fn forward(&self, req: Request<Incoming>, peer: SocketAddr) -> Result<Response<ResponseBody>, Refused> {
        let host = host(&req)?;
        if has_dot_segments(req.uri().path()) {
            return Err(Refused::Plain(StatusCode::BAD_REQUEST, "the path has dot segments"));
        }
        let route = self.route(req.uri().path()).ok_or(Refused::Plain(StatusCode::NOT_FOUND, "no such route"))?;
        let mut req = Bounded::wrap(req, route.body_timeout);
        clean_request(&mut req, host, peer);
        let mut res = route.chain.clone().oneshot(req).await.map_err(|error| match upstream::failed(&error) {
            Failed::Client(Fault::BrokeOff) => Refused::Plain(StatusCode::BAD_REQUEST, "the request body broke off"),
            Failed::Client(Fault::Stalled) => Refused::Plain(StatusCode::REQUEST_TIMEOUT, "the request body stalled"),
            Failed::Refused(rejection) => Refused::By(rejection),
        })?;
        if let Some(rejection) = res.extensions().get::<Rejection>() {
            return Err(Refused::By(*rejection));
        }
        clean_response(&mut res);
        Ok(res)
    }

    fn route(&self, path: &str) -> Option<&Route> {
        let below =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.routes.iter().find(|route| below(&route.prefix))
    }
}

struct Route {
    prefix: String,
    chain: Chain,
    body_timeout: Duration,
}

/// Why a request gets no answer from an upstream.
enum Refused {
    /// It never was for one.
    Plain(StatusCode, &'static str),
    By(Rejection),
}

pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut res = Response::new(Full::from(format!("{text}\n")).map_err(|never| match never {}).boxed_unsync());
    *res.status_mut() = status;
    res.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    res
}

/// The one host a request is for (RFC 9112, 3.2; RFC 9113, 8.3.1). HTTP/1.0 may have none.
fn host<B>(req: &Request<B>) -> Result<Option<HeaderValue>, Refused> {
    let wrong = |text| Err(Refused::Plain(StatusCode::BAD_REQUEST, text));
    if req.method() == Method::CONNECT {
        return Err(Refused::Plain(StatusCode::NOT_IMPLEMENTED, "CONNECT is for forward proxies"));
    }
    let mut named = req.headers().get_all(header::HOST).iter();
    let (first, second) = (named.next(), named.next());
    if second.is_some() {
        return wrong("more than one Host");
    }
    if let Some(value) = first
        && (value.is_empty() || value.to_str().ok().and_then(|v| v.parse::<http::uri::Authority>().ok()).is_none())
    {
        return wrong("not a Host");
    }
    // The target of an absolute-form request, or `:authority`, wins over the header.
    match req.uri().authority() {
        Some(authority) if authority.as_str().contains('@') => wrong("credentials in the target"),
        Some(authority) => Ok(HeaderValue::from_str(authority.as_str()).ok()),
        None if first.is_some() => Ok(first.cloned()),
        None if req.version() <= Version::HTTP_10 => Ok(None),
        None => wrong("no Host"),
    }
}

/// Whether a server might resolve `path` to one that another route is for (RFC 3986, 5.2.4): `..` or `.` between slashes or
/// backslashes, each of them as it is or percent-encoded, and with parameters behind `;` or without.
fn has_dot_segments(path: &str) -> bool {
    let mut rest = path.as_bytes();
    let decoded = std::iter::from_fn(|| {
        let hex = |byte: u8| char::from(byte).to_digit(16);
        let (byte, len) = if let [b'%', high, low, ..] = *rest
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            ((high << 4 | low) as u8, 3)
        } else {
            (*rest.first()?, 1)
        };
        rest = &rest[len..];
        Some(byte)
    });
    // How many dots the segment has so far; `None`: it has something else.
    let mut dots = None;
    for byte in decoded.chain([b'/']) {
        match byte {
            b'/' | b'\\' | b';' if matches!(dots, Some(1 | 2)) => return true,
            b'/' | b'\\' => dots = Some(0),
            b'.' => dots = dots.map(|n: u8| n.saturating_add(1)),
            _ => dots = None,
        }
    }
    false
}

fn clean_request<B>(req: &mut Request<B>, host: Option<HeaderValue>, peer: SocketAddr) {
    let version = req.version();
    let headers = req.headers_mut();
    let trailers = headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // hyper has said 100 to the client by the time the body is read.
    headers.remove(header::EXPECT);
    // Nobody in front of us is trusted: what they say of themselves is replaced.
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
    let text = |text: String| HeaderValue::try_from(text).expect("an address is a header value");
    headers.insert("x-forwarded-for", text(peer.ip().to_string()));
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    let node = match peer {
        SocketAddr::V4(peer) => peer.ip().to_string(),
        SocketAddr::V6(peer) => format!("\"[{}]\"", peer.ip()),
    };
    let mut forwarded = format!("for={node};proto=http");
    headers.remove(header::HOST);
    if let Some(host) = host {
        if let Ok(name) = host.to_str() {
            forwarded = format!("{forwarded};host=\"{name}\"");
        }
        headers.insert("x-forwarded-host", host.clone());
        headers.insert(header::HOST, host);
    }
    headers.insert(header::FORWARDED, HeaderValue::try_from(forwarded).expect("a host is a header value"));
    add_via(headers, version);
}

/// Whether servers, and the layers in front of them, take the header `name` from a proxy as the truth about a request: where it
/// comes from, what it was for, how often it was sent. `_` and `-` are the same to those that speak CGI.
fn is_claim(name: &str) -> bool {
    let begins = |known: &str| {
        name.len() >= known.len() && name.bytes().zip(known.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    };
    [
        "x-forwarded",
        "x-original-",
        "x-rewrite-",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "x-envoy-",
    ]
    .into_iter()
    .any(begins)
}

fn clean_response<B>(res: &mut Response<B>) {
    let version = res.version();
    // hyper writes the version of the connection it answers on.
    *res.version_mut() = Version::HTTP_11;
    remove_hop_by_hop(res.headers_mut());
    add_via(res.headers_mut(), version);
}

/// RFC 9110, 7.6.1: what `Connection` lists, and what is known to be for one connection only.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        headers.remove(name);
    }
}

fn add_via(headers: &mut HeaderMap, version: Version) {
    let received = match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    headers.append(header::VIA, HeaderValue::try_from(format!("{received} {NAME}")).expect("ASCII"));
}

/// The answer, if need be our own: a refusal becomes a response, and so does a panic.
async fn answered(
    call: HttpCall<http_protocol::Gateway, http_protocol::Table>,
    forwarded: impl Future<Output = Result<Response<ResponseBody>, Refused>>,
) -> Response<ResponseBody> {
    let rejection = match unpanicked(forwarded).await {
        Ok(Ok(res)) => return res,
        Ok(Err(Refused::Plain(status, text))) => return plain(status, text),
        Ok(Err(Refused::By(rejection))) => rejection,
        Err(Panicked) => Rejection::new(Reason::Panicked, "gateway"),
    };
    let refused: Result<_, Infallible> = Call::<Response<ResponseBody>, _>::reject::<(), NoCut>(call, rejection);
    let Ok(refused) = refused;
    refused.map(|body| body.map_err(Into::into).boxed_unsync())
}

struct Panicked;

/// A panic in the chain is this request's misfortune, and nobody else's.
async fn unpanicked<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500_with_its_reason() {
        let req = Request::get("/").body(()).unwrap();
        let call = HttpGateway::new(NAME).start_refusable(&req);
        let res = answered(call, async { panic!("a bug") }).await;
        assert_eq!(res.status(), 500);
        assert_eq!(res.headers()["proxy-status"], "buttress; error=proxy_internal_response");
    }
}
