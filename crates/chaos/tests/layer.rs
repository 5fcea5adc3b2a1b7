//! What layers further out, and clients, see of injected faults.

use buttress_breaker::{BreakerConfig, BreakerLayer, State};
use buttress_chaos::{ChaosConfig, ChaosLayer, Fault, Injected, LAYER};
use buttress_core::{
    BoxError, Error, Handle, Mode, Reason, Rejection,
    http::{HttpClient, HttpGateway, HttpServer, ReplayBody},
};
use buttress_deadline::DeadlineLayer;
use buttress_retry::{RetryConfig, RetryLayer};
use buttress_sim::{AnyBody, Frames, Meter, Script, any, grpc};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};

type Plain = Error<std::io::Error>;

fn chaos(text: &str) -> ChaosLayer {
    let faults = text.split(';').filter(|text| !text.is_empty()).map(|text| text.parse().unwrap());
    ChaosConfig::default().seed(3).faults(faults.collect::<Vec<Fault>>()).layer().unwrap()
}

fn echo() -> Script<u64, u64> {
    Script::new(async |n: u64| Ok(n))
}

async fn page(_: Request<AnyBody>) -> Result<Response<AnyBody>, Infallible> {
    Ok(Response::new(any(Full::from("hello, world"))))
}

fn get() -> Request<AnyBody> {
    Request::get("/").body(any(Full::default())).unwrap()
}

fn breaker() -> BreakerLayer {
    BreakerLayer::new(BreakerConfig::default().consecutive(5).build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_delayed_call_goes_on_after_its_delay_and_not_before() {
    let script = echo();
    let service = chaos("latency=200ms..500ms").layer(script.clone());
    let begin = Instant::now();
    let call = tokio::spawn(service.oneshot(7));
    tokio::time::sleep(Duration::from_millis(199)).await;
    assert_eq!(script.probe().calls(), 0, "the service has not heard of it");
    assert_eq!(call.await.unwrap().unwrap(), 7);
    let took = begin.elapsed();
    assert!((Duration::from_millis(200)..=Duration::from_millis(501)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_ready_service_is_the_one_that_is_called_and_its_clone_is_asked_again() {
    let layer = chaos("latency=10ms percent=50");
    // The script panics when a clone is called that was not ready.
    let mut service = layer.layer(echo());
    for n in 0..50 {
        assert_eq!(service.ready().await.unwrap().call(n).await.unwrap(), n);
    }
    let delayed = layer.handle().snapshot().delayed_total;
    assert!((10..40).contains(&delayed), "{delayed}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_cuts_a_hung_call_off_and_a_breaker_between_counts_it() {
    let breaker = breaker();
    let circuit = breaker.handle();
    let script = echo();
    let service = breaker.layer(chaos("hang").layer(script.clone()));
    let service = DeadlineLayer::new(Duration::from_secs(1)).layer(service);
    for _ in 0..5 {
        let error = service.clone().oneshot(1).await.unwrap_err();
        assert_eq!(Rejection::find(error.source().unwrap()).unwrap().reason, Reason::DeadlinePassed);
    }
    assert_eq!((circuit.state(), script.probe().calls()), (State::Open, 0));
}

#[tokio::test]
async fn a_breaker_outside_opens_for_failures_and_not_for_refusals_of_our_own() {
    for (text, state) in [
        ("refuse", State::Open),
        ("reason=connect_refused", State::Open),
        ("reason=peer_closed", State::Open),
        ("reason=connect_timeout", State::Open),
        ("reason=breaker_open", State::Closed),
        ("reason=at_capacity", State::Closed),
        ("status=500", State::Open),
        ("status=503", State::Open),
        ("status=503 retry_after=1s", State::Closed),
        ("status=429", State::Closed),
        ("status=404", State::Closed),
    ] {
        // As a server, where a refusal is a response, and as a client, where it is an error.
        let (breaker, faults) = (breaker(), chaos(text));
        let (circuit, handle) = (breaker.handle(), faults.handle());
        let inside = faults.clone().protocol(HttpServer::new()).layer(service_fn(page));
        let service = breaker.protocol(HttpServer::new()).layer(inside);
        for _ in 0..5 {
            service.clone().oneshot(get()).await.unwrap().into_body().collect().await.unwrap();
        }
        assert_eq!(circuit.state(), state, "server: {text}");
        assert_eq!(handle.snapshot().refused_total + handle.snapshot().answered_total, 5);

        let breaker = self::breaker();
        let circuit = breaker.handle();
        let client = service_fn(async |req| Ok::<_, BoxError>(page(req).await.unwrap()));
        let service = breaker.protocol(HttpClient::new()).layer(faults.protocol(HttpClient::new()).layer(client));
        for _ in 0..5 {
            let _ = service.clone().oneshot(get()).await;
        }
        assert_eq!(circuit.state(), state, "client: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_outside_repeats_what_the_imitated_fault_allows() {
    for (text, method, attempts) in [
        ("status=503", "GET", 2),
        ("status=503", "POST", 1),
        ("reason=connect_refused", "POST", 2),
        ("reason=peer_closed", "GET", 2),
        ("reason=peer_closed", "POST", 1),
        ("reason=shed", "GET", 1),
        ("refuse", "GET", 2),
    ] {
        let faults = chaos(text);
        let handle = faults.handle();
        let retry = RetryConfig::default().max_attempts(2).build().unwrap();
        let client =
            service_fn(async |req: Request<ReplayBody<AnyBody>>| page(req.map(any)).await.map_err(BoxError::from));
        let inside = faults.protocol(HttpClient::new()).layer(client);
        let service = RetryLayer::new(retry).protocol(HttpClient::new()).layer(inside);
        let req = Request::builder().method(method).uri("/").body(any(Full::from("body"))).unwrap();
        let _ = service.oneshot(req).await;
        let seen = handle.snapshot();
        assert_eq!(seen.refused_total + seen.answered_total, attempts, "{method} {text}");
    }
}

#[tokio::test]
async fn an_injected_answer_has_its_status_and_says_where_it_is_from() {
    let service = chaos("status=503 retry_after=1500ms").protocol(HttpServer::new()).layer(service_fn(page));
    let res = service.oneshot(get()).await.unwrap();
    assert_eq!((res.status(), res.headers()["retry-after"].to_str().unwrap()), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    assert!(res.extensions().get::<Injected>().is_some() && res.extensions().get::<Rejection>().is_none());
    assert_eq!(res.into_body().collect().await.unwrap().to_bytes(), "injected fault");
}

#[tokio::test]
async fn a_refusal_looks_like_the_one_it_imitates_under_every_protocol() {
    let layer = chaos("reason=connect_timeout retry_after=3s");
    let service = layer.clone().protocol(HttpServer::new()).layer(service_fn(page));
    let res = service.oneshot(get()).await.unwrap();
    let marked = res.extensions().get::<Rejection>().unwrap();
    assert_eq!((res.status().as_u16(), marked.reason, marked.layer), (504, Reason::ConnectTimeout, LAYER));
    assert!(res.headers().contains_key("retry-after"));

    let service = layer.clone().protocol(HttpGateway::new("gw")).layer(service_fn(page));
    let res = service.clone().oneshot(get()).await.unwrap();
    assert_eq!(res.headers()["proxy-status"], "gw; error=connection_timeout");
    let res = service.oneshot(grpc::request("/")).await.unwrap();
    assert_eq!((res.status().as_u16(), &res.headers()["grpc-status"]), (200, &"14".parse().unwrap()));

    let error = layer.layer(service_fn(async |n: u64| Ok::<_, Plain>(n))).oneshot(1).await.unwrap_err();
    let rejection = error.rejection().unwrap();
    assert_eq!((rejection.reason, rejection.layer), (Reason::ConnectTimeout, LAYER));
}

/// The bytes that came, and the error.
async fn read<B>(mut body: B) -> (Vec<u8>, Option<Rejection>, Option<http::HeaderMap>)
where
    B: http_body::Body<Data = Bytes, Error = BoxError> + Unpin,
{
    let (mut bytes, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => bytes.extend(data),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(error) => return (bytes, Rejection::find(&*error), trailers),
        }
    }
    (bytes, None, trailers)
}

async fn through(text: &str, frames: Frames) -> (Vec<u8>, Option<Rejection>, Option<http::HeaderMap>) {
    let frames = std::sync::Mutex::new(Some(frames));
    let handler = Script::new(move |_: Request<AnyBody>| {
        let frames = frames.lock().unwrap().take().unwrap();
        async move { Ok(Response::new(any(frames))) }
    });
    read(chaos(text).protocol(HttpServer::new()).layer(handler).oneshot(get()).await.unwrap().into_body()).await
}

#[tokio::test(start_paused = true)]
async fn a_body_is_cut_after_so_many_bytes_and_not_one_more() {
    for (text, want) in
        [("cut=0", ""), ("cut=3", "hel"), ("cut=5", "hello"), ("cut=7", "hello, "), ("cut=11", "hello, worl")]
    {
        let frames = || Frames::new().data("hello").data(", world");
        for frames in [frames(), frames().declared(), frames().end_known()] {
            let (bytes, rejection, _) = through(text, frames).await;
            let rejection = rejection.expect(text);
            assert_eq!(
                (&*bytes, rejection.reason, rejection.layer),
                (want.as_bytes(), Reason::BodyCut, LAYER),
                "{text}"
            );
        }
    }
    for text in ["cut=12", "cut=13", "cut=99999"] {
        let (bytes, rejection, _) = through(text, Frames::new().data("hello").data(", world").end_known()).await;
        assert_eq!((&*bytes, rejection), (&b"hello, world"[..], None), "{text}: it has no more than that");
    }
    // A stream that has stopped is cut where it stands.
    let (bytes, rejection, _) = through("cut=5", Frames::new().data("hello").never()).await;
    assert!(bytes == b"hello" && rejection.is_some());
}

#[tokio::test]
async fn one_frame_that_is_the_whole_body_is_cut_too() {
    let layer = chaos("cut=5").protocol(HttpServer::new());
    let res = layer.layer(service_fn(page)).oneshot(get()).await.unwrap();
    let (bytes, rejection, _) = read(res.into_body()).await;
    assert!(bytes == b"hello" && rejection.unwrap().reason == Reason::BodyCut);
}

#[tokio::test]
async fn a_cut_grpc_answer_ends_with_data_loss() {
    let handler = service_fn(async |_: Request<AnyBody>| {
        Ok::<_, Infallible>(grpc::response(Frames::new().data(grpc::message(b"abc")).trailers([("grpc-status", "0")])))
    });
    let res = chaos("cut=4").protocol(HttpServer::new()).layer(handler).oneshot(grpc::request("/")).await.unwrap();
    let (bytes, rejection, trailers) = read(res.into_body()).await;
    assert_eq!((bytes.len(), rejection), (4, None));
    assert_eq!(trailers.unwrap()["grpc-status"], "15");
}

#[tokio::test]
async fn a_cut_is_a_failure_outside_and_nobody_s_inside() {
    let (outside, inside) = (Meter::new(), Meter::new());
    let gate = |meter: &Meter| buttress_core::GateLayer::<Meter, HttpServer>::new(meter.clone());
    let service = gate(&inside).layer(service_fn(page));
    let service = gate(&outside).layer(chaos("cut=3").protocol(HttpServer::new()).layer(service));
    let (bytes, rejection, _) = read(service.oneshot(get()).await.unwrap().into_body()).await;
    assert!(bytes == b"hel" && rejection.is_some());
    assert_eq!((outside.tally().failure, outside.in_flight()), (1, 0));
    assert_eq!((inside.tally().failure, inside.in_flight()), (0, 0));
}

#[tokio::test]
async fn quiet_it_changes_nothing_and_disabled_it_keeps_its_faults() {
    let layer = chaos("status=500").protocol(HttpServer::new());
    let handle = layer.handle();
    handle.set_mode(Mode::Disabled).unwrap();
    let service = layer.layer(service_fn(page));
    let res = service.clone().oneshot(get()).await.unwrap();
    assert_eq!(res.into_body().collect().await.unwrap().to_bytes(), "hello, world");
    handle.set_mode(Mode::Auto).unwrap();
    assert_eq!(service.oneshot(get()).await.unwrap().status(), 500);
}

#[tokio::test(start_paused = true)]
async fn what_a_call_holds_is_free_when_it_is_refused_kept_while_it_waits_and_free_when_it_is_dropped() {
    let held = Arc::new(());
    let take = |layer: ChaosLayer| {
        let service = layer.layer(service_fn(async |_: Arc<()>| Ok::<_, Plain>(())));
        let mut call = Box::pin(service.oneshot(held.clone()));
        async move {
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
            (polled, call)
        }
    };
    let (done, _call) = take(chaos("refuse")).await;
    assert_eq!((done, Arc::strong_count(&held)), (true, 1));
    for text in ["hang", "latency=1s", "latency=1s;refuse"] {
        let (done, call) = take(chaos(text)).await;
        assert_eq!((done, Arc::strong_count(&held)), (false, 2), "{text}");
        drop(call);
        assert_eq!(Arc::strong_count(&held), 1, "{text}");
    }
}
