//! Reduced service: fallbacks, backups, toggles and levels, as clients and operators see them.

use crate::{
    process::{Gateway, binary, call, get, header, one},
    raw::Upstream,
};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use std::{fs, path::PathBuf, process::Output, time::Duration};

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";
const BAD: &str = "HTTP/1.1 500 Oh\r\ncontent-length: 3\r\n\r\nbad";
const ONCE: &str = "retry = false";

#[tokio::test]
async fn a_static_answer_has_the_status_and_type_of_its_file_and_says_what_it_is() {
    let upstream = Upstream::answering(BAD).await;
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sorry-{}.html", std::process::id()));
    fs::write(&file, "<p>not now</p>").unwrap();
    let route = format!("{ONCE}\nfallback.static = {{ file = {file:?} }}");
    let gateway = Gateway::start_with("", &one(upstream.address, "breaker = false", &route));
    // It was read at the start.
    fs::remove_file(file).unwrap();
    let res = get(gateway.address, "/").await;
    assert_eq!((res.status().as_u16(), &res.body()[..]), (503, &b"<p>not now</p>"[..]));
    assert_eq!(header(&res, "content-type"), "text/html; charset=utf-8");
    assert_eq!(header(&res, "x-degraded"), "fallback; cause=failure");

    let head = Request::head(format!("http://{}/", gateway.address)).body(Full::default()).unwrap();
    let res = call(head, false).await;
    assert_eq!((res.status().as_u16(), header(&res, "content-length"), res.body().len()), (503, "14", 0));

    gateway.shows("route.r.fallback", "failure_total", 2).await;
    let metrics = get(gateway.admin, "/metrics").await;
    let metrics = String::from_utf8(metrics.into_body().to_vec()).unwrap();
    let degraded =
        "buttress_telemetry_degradations_total{name=\"route.r.telemetry\",http_route=\"/\",by=\"fallback\"} 2";
    let lines: Vec<_> = metrics.lines().filter(|line| line.contains("degradations")).collect();
    assert!(lines.contains(&degraded), "{lines:#?}");
}

#[tokio::test]
async fn what_falls_back_is_what_the_config_says_and_never_what_the_client_did() {
    let upstream = Upstream::answering("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
    let route = format!("{ONCE}\nbody_bytes = 3\nfallback = {{ on = [\"refused\"], static = {{ body = \"sorry\" }} }}");
    let gateway = Gateway::start_with("", &one(upstream.address, "", &route));
    let res = get(gateway.address, "/").await;
    assert_eq!((res.status().as_u16(), header(&res, "x-degraded")), (404, ""));
    let long = Request::post(format!("http://{}/", gateway.address)).body(Full::from("long")).unwrap();
    let res = call(long, false).await;
    assert_eq!((res.status().as_u16(), header(&res, "x-degraded")), (413, ""));

    order(&gateway, &["breaker", "open", "u"]);
    let res = get(gateway.address, "/").await;
    assert_eq!((res.status().as_u16(), &res.body()[..]), (503, &b"sorry"[..]));
    assert_eq!(header(&res, "x-degraded"), "fallback; cause=breaker_open");
    assert_eq!(header(&res, "content-type"), "text/plain; charset=utf-8");
}

/// Waits until it is so.
async fn eventually(what: &str, so: impl AsyncFn() -> bool) {
    let wait = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "{what}");
}

fn order(gateway: &Gateway, args: &[&str]) -> String {
    let Output { status, stdout, stderr } =
        binary().args(args).arg("--admin").arg(gateway.admin.to_string()).output().unwrap();
    let said = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{said}");
    said
}

#[tokio::test]
async fn a_backup_stands_in_and_the_first_cluster_gets_its_calls_back() {
    let (primary, backup) = (Upstream::answering(BAD).await, Upstream::answering(GOOD).await);
    let gateway = Gateway::start_with(
        "",
        &format!(
            "[cluster.main]\nendpoints = \"{}\"\nbreaker = false\n[cluster.spare]\nendpoints = \"{}\"\n\
             [route.r]\nprefix = \"/\"\ncluster = \"main\"\n{ONCE}\n\
             failover = {{ clusters = \"spare\", fail_after = 2, probe_every = \"1h\" }}\n",
            primary.address, backup.address
        ),
    );
    let uri = format!("http://{}/", gateway.address);
    for n in 0..4 {
        let req = Request::put(&uri).body(Full::from("some")).unwrap();
        let res = call(req, n % 2 == 1).await;
        assert_eq!((res.status().as_u16(), &res.body()[..]), (200, &b"good"[..]));
        let cause = if n < 2 { "failover; cause=failure" } else { "failover; cause=failed_over" };
        assert_eq!(header(&res, "x-degraded"), cause, "call {n}");
    }
    let layers = gateway.status().await["layers"].take();
    assert_eq!(layers["route.r.failover"]["failovers_total"], 1, "{:#}", layers["route.r.failover"]);
    assert_eq!(layers["cluster.main.telemetry"]["failure_total"], 2, "then it was left alone");

    // What may have been done already is nobody else's to do.
    order(&gateway, &["failover", "r", "--prefer", "main"]);
    let res = call(Request::post(&uri).body(Full::from("some")).unwrap(), false).await;
    assert_eq!((res.status().as_u16(), header(&res, "x-degraded")), (500, ""));
    order(&gateway, &["failover", "r", "--auto"]);
    let wrong = call(admin(&gateway, "/failover/r?prefer=other"), false).await;
    let said = String::from_utf8(wrong.body().to_vec()).unwrap();
    assert!(wrong.status() == 400 && said.contains("main, spare"), "{said}");
}

fn admin(gateway: &Gateway, path: &str) -> Request<Full<bytes::Bytes>> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}{path}", gateway.admin))
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn a_toggle_and_a_level_switch_a_feature_off_and_an_operator_may_have_the_last_word() {
    let upstream = Upstream::answering(GOOD).await;
    let gateway = Gateway::start_with(
        "",
        &(one(upstream.address, "breaker = { open_for = \"1h\", max_open = \"1h\" }", "toggle = \"extras\"")
            + "[route.p]\nprefix = \"/plain\"\ncluster = \"u\"\n\
               [toggle.extras]\nlevel = \"no extras\"\n\
               [levels]\norder = [\"full\", \"no extras\", \"static\"]\nworse_after = \"10ms\"\nbetter_after = \"10ms\"\n"),
    );
    let status = async |path: &str| get(gateway.address, path).await.status().as_u16();
    assert_eq!(status("/").await, 200);

    let said = order(&gateway, &["toggle", "off", "extras"]);
    assert_eq!(said, "the toggle extras: off, it is off\n");
    let res = get(gateway.address, "/").await;
    assert_eq!((res.status().as_u16(), header(&res, "proxy-status")), (503, "buttress; error=proxy_internal_response"));
    assert_eq!(status("/plain").await, 200);
    order(&gateway, &["toggle", "auto", "extras"]);
    assert_eq!(status("/").await, 200);

    let said = order(&gateway, &["level", "static"]);
    assert_eq!(said, "the level: static, pinned\n");
    assert_eq!(status("/").await, 503);
    let shown: serde_json::Value = serde_json::from_str(&order(&gateway, &["level"])).unwrap();
    assert_eq!((&shown["current"], &shown["pinned"]), (&json!(2), &json!(true)), "{shown:#}");
    order(&gateway, &["toggle", "on", "extras"]);
    assert_eq!(status("/").await, 200, "who says on means it");
    order(&gateway, &["toggle", "auto", "extras"]);
    order(&gateway, &["level", "--unpin"]);
    eventually("the pressure decides", async || status("/").await == 200).await;

    // All circuits of the one cluster are open: that is all the pressure there can be.
    order(&gateway, &["breaker", "open", "u"]);
    let down = async || {
        status("/").await;
        get(gateway.admin, "/levels").await.body().windows(12).any(|text| text == b"\"current\": 2")
    };
    eventually("the least level", down).await;

    for (path, allowed) in [
        ("/toggle/extra?switch=off", "there are: extras"),
        ("/toggle/extras?switch=of", "allowed: on, off, auto"),
        ("/levels?pin=none", "full, no extras, static"),
        ("/levels", "say `pin=LEVEL` or `unpin`"),
    ] {
        let res = call(admin(&gateway, path), false).await;
        let said = String::from_utf8(res.body().to_vec()).unwrap();
        assert!(res.status().is_client_error() && said.contains(allowed), "{path}: {said}");
    }
}

#[tokio::test]
async fn stale_answers_say_how_old_they_are_and_what_must_not_be_kept_is_not() {
    let upstream = Upstream::answering_in_turn(&[
        "HTTP/1.1 200 OK\r\ncache-control: max-age=0, stale-if-error=60\r\ncontent-length: 4\r\n\r\nkept",
        BAD,
        "HTTP/1.1 200 OK\r\ncache-control: private, stale-if-error=60\r\ncontent-length: 4\r\n\r\nmine",
        BAD,
    ])
    .await;
    let route = format!("{ONCE}\nfallback.stale = {{}}");
    let gateway = Gateway::start_with("", &one(upstream.address, "breaker = false", &route));
    let res = get(gateway.address, "/a").await;
    assert_eq!((&res.body()[..], header(&res, "x-degraded")), (&b"kept"[..], ""));
    let res = get(gateway.address, "/a").await;
    assert_eq!((res.status().as_u16(), &res.body()[..]), (200, &b"kept"[..]));
    assert_eq!(header(&res, "x-degraded"), "stale; cause=failure");
    let cache = header(&res, "cache-status");
    assert!(cache.starts_with("buttress; hit; ttl=") && cache.contains("detail=stale-if-error"), "{cache}");
    assert!(!header(&res, "age").is_empty());

    assert_eq!(&get(gateway.address, "/b").await.body()[..], b"mine");
    let res = get(gateway.address, "/b").await;
    assert_eq!((res.status().as_u16(), &res.body()[..]), (500, &b"bad"[..]));
}

#[tokio::test]
async fn what_one_route_writes_another_does_not_give_from_its_store() {
    let upstream = Upstream::answering_in_turn(&[
        "HTTP/1.1 200 OK\r\ncache-control: max-age=600\r\ncontent-length: 3\r\n\r\nold",
        "HTTP/1.1 204 Done\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncache-control: max-age=600\r\ncontent-length: 3\r\n\r\nnew",
    ])
    .await;
    let gateway = Gateway::start_with(
        "",
        &format!(
            "[cluster.u]\nendpoints = \"{}\"\n\
             [route.read]\nprefix = \"/\"\nmethods = [\"GET\"]\ncluster = \"u\"\nfallback.stale = {{ cache = true }}\n\
             [route.write]\nprefix = \"/\"\nmethods = [\"PUT\"]\ncluster = \"u\"\n",
            upstream.address
        ),
    );
    for _ in 0..3 {
        assert_eq!(&get(gateway.address, "/a?b").await.body()[..], b"old");
    }
    let put = Request::put(format!("http://{}/a?b", gateway.address)).body(Full::from("x")).unwrap();
    assert_eq!(call(put, true).await.status(), 204);
    assert_eq!(&get(gateway.address, "/a?b").await.body()[..], b"new");
}

#[tokio::test]
async fn a_handshake_is_neither_answered_from_the_store_nor_made_twice() {
    let upstream = Upstream::answering_in_turn(&[
        "HTTP/1.1 200 OK\r\ncache-control: max-age=600\r\ncontent-length: 4\r\n\r\npage",
        "HTTP/1.1 503 Oh\r\ncontent-length: 3\r\n\r\nbad",
    ])
    .await;
    let backup = Upstream::answering(GOOD).await;
    let gateway = Gateway::start_with(
        "",
        &format!(
            "[cluster.main]\nendpoints = \"{}\"\nbreaker = false\n[cluster.spare]\nendpoints = \"{}\"\n\
             [route.r]\nprefix = \"/\"\ncluster = \"main\"\nfailover.clusters = \"spare\"\n\
             fallback.stale = {{ cache = true, max = \"1h\" }}\n",
            upstream.address, backup.address
        ),
    );
    assert_eq!(&get(gateway.address, "/").await.body()[..], b"page");
    let handshake = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = crate::raw::exchange(gateway.address, handshake).await;
    assert!(answer.starts_with("HTTP/1.1 503") && !answer.contains("page"), "{answer}");
    assert_eq!(upstream.received().matches("sec-websocket-key").count(), 1);
    assert_eq!(backup.received(), "");
}

#[tokio::test]
async fn a_level_that_heeds_the_circuit_of_what_it_gives_up_finds_back() {
    let upstream = Upstream::answering_in_turn(&[BAD, BAD, BAD, GOOD, GOOD, GOOD, GOOD, GOOD, GOOD, GOOD]).await;
    let gateway = Gateway::start_with(
        "",
        &(one(
            upstream.address,
            "breaker = { consecutive = 3, open_for = \"200ms\", max_open = \"200ms\" }",
            &format!("{ONCE}\ntoggle = \"all\"\nfallback.static = {{ body = \"sorry\" }}"),
        ) + "[toggle.all]\nlevel = \"static\"\n[levels]\norder = [\"full\", \"static\"]\nworse_after = \"10ms\"\nbetter_after = \"10ms\"\n"),
    );
    let mark = async || {
        let res = get(gateway.address, "/").await;
        header(&res, "x-degraded").to_owned()
    };
    eventually("it is given up", async || mark().await == "fallback; cause=switched_off").await;
    eventually("it is back", async || mark().await.is_empty()).await;
}
