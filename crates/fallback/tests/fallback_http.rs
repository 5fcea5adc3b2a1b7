//! Fallbacks over HTTP: static answers, marks, gRPC, and an axum router.
#![cfg(feature = "http")]

use axum::{Router, body::Body, routing::get};
use buttress_breaker::BreakerConfig;
use buttress_core::{
    BoxError, Degraded, DegradedBy, Error, Handle, Mode, Reason, Rejection,
    http::{HttpClient, HttpServer, X_DEGRADED},
};
use buttress_fallback::{
    AnswerLayer, FallbackConfig, FallbackLayer, StaticResponse, ToggleConfig, ToggleLayer, backup,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use std::{
    convert::Infallible,
    fs,
    future::ready,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};

fn page() -> StaticResponse {
    StaticResponse::new(200, "text/html; charset=utf-8", "<h1>soon</h1>").unwrap()
}

/// A directory of this test's own.
fn directory(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("buttress-fallback-{test}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

async fn text<B: http_body::Body<Error: std::fmt::Debug>>(res: Response<B>) -> String {
    String::from_utf8(res.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_router_behind_an_open_circuit_answers_with_the_page() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let failing = move || {
        count.fetch_add(1, SeqCst);
        ready(StatusCode::INTERNAL_SERVER_ERROR)
    };
    let breaker = buttress_breaker::BreakerLayer::new(BreakerConfig::default().consecutive(2).build().unwrap());
    let layer = AnswerLayer::<_, HttpServer>::new(FallbackConfig::default(), page());
    let fallback = layer.handle();
    let router: Router = Router::new()
        .route("/", get(failing))
        .route_layer(breaker.protocol(HttpServer::new()))
        .route("/good", get(|| ready("good")))
        .layer(layer);

    let ask = |path: &str| router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
    for cause in ["failure", "failure", "breaker_open"] {
        let res = ask("/").await.unwrap();
        assert_eq!(res.status(), 200);
        assert_eq!(res.headers()[X_DEGRADED], format!("fallback; cause={cause}"));
        assert_eq!(res.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(Degraded::of(&res).map(|degraded| degraded.by), Some(DegradedBy::Fallback));
        assert_eq!(res.extensions().get::<Rejection>(), None, "it is no refusal any more");
        assert_eq!(text(res).await, "<h1>soon</h1>");
    }
    assert_eq!(calls.load(SeqCst), 2);
    let res = ask("/good").await.unwrap();
    assert_eq!((Degraded::of(&res), text(res).await.as_str()), (None, "good"));
    assert_eq!(ask("/missing").await.unwrap().status(), 404, "a client's mistake is none of the service's");
    assert_eq!((fallback.snapshot().failure_total, fallback.snapshot().refused_total), (2, 1));

    fallback.set_mode(Mode::ForcedOpen).unwrap();
    let res = ask("/good").await.unwrap();
    assert_eq!(res.headers()[X_DEGRADED], "fallback; cause=switched_off");
}

/// A response that failed.
fn failed() -> Response<Body> {
    let mut res = Response::new(Body::from("broken"));
    *res.status_mut() = StatusCode::BAD_GATEWAY;
    res
}

#[tokio::test]
async fn a_head_request_gets_the_head() {
    let layer = AnswerLayer::<_, HttpServer>::new(FallbackConfig::default(), page());
    let service = layer.layer(service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(failed()))));
    let head = Request::builder().method(Method::HEAD).body(Body::empty()).unwrap();
    let res = service.clone().oneshot(head).await.unwrap();
    assert_eq!((res.status(), &res.headers()[header::CONTENT_LENGTH]), (StatusCode::OK, &"13".parse().unwrap()));
    assert_eq!(text(res).await, "");
    let res = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(res.headers().get(header::CONTENT_LENGTH), None, "the server's business");
}

fn grpc(status: Option<&str>) -> Response<Body> {
    let mut res = Response::builder().header(header::CONTENT_TYPE, "application/grpc");
    if let Some(status) = status {
        res = res.header("grpc-status", status);
    }
    res.body(Body::from("message")).unwrap()
}

#[tokio::test]
async fn grpc_is_judged_by_its_head_and_gets_no_page() {
    let ask = || {
        let req = Request::post("/pkg.Service/Call").header(header::CONTENT_TYPE, "application/grpc");
        req.body(Body::empty()).unwrap()
    };
    let layer = AnswerLayer::<_, HttpServer>::new(FallbackConfig::default(), page());
    let fallback = layer.handle();
    let service = layer.layer(service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(grpc(Some("14"))))));
    let res = service.oneshot(ask()).await.unwrap();
    assert_eq!(
        (&res.headers()["grpc-status"], Degraded::of(&res)),
        (&"14".parse().unwrap(), None),
        "the original goes on"
    );
    assert_eq!(fallback.snapshot().failed_total, 1);

    let own = backup::from_fn(|_: &Request<Body>| (), |(), _| Some(grpc(Some("0")).map(|_| Bytes::new())));
    let layer = AnswerLayer::<_, HttpServer>::new(FallbackConfig::default(), own);
    let unavailable = layer.layer(service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(grpc(Some("14"))))));
    let res = unavailable.oneshot(ask()).await.unwrap();
    assert_eq!(
        (&res.headers()["grpc-status"], &res.headers()[X_DEGRADED]),
        (&"0".parse().unwrap(), &"fallback; cause=failure".parse().unwrap())
    );
    let begun = layer.layer(service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(grpc(None)))));
    let res = begun.oneshot(ask()).await.unwrap();
    assert_eq!((Degraded::of(&res), text(res).await.as_str()), (None, "message"), "what trailers say comes too late");
}

#[tokio::test]
async fn another_service_streams_its_answer_and_its_mark_stays() {
    let cause = |by: &'static str| {
        let toggle = ToggleConfig::new("feature").build().unwrap();
        toggle.set(buttress_fallback::Switch::Off);
        let off = ToggleLayer::new(toggle, page()).protocol(HttpServer::new());
        let good = service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(Response::new(Body::from("streamed")))));
        let keep = |req: &Request<Body>| Request::get(req.uri().clone()).body(Body::empty()).unwrap_or_default();
        async move {
            // The same type of body, whoever answers.
            let into_body = |res: Response<_>| res.map(Body::new);
            let other = match by {
                "service" => BoxCloneSyncService::new(good),
                _ => BoxCloneSyncService::new(off.layer(good).map_response(into_body)),
            };
            let backup = backup::service(keep, other, Duration::from_secs(1));
            let layer = AnswerLayer::<_, HttpServer>::new(FallbackConfig::default(), backup);
            let inner = service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(failed())));
            let res = layer.layer(inner).oneshot(Request::new(Body::empty())).await.unwrap();
            (res.headers()[X_DEGRADED].clone(), text(res).await)
        }
    };
    assert_eq!(cause("service").await, ("fallback; cause=failure".parse().unwrap(), "streamed".to_owned()));
    assert_eq!(cause("toggle").await, ("toggle; cause=switched_off".parse().unwrap(), "<h1>soon</h1>".to_owned()));
}

#[tokio::test]
async fn a_bad_answer_of_another_service_is_none() {
    let other = service_fn(|_: ()| ready(Ok::<_, Infallible>(failed().map(|_| Body::from("also broken")))));
    let backup = backup::service(|_: &Request<Body>| (), other, Duration::from_secs(1));
    let layer = AnswerLayer::<_, HttpServer>::new(FallbackConfig::default(), backup);
    let service = layer.layer(service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(failed()))));
    let res = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!((res.status(), Degraded::of(&res)), (StatusCode::BAD_GATEWAY, None));
    assert_eq!(text(res).await, "broken", "with the body that it came with");
}

#[tokio::test]
async fn an_answer_is_no_refusal_even_if_it_is_made_of_one() {
    let refusal = || {
        let mut res = Response::new(Bytes::from_static(b"sorry"));
        res.extensions_mut().insert(Rejection::new(Reason::Shed, "test"));
        res
    };
    let own = backup::from_fn(|_: &Request<Body>| (), move |(), _| Some(refusal()));
    let layer = AnswerLayer::<_, HttpServer>::new(FallbackConfig::default(), own);
    let service = layer.layer(service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(failed()))));
    let res = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!((res.extensions().get::<Rejection>(), Degraded::of(&res).is_some()), (None, true));
}

#[tokio::test]
async fn an_error_that_is_given_says_when_to_come_back_as_the_original_did() {
    let late = |millis: u64| {
        let refusal = Rejection::new(Reason::Shed, "test").retry_after(Duration::from_millis(millis));
        let mut res = Response::new(Body::empty());
        *res.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        res.extensions_mut().insert(refusal);
        res
    };
    let said = |page: StaticResponse, millis| async move {
        let layer = AnswerLayer::<_, HttpServer>::new(FallbackConfig::default(), page);
        let service = layer.layer(service_fn(move |_: Request<Body>| ready(Ok::<_, Infallible>(late(millis)))));
        let res = service.oneshot(Request::new(Body::empty())).await.unwrap();
        assert!(Degraded::of(&res).is_some());
        res.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned())
    };
    let sorry = |status| StaticResponse::new(status, "text/plain", "sorry").unwrap();
    assert_eq!(said(sorry(503), 2100).await.as_deref(), Some("3"), "rounded up");
    assert_eq!(said(sorry(429), 2000).await.as_deref(), Some("2"));
    assert_eq!(said(sorry(500), 0).await.as_deref(), Some("1"), "not at once");
    assert_eq!(said(sorry(503).header("retry-after", "120").unwrap(), 2000).await.as_deref(), Some("120"));
    assert_eq!(said(page(), 2000).await, None, "an answer is nothing to come back for");
    assert_eq!(said(sorry(404), 2000).await, None);
}

#[tokio::test]
async fn on_a_client_an_error_is_answered_too() {
    let layer = FallbackLayer::new(FallbackConfig::default(), page()).protocol(HttpClient::new());
    let inner = service_fn(|_: Request<Body>| ready(Err::<Response<Body>, Error<Reset>>(Error::Inner(Reset))));
    let res = layer.layer(inner).oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(text(res).await, "<h1>soon</h1>");

    let layer = FallbackLayer::new(FallbackConfig::default(), backup::none()).protocol(HttpClient::new());
    layer.handle().set_mode(Mode::ForcedOpen).unwrap();
    let service = layer.layer(inner_ok());
    let error = service.oneshot(Request::new(Body::empty())).await.unwrap_err();
    assert_eq!(Rejection::find(&*error).map(|rejection| rejection.reason), Some(Reason::SwitchedOff));
}

#[derive(Debug)]
struct Reset;
impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection reset")
    }
}
impl std::error::Error for Reset {}

fn inner_ok() -> impl tower::Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send> + Clone {
    service_fn(|_: Request<Body>| ready(Ok::<_, BoxError>(Response::new(Body::empty()))))
}

#[test]
fn a_static_answer_is_checked_when_it_is_made() {
    let said = |made: Result<StaticResponse, buttress_fallback::ConfigError>| made.unwrap_err().to_string();
    assert_eq!(said(StaticResponse::new(101, "text/plain", "")), "`status` is 101, allowed: 200 to 599");
    assert_eq!(said(StaticResponse::new(600, "text/plain", "")), "`status` is 600, allowed: 200 to 599");
    assert_eq!(said(StaticResponse::new(204, "text/plain", "a")), "`status` is 204, allowed: one that may have a body");
    assert_eq!(
        said(StaticResponse::new(200, "a\nb", "")),
        "`content_type` is \"a\\nb\", allowed: the value of a header"
    );
    assert!(said(page().header("content-length", "1")).starts_with("`header` is content-length"));
    assert!(said(page().header("no name", "1")).starts_with("`header` is no name"));
    assert!(StaticResponse::new(204, "text/plain", "").is_ok());
    let missing = said(StaticResponse::file("/no/such/page.html"));
    assert!(missing.starts_with("`file` is /no/such/page.html: ") && missing.contains("o such file"), "{missing}");
}

#[tokio::test]
async fn a_file_is_read_once_and_its_type_is_known_by_its_name() {
    let directory = directory("file");
    let file = |name: &str, content: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        let page = StaticResponse::file(&path).unwrap();
        fs::remove_file(&path).unwrap();
        page
    };
    let served = |page: StaticResponse| async move {
        let layer = AnswerLayer::<_, HttpServer>::new(FallbackConfig::default(), page);
        let service = layer.layer(service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(failed()))));
        let res = service.oneshot(Request::new(Body::empty())).await.unwrap();
        (
            res.status().as_u16(),
            res.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned(),
            res.headers().get("retry-after").is_some(),
        )
    };
    assert_eq!(served(file("a.html", "grüß".as_bytes())).await, (200, "text/html; charset=utf-8".into(), false));
    assert_eq!(served(file("a.txt", b"gr\xfc\xdf")).await.1, "text/plain", "no UTF-8, and not called so");
    assert_eq!(served(file("a.json", b"[]")).await.1, "application/json");
    assert_eq!(served(file("a.unheardof", b"?")).await.1, "application/octet-stream");
    let changed =
        file("b.html", b"").content_type("text/plain").unwrap().status(503).unwrap().header("retry-after", "5");
    assert_eq!(served(changed.unwrap()).await, (503, "text/plain".into(), true));
    assert!(StaticResponse::file(&directory).unwrap_err().to_string().starts_with("`file` is "), "a directory");
    fs::remove_dir_all(directory).unwrap();
}
