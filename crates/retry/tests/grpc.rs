//! gRPC: headers commit, a trailers-only response does not, pushback is exact, a peek is an option.

mod common;

use buttress_core::{
    BoxError,
    http::{HttpClient, HttpServer, ReplayBody},
};
use buttress_retry::{Cause, ResendLayer, RetryConfig, Why};
use buttress_sim::{AnyBody, Frames, any, grpc};
use common::*;
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, service_fn};

fn ask() -> Request<AnyBody> {
    grpc::request("/s/m")
}

fn code(code: &'static str) -> Answer {
    answer(grpc::trailers_only(code))
}

fn pushed_back(code: &'static str, millis: &'static str) -> Answer {
    let mut res = grpc::trailers_only(code);
    res.headers_mut().insert("grpc-retry-pushback-ms", millis.parse().unwrap());
    answer(res)
}

fn grpc_status(res: &Result_) -> String {
    res.as_ref().unwrap().headers()["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn listed_codes_are_retried_though_the_method_is_post() {
    for (number, attempts) in (0..17).map(|number| (number, if number == 14 { 2 } else { 1 })) {
        let text: &'static str = Box::leak(number.to_string().into_boxed_str());
        let rig = Rig::new([code(text), answer(grpc::unary("0"))]);
        let (res, retry) = call(config(), &rig, ask()).await;
        assert!(res.is_ok());
        assert_eq!(
            (rig.attempts(), retry.snapshot().retries(Cause::Grpc)),
            (attempts, attempts as u64 - 1),
            "{number}"
        );
    }
    for number in [2, 4, 8, 13, 14, 15] {
        let text: &'static str = Box::leak(number.to_string().into_boxed_str());
        let rig = Rig::new([code(text), answer(grpc::unary("0"))]);
        call(config().grpc_codes([number]), &rig, ask()).await.0.unwrap();
        assert_eq!(rig.attempts(), 2, "{number}");
        let seen = rig.seen.lock().unwrap();
        assert_eq!((&seen[0].body, seen[0].body.len()), (&seen[1].body, 8));
    }
    let rig = Rig::new([code("14")]);
    call(config().grpc_codes([]), &rig, ask()).await.0.unwrap();
    assert_eq!(rig.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_say_how_many_came_before() {
    let rig = Rig::new([code("14"), code("14"), answer(grpc::unary("0"))]);
    call(config(), &rig, ask()).await.0.unwrap();
    let marks: Vec<_> =
        rig.seen.lock().unwrap().iter().map(|s| s.headers.get("grpc-previous-rpc-attempts").cloned()).collect();
    assert_eq!(marks, [None, Some("1".parse().unwrap()), Some("2".parse().unwrap())]);
}

#[tokio::test(start_paused = true)]
async fn response_headers_commit_the_call() {
    let rig = Rig::new([answer(grpc::unary("14"))]);
    let (res, retry) = call(config(), &rig, ask()).await;
    let trailers = res.unwrap().into_body().collect().await.unwrap().trailers().cloned().unwrap();
    assert_eq!((trailers["grpc-status"].as_bytes(), rig.attempts()), (&b"14"[..], 1));
    assert_eq!(retry.snapshot().retries_total, 0);
    // Nor does a rule overturn that.
    let rig = Rig::new([answer(grpc::unary("14"))]);
    let always = |_: Result<&Response<_>, &buttress_core::BoxError>| true;
    let layer = ResendLayer::<HttpClient>::new(config().build().unwrap()).when(always);
    let mut req = ask();
    req.extensions_mut().insert(buttress_retry::Idempotent(true));
    layer.layer(rig.script()).oneshot(req).await.unwrap();
    assert_eq!(rig.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pushback_is_waited_for_exactly() {
    for millis in ["0", "1", "2500"] {
        let rig = Rig::new([pushed_back("14", millis), answer(grpc::unary("0"))]);
        call(config(), &rig, ask()).await.0.unwrap();
        assert_eq!(rig.times(), [NOW, millis.parse::<u32>().unwrap() * MS]);
    }
    // An overload that says when is retried, listed or not; without saying so it is not.
    let rig = Rig::new([pushed_back("8", "40"), answer(grpc::unary("0"))]);
    call(config(), &rig, ask()).await.0.unwrap();
    assert_eq!(rig.times(), [NOW, 40 * MS]);
}

#[tokio::test(start_paused = true)]
async fn a_pushback_that_is_negative_or_garbage_forbids() {
    for never in ["-1", "-0", "soon", "", "1.5", "99999999999999999999999"] {
        let rig = Rig::new([pushed_back("14", never)]);
        let (res, retry) = call(config(), &rig, ask()).await;
        assert_eq!((grpc_status(&res).as_str(), retry.snapshot().gave_up(Why::PushedBack)), ("14", 1), "{never:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pushback_that_does_not_fit_gives_up_without_sleeping() {
    for (millis, why) in [("5000", Why::Deadline), ("30001", Why::TooLong), ("18446744073709551615", Why::TooLong)] {
        let rig = Rig::new([pushed_back("14", millis)]);
        let start = tokio::time::Instant::now();
        let (res, retry) = call(config(), &rig, within(ask(), 5 * SEC)).await;
        assert_eq!((grpc_status(&res).as_str(), start.elapsed()), ("14", NOW));
        assert_eq!(retry.snapshot().gave_up(why), 1, "{millis}");
    }
}

#[tokio::test(start_paused = true)]
async fn plain_http_errors_of_a_proxy_are_read_as_grpc_maps_them() {
    for (http, attempts) in [(502, 2), (503, 2), (504, 2), (429, 1), (400, 1), (401, 1), (404, 1), (500, 1)] {
        let rig = Rig::new([status(http), answer(grpc::unary("0"))]);
        call(config(), &rig, ask()).await.0.unwrap();
        assert_eq!(rig.attempts(), attempts, "{http}");
    }
    let rig = Rig::new([with(429, &[("retry-after", "2")]), answer(grpc::unary("0"))]);
    call(config(), &rig, ask()).await.0.unwrap();
    assert_eq!(rig.times(), [NOW, 2 * SEC + 100 * MS], "a Retry-After is a lower bound, as everywhere");
}

#[tokio::test(start_paused = true)]
async fn a_transport_error_is_retried_only_if_nothing_was_sent_or_the_call_is_idempotent() {
    let rig = Rig::new([error("reset")]);
    assert!(call(config(), &rig, ask()).await.0.is_err());
    let rig = Rig::new([error(buttress_core::http::Unsent::new("refused")), answer(grpc::unary("0"))]);
    assert!(call(config(), &rig, ask()).await.0.is_ok());
    let rig = Rig::new([error("reset"), answer(grpc::unary("0"))]);
    let mut req = ask();
    req.extensions_mut().insert(buttress_retry::Idempotent(true));
    assert!(call(config(), &rig, req).await.0.is_ok());
}

fn peeking() -> RetryConfig {
    config().grpc_peek(true)
}

/// Headers, and then a status without a message.
fn late(code: &'static str) -> Answer {
    answer(grpc::response(Frames::new().pause().trailers([("grpc-status", code)])))
}

#[tokio::test(start_paused = true)]
async fn a_peek_retries_a_status_that_comes_without_a_message() {
    let rig = Rig::new([late("14"), late("14"), answer(grpc::unary("0"))]);
    let (res, retry) = call(peeking(), &rig, ask()).await;
    let whole = res.unwrap().into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(whole.to_bytes(), grpc::message(b"answer"));
    let seen = retry.snapshot();
    assert_eq!((rig.attempts(), seen.retries(Cause::Grpc), seen.recovered_total, seen.budget.in_flight), (3, 2, 1, 0));

    let rig = Rig::new([answer(grpc::response(
        Frames::new().trailers([("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")]),
    ))]);
    let (_, retry) = call(peeking(), &rig, ask()).await;
    assert_eq!(retry.snapshot().gave_up(Why::PushedBack), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_peeked_into_is_whole() {
    for (frames, want) in [
        (Frames::new().data("a").pause().data("b").trailers([("grpc-status", "14")]), "ab"),
        (Frames::new().trailers([("grpc-status", "5")]), ""),
        (Frames::new().pause(), ""),
    ] {
        let rig = Rig::new([answer(grpc::response(frames))]);
        let (res, _) = call(peeking(), &rig, ask()).await;
        assert_eq!((text(res).await.as_str(), rig.attempts()), (want, 1));
    }
    let rig = Rig::new([answer(grpc::response(Frames::new().data("a").error("reset")))]);
    let (res, _) = call(peeking(), &rig, ask()).await;
    let mut body = res.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "reset");
}

#[tokio::test(start_paused = true)]
async fn the_last_real_response_is_returned_after_a_peek_too() {
    let rig = Rig::new([late("14"), late("14"), late("14")]);
    let (res, _) = call(peeking(), &rig, ask()).await;
    let whole = res.unwrap().into_body().collect().await.unwrap();
    assert_eq!((whole.trailers().unwrap()["grpc-status"].as_bytes(), rig.attempts()), (&b"14"[..], 3));
}

#[tokio::test(start_paused = true)]
async fn generated_clients_that_speak_the_servers_protocol_are_served_too() {
    let rig = Rig::new([code("14"), answer(grpc::unary("0"))]);
    let layer = ResendLayer::<HttpServer>::new(config().build().unwrap());
    layer.layer(rig.script()).oneshot(ask()).await.unwrap();
    assert_eq!(rig.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_peek_that_meets_an_error_is_no_success() {
    let broken = || answer(grpc::response(Frames::new().pause().error("reset")));
    for (idempotent, attempts) in [(false, 2), (true, 3)] {
        let rig = Rig::new([late("14"), broken(), broken()]);
        let mut req = ask();
        req.extensions_mut().insert(buttress_retry::Idempotent(idempotent));
        let (res, retry) = call(peeking(), &rig, req).await;
        assert_eq!(res.unwrap().into_body().collect().await.unwrap_err().to_string(), "reset", "as it came");
        let seen = retry.snapshot();
        let why = if idempotent { Why::Attempts } else { Why::NotRepeatable };
        assert_eq!((rig.attempts(), seen.recovered_total, seen.gave_up(why)), (attempts, 0, 1));
    }
    let rig = Rig::new([broken(), answer(grpc::unary("0"))]);
    let mut req = ask();
    req.extensions_mut().insert(buttress_retry::Idempotent(true));
    let (res, retry) = call(peeking(), &rig, req).await;
    assert_eq!(res.unwrap().into_body().collect().await.unwrap().to_bytes(), grpc::message(b"answer"));
    assert_eq!((retry.snapshot().retries(Cause::Error), retry.snapshot().recovered_total), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_peek_counts_as_recovered_what_the_table_calls_good() {
    for (frames, recovered) in [
        (Frames::new().trailers([("grpc-status", "0")]), 1),
        (Frames::new().trailers([("grpc-status", "5")]), 1),
        (Frames::new().trailers([("grpc-status", "13")]), 0),
        (Frames::new().trailers([("grpc-status", "15")]), 0),
        (Frames::new().trailers([("x", "no status")]), 0),
        (Frames::new().pause(), 0),
    ] {
        let rig = Rig::new([late("14"), answer(grpc::response(frames))]);
        let (_, retry) = call(peeking(), &rig, ask()).await;
        let seen = retry.snapshot();
        assert_eq!((seen.recovered_total, seen.gave_up(Why::NotRetryable)), (recovered, 1 - recovered));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peek_does_not_hold_back_the_head_from_a_client_that_still_speaks() {
    // An echo: it says nothing before it has heard something, and the client says nothing before it has the head.
    let echo = service_fn(|req: Request<ReplayBody<AnyBody>>| async move {
        let head = Response::builder().header("content-type", "application/grpc");
        Ok::<_, BoxError>(head.body(any(req.into_body()))?)
    });
    let (speak, heard) = tokio::sync::oneshot::channel::<()>();
    let body = Frames::new().wait(async move { heard.await.unwrap_or(()) }).data("hello");
    let layer = ResendLayer::<HttpClient>::new(peeking().build().unwrap());
    let res = tokio::time::timeout(SEC, layer.layer(echo).oneshot(ask().map(|_| any(body)))).await;
    let res = res.expect("the head comes at once").unwrap();
    speak.send(()).unwrap();
    assert_eq!(res.into_body().collect().await.unwrap().to_bytes(), "hello");
}
