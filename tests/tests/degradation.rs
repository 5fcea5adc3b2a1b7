//! Degradation over real sockets: axum servers, a tonic server and its generated client, a hyper client.

use axum::{
    Router,
    extract::State as Shared,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use buttress::{
    CoalesceLayer, Hyper, Levels, StaticResponse, backup,
    core::{DegradedBy, http::X_DEGRADED},
    fallback::{Coalesce, Switch},
    http::OriginLayer,
    prelude::*,
};
use buttress_sim::eventually;
use buttress_tests::{fresh_connections, serve};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tower::{ServiceBuilder, ServiceExt as _};

async fn ask(server: SocketAddr, path: &str) -> Response<Bytes> {
    let req = Request::get(format!("http://{server}{path}")).body(Empty::<Bytes>::new()).unwrap();
    let (head, body) = fresh_connections().request(req).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// Status, body, and the mark of a degraded answer.
fn seen(res: &Response<Bytes>) -> (u16, &[u8], &str) {
    let mark = res.headers().get(X_DEGRADED).map_or("", |mark| mark.to_str().unwrap());
    (res.status().as_u16(), &res.body()[..], mark)
}

#[tokio::test]
async fn a_router_whose_handlers_fail_or_hang_gives_the_last_good_answer_or_a_page() {
    let works = Arc::new(AtomicBool::new(true));
    let news = async |Shared(works): Shared<Arc<AtomicBool>>| match works.load(SeqCst) {
        true => Ok("news"),
        false => Err(StatusCode::BAD_GATEWAY),
    };
    let stuck = async |Shared(works): Shared<Arc<AtomicBool>>| {
        while !works.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        "at last"
    };
    let registry = Registry::new();
    let chain = ServiceBuilder::new()
        .http_server()
        .registry(&registry)
        .telemetry(Telemetry::server())
        .fallback(StaticResponse::new(503, "text/plain", "back soon").unwrap())
        .stale(StaleConfig::default().max(Duration::from_secs(60)).build().unwrap())
        .deadline(Duration::from_millis(100))
        .bulkhead(8);
    let app = Router::new()
        .route("/news", get(news).post(news))
        .route("/stuck", get(stuck))
        .route("/never", get(stuck))
        .layer(chain)
        .with_state(works.clone());
    let server = serve(app).await;
    assert_eq!(seen(&ask(server, "/news").await), (200, &b"news"[..], ""));
    assert_eq!(seen(&ask(server, "/stuck").await), (200, &b"at last"[..], ""));

    works.store(false, SeqCst);
    assert_eq!(seen(&ask(server, "/news").await), (200, &b"news"[..], "stale; cause=failure"));
    assert_eq!(seen(&ask(server, "/stuck").await), (200, &b"at last"[..], "stale; cause=deadline_passed"));
    assert_eq!(seen(&ask(server, "/never").await), (503, &b"back soon"[..], "fallback; cause=deadline_passed"));
    assert_eq!(seen(&ask(server, "/nowhere").await).0, 404, "a client's mistake is answered as it is");

    let telemetry = registry.get("telemetry").unwrap();
    let mut degraded = 0;
    telemetry.visit(&mut |name, value| {
        if let ("degraded_total", buttress::Value::Count(count)) = (name, value) {
            degraded = count;
        }
    });
    assert_eq!(degraded, 3);
    assert_eq!(DegradedBy::ALL.map(DegradedBy::as_str)[..2], ["fallback", "stale"]);
}

#[tokio::test]
async fn a_hundred_connections_that_ask_the_same_make_one_call_and_one_user_never_gets_anothers() {
    let gate = Arc::new(Semaphore::new(0));
    let calls = Arc::new(AtomicUsize::new(0));
    let price = {
        let (gate, calls) = (gate.clone(), calls.clone());
        async move |headers: HeaderMap| {
            calls.fetch_add(1, SeqCst);
            gate.acquire().await.unwrap().forget();
            headers.get("authorization").map_or("nobody".to_owned(), |value| value.to_str().unwrap().to_owned())
        }
    };
    let layer = CoalesceLayer::http(Coalesce::default());
    let handle = layer.handle();
    let server = serve(Router::new().route("/price", get(price)).layer(layer)).await;
    let client = fresh_connections::<Empty<Bytes>>();
    let users = ["ann", "bob"];
    let asked = (0..100).map(|n| {
        let req = Request::get(format!("http://{server}/price")).header("authorization", users[n % 2]);
        let call = client.request(req.body(Empty::new()).unwrap());
        tokio::spawn(async move { call.await.unwrap().into_body().collect().await.unwrap().to_bytes() })
    });
    let asked: Vec<_> = asked.collect();
    eventually("everybody waits", || {
        let seen = handle.snapshot();
        seen.calls_total + seen.shared_total == 100
    })
    .await;
    gate.add_permits(100);
    for (n, answer) in join_all(asked).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), users[n % 2]);
    }
    assert_eq!(calls.load(SeqCst), 2, "one for each user");
}

#[tokio::test]
async fn a_feature_is_given_up_level_by_level_and_a_grpc_client_sees_unavailable() {
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Code, transport::Channel, transport::Server};
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    let levels: Levels = LevelsConfig::new("full").level("no health", 0.5).build().unwrap();
    let toggle = ToggleConfig::new("health").level(&levels, "no health").unwrap().build().unwrap();
    let layer = buttress::ToggleLayer::new(toggle.clone(), backup::none());
    let (_, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let chain = ServiceBuilder::new().http_server().with(layer);
    let server = Server::builder().layer(chain).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut client = HealthClient::new(Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy());
    let mut check = async || client.check(HealthCheckRequest { service: String::new() }).await;

    assert_eq!(check().await.unwrap().into_inner().status, 1);
    levels.pin("no health").unwrap();
    let refused = check().await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "switched off"));
    toggle.set(Switch::On);
    assert!(check().await.is_ok());
    toggle.set(Switch::Auto);
    levels.pin("full").unwrap();
    assert!(check().await.is_ok());
}

#[tokio::test]
async fn a_client_turns_to_the_next_server_and_comes_back() {
    let broken = Arc::new(AtomicBool::new(false));
    let app = |name: &'static str, broken: Option<Arc<AtomicBool>>| {
        let answer = async move || match broken {
            Some(broken) if broken.load(SeqCst) => Err(StatusCode::INTERNAL_SERVER_ERROR),
            _ => Ok(name),
        };
        Router::new().route("/", get(answer))
    };
    let (west, east) = (serve(app("west", Some(broken.clone()))).await, serve(app("east", None)).await);
    let at = |server: SocketAddr| {
        let origin = OriginLayer::new(&format!("http://{server}")).unwrap();
        ServiceBuilder::new().layer(origin).service(Hyper(fresh_connections()).lift_errors())
    };
    let failover = FailoverConfig::default()
        .primary("west")
        .fail_after(2)
        .return_after(2)
        .probe_every(Duration::from_millis(20))
        .backup("east", at(east))
        .build()
        .unwrap();
    let handle = failover.handle();
    let client = ServiceBuilder::new().http_client().with(failover).service(at(west));
    let call = async || {
        let req = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
        let (head, body) = client.clone().oneshot(req).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    };
    assert_eq!(seen(&call().await), (200, &b"west"[..], ""));
    broken.store(true, SeqCst);
    for _ in 0..3 {
        let res = call().await;
        let (status, body, mark) = seen(&res);
        assert!((status, body) == (200, b"east") && mark.starts_with("failover; "), "{mark}");
    }
    assert_eq!(handle.snapshot().failovers_total, 1);

    broken.store(false, SeqCst);
    let back = async {
        while seen(&call().await) != (200, &b"west"[..], "") || handle.snapshot().returns_total == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("it comes back");
}
