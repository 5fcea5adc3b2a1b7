//! The yardstick: what hyper and hyper-util do by themselves, as an example of theirs would.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header, uri};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use std::{
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::net::TcpListener;

struct Proxy {
    client: Client<HttpConnector, Incoming>,
    upstreams: Vec<uri::Authority>,
    next: AtomicUsize,
}

/// Passes what comes to `listen` on to `upstreams`, in turn.
#[tokio::main]
pub async fn run(listen: SocketAddr, upstreams: &[SocketAddr]) -> Result<Infallible, Box<dyn Error>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let upstreams = upstreams.iter().map(|address| address.to_string().parse()).collect::<Result<_, _>>()?;
    let proxy = Arc::new(Proxy { client, upstreams, next: AtomicUsize::new(0) });
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let proxy = proxy.clone();
        let service = service_fn(move |req| proxy.clone().pass_on(req));
        tokio::spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Proxy {
    async fn pass_on(self: Arc<Self>, mut req: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let upstream = &self.upstreams[self.next.fetch_add(1, Relaxed) % self.upstreams.len()];
        let mut parts = uri::Parts::default();
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(upstream.clone());
        parts.path_and_query = req.uri().path_and_query().cloned();
        let Ok(uri) = Uri::from_parts(parts) else { return Ok(failed(StatusCode::BAD_REQUEST)) };
        *req.uri_mut() = uri;
        req.headers_mut().remove(header::CONNECTION);
        Ok(match self.client.request(req).await {
            Ok(mut res) => {
                res.headers_mut().remove(header::CONNECTION);
                res.map(Either::Left)
            }
            Err(_) => failed(StatusCode::BAD_GATEWAY),
        })
    }
}

type Body = Either<Incoming, Full<Bytes>>;

fn failed(status: StatusCode) -> Response<Body> {
    let mut res = Response::new(Either::Right(Full::default()));
    *res.status_mut() = status;
    res.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    res
}
