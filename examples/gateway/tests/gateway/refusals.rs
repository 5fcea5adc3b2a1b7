//! What clients get when an upstream is down, slow, or not asked at all.

use crate::{
    process::{Gateway, call, get, header, one},
    raw::Upstream,
};
use buttress_sim::{BOUND, eventually};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
};

/// A port that nobody listens on.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// An upstream that takes calls and never answers.
async fn hanging() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    address
}

fn seen(res: &Response<Bytes>) -> (u16, &str) {
    (res.status().as_u16(), header(res, "proxy-status"))
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_502() {
    let gateway = Gateway::before(nobody().await, "");
    let res = get(gateway.address, "/").await;
    assert_eq!(seen(&res), (502, "buttress; error=connection_refused"));
}

#[tokio::test]
async fn an_upstream_that_does_not_take_the_connection_is_a_504() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    // Connections beyond the queue of a listener that never accepts are left waiting.
    let _listener = socket.listen(0).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(tokio::spawn(TcpStream::connect(address)));
    }
    eventually("the queue is full", || waiting.iter().filter(|w| w.is_finished()).count() >= 1).await;
    let gateway = Gateway::before(address, "connect_timeout = \"200ms\"");
    let mut last = Response::default();
    for _ in 0..5 {
        last = get(gateway.address, "/").await;
    }
    assert_eq!(seen(&last), (504, "buttress; error=connection_timeout"));
}

#[tokio::test]
async fn a_slow_upstream_is_a_504() {
    let gateway = Gateway::before(hanging().await, "deadline = { per_try = \"100ms\" }");
    let res = get(gateway.address, "/").await;
    assert_eq!(seen(&res), (504, "buttress; error=http_response_timeout"));

    let gateway = Gateway::start_with("", &one(hanging().await, "", "deadline = { total = \"100ms\" }"));
    let res = get(gateway.address, "/").await;
    assert_eq!(seen(&res), (504, "buttress; error=http_response_timeout"));
}

#[tokio::test]
async fn an_upstream_that_closes_without_an_answer_is_a_502() {
    let upstream = Upstream::answering("").await;
    let gateway = Gateway::before(upstream.address, "");
    assert_eq!(seen(&get(gateway.address, "/").await), (502, "buttress; error=connection_terminated"));
}

#[tokio::test]
async fn an_upstream_that_answers_nonsense_is_a_502() {
    let upstream = Upstream::answering("nonsense\r\n\r\n").await;
    let gateway = Gateway::before(upstream.address, "");
    assert_eq!(get(gateway.address, "/").await.status(), 502);
}

#[tokio::test]
async fn an_upstream_that_switches_protocols_unasked_is_a_502_and_has_failed() {
    let switched = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nraw";
    let upstream = Upstream::answering(switched).await;
    let gateway = Gateway::start_with("", &one(upstream.address, "", "retry = false"));
    for http2 in [false, true] {
        let req = Request::get(format!("http://{}/", gateway.address)).header("upgrade", "x");
        let res = call(req.body(Full::default()).unwrap(), http2).await;
        assert_eq!(seen(&res), (502, "buttress; error=connection_terminated"));
        assert_eq!(header(&res, "upgrade"), "");
    }
    let status = gateway.status().await;
    let breaker = &status["layers"]["cluster.u.breaker"];
    assert_eq!((&breaker["failures"], &breaker["in_flight"]), (&2.into(), &0.into()), "{breaker:#}");
}

#[tokio::test]
async fn a_request_that_was_waiting_for_a_connection_that_closes_is_not_tried_again_behind_our_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = "http2 = true\nbreaker = { consecutive = 100 }";
    let gateway = Gateway::start_with("", &one(listener.local_addr().unwrap(), upstream, "retry = false"));
    let ask = || {
        tokio::spawn(call(Request::get(format!("http://{}/", gateway.address)).body(Full::default()).unwrap(), false))
    };
    let mut answers = vec![ask()];
    let (stream, _) = listener.accept().await.unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let service = service_fn(move |_: Request<Incoming>| {
        count.fetch_add(1, Relaxed);
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    // One call at a time: the others wait in the gateway for their turn on this connection.
    let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let serving = tokio::spawn(http2.max_concurrent_streams(1).serve_connection(TokioIo::new(stream), service));
    eventually("the first call is there", || asked.load(Relaxed) == 1).await;
    answers.extend([ask(), ask(), ask()]);
    let under_way = async {
        while gateway.status().await["layers"]["cluster.u.bulkhead"]["in_flight"] != 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), under_way).await.expect("all four hold a permit");
    // From there to hyper's queue nothing can be seen from outside. Too short a wait would show less, and fail nothing.
    tokio::time::sleep(Duration::from_millis(50)).await;
    serving.abort();
    let again = async { listener.accept().await.unwrap() };
    tokio::select! {
        _ = again => panic!("a call that has failed once was made again"),
        () = async { for answer in &mut answers { assert_eq!(answer.await.unwrap().status(), 502); } } => {}
    }
    assert_eq!(asked.load(Relaxed), 1);
}

#[tokio::test]
async fn an_open_breaker_is_a_503_with_retry_after_and_the_upstream_is_left_alone() {
    let upstream = Upstream::answering("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n").await;
    let breaker = "breaker = { consecutive = 3, open_for = \"30s\" }";
    let gateway = Gateway::before(upstream.address, breaker);
    for _ in 0..3 {
        assert_eq!(get(gateway.address, "/").await.status(), 500, "the upstream's own answer goes through");
    }
    let res = get(gateway.address, "/").await;
    assert_eq!(seen(&res), (503, "buttress; error=destination_unavailable"));
    let after: u64 = header(&res, "retry-after").parse().unwrap();
    assert!((1..=36).contains(&after), "{after}");
    assert_eq!(upstream.received().matches("GET ").count(), 3);

    let req = Request::get(format!("http://{}/", gateway.address)).header("accept", "application/json");
    let res = call(req.body(Full::default()).unwrap(), true).await;
    assert_eq!(header(&res, "content-type"), "application/problem+json");
    let problem: serde_json::Value = serde_json::from_slice(res.body()).unwrap();
    assert_eq!((&problem["status"], &problem["reason"]), (&503.into(), &"breaker_open".into()));

    let status = gateway.status().await;
    assert_eq!(status["layers"]["cluster.u.breaker"]["state"], "open");
    assert_eq!(status["layers"]["cluster.u.breaker"]["refused_total"], 2);
}

#[tokio::test]
async fn a_full_bulkhead_is_a_503_with_retry_after() {
    let gateway = Gateway::before(hanging().await, "bulkhead = { limit = 1 }");
    let held = tokio::spawn({
        let address = gateway.address;
        async move { get(address, "/").await }
    });
    loop {
        let status = gateway.status().await;
        if status["layers"]["cluster.u.bulkhead"]["in_flight"] == 1 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let res = get(gateway.address, "/").await;
    assert_eq!(seen(&res), (503, "buttress; error=connection_limit_reached"));
    held.abort();
}

#[tokio::test]
async fn calls_wait_for_their_turn_where_the_config_says_so() {
    let bulkhead = "bulkhead = { limit = 1, max_queue = 1, max_wait = \"30s\" }";
    waits_for_its_turn(bulkhead, "", "cluster.u.bulkhead").await;
    waits_for_its_turn("", bulkhead, "route.r.bulkhead").await;
}

async fn waits_for_its_turn(upstream_lines: &str, route_lines: &str, layer: &str) {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tables = one(upstream.local_addr().unwrap(), upstream_lines, route_lines);
    let gateway = Gateway::start_with("", &tables);
    let address = gateway.address;
    let ask = || tokio::spawn(async move { get(address, "/").await });
    let (first, (mut held, _)) = (ask(), upstream.accept().await.unwrap());
    crate::raw::until(&mut held, "\r\n\r\n").await;
    let second = ask();
    let queued = async {
        while gateway.status().await["layers"][layer]["queued"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, queued).await.expect("the second call waits");
    assert_eq!(get(address, "/").await.status(), 503, "the queue is full");
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    held.write_all(answer).await.unwrap();
    let (mut next, _) = upstream.accept().await.unwrap();
    crate::raw::until(&mut next, "\r\n\r\n").await;
    next.write_all(answer).await.unwrap();
    assert_eq!((first.await.unwrap().status(), second.await.unwrap().status()), (StatusCode::OK, StatusCode::OK));
}
