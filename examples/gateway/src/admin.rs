//! The admin pages: is it alive, is it ready, what do its layers do.

use crate::{
    chain::ResponseBody,
    proxy::{Gateway, plain},
    server::Phase,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, json};
use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};

/// Serves the admin pages for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, gateway: Arc<Gateway>, phases: watch::Receiver<Phase>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (gateway, phases) = (gateway.clone(), phases.clone());
        tokio::spawn(async move {
            let pages = service_fn(|req| {
                let res = page(&req, &gateway, *phases.borrow());
                async { Ok::<_, Infallible>(res) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), pages)
                .await;
        });
    }
}

fn page<B>(req: &Request<B>, gateway: &Gateway, phase: Phase) -> Response<ResponseBody> {
    if !is_local(req) {
        return plain(StatusCode::FORBIDDEN, "ask for localhost, or for an IP address");
    }
    if req.method() != Method::GET && req.method() != Method::HEAD {
        let mut res = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only");
        res.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return res;
    }
    match req.uri().path() {
        "/livez" => plain(StatusCode::OK, "alive"),
        "/readyz" if phase == Phase::Running => plain(StatusCode::OK, "ready"),
        "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "draining"),
        "/status" => status(gateway, phase),
        _ => plain(StatusCode::NOT_FOUND, "there are /livez, /readyz and /status"),
    }
}

/// Whether the request was meant for this listener: a web page whose name was pointed at it (DNS rebinding) was not.
fn is_local<B>(req: &Request<B>) -> bool {
    let host = req.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let host = host.and_then(|value| value.parse::<http::uri::Authority>().ok());
    host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

fn status(gateway: &Gateway, phase: Phase) -> Response<ResponseBody> {
    let mut layers = Map::new();
    for entry in gateway.controls().registry.snapshot() {
        let mut readings = serde_json::to_value(&entry).unwrap_or_default();
        // The key says it.
        readings.as_object_mut().and_then(|readings| readings.remove("name"));
        layers.insert(entry.name, readings);
    }
    let state = match phase {
        Phase::Running => "running",
        Phase::Draining => "draining",
        Phase::Stopping => "stopping",
    };
    let text = format!("{:#}\n", json!({ "state": state, "layers": layers }));
    let mut res = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
    res.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    res
}
