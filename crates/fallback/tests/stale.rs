//! The stale store: what it keeps, what it gives to whom, and what it costs.
#![cfg(feature = "http")]

mod origin;

use buttress_core::{
    BoxError, BudgetConfig, Cause, Degraded, DegradedBy, Handle, Mode, Reason, Rejection,
    http::{HttpClient, HttpServer},
};
use buttress_fallback::{NotStored, Stale, StaleConfig, StaleLayer};
use buttress_sim::{AnyBody, Frames, any, eventually, pauses};
use bytes::Bytes;
use http::{Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use origin::*;
use std::{pin::pin, sync::Arc, time::Duration};
use tower::{Layer, ServiceExt};

const SIE: &str = "max-age=10, stale-if-error=90";
const X: &str = "http://a.test/x";

fn kept() -> StaleConfig {
    StaleConfig::default().max(Duration::from_secs(3600))
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_says_whose_it_is_and_why() {
    let world = world(StaleConfig::default().cache_name("gw"));
    world.store(X, &[], &[("cache-control", SIE), ("content-type", "text/plain")], "stored").await;
    after(52).await;
    let mut refused = response(503, &[], "open");
    refused.extensions_mut().insert(Rejection::new(Reason::BreakerOpen, "breaker"));
    world.origin.says(Ok(refused));
    let got = world.get(X, &[]).await;
    assert_eq!((got.status, &*got.body), (200, &b"stored"[..]));
    assert_eq!(got.header("age"), Some("52"));
    assert_eq!(got.header("cache-status"), Some("gw; hit; ttl=-42; detail=stale-if-error"));
    assert_eq!(got.header("x-degraded"), Some("stale; cause=breaker_open"));
    assert_eq!(got.header("content-type"), Some("text/plain"));
    let seen = world.stale.snapshot();
    assert_eq!((seen.entries, seen.stored_total, seen.served_stale_total, seen.served_fresh_total), (1, 1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_the_clients_own_is_passed_on() {
    let origin = Origin::default();
    let layer = StaleLayer::new(stale(kept())).protocol(HttpClient::new());
    let service = layer.layer(origin.clone());
    origin.says(Ok(response(200, &[], "stored")));
    got(service.clone().oneshot(request("GET", X, &[])).await.unwrap()).await.unwrap();
    after(1).await;
    origin.says(Err(BoxError::from(buttress_core::http::RequestBodyError::new("gone"))));
    assert!(service.clone().oneshot(request("GET", X, &[])).await.is_err());
    origin.says(Err(BoxError::from(Rejection::new(Reason::Shed, "shed"))));
    let res = service.clone().oneshot(request("GET", X, &[])).await.unwrap();
    assert_eq!(res.headers()["x-degraded"], "stale; cause=shed");
    origin.says(Err(BoxError::from("no connection")));
    let res = service.oneshot(request("GET", X, &[])).await.unwrap();
    assert_eq!(res.headers()["x-degraded"], "stale; cause=failure");
}

/// What is thrown away is gone before the stored answer is there: its connection and its permits.
#[tokio::test(start_paused = true)]
async fn the_failed_response_is_dropped_first() {
    struct Held(Frames, #[allow(dead_code, reason = "counts who holds it")] Arc<()>);
    impl Body for Held {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
            pin!(&mut self.0).poll_frame(cx)
        }
    }
    let world = world(kept());
    world.store(X, &[], &[], "stored").await;
    after(1).await;
    let held = Arc::new(());
    let mut res = Response::new(any(Held(Frames::new().never(), held.clone())));
    *res.status_mut() = http::StatusCode::BAD_GATEWAY;
    world.origin.says(Ok(res));
    let res = world.service.clone().oneshot(request("GET", X, &[])).await.unwrap();
    assert_eq!((res.status().as_u16(), Arc::strong_count(&held)), (200, 1));
}

/// Whatever is not whole is not stored.
#[tokio::test(start_paused = true)]
async fn only_whole_bodies_are_stored() {
    type Case = (&'static str, Option<&'static str>, fn() -> Frames, Result<usize, NotStored>);
    let cases: [Case; 11] = [
        ("an end that is known", None, || Frames::new().data("abc").pause().data("de").end_known(), Ok(5)),
        ("an end that shows", None, || Frames::new().data("abc").pause().data("de"), Ok(5)),
        ("a length that is declared by the body", None, || Frames::new().data("abc").data("de").declared(), Ok(5)),
        ("by the head", Some("5"), || Frames::new().data("abc").data("de"), Ok(5)),
        ("empty", None, || Frames::new().end_known(), Ok(0)),
        ("too short", Some("6"), || Frames::new().data("abc").data("de"), Err(NotStored::Incomplete)),
        ("too long", Some("4"), || Frames::new().data("abc").data("de"), Err(NotStored::Incomplete)),
        ("two lengths", Some("6"), || Frames::new().data("abcde").declared(), Err(NotStored::Incomplete)),
        ("an error", None, || Frames::new().data("abc").error("reset"), Err(NotStored::Incomplete)),
        ("trailers", None, || Frames::new().data("abc").trailers([("x-sum", "1")]), Err(NotStored::Trailers)),
        ("too large", None, || Frames::new().data("0123456789").data("0"), Err(NotStored::TooLarge)),
    ];
    for (what, length, body, want) in cases {
        let world = world(kept().max_body(10));
        let mut res = Response::new(AnyBody::from(body()));
        if let Some(length) = length {
            res.headers_mut().insert(header::CONTENT_LENGTH, length.parse().unwrap());
        }
        world.origin.says(Ok(res));
        let _ = world.try_send(request("GET", X, &[])).await;
        after(1).await;
        let got = world.get(X, &[]).await;
        let seen = world.stale.snapshot();
        match want {
            Ok(len) => assert_eq!((got.status, got.body.len(), seen.stored_total), (200, len, 1), "{what}"),
            Err(why) => assert_eq!((got.status, seen.stored_total, seen.not_stored(why)), (500, 0, 1), "{what}"),
        }
        assert_eq!(seen.recording, 0, "{what}: nothing is being copied any more");
    }
}

/// A reader as hyper is one: it stops when it has what was declared, and drops the body.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_read_as_hyper_reads_it_is_stored_and_one_that_is_dropped_is_not() {
    for (frames, stored) in [(2, 1), (1, 0), (0, 0)] {
        let world = world(kept());
        let body = Frames::new().data("abc").data("de").declared();
        world.origin.says(Ok(Response::new(body.into())));
        let mut res = world.service.clone().oneshot(request("GET", X, &[])).await.unwrap();
        for _ in 0..frames {
            res.body_mut().frame().await.unwrap().unwrap();
        }
        drop(res);
        let seen = world.stale.snapshot();
        assert_eq!((seen.stored_total, seen.recording), (stored, 0), "{frames} frames");
        assert_eq!(seen.not_stored(NotStored::Incomplete), 1 - stored);
    }
}

/// Bytes pass as they are; a copy is made of what is kept, and of nothing that is too large.
#[tokio::test(start_paused = true)]
async fn bodies_above_the_cap_are_not_copied() {
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let chunks = |count: usize| (0..count).fold(Frames::new(), |frames, _| frames.data(chunk.clone()));
    let config = || kept().max_body(256 * 1024).max_bytes(1024 * 1024);

    // It says that it is too large: not a byte.
    let world = world(config());
    world.origin.says(Ok(Response::new(chunks(5).declared().into())));
    let mut res = world.service.clone().oneshot(request("GET", X, &[])).await.unwrap();
    while let Some(frame) = res.body_mut().frame().await {
        assert_eq!(frame.unwrap().into_data().unwrap().as_ptr(), chunk.as_ptr(), "the same bytes");
        assert_eq!(world.stale.snapshot().recording, 0);
    }
    assert_eq!(world.stale.snapshot().not_stored(NotStored::TooLarge), 1);

    // It does not say so: up to the cap, and then nothing.
    world.origin.says(Ok(Response::new(chunks(5).into())));
    let mut res = world.service.clone().oneshot(request("GET", X, &[])).await.unwrap();
    for at in 1..=5 {
        let frame = res.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap().as_ptr(), chunk.as_ptr(), "the same bytes");
        let recording = world.stale.snapshot().recording;
        match at {
            5 => assert_eq!(recording, 0, "the copy is dropped where it grows too large"),
            at => assert!((at * 64 * 1024..=258 * 1024).contains(&recording), "{at}: {recording}"),
        }
    }
    assert_eq!(world.stale.snapshot().not_stored(NotStored::TooLarge), 2);

    // What is kept is a copy: nobody's buffer is held.
    let buffer = Bytes::from(vec![7; 64 * 1024]);
    world.origin.says(Ok(Response::new(Frames::new().data(buffer.slice(..8)).into())));
    world.get(X, &[]).await;
    assert!(buffer.is_unique(), "the store holds a slice of a connection's buffer");
    assert_eq!(world.stale.snapshot().stored_total, 1);
}

/// What is being copied is bounded as what is kept.
#[tokio::test(start_paused = true)]
async fn copies_under_way_stay_in_the_budget() {
    let world = world(kept().max_body(32 * 1024).max_bytes(68 * 1024));
    let mut open = Vec::new();
    for _ in 0..8 {
        let body = Frames::new().data(vec![0; 24 * 1024]).data(vec![0; 8 * 1024]).declared();
        world.origin.says(Ok(Response::new(body.into())));
        let mut res = world.service.clone().oneshot(request("GET", X, &[])).await.unwrap();
        res.body_mut().frame().await.unwrap().unwrap();
        open.push(res);
        assert!(world.stale.snapshot().recording <= 68 * 1024);
    }
    let seen = world.stale.snapshot();
    assert_eq!(seen.not_stored(NotStored::Busy), 6);
    assert!(seen.recording > 64 * 1024, "two bodies, and their heads: {}", seen.recording);
    drop(open);
    assert_eq!(world.stale.snapshot().recording, 0);
}

#[tokio::test(start_paused = true)]
async fn the_budget_of_bytes_holds() {
    let budget = 256 * 1024;
    let world = world(kept().max_body(64 * 1024).max_bytes(budget));
    let mut most = 0;
    for i in 0..400u64 {
        let body = "x".repeat((i * 7919 % 60_000) as usize);
        let language = format!("l{}", i % 11);
        let said = [("vary", "accept-language"), ("x-long", &*"y".repeat((i % 900) as usize))];
        world.store(&format!("http://a.test/{}", i % 37), &[("accept-language", &language)], &said, &body).await;
        let seen = world.stale.snapshot();
        assert!(seen.bytes <= budget, "{} bytes", seen.bytes);
        most = most.max(seen.bytes);
    }
    let seen = world.stale.snapshot();
    assert_eq!(seen.stored_total, 400);
    assert!(most > budget / 2, "and it is used: {most}");
    assert!(seen.entries > 2, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn the_resource_that_was_not_used_for_the_longest_time_goes_first() {
    let world = world(kept().max_body(16 * 1024).max_bytes(64 * 1024));
    let body = "x".repeat(16 * 1024);
    for path in ["a", "b", "c"] {
        world.store(&format!("http://a.test/{path}"), &[], &[], &body).await;
    }
    after(1).await;
    assert_eq!(world.get("http://a.test/a", &[]).await.status, 200);
    world.store("http://a.test/d", &[], &[], &body).await;
    for (path, status) in [("a", 200), ("b", 500), ("d", 200)] {
        after(1).await;
        assert_eq!(world.get(&format!("http://a.test/{path}"), &[]).await.status, status, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn variants_are_kept_apart_and_are_few() {
    let world = world(kept());
    let said = [("vary", "accept-language")];
    for i in 0..12 {
        after(1).await;
        let (language, body) = (format!("l{i}"), format!("b{i}"));
        world.store(X, &[("accept-language", &language)], &said, &body).await;
    }
    after(1).await;
    for i in 0..12 {
        let got = world.get(X, &[("accept-language", &format!("l{i}"))]).await;
        match i {
            0..4 => assert_eq!(got.status, 500, "{i}: the oldest made room"),
            _ => assert_eq!((got.status, &*got.body), (200, format!("b{i}").as_bytes())),
        }
    }
    assert_eq!(world.stale.snapshot().entries, 1);
}

#[tokio::test(start_paused = true)]
async fn resources_are_told_apart_by_what_they_are_called() {
    let world = world(kept());
    for (uri, host) in [
        (X, "A.test"),
        ("http://a.test:81/x", "a.test:81"),
        ("http://a.test/x?y", "a.test"),
        ("/x", "a.test"),
        ("/x", "b.test"),
        ("https://a.test/x", "a.test"),
    ] {
        after(1).await;
        let got = world.get(uri, &[("host", host)]).await;
        assert_eq!(got.status, 500, "{uri} {host} is none of those before");
        world.store(uri, &[("host", host)], &[], uri).await;
        after(1).await;
        assert_eq!(world.get(uri, &[("host", host)]).await.body, uri);
    }
    assert_eq!(world.get("HTTP://A.test/x", &[]).await.status, 200, "case is none of the name");
    // Who says two names may mean either.
    assert_eq!(world.get(X, &[("host", "b.test")]).await.status, 500);
    assert_eq!(world.get(X, &[("host", "a.test"), ("host", "b.test")]).await.status, 500);
    // A GET with a body asks for what is not in its name.
    let mut req = request("GET", X, &[]);
    *req.body_mut() = Frames::new().data("query").into();
    assert_eq!(world.send(req).await.status, 500);
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_when_the_resource_changed_is_not_stored() {
    let world = world(kept());
    world.origin.says(Ok(Response::new(Frames::new().data("old").into())));
    let res = world.service.clone().oneshot(request("GET", X, &[])).await.unwrap();
    after(1).await;
    world.origin.says(Ok(response(200, &[], "")));
    world.send(request("POST", X, &[])).await;
    assert_eq!(res.into_body().collect().await.unwrap().to_bytes(), "old");
    let seen = world.stale.snapshot();
    assert_eq!((seen.stored_total, seen.not_stored(NotStored::Outdated)), (0, 1));
    after(1).await;
    assert_eq!(world.get(X, &[]).await.status, 500);
}

#[tokio::test(start_paused = true)]
async fn an_operator_empties_it() {
    let world = world(kept());
    for uri in [X, "http://a.test/y", "/x"] {
        world.store(uri, &[], &[], "stored").await;
    }
    after(1).await;
    assert!(world.stale.purge(&"https://a.test/x".parse().unwrap()), "whatever the scheme");
    assert!(!world.stale.purge(&X.parse().unwrap()));
    assert_eq!(world.get(X, &[]).await.status, 500);
    assert_eq!(world.get("http://a.test/y", &[]).await.status, 200);
    world.stale.clear();
    assert_eq!(world.get("http://a.test/y", &[]).await.status, 500);
    let seen = world.stale.snapshot();
    assert_eq!((seen.entries, seen.bytes, seen.invalidated_total), (0, 0, 1));
    after(1).await;
    world.store(X, &[], &[], "stored").await;
    assert_eq!(world.get(X, &[]).await.status, 200, "and it is filled again");
}

#[tokio::test(start_paused = true)]
async fn modes() {
    let world = world(kept().cache(true));
    world.store(X, &[], &[("cache-control", "max-age=10")], "stored").await;
    after(20).await;
    world.stale.set_mode(Mode::OBSERVE_ONLY).unwrap();
    assert_eq!(world.get(X, &[]).await.status, 500);
    let seen = world.stale.snapshot();
    assert_eq!((seen.observed_total, seen.served_stale_total, seen.missed_total), (1, 0, 0));
    world.stale.set_mode(Mode::Disabled).unwrap();
    assert_eq!(world.get(X, &[]).await.status, 500);
    world.store("http://a.test/y", &[], &[("cache-control", "max-age=10")], "stored").await;
    assert_eq!((world.stale.snapshot().observed_total, world.stale.snapshot().stored_total), (1, 1));
    world.stale.set_mode(Mode::Auto).unwrap();
    assert_eq!(world.get(X, &[]).await.status, 200);
    assert_eq!(world.get("http://a.test/z", &[]).await.status, 500);
    assert_eq!(world.stale.snapshot().missed_total, 1);
    let error = world.stale.set_mode(Mode::ForcedOpen).unwrap_err();
    assert!(error.to_string().contains("refuses nothing"), "{error}");
    let mut shown = Vec::new();
    world.stale.visit(&mut |name, _| shown.push(name));
    for why in NotStored::ALL {
        assert!(shown.contains(&&*format!("not_stored_{}_total", why.as_str())), "{why:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_changes_counts_from_then_on() {
    let world = world(StaleConfig::default());
    world.store(X, &[], &[("cache-control", "max-age=10")], "stored").await;
    after(20).await;
    assert_eq!(world.get(X, &[]).await.status, 500);
    world.stale.update(kept()).unwrap();
    assert_eq!(world.get(X, &[]).await.status, 200);
    for fixed in [kept().max_bytes(1 << 20).max_body(1), kept().cache_name("other")] {
        let error = world.stale.update(fixed).unwrap_err();
        assert!(error.to_string().contains("it cannot change while the layer runs"), "{error}");
    }
    assert_eq!(world.stale.config(), kept());
}

#[test]
fn configs_that_cannot_be() {
    for (config, want) in [
        (kept().max_bytes(1), "`max_bytes` is 1, allowed: 65536 to 68719476736 bytes"),
        (
            kept().max_bytes(1 << 20),
            "`max_body` is 1048576, allowed: 0 to 67108864 bytes, and no more than half of `max_bytes`",
        ),
        (kept().max(Duration::MAX), "allowed: 0s to 8760h, or nothing"),
        (kept().cache_name(""), "`cache_name` is , allowed: letters"),
        (kept().cache_name("a; b"), "`cache_name` is a; b, allowed: letters"),
    ] {
        let error = config.build().unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_written_as_it_is_read() {
    let config: StaleConfig = serde_json::from_str(r#"{"max": "1h", "cache": true}"#).unwrap();
    assert_eq!(config, kept().cache(true));
    assert_eq!(serde_json::from_str::<StaleConfig>(&serde_json::to_string(&config).unwrap()).unwrap(), config);
    assert!(serde_json::from_str::<StaleConfig>(r#"{"maxx": "1h"}"#).is_err());
}

const SWR: &str = "max-age=10, stale-while-revalidate=90";

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_asked_for_anew_once_and_in_the_background() {
    let world = world(StaleConfig::default().cache(true));
    let said = [("cache-control", SWR), ("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT")];
    world.store(X, &[("x-in", "1")], &said, "stored").await;
    after(20).await;
    // It hangs for a while, so that many see the same stale answer.
    let body = Frames::new().wait(async { tokio::time::sleep(Duration::from_secs(5)).await }).data("newer");
    let mut res = Response::new(AnyBody::from(body));
    res.headers_mut().extend(headers(&[("cache-control", SWR)]));
    world.origin.says(Ok(res));
    let before = world.origin.calls();
    for method in ["GET", "HEAD", "GET"] {
        let got =
            world.send(request(method, X, &[("x-in", "1"), ("range", "bytes=0-1"), ("if-none-match", "\"z\"")])).await;
        assert_eq!(got.header("x-degraded"), Some("stale; cause=spared"));
        assert_eq!(got.header("cache-status"), Some("buttress; hit; ttl=-10; detail=stale-while-revalidate"));
        tokio::task::yield_now().await;
    }
    assert_eq!(world.origin.calls() - before, 1, "one asks for all");
    let asked = world.origin.last();
    assert_eq!(asked.method(), "GET");
    let of = |name: &str| asked.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!((of("x-in"), of("range")), (Some("1"), None));
    assert_eq!((of("if-none-match"), of("if-modified-since")), (Some("\"a\""), Some("Sun, 06 Nov 1994 08:00:00 GMT")));
    after(6).await;
    eventually("the background has done its work", || world.stale.snapshot().stored_total == 2).await;
    let got = world.get(X, &[]).await;
    assert_eq!((&*got.body, got.header("x-degraded"), got.header("age")), (&b"newer"[..], None, Some("6")));
    let seen = world.stale.snapshot();
    assert_eq!(
        (seen.revalidations_total, seen.spared_total, seen.served_stale_total, seen.served_fresh_total),
        (1, 4, 3, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_304_in_the_background_makes_it_fresh_again() {
    let world = world(StaleConfig::default().cache(true));
    world.store(X, &[], &[("cache-control", SWR), ("etag", "\"a\"")], "stored").await;
    after(20).await;
    world.origin.says(Ok(response(304, &[("etag", "\"a\"")], "")));
    assert_eq!(world.get(X, &[]).await.header("age"), Some("20"));
    eventually("the background has done its work", || world.stale.snapshot().freshened_total == 1).await;
    after(5).await;
    let got = world.get(X, &[]).await;
    assert_eq!((&*got.body, got.header("age"), got.degraded.is_some()), (&b"stored"[..], Some("5"), false));
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_the_background_changes_nothing() {
    let world = world(StaleConfig::default().cache(true));
    world.store(X, &[], &[("cache-control", SWR)], "stored").await;
    after(20).await;
    for calls in 2..4 {
        assert_eq!(world.get(X, &[]).await.body, "stored");
        eventually("the background has done its work", || world.origin.calls() == calls).await;
        after(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_in_the_background_is_paid_for() {
    let budget = Arc::new(BudgetConfig::new(0.1).min_per_sec(0.0).build().unwrap());
    let origin = Origin::default();
    let stale = StaleConfig::default().cache(true).build_sharing(budget.clone()).unwrap();
    let layer = StaleLayer::new(stale.wall_clock(begin));
    let (handle, service) = (layer.handle(), layer.layer(origin.clone()));
    origin.says(Ok(response(200, &[("cache-control", SWR)], "stored")));
    got(service.clone().oneshot(request("GET", X, &[])).await.unwrap()).await.unwrap();
    after(20).await;
    for _ in 0..3 {
        let got = got(service.clone().oneshot(request("GET", X, &[])).await.unwrap()).await.unwrap();
        assert_eq!(got.body, "stored", "what is stale is given all the same");
        tokio::task::yield_now().await;
    }
    let seen = handle.snapshot();
    assert_eq!((origin.calls(), seen.revalidations_total, seen.unpaid_total), (1, 0, 3));
    assert_eq!(budget.snapshot().deposits_total, 3, "for what went on others deposit");
}

/// A budget of its own is filled by the requests of clients: a tenth of them may be asked for in the background.
#[tokio::test(start_paused = true)]
async fn a_budget_of_its_own_is_filled_by_requests() {
    let world = world(StaleConfig::default().cache(true));
    for i in 0..100 {
        world.store(&format!("http://a.test/{i}"), &[], &[("cache-control", SWR)], "stored").await;
    }
    after(20).await;
    for i in 0..100 {
        world.get(&format!("http://a.test/{i}"), &[]).await;
        tokio::task::yield_now().await;
    }
    let asked = world.stale.snapshot().revalidations_total;
    assert!((5..=22).contains(&asked), "{asked}");
}

#[tokio::test]
async fn it_is_dropped_at_any_point_and_leaves_nothing() {
    for polls in 0..4 {
        let world = world(kept());
        let body = Frames::new().pause().data("abc").pause().data("de");
        world.origin.says(Ok(Response::new(body.into())));
        let mut call = Box::pin(async {
            let res = world.service.clone().oneshot(request("GET", X, &[])).await.unwrap();
            pauses(1).await;
            res.into_body().collect().await.unwrap();
        });
        for _ in 0..polls {
            let _ = buttress_sim::poll_once(&mut call).await;
        }
        drop(call);
        let seen = world.stale.snapshot();
        assert_eq!((seen.recording, seen.stored_total), (0, 0), "{polls}");
    }
}

/// All of it works over services of other types, under a gateway's and a server's protocol, and when one store is shared.
#[tokio::test(start_paused = true)]
async fn layers_may_share_a_store() {
    let shared: Arc<Stale> = Arc::new(stale(kept()));
    let (a, b) = (Origin::default(), Origin::default());
    let one = StaleLayer::new(shared.clone()).layer(a.clone());
    let other = StaleLayer::new(shared.clone()).protocol(HttpServer::new()).layer(b);
    a.says(Ok(response(200, &[], "stored")));
    got(one.oneshot(request("GET", X, &[])).await.unwrap()).await.unwrap();
    after(1).await;
    let got = got(other.oneshot(request("GET", X, &[])).await.unwrap()).await.unwrap();
    assert_eq!(got.body, "stored");
    assert_eq!(StaleLayer::new(shared).fresh().handle().snapshot().entries, 0);
}

/// One resource with many large variants does not push itself out.
#[tokio::test(start_paused = true)]
async fn variants_of_one_resource_take_half_of_the_budget_at_most() {
    let world = world(kept().max_body(64 * 1024).max_bytes(256 * 1024));
    let body = "x".repeat(48 * 1024);
    for i in 0..8 {
        after(1).await;
        let asked = [("accept-language", &*format!("l{i}"))];
        world.store(X, &asked, &[("vary", "accept-language")], &body).await;
        assert_eq!(world.get(X, &asked).await.status, 200, "the last one is always there");
    }
    after(1).await;
    for (language, status) in [("l7", 200), ("l6", 200), ("l5", 500)] {
        assert_eq!(world.get(X, &[("accept-language", language)]).await.status, status, "{language}");
    }
    let bytes = world.stale.snapshot().bytes;
    assert!((96 * 1024..=129 * 1024).contains(&bytes), "{bytes}");
}

/// What comes late from before a change is not stored, and takes nothing away from what came after it.
#[tokio::test(start_paused = true)]
async fn a_late_answer_takes_nothing_away() {
    let world = world(kept());
    let vary = |body: Frames| {
        let mut res = Response::new(AnyBody::from(body));
        res.headers_mut().insert("vary", "accept".parse().unwrap());
        res
    };
    world.origin.says(Ok(vary(Frames::new().data("old"))));
    let late = world.service.clone().oneshot(request("GET", X, &[("accept", "a")])).await.unwrap();
    after(1).await;
    world.origin.says(Ok(response(200, &[], "")));
    world.send(request("POST", X, &[])).await;
    after(1).await;
    world.origin.says(Ok(vary(Frames::new().data("new"))));
    world.get(X, &[("accept", "b")]).await;
    late.into_body().collect().await.unwrap();
    after(1).await;
    assert_eq!(world.get(X, &[("accept", "a")]).await.status, 500);
    assert_eq!(world.get(X, &[("accept", "b")]).await.body, "new");

    // And so it is where nothing was changed, and a later answer was faster.
    world.origin.says(Ok(vary(Frames::new().data("slow"))));
    let slow = world.service.clone().oneshot(request("GET", X, &[("accept", "b")])).await.unwrap();
    after(1).await;
    world.origin.says(Ok(vary(Frames::new().data("fast"))));
    world.get(X, &[("accept", "b")]).await;
    slow.into_body().collect().await.unwrap();
    assert_eq!(world.get(X, &[("accept", "b")]).await.body, "fast");
}

#[tokio::test(start_paused = true)]
async fn what_a_layer_gave_in_place_of_an_answer_is_not_stored() {
    let world = world(kept());
    let mut degraded = response(200, &[], "a fallback's");
    Degraded::new(DegradedBy::Fallback, Cause::Failure).mark(&mut degraded);
    world.origin.says(Ok(degraded));
    assert_eq!(world.get(X, &[]).await.header("x-degraded"), Some("fallback; cause=failure"), "it passes as it is");
    after(1).await;
    assert_eq!(world.get(X, &[]).await.status, 500);
    assert_eq!(world.stale.snapshot().not_stored(NotStored::Degraded), 1);
    // Nor what another process gave.
    world.store(X, &[], &[("x-degraded", "stale; cause=failure")], "old").await;
    after(1).await;
    assert_eq!(world.get(X, &[]).await.status, 500);

    // And its 304 makes nothing fresh again.
    world.store(X, &[], &[("etag", "\"a\"")], "stored").await;
    after(1).await;
    world.origin.says(Ok(response(304, &[("etag", "\"a\""), ("x-degraded", "stale; cause=failure")], "")));
    assert_eq!(world.get(X, &[("if-none-match", "\"a\"")]).await.status, 304);
    assert_eq!(world.stale.snapshot().freshened_total, 0);
}

/// On the wire: a whole answer, none to HEAD, 304, each on a connection that lives on.
#[tokio::test]
async fn hyper_sends_what_is_stored() {
    use buttress_sim::wire::{HttpService, Server, Version};
    for version in [Version::H1, Version::H2] {
        let origin = Origin::default();
        let service = StaleLayer::new(kept().build().unwrap()).layer(origin.clone());
        let service = service.map_response(|res: Response<_>| res.map(any));
        let server = Server::start(version, HttpService::new(service)).await.unwrap();
        let client = server.connect().await.unwrap();
        origin.says(Ok(response(200, &[("etag", "\"a\"")], "stored")));
        let sent = |method: &str, pairs: Pairs<'_>| client.send(request(method, "/x", pairs));
        got(sent("GET", &[]).await.unwrap()).await.unwrap();
        for _ in 0..2 {
            let res = got(sent("GET", &[]).await.unwrap()).await.unwrap();
            assert_eq!((res.status, &*res.body, res.header("content-length")), (200, &b"stored"[..], Some("6")));
            let res = got(sent("HEAD", &[]).await.unwrap()).await.unwrap();
            assert_eq!((res.status, &*res.body, res.header("content-length")), (200, &b""[..], Some("6")));
            let res = got(sent("GET", &[("if-none-match", "\"a\"")]).await.unwrap()).await.unwrap();
            assert_eq!((res.status, &*res.body, res.header("etag")), (304, &b""[..], Some("\"a\"")));
            assert_eq!(res.header("x-degraded"), Some("stale; cause=failure"));
        }
        assert_eq!(origin.calls(), 7);
    }
}

/// It stands outside of the deadline: a call that hangs ends in a stored answer.
#[tokio::test(start_paused = true)]
async fn a_hang_ends_in_a_stored_answer() {
    use buttress_deadline::{DeadlineConfig, DeadlineLayer};
    let calls = std::sync::atomic::AtomicU32::new(0);
    let script = buttress_sim::Script::new(move |_: http::Request<AnyBody>| {
        let hangs = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0;
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(response(200, &[], "stored"))
        }
    });
    let deadline = DeadlineLayer::new(DeadlineConfig::new(Duration::from_secs(2)).build().unwrap());
    let service = StaleLayer::new(stale(kept())).layer(deadline.protocol(HttpServer::new()).layer(script));
    got(service.clone().oneshot(request("GET", X, &[])).await.unwrap()).await.unwrap();
    let got = got(service.oneshot(request("GET", X, &[])).await.unwrap()).await.unwrap();
    assert_eq!((got.status, got.header("age"), &*got.body), (200, Some("2"), &b"stored"[..]));
    assert_eq!(got.header("x-degraded"), Some("stale; cause=deadline_passed"));
}

/// What a proxy in front says of the client's request tells answers apart, as if `Vary` named it: links and redirects are made of it.
#[tokio::test(start_paused = true)]
async fn what_a_proxy_in_front_says_tells_answers_apart() {
    let differ: [(&str, Pairs<'_>, &str, Pairs<'_>); 12] = [
        ("/x", &[("x-forwarded-proto", "http")], "/x", &[("x-forwarded-proto", "https")]),
        ("/x", &[], "/x", &[("x-forwarded-proto", "https")]),
        ("/x", &[("x-forwarded-host", "a")], "/x", &[("x-forwarded-host", "evil")]),
        ("/x", &[], "/x", &[("x-forwarded-host", "evil")]),
        ("/x", &[("forwarded", "proto=http")], "/x", &[("forwarded", "proto=https")]),
        ("/x", &[("forwarded", "for=1;host=a")], "/x", &[("forwarded", "for=1;Host=evil")]),
        ("/x", &[("forwarded", "host=a")], "/x", &[("forwarded", "host=a"), ("forwarded", "host=evil")]),
        ("/x", &[("forwarded", "host=\"a;for=b\"")], "/x", &[("forwarded", "host=\"a;for=c\"")]),
        ("/x", &[("forwarded", "for=\"x;host=a")], "/x", &[("forwarded", "for=\"x;host=evil")]),
        ("http://a.test/x", &[], "https://a.test/x", &[]),
        // Who writes a scheme into his request gets nothing of those of whom a proxy says it.
        ("https://a.test/x", &[], "/x", &[("x-forwarded-proto", "https")]),
        ("https://a.test/x", &[("x-forwarded-proto", "http")], "/x", &[("x-forwarded-proto", "https")]),
    ];
    let same: [(&str, Pairs<'_>, &str, Pairs<'_>); 3] = [
        ("https://a.test/x", &[("x-forwarded-proto", "http")], "/x", &[("x-forwarded-proto", "http")]),
        (
            "/x",
            &[("forwarded", "for=1;proto=https, by=x;For=\"[::1]:80\"")],
            "/x",
            &[("forwarded", "proto=https;by=z,for=2")],
        ),
        ("/x", &[("x-forwarded-for", "1")], "/x", &[("x-forwarded-for", "2")]),
    ];
    let of = |pairs: Pairs<'static>| [&[("host", "a.test")], pairs].concat();
    for (status, cases) in [(500, &differ[..]), (200, &same[..])] {
        for (uri, first, other, second) in cases {
            let world = world(kept());
            world.store(uri, &of(first), &[], "stored").await;
            after(1).await;
            assert_eq!(world.get(other, &of(second)).await.status, status, "{uri} {first:?}, {other} {second:?}");
            assert_eq!(world.get(uri, &of(first)).await.status, 200);
        }
    }
}

/// They are variants of one resource: few, and a change of it is a change of all.
#[tokio::test(start_paused = true)]
async fn what_a_proxy_says_is_no_other_resource() {
    let world = world(kept());
    let asked = |host: &'static str| [("host", "a.test"), ("x-forwarded-host", host), ("x-forwarded-proto", "https")];
    for host in ["a", "b"] {
        world.store("/x", &asked(host), &[], host).await;
    }
    world.store(X, &[], &[], "c").await;
    after(1).await;
    assert_eq!(world.stale.snapshot().entries, 1);
    assert_eq!(world.get("/x", &asked("b")).await.body, "b");
    world.origin.says(Ok(response(200, &[], "written")));
    world.send(request("PUT", "https://a.test/x", &[])).await;
    after(1).await;
    for host in ["a", "b"] {
        assert_eq!(world.get("/x", &asked(host)).await.status, 500);
    }
    for i in 0..12 {
        after(1).await;
        world.store("/x", &[("host", "a.test"), ("x-forwarded-host", &*format!("h{i}"))], &[], "stored").await;
    }
    after(1).await;
    for (host, status) in [("h3", 500), ("h4", 200), ("h11", 200)] {
        assert_eq!(world.get("/x", &[("host", "a.test"), ("x-forwarded-host", host)]).await.status, status, "{host}");
    }
}

/// What is asked in the background is of the same variant.
#[tokio::test(start_paused = true)]
async fn a_revalidation_is_of_the_variant_that_was_asked_for() {
    let world = world(StaleConfig::default().cache(true));
    let asked = [("host", "a.test"), ("x-forwarded-proto", "https")];
    world.store("/x", &asked, &[("cache-control", SWR)], "stored").await;
    after(20).await;
    world.origin.says(Ok(response(200, &[("cache-control", SWR)], "newer")));
    world.get("/x", &asked).await;
    eventually("the background has done its work", || world.stale.snapshot().stored_total == 2).await;
    assert_eq!(world.get("/x", &asked).await.body, "newer");
}

/// What the store answers by itself, nobody further in deposits for: where most is a hit, revalidation would have nothing to live on.
#[tokio::test(start_paused = true)]
async fn what_is_answered_without_asking_deposits_into_a_shared_budget() {
    let budget = Arc::new(BudgetConfig::new(0.5).min_per_sec(0.0).build().unwrap());
    let origin = Origin::default();
    let layer = StaleLayer::new(StaleConfig::default().cache(true).build_sharing(budget.clone()).unwrap());
    let service = layer.layer(origin.clone());
    let ask = async || got(service.clone().oneshot(request("GET", X, &[])).await.unwrap()).await.unwrap();
    origin.says(Ok(response(200, &[("cache-control", SWR)], "stored")));
    ask().await;
    assert_eq!(budget.snapshot().deposits_total, 0, "who goes on is deposited for further in");
    for _ in 0..3 {
        ask().await;
    }
    assert_eq!((origin.calls(), budget.snapshot().deposits_total), (1, 3));
    after(11).await;
    origin.says(Ok(response(200, &[("cache-control", SWR)], "newer")));
    ask().await;
    eventually("it is asked for anew", || layer.handle().snapshot().stored_total == 2).await;
}

/// A head that waits for its body holds memory as well.
#[tokio::test(start_paused = true)]
async fn heads_under_way_stay_in_the_budget() {
    let world = world(kept().max_body(1024).max_bytes(64 * 1024));
    let large = "x".repeat(20 * 1024);
    let mut open = Vec::new();
    for i in 0..10 {
        let mut res = Response::new(AnyBody::from(Frames::new().never()));
        res.headers_mut().insert("x-large", large.parse().unwrap());
        world.origin.says(Ok(res));
        let uri = format!("http://a.test/{i}");
        open.push(world.service.clone().oneshot(request("GET", &uri, &[])).await.unwrap());
    }
    let seen = world.stale.snapshot();
    assert!((60 * 1024..=64 * 1024).contains(&seen.recording), "{}", seen.recording);
    assert_eq!(seen.not_stored(NotStored::Busy), 7);
    drop(open);
    assert_eq!(world.stale.snapshot().recording, 0);
}

/// A 304 to somebody whose session is renewed by the way is no reason to throw away what all others get.
#[tokio::test(start_paused = true)]
async fn a_304_with_a_cookie_throws_nothing_away() {
    let world = world(kept());
    world.store(X, &[], &[("etag", "\"1\"")], "for all").await;
    world.origin.says(Ok(response(304, &[("etag", "\"1\""), ("set-cookie", "session=2")], "")));
    world.get(X, &[("cookie", "session=1"), ("if-none-match", "\"1\"")]).await;
    let got = world.get(X, &[]).await;
    assert_eq!((&*got.body, got.header("set-cookie")), (&b"for all"[..], None));
    assert_eq!(world.stale.snapshot().not_stored(NotStored::SetCookie), 1);
}

/// RFC 9110, 6.6.1: an answer without `Date` gets one, or the next cache takes it for new.
#[tokio::test(start_paused = true)]
async fn a_stored_answer_has_a_date() {
    let world = world(kept());
    let first = world.store(X, &[], &[], "stored").await;
    assert_eq!(first.header("date"), None, "what passes is as it came");
    after(60).await;
    let got = world.get(X, &[]).await;
    assert_eq!((got.header("date"), got.header("age")), (Some(&*http_date(0)), Some("60")));
    world.store("http://a.test/y", &[], &[("date", &http_date(-5))], "stored").await;
    assert_eq!(world.get("http://a.test/y", &[]).await.header("date"), Some(&*http_date(-5)));
}
