//! Which HTTP results are retried, and when: SEMANTICS of retry eligibility, on a paused clock.

mod common;

use buttress_core::{
    BoxError, BudgetConfig, Context, Handle, Mode, Outcome, Priority, Reason, Rejection, Tried,
    http::{HttpClient, HttpServer, ReplayBody, RequestBodyError, TransportError, Unsent},
};
use buttress_retry::{Backoff, Cause, Idempotent, ResendLayer, RetryConfig, RetryLayer, Why};
use buttress_sim::{AnyBody, Frames, Probe, any, poll_once};
use bytes::Bytes;
use common::*;
use futures_util::StreamExt;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::SystemTime,
};
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test(start_paused = true)]
async fn idempotent_methods_are_retried_and_others_are_not() {
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE] {
        let rig = Rig::new([status(503), status(502), status(200)]);
        let (res, retry) = call(config(), &rig, request(method.clone())).await;
        assert_eq!((res.unwrap().status().as_u16(), rig.attempts()), (200, 3), "{method}");
        let seen = retry.snapshot();
        assert_eq!((seen.retries(Cause::Status), seen.recovered_total, seen.first_failed_total), (2, 1, 1));
    }
    for method in [Method::POST, Method::PATCH, Method::from_bytes(b"REPORT").unwrap()] {
        let rig = Rig::new([status(503)]);
        let (res, retry) = call(config(), &rig, request(method.clone())).await;
        assert_eq!((res.unwrap().status().as_u16(), rig.attempts()), (503, 1), "{method}");
        assert_eq!(retry.snapshot().gave_up(Why::NotRepeatable), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_with_an_idempotency_key_is_retried_only_where_the_route_says_so() {
    for (opted_in, attempts) in [(true, 2), (false, 1)] {
        let rig = Rig::new([status(503), status(200)]);
        let mut req = post();
        req.headers_mut().insert("idempotency-key", "\"8e03978e\"".parse().unwrap());
        call(config().idempotency_key(opted_in), &rig, req).await.0.unwrap();
        assert_eq!(rig.attempts(), attempts);
    }
    let rig = Rig::new([status(503)]);
    call(config().idempotency_key(true), &rig, post()).await.0.unwrap();
    assert_eq!(rig.attempts(), 1, "no key");
    for blank in ["", "  ", "\t"] {
        let rig = Rig::new([status(503)]);
        let mut req = post();
        req.headers_mut().insert("idempotency-key", blank.parse().unwrap());
        call(config().idempotency_key(true), &rig, req).await.0.unwrap();
        assert_eq!(rig.attempts(), 1, "{blank:?} is no key");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_response_of_very_many_frames_is_not_read_to_its_end() {
    let read = Arc::new(AtomicU32::new(0));
    let count = read.clone();
    let frames = futures_util::stream::iter(0..10_000).map(move |_| {
        count.fetch_add(1, Relaxed);
        Ok::<_, BoxError>(Frame::data(Bytes::new()))
    });
    let res = Response::builder().status(503).body(any(StreamBody::new(frames))).unwrap();
    let rig = Rig::new([answer(res), status(200)]);
    assert_eq!(call(config(), &rig, get()).await.0.unwrap().status(), 200);
    assert!((1..=100).contains(&read.load(Relaxed)), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_can_say_by_itself_whether_it_is_idempotent() {
    let rig = Rig::new([status(503), status(200)]);
    let mut req = post();
    req.extensions_mut().insert(Idempotent(true));
    call(config(), &rig, req).await.0.unwrap();
    assert_eq!(rig.attempts(), 2);
    assert!(rig.seen.lock().unwrap().iter().all(|seen| seen.body == "ask"), "the body is sent again");
    let rig = Rig::new([status(503)]);
    let mut req = get();
    req.extensions_mut().insert(Idempotent(false));
    call(config(), &rig, req).await.0.unwrap();
    assert_eq!(rig.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_listed_statuses_are_retried() {
    for code in [200, 204, 301, 400, 404, 408, 409, 429, 500, 501, 505] {
        let rig = Rig::new([status(code)]);
        let (res, _) = call(config(), &rig, get()).await;
        assert_eq!((res.unwrap().status().as_u16(), rig.attempts()), (code, 1));
    }
    for code in [408, 429, 500, 599] {
        let rig = Rig::new([status(code), status(200)]);
        call(config().statuses([408, 429, 500, 599]), &rig, get()).await.0.unwrap();
        assert_eq!(rig.attempts(), 2, "{code}");
    }
    let rig = Rig::new([status(503)]);
    call(config().statuses([]), &rig, get()).await.0.unwrap();
    assert_eq!(rig.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_real_response_is_returned_when_all_have_failed() {
    let rig = Rig::new([status(502), error("reset"), with(503, &[("x-from", "third")])]);
    let (res, retry) = call(config(), &rig, get()).await;
    assert_eq!(res.as_ref().unwrap().headers()["x-from"], "third");
    assert_eq!(text(res).await, "said 503");
    assert_eq!((rig.attempts(), retry.snapshot().gave_up(Why::Attempts)), (3, 1));
    let rig = Rig::new([status(502), status(502), error("the third reset")]);
    assert_eq!(call(config(), &rig, get()).await.0.unwrap_err().to_string(), "the third reset");
}

#[tokio::test(start_paused = true)]
async fn errors_are_retried_for_idempotent_methods_only() {
    let rig = Rig::new([error("reset"), status(200)]);
    let (_, retry) = call(config(), &rig, get()).await;
    assert_eq!((rig.attempts(), retry.snapshot().retries(Cause::Error)), (2, 1));
    let rig = Rig::new([error("reset")]);
    assert_eq!(call(config(), &rig, post()).await.0.unwrap_err().to_string(), "reset");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_sent_again_whatever_the_method() {
    // As hyper-util says it: an error of its own, whose source is the connector's.
    #[derive(Debug)]
    struct Connect(io::Error);
    impl std::fmt::Display for Connect {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("connect")
        }
    }
    impl std::error::Error for Connect {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let refused = || Connect(io::ErrorKind::ConnectionRefused.into());
    for failure in [
        error(Unsent::new("no connection")),
        error(TransportError::unsent_if_refused(refused())),
        error(Rejection::new(Reason::ConnectTimeout, "pool")),
    ] {
        let rig = Rig::new([failure, status(200)]).leaving_bodies();
        let (_, retry) = call(config().max_body(0), &rig, post()).await;
        assert_eq!((rig.attempts(), retry.snapshot().retries(Cause::Unsent)), (2, 1));
    }
    // Something may have been done before a second connection was refused.
    let rig = Rig::new([error(refused()), status(200)]).leaving_bodies();
    assert!(call(config().max_body(0), &rig, post()).await.0.is_err());
    assert_eq!(rig.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_may_have_read_some_of_the_body() {
    let rig = Rig::new([error(Unsent::new("refused stream")), status(200)]);
    call(config(), &rig, post()).await.0.unwrap();
    let bodies: Vec<_> = rig.seen.lock().unwrap().iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(bodies, ["ask", "ask"], "it is sent again, from its beginning");
}

/// What a balancer does.
fn pick(endpoint: u32) {
    Tried::with(|tried| tried.expect("an attempt").pick(endpoint, true));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_before_any_pick_is_not_taken_for_one_endpoints() {
    let refuse = |picks: Option<u32>| -> Answer {
        Box::new(move |_| {
            picks.iter().for_each(|endpoint| pick(*endpoint));
            Err(Rejection::new(Reason::BreakerOpen, "breaker").into())
        })
    };
    // The endpoint's own breaker first, then that of the whole cluster, in front of the balancer.
    let rig = Rig::new([refuse(Some(1)), refuse(None)]);
    let (_, retry) = call(config(), &rig, get()).await;
    assert_eq!((rig.attempts(), retry.snapshot().gave_up(Why::NotRetryable)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_requests_own_body_is_never_retried() {
    let rig = Rig::new([error(io::Error::other(RequestBodyError::new("gone")))]);
    let (res, retry) = call(config(), &rig, get()).await;
    assert!(res.is_err());
    assert_eq!(retry.snapshot().gave_up(Why::NotRetryable), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_is_never_undercut() {
    for code in [429, 503] {
        let rig = Rig::new([with(code, &[("retry-after", "7")]), status(200)]);
        let (_, retry) = call(config(), &rig, get()).await;
        assert_eq!(rig.times(), [NOW, 7 * SEC + 100 * MS], "{code}");
        assert_eq!(retry.snapshot().retries(Cause::Overload), 1);
    }
    let date = httpdate(SystemTime::now() + 20 * SEC);
    let rig = Rig::new([with(503, &[("retry-after", Box::leak(date.into_boxed_str()))]), status(200)]);
    call(config(), &rig, get()).await.0.unwrap();
    assert!(rig.times()[1] >= 18 * SEC && rig.times()[1] <= 21 * SEC, "{:?}", rig.times());
}

/// An HTTP date, by `date`'s own rules.
fn httpdate(at: SystemTime) -> String {
    let secs = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Civil from days (Hinnant).
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{weekday}, {day:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", names[month as usize - 1])
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_that_is_too_long_or_does_not_fit_gives_up_at_once() {
    for (after, why) in [("31", Why::TooLong), ("99999999999999999999", Why::TooLong), ("5", Why::Deadline)] {
        let rig = Rig::new([with(503, &[("retry-after", after)])]);
        let start = tokio::time::Instant::now();
        let (res, retry) = call(config(), &rig, within(get(), 5 * SEC)).await;
        assert_eq!((res.unwrap().status().as_u16(), start.elapsed()), (503, NOW), "{after}");
        assert_eq!((retry.snapshot().gave_up(why), retry.snapshot().budget.granted_total), (1, 0));
    }
    for garbage in ["-5", "soon", ""] {
        let rig = Rig::new([with(503, &[("retry-after", garbage)]), status(200)]);
        call(config(), &rig, get()).await.0.unwrap();
        assert_eq!(rig.times(), [NOW, 100 * MS], "{garbage:?} says nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_back_off_that_does_not_fit_the_deadline_is_not_slept_through() {
    let rig = Rig::new([status(503)]);
    let start = tokio::time::Instant::now();
    let (res, retry) = call(config(), &rig, within(get(), 100 * MS)).await;
    assert_eq!((res.unwrap().status().as_u16(), start.elapsed()), (503, NOW));
    assert_eq!(retry.snapshot().gave_up(Why::Deadline), 1);
    let rig = Rig::new([status(503), status(503)]);
    let (_, retry) = call(config(), &rig, within(get(), 150 * MS)).await;
    assert_eq!((rig.attempts(), retry.snapshot().gave_up(Why::Deadline)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_marked_and_drop_one_priority() {
    let rig = Rig::new([status(503), status(503), status(200)]);
    let mut req = get();
    Context::of_mut(req.extensions_mut()).priority = Priority::Critical;
    call(config(), &rig, req).await.0.unwrap();
    let seen = rig.seen.lock().unwrap();
    let marks: Vec<_> =
        seen.iter().map(|s| (s.attempt, s.priority, s.headers.get("x-envoy-attempt-count").cloned())).collect();
    assert_eq!((marks[0].0, marks[0].1), (0, Priority::Critical));
    assert_eq!(marks[1], (1, Priority::Normal, Some("2".parse().unwrap())));
    assert_eq!(marks[2], (2, Priority::Normal, Some("3".parse().unwrap())));
}

#[tokio::test(start_paused = true)]
async fn what_is_an_attempt_already_is_sent_once_and_pays_nothing() {
    let in_process = || {
        let mut req = get();
        Context::of_mut(req.extensions_mut()).attempt = 1;
        req
    };
    let from_elsewhere = |name: &'static str, value: &str| {
        let mut req = get();
        req.headers_mut().insert(name, value.parse().unwrap());
        req
    };
    for req in
        [in_process(), from_elsewhere("x-envoy-attempt-count", "2"), from_elsewhere("grpc-previous-rpc-attempts", "1")]
    {
        let rig = Rig::new([status(503)]);
        let (_, retry) = call(config(), &rig, req).await;
        assert_eq!((rig.attempts(), retry.snapshot().first_total), (1, 0));
    }
    let rig = Rig::new([status(503), status(200)]);
    call(config(), &rig, from_elsewhere("x-envoy-attempt-count", "1")).await.0.unwrap();
    assert_eq!(rig.attempts(), 2, "a first attempt");
}

#[tokio::test(start_paused = true)]
async fn tunnels_are_opened_once() {
    let mut upgrade = get();
    upgrade.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    for req in [request(Method::CONNECT), upgrade] {
        let rig = Rig::new([status(503)]);
        call(config(), &rig, req).await.0.unwrap();
        assert_eq!(rig.attempts(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_layers_further_in_are_retried_as_the_table_says() {
    use Reason::*;
    let try_once = |reason, req: fn() -> Request<buttress_sim::AnyBody>, picks: Option<u32>| async move {
        let refuse = |reason, picks: Option<u32>| -> Answer {
            Box::new(move |_| {
                picks.iter().for_each(|endpoint| pick(*endpoint));
                Err(Rejection::new(reason, "inner").retry_after(9 * SEC).into())
            })
        };
        let rig = Rig::new([refuse(reason, picks), status(200)]).leaving_bodies();
        let _ = call(config(), &rig, req()).await;
        (rig.attempts(), rig.times().last().copied())
    };
    let retried = (2, Some(100 * MS));
    let not = (1, Some(NOW));
    for reason in Reason::ALL {
        let (get_alone, post_alone, get_of_many, post_of_many) = match reason {
            ConnectRefused | ConnectTimeout => (retried, retried, retried, retried),
            // The other endpoint need not wait for the time that this one asked for.
            BreakerOpen | AtCapacity | NotLeader => (not, not, retried, retried),
            DeadlinePassed | PeerClosed | Injected => (retried, not, retried, not),
            _ => (not, not, not, not),
        };
        assert_eq!(try_once(reason, get, None).await, get_alone, "{reason}");
        assert_eq!(try_once(reason, post, None).await, post_alone, "{reason}");
        assert_eq!(try_once(reason, get, Some(3)).await, get_of_many, "{reason}");
        assert_eq!(try_once(reason, post, Some(3)).await, post_of_many, "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_that_are_responses_are_recognised() {
    let refusal = |reason| -> Answer {
        Box::new(move |_| {
            let mut res = Response::builder().status(503).body(any(Frames::new())).unwrap();
            res.extensions_mut().insert(Rejection::new(reason, "inner"));
            Ok(res)
        })
    };
    for (reason, attempts) in [(Reason::Shed, 1), (Reason::RateLimited, 1), (Reason::DeadlinePassed, 2)] {
        let rig = Rig::new([refusal(reason), status(200)]);
        let layer = ResendLayer::<HttpServer>::new(config().build().unwrap());
        layer.layer(rig.script()).oneshot(get()).await.unwrap();
        assert_eq!(rig.attempts(), attempts, "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_protocol_sees_through_boxed_errors_too() {
    let rig = Rig::new([error(Unsent::new("refused")), error(TransportError::unsent("refused")), status(200)])
        .leaving_bodies();
    let layer = ResendLayer::<HttpServer>::new(config().build().unwrap());
    assert!(layer.layer(rig.script()).oneshot(post()).await.is_ok());
    assert_eq!(rig.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_body_is_sent_again_and_past_the_cap_only_the_retry_is_given_up() {
    let put = |size: usize| {
        let body = any(Frames::new().data(vec![b'x'; size / 2]).pause().data(vec![b'y'; size - size / 2]));
        Request::put("/").body(body).unwrap()
    };
    let rig = Rig::new([status(503), status(200)]);
    call(config().max_body(1000), &rig, put(1000)).await.0.unwrap();
    let seen = rig.seen.lock().unwrap().clone();
    assert_eq!((seen[0].body.len(), &seen[0].body), (1000, &seen[1].body));
    let rig = Rig::new([status(503)]);
    let (res, retry) = call(config().max_body(1000), &rig, put(1001)).await;
    assert_eq!((res.unwrap().status().as_u16(), rig.seen.lock().unwrap()[0].body.len()), (503, 1001));
    let seen = retry.snapshot();
    assert_eq!((seen.gave_up(Why::BodyTooLarge), seen.budget.granted_total), (1, 0), "and nothing is paid for it");
}

#[tokio::test(start_paused = true)]
async fn the_token_is_held_from_the_back_off_to_the_end_of_the_body() {
    let rig = Rig::new([status(503), status(200)]);
    let layer = ResendLayer::<HttpClient>::new(config().build().unwrap());
    let handle = layer.handle();
    let held = || handle.snapshot().budget.in_flight;
    let mut call = Box::pin(layer.layer(rig.script()).oneshot(get()));
    assert!(poll_once(&mut call).await.is_pending());
    assert_eq!((rig.attempts(), held()), (1, 1), "in the back-off");
    let res = call.await.unwrap();
    assert_eq!(held(), 1, "while the body goes on");
    let mut body = res.into_body();
    while body.frame().await.is_some() {}
    assert_eq!(held(), 0, "and not until it is dropped");
    drop(body);
    let rig = Rig::new([status(503), status(200)]);
    let mut call = Box::pin(layer.layer(rig.script()).oneshot(get()));
    assert!(poll_once(&mut call).await.is_pending());
    assert_eq!(held(), 1);
    drop(call);
    assert_eq!(held(), 0, "a call that is dropped in its back-off holds nothing");
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_failed_response_is_read_while_the_next_attempt_waits() {
    let probe = Probe::default();
    let tracked = |frames: fn(Frames) -> Frames, probe: &Probe| {
        let ticket = probe.enter();
        let done = Arc::new(std::sync::Mutex::new(None));
        let seen = done.clone();
        let start = tokio::time::Instant::now();
        let frames = frames(Frames::new()).wait(async move {
            *seen.lock().unwrap() = Some(start.elapsed());
            drop(ticket);
        });
        (Response::builder().status(503).body(any(frames)).unwrap(), done)
    };
    // A body that ends within the back-off is read to its end, so that its connection can be used again.
    let (res, done) = tracked(|frames| frames.data("a").pause().data("b"), &probe);
    let rig = Rig::new([answer(res), status(200)]);
    call(config(), &rig, get()).await.0.unwrap();
    assert_eq!(*done.lock().unwrap(), Some(NOW));
    // One that hangs is dropped after a while, and does not hold the call up.
    let (res, done) = tracked(|frames| frames.data("a").never(), &probe);
    let rig = Rig::new([answer(res), status(200)]);
    let layer = ResendLayer::<HttpClient>::new(config().backoff(Backoff::constant(2 * SEC)).build().unwrap());
    let call = tokio::spawn(layer.layer(rig.script()).oneshot(get()));
    tokio::time::sleep(200 * MS).await;
    assert_eq!(probe.now(), 1);
    tokio::time::sleep(100 * MS).await;
    assert_eq!((probe.now(), *done.lock().unwrap()), (0, None));
    call.await.unwrap().unwrap();
    assert_eq!(rig.times(), [NOW, 2 * SEC]);
}

#[tokio::test(start_paused = true)]
async fn without_tokens_the_caller_gets_the_first_answer() {
    let budget = buttress_core::BudgetConfig::new(0.1).min_per_sec(0.0);
    let rig = Rig::new([status(503)]);
    let (res, retry) = call(config().budget(budget), &rig, get()).await;
    assert_eq!(res.unwrap().status().as_u16(), 503);
    assert_eq!(retry.snapshot().gave_up(Why::BudgetEmpty), 1);
}

#[tokio::test(start_paused = true)]
async fn an_operator_switches_it_off_and_on() {
    let layer = ResendLayer::<HttpClient>::new(config().build().unwrap());
    for (mode, attempts) in [(Mode::Disabled, 1), (Mode::OBSERVE_ONLY, 1), (Mode::Auto, 2)] {
        layer.handle().set_mode(mode).unwrap();
        let rig = Rig::new([status(503), status(200)]);
        layer.layer(rig.script()).oneshot(get()).await.unwrap();
        assert_eq!(rig.attempts(), attempts, "{mode:?}");
    }
    assert_eq!(layer.handle().snapshot().first_total, 2, "disabled, it counts nothing");
}

#[tokio::test(start_paused = true)]
async fn three_layers_of_three_attempts_make_no_twenty_seven() {
    use buttress_core::http::ReplayBody;
    use tower::util::MapRequest;
    let budget = || buttress_core::BudgetConfig::new(0.5).min_per_sec(0.0).capacity(4000);
    let layers: Vec<_> = (0..3)
        .map(|_| {
            ResendLayer::<HttpClient>::new(config().budget(budget()).backoff(Backoff::constant(NOW)).build().unwrap())
        })
        .collect();
    let calls = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = calls.clone();
    let script = buttress_sim::Script::new(move |_: Request<ReplayBody<buttress_sim::AnyBody>>| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async { Ok(Response::builder().status(503).body(any(Frames::new().end_known())).unwrap()) }
    });
    type Attempt = Request<ReplayBody<buttress_sim::AnyBody>>;
    let inner = layers[0].layer(script);
    let inner = MapRequest::new(inner, |req: Attempt| req.map(any)).map_response(|res: Response<_>| res.map(any));
    let middle = layers[1].layer(inner);
    let middle = MapRequest::new(middle, |req: Attempt| req.map(any)).map_response(|res: Response<_>| res.map(any));
    let outer = layers[2].layer(middle);
    const REQUESTS: u64 = 2_000;
    for _ in 0..REQUESTS {
        assert_eq!(outer.clone().oneshot(get()).await.unwrap().status().as_u16(), 503);
    }
    let sent = calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!(sent <= REQUESTS * 3 / 2, "{sent} for {REQUESTS}");
    assert!(sent >= REQUESTS * 29 / 20, "the outermost layer spends what it has: {sent}");
    let firsts: Vec<_> = layers.iter().map(|layer| layer.handle().snapshot().first_total).collect();
    assert_eq!(firsts, [0, 0, REQUESTS], "one deposit per request");
}

#[tokio::test(start_paused = true)]
async fn a_rule_decides_about_results_and_not_about_repeatability() {
    let never = |_: Result<&Response<_>, &buttress_core::BoxError>| false;
    let rig = Rig::new([status(503)]);
    let layer = ResendLayer::<HttpClient>::new(config().build().unwrap()).when(never);
    layer.layer(rig.script()).oneshot(get()).await.unwrap();
    assert_eq!(layer.handle().snapshot().gave_up(Why::Declined), 1);

    let empty = |res: Result<&Response<_>, &buttress_core::BoxError>| {
        res.is_ok_and(|res| res.headers().contains_key("x-stale"))
    };
    let layer = ResendLayer::<HttpClient>::new(config().build().unwrap()).when(empty);
    let rig = Rig::new([with(200, &[("x-stale", "1")]), status(200)]);
    layer.layer(rig.script()).oneshot(get()).await.unwrap();
    assert_eq!((rig.attempts(), layer.handle().snapshot().retries(Cause::Rule)), (2, 1));
    let rig = Rig::new([with(200, &[("x-stale", "1")])]);
    layer.layer(rig.script()).oneshot(post()).await.unwrap();
    assert_eq!(rig.attempts(), 1, "a POST is not made repeatable by it");
}

#[tokio::test(start_paused = true)]
async fn what_the_classifier_calls_good_is_not_retried() {
    let lenient = HttpClient::new().classify(|_: &buttress_core::http::Head<'_>, _: Outcome| Outcome::Success);
    let rig = Rig::new([status(503)]);
    let layer: ResendLayer<HttpClient> = ResendLayer::new(config().build().unwrap());
    layer.protocol(lenient).layer(rig.script()).oneshot(get()).await.unwrap();
    assert_eq!(rig.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_of_one_call_share_the_list_of_tried_endpoints() {
    let push = |endpoint, tried_before: usize| -> Answer {
        Box::new(move |_| {
            Tried::with(|tried| assert_eq!(tried.unwrap().endpoints().len(), tried_before));
            pick(endpoint);
            Ok(Response::builder().status(503).body(any(Frames::new())).unwrap())
        })
    };
    let rig = Rig::new([push(4, 0), push(2, 1), push(7, 2)]);
    call(config(), &rig, get()).await.0.unwrap();
    assert_eq!(rig.attempts(), 3);
}

#[test]
fn a_default_of_every_kind_can_be_made() {
    let _: RetryLayer = RetryLayer::default();
    let _: ResendLayer<HttpClient> = ResendLayer::new(RetryConfig::default().build().unwrap());
    assert!(format!("{:?}", ResendLayer::<HttpClient>::default()).starts_with("RetryLayer"));
}

#[tokio::test(start_paused = true)]
async fn an_upload_ends_where_another_attempt_follows_and_goes_on_where_none_does() {
    // Answers before it has read anything, and reads later.
    async fn uploads(config: RetryConfig, mode: Mode) -> Vec<Result<Bytes, RequestBodyError>> {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = bodies.clone();
        let hasty = service_fn(move |req: Request<ReplayBody<AnyBody>>| {
            let mut bodies = kept.lock().unwrap();
            bodies.push(req.into_body());
            let status = if bodies.len() == 1 { 503 } else { 200 };
            async move { Ok::<_, BoxError>(Response::builder().status(status).body(AnyBody::default())?) }
        });
        let layer = ResendLayer::<HttpClient>::new(config.build().unwrap());
        layer.handle().set_mode(mode).unwrap();
        layer.layer(hasty).oneshot(request(Method::PUT)).await.unwrap();
        let bodies = std::mem::take(&mut *bodies.lock().unwrap());
        futures_util::future::join_all(bodies.into_iter().map(|body| async { Ok(body.collect().await?.to_bytes()) }))
            .await
    }
    let [first, second] = &uploads(config(), Mode::Auto).await[..] else { panic!("two attempts") };
    assert!(first.is_err() && second.as_ref().unwrap() == "ask");
    let unpaid = config().budget(BudgetConfig::new(0.1).min_per_sec(0.0));
    for (config, mode) in [
        (unpaid, Mode::Auto),
        (config().max_attempts(1), Mode::Auto),
        (config().statuses([500]), Mode::Auto),
        (config(), Mode::OBSERVE_ONLY),
    ] {
        let [only] = &uploads(config, mode).await[..] else { panic!("one attempt") };
        assert_eq!(only.as_ref().unwrap(), "ask");
    }
}
