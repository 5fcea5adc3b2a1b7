//! axum servers over real sockets: the one-line use, limits across connections, bodies that hold their permit.

use axum::{
    Router,
    body::Body,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use buttress::{HttpServer, KeyedBulkheadLayer, KeyedConfig, prelude::*};
use buttress_sim::eventually;
use buttress_tests::{fresh_connections, serve};
use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tower::{ServiceBuilder, ServiceExt as _};

fn get_request(server: SocketAddr, path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://{server}{path}")).body(Empty::new()).unwrap()
}

#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

/// Waits at the gate, and counts how many do.
async fn wait(State(gate): State<Gate>) {
    let inside = gate.inside.fetch_add(1, SeqCst) + 1;
    gate.peak.fetch_max(inside, SeqCst);
    let _ = gate.open.acquire().await;
    gate.inside.fetch_sub(1, SeqCst);
}

#[tokio::test]
async fn peer_02_a_limit_on_a_router_holds_across_ten_connections() {
    let gate = Gate { open: Arc::new(Semaphore::new(0)), inside: Arc::default(), peak: Arc::default() };
    let limit = buttress::http::BulkheadLayer::new(1);
    let handle = limit.handle();
    let app = Router::new().route("/", get(wait)).route("/other", get(wait)).layer(limit).with_state(gate.clone());
    let server = serve(app).await;
    let client = fresh_connections();

    let asked: Vec<_> = (0..10)
        .map(|n| tokio::spawn(client.request(get_request(server, if n % 2 == 0 { "/" } else { "/other" }))))
        .collect();
    eventually("nine are refused and one is inside", || handle.snapshot().refused_total == 9).await;
    gate.open.add_permits(10);
    let statuses: Vec<u16> =
        join_all(asked).await.into_iter().map(|res| res.unwrap().unwrap().status().as_u16()).collect();

    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 503).count(), 9, "{statuses:?}");
    assert_eq!(gate.peak.load(SeqCst), 1);
    eventually("the permit came back", || handle.snapshot().in_flight == 0).await;
}

#[tokio::test]
async fn a_streamed_body_holds_its_permit_to_its_end_and_gives_it_back_when_dropped() {
    let (frames, feed) = mpsc::channel::<Result<Bytes, Infallible>>(4);
    let stream = Arc::new(std::sync::Mutex::new(Some(feed)));
    let limit = buttress::http::BulkheadLayer::new(1);
    let handle = limit.handle();
    let events = async move || match stream.lock().unwrap().take() {
        Some(feed) => Body::from_stream(ReceiverStream::new(feed)).into_response(),
        None => Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>()).into_response(),
    };
    let server = serve(Router::new().route("/", get(events)).layer(limit)).await;
    let client = fresh_connections();

    let mut first = client.request(get_request(server, "/")).await.unwrap();
    frames.send(Ok(Bytes::from("one"))).await.unwrap();
    assert_eq!(first.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    let refused = client.request(get_request(server, "/")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "the head is out, the body is not");
    assert!(matches!(refused.headers()["retry-after"].as_bytes(), b"1" | b"2"));
    drop(frames);
    assert!(first.body_mut().frame().await.is_none());
    eventually("the body's end frees the permit", || handle.snapshot().in_flight == 0).await;

    let abandoned = client.request(get_request(server, "/")).await.unwrap();
    assert_eq!((abandoned.status(), handle.snapshot().in_flight), (StatusCode::OK, 1));
    drop(abandoned);
    eventually("the client going away frees the permit", || handle.snapshot().in_flight == 0).await;
}

#[tokio::test]
async fn a_whole_chain_on_a_router_needs_no_handle_error_layer() {
    let registry = Registry::new();
    let breaker = BreakerConfig::default().consecutive(3).open_for(Duration::from_secs(60)).build().unwrap();
    let app = Router::new()
        .route("/ok", get(async || "fine"))
        .route("/slow", get(async || std::future::pending::<()>().await))
        .route("/bad", post(async || StatusCode::INTERNAL_SERVER_ERROR))
        .layer(
            ServiceBuilder::new()
                .http_server()
                .registry(&registry)
                .deadline(Duration::from_millis(100))
                .breaker(breaker)
                .bulkhead(8),
        );
    let server = serve(app).await;
    let client = fresh_connections::<Full<Bytes>>();

    let ok = client.request(get_request(server, "/ok").map(|_| Full::default())).await.unwrap();
    assert_eq!(ok.into_body().collect().await.unwrap().to_bytes(), "fine");
    let slow = client.request(get_request(server, "/slow").map(|_| Full::default())).await.unwrap();
    assert_eq!(slow.status(), StatusCode::SERVICE_UNAVAILABLE, "an origin's passed deadline");
    // The passed deadline counts: two more failures make three.
    for _ in 0..2 {
        let bad = Request::post(format!("http://{server}/bad")).body(Full::from("x")).unwrap();
        assert_eq!(client.request(bad).await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    let problem =
        Request::get(format!("http://{server}/ok")).header("accept", "application/json").body(Full::default());
    let open = client.request(problem.unwrap()).await.unwrap();
    assert_eq!(
        (open.status(), open.headers()["content-type"].as_bytes()),
        (StatusCode::SERVICE_UNAVAILABLE, &b"application/problem+json"[..])
    );
    assert!((30..=72).contains(&open.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap()));
    let body: serde_json::Value =
        serde_json::from_slice(&open.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&body["reason"], &body["status"]), (&"breaker_open".into(), &503.into()));

    let names: Vec<_> = registry.snapshot().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["deadline", "breaker", "bulkhead"]);
}

#[tokio::test]
async fn an_upgraded_connection_concludes_at_101() {
    let limit = buttress::BulkheadLayer::new(4).protocol(HttpServer::new());
    let app = Router::new().route(
        "/ws",
        get(async |upgrade: axum::extract::WebSocketUpgrade| {
            upgrade.on_upgrade(async |mut socket| while socket.next().await.is_some() {})
        }),
    );
    let server = serve(app.layer(limit)).await;
    let request = Request::get(format!("http://{server}/ws"))
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let switched = fresh_connections().request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(switched.status(), StatusCode::SWITCHING_PROTOCOLS);
}

#[tokio::test]
async fn each_tenant_of_a_router_has_a_limit_of_its_own() {
    let per_tenant = KeyedConfig::new(100)
        .build(|req: &Request<Body>| req.headers().get("x-tenant").cloned(), |_| Bulkhead::from(1))
        .unwrap();
    let layer = KeyedBulkheadLayer::<Option<http::HeaderValue>, _>::new(per_tenant);
    let tenants = layer.handle();
    let app: Router =
        Router::new().route("/", get(async || "hello")).layer(ServiceBuilder::new().http_server().with(layer));
    let ask =
        |tenant: &str| app.clone().oneshot(Request::get("/").header("x-tenant", tenant).body(Body::empty()).unwrap());

    // Its body is not read, so it is under way.
    let first = ask("a").await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(ask("a").await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask("b").await.unwrap().status(), StatusCode::OK);
    drop(first);
    assert_eq!(ask("a").await.unwrap().status(), StatusCode::OK);
    assert_eq!(tenants.snapshot().keys, 2);
}

#[tokio::test]
async fn behind_an_upload_layer_slow_uploads_do_not_open_a_breaker() {
    let breaker = BreakerConfig::default().consecutive(2).hang_after(Duration::from_millis(50)).build().unwrap();
    let layer = buttress::http::BreakerLayer::new(breaker);
    let handle = layer.handle();
    let app = Router::new().route("/", post(async |body: Bytes| body.len().to_string()));
    let server = serve(app.layer(ServiceBuilder::new().layer(buttress::http::UploadLayer).layer(layer))).await;
    let client = fresh_connections();
    for stays in [true, false] {
        let uploads: Vec<_> = (0..4)
            .map(|_| {
                let (frames, feed) = mpsc::channel::<Result<Bytes, Infallible>>(4);
                let body = Body::from_stream(ReceiverStream::new(feed));
                let req = Request::post(format!("http://{server}/")).body(body).unwrap();
                (frames, tokio::spawn(client.request(req)))
            })
            .collect();
        for frame in ["some", "more"] {
            for (frames, _) in &uploads {
                frames.send(Ok(Bytes::from(frame))).await.unwrap();
            }
            // Far beyond `hang_after`: what is not to happen has no condition to wait for.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        for (frames, call) in uploads {
            drop(frames);
            if stays {
                assert_eq!(call.await.unwrap().unwrap().status(), 200);
            } else {
                call.abort();
            }
        }
        eventually("all calls are over", || handle.snapshot().in_flight == 0).await;
        let seen = handle.snapshot();
        assert_eq!((seen.failures, seen.opened_total), (0, 0), "they stay: {stays}");
    }
}
