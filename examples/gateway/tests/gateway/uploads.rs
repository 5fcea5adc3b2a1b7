//! Clients that do not send what they announced: their doing, not the upstream's.

use crate::{
    process::{Gateway, get, one},
    raw::{Upstream, rest, until},
};
use buttress_sim::eventually;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use std::{convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tokio_stream::{StreamExt, iter, pending};

const STALLS: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nten bytes.";

/// Nothing that the upstream is accused of, nothing that is still held.
async fn nobody_is_accused(gateway: &Gateway) {
    let status = gateway.status().await;
    let breaker = &status["layers"]["cluster.u.breaker"];
    for count in ["calls", "failures", "consecutive", "in_flight", "opened_total"] {
        assert_eq!(breaker[count], 0, "{count} in {breaker:#}");
    }
    assert_eq!(status["layers"]["cluster.u.bulkhead"]["in_flight"], 0, "{status:#}");
}

async fn ended(gateway: &Gateway) {
    while gateway.status().await["layers"]["cluster.u.breaker"]["in_flight"] != 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_upload_that_stalls_is_a_408_and_the_breaker_counts_nothing() {
    let upstream = Upstream::fine().await;
    let tables = one(upstream.address, "breaker = { consecutive = 2 }", "");
    let gateway = Gateway::start_with("buffer_bytes = 0\nbody_timeout = \"200ms\"", &tables);
    let mut clients = Vec::new();
    let start = Instant::now();
    for _ in 0..5 {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(STALLS).await.unwrap();
        clients.push(client);
    }
    for mut client in clients {
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close\r\n"), "{answer}");
    }
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(upstream.received().matches("ten bytes.").count(), 5);
    nobody_is_accused(&gateway).await;
    assert_eq!(get(gateway.address, "/").await.status(), 200);
}

#[tokio::test]
async fn without_a_word_in_the_config_a_stalled_upload_ends_before_its_deadline() {
    let upstream = Upstream::fine().await;
    let tables = one(upstream.address, "breaker = { consecutive = 2 }\ndeadline = { per_try = \"1s\" }", "");
    let gateway = Gateway::start_with("", &tables);
    for _ in 0..3 {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(STALLS).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    nobody_is_accused(&gateway).await;
}

/// Clients that send a byte now and then, for longer than the breaker lets a service be silent and than a try may take.
#[tokio::test]
async fn uploads_that_trickle_accuse_nobody() {
    let upstream = Upstream::fine().await;
    let breaker =
        "breaker = { consecutive = 2, hang_after = \"200ms\", slow_after = \"100ms\", slow_rate = 0.5, min_calls = 4 }";
    let gateway = Gateway::start_with(
        "buffer_bytes = 0",
        &one(upstream.address, &format!("{breaker}\ndeadline = {{ per_try = \"2s\" }}"), ""),
    );
    let trickle = async |mut client: TcpStream, seconds: u32| {
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome").await.unwrap();
        for _ in 0..seconds * 20 {
            sleep(Duration::from_millis(50)).await;
            if client.write_all(b"x").await.is_err() {
                break;
            }
        }
        client
    };
    let mut clients = tokio::task::JoinSet::new();
    for i in 0..8 {
        let client = TcpStream::connect(gateway.address).await.unwrap();
        // Half of them go away, the others are ended by the deadline.
        clients.spawn(trickle(client, if i % 2 == 0 { 1 } else { 3 }));
    }
    while let Some(client) = clients.join_next().await {
        drop(client.unwrap());
    }
    ended(&gateway).await;
    nobody_is_accused(&gateway).await;
    let deadline = &gateway.status().await["layers"]["cluster.u.deadline"];
    assert_eq!((&deadline["client_passed_total"], &deadline["passed_total"]), (&4.into(), &0.into()), "{deadline:#}");
}

#[tokio::test]
async fn an_upload_may_take_long_as_long_as_it_goes_on() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with("body_timeout = \"1s\"", &one(upstream.address, "", ""));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n").await.unwrap();
    for _ in 0..8 {
        sleep(Duration::from_millis(200)).await;
        client.write_all(b"x").await.unwrap();
    }
    until(&mut client, "HTTP/1.1 200 OK").await;
}

/// An upstream that sends a head and a piece of its body as soon as a call begins, and waits for the rest of the upload.
async fn answers_early(head: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                until(&mut stream, "\r\n\r\n").await;
                stream.write_all(head.as_bytes()).await.unwrap();
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn an_upload_that_breaks_off_or_stalls_after_the_head_counts_nothing_either() {
    let address = answers_early("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nearly\r\n").await;
    let tables = one(address, "breaker = { consecutive = 2 }", "");
    let gateway = Gateway::start_with("buffer_bytes = 0\nbody_timeout = \"200ms\"", &tables);
    for rest_of_it in ["zz\r\n", ""] {
        for _ in 0..3 {
            let mut client = TcpStream::connect(gateway.address).await.unwrap();
            let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n";
            client.write_all(head).await.unwrap();
            until(&mut client, "early").await;
            client.write_all(rest_of_it.as_bytes()).await.unwrap();
            assert!(!rest(&mut client).await.contains("0\r\n\r\n"), "an answer that broke off does not look whole");
            ended(&gateway).await;
        }
        nobody_is_accused(&gateway).await;
    }
}

#[tokio::test]
async fn a_grpc_stream_that_has_its_head_may_be_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start_with("body_timeout = \"200ms\"", &one(listener.local_addr().unwrap(), "", ""));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let head =
        "POST /x.Y/Z HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    until(&mut upstream, "\r\n\r\n").await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
    upstream.write_all(head.as_bytes()).await.unwrap();
    until(&mut client, "1\r\nx").await;
    sleep(Duration::from_millis(700)).await;
    client.write_all(b"5\r\nhello\r\n").await.unwrap();
    until(&mut upstream, "hello").await;
}

/// An HTTP/2 upstream that reads each request to its end before it answers.
async fn http2() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|req: Request<Incoming>| async {
                let _ = req.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            });
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http2.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn over_http_2_it_is_the_same() {
    let tables = one(http2().await, "http2 = true\nbreaker = { consecutive = 2 }", "");
    let gateway = Gateway::start_with("buffer_bytes = 0\nbody_timeout = \"200ms\"", &tables);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for _ in 0..3 {
        let begun = iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"ten bytes.")))]);
        let req = Request::post(format!("http://{}/", gateway.address));
        let req = req.body(StreamBody::new(begun.chain(pending()))).unwrap();
        assert_eq!(client.request(req).await.unwrap().status(), 408);
    }
    for _ in 0..3 {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    nobody_is_accused(&gateway).await;
}

#[tokio::test]
async fn clients_that_break_off_their_uploads_do_not_open_the_breaker() {
    let upstream = Upstream::fine().await;
    let breaker = "breaker = { consecutive = 2 }";
    let gateway = Gateway::start_with("buffer_bytes = 0", &one(upstream.address, breaker, ""));
    for i in 1..=10 {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        let head = format!("POST /{i} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome");
        client.write_all(head.as_bytes()).await.unwrap();
        eventually("the upload has begun", || upstream.received().matches("some").count() == i).await;
        drop(client);
    }
    // A chunk that is none breaks the body off as well.
    for i in 1..=10 {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n")
            .await
            .unwrap();
        eventually("the upload has begun", || upstream.received().matches("bad").count() == i).await;
        client.write_all(b"zz\r\n").await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("the request body broke off"), "{answer}");
    }
    assert_eq!(get(gateway.address, "/").await.status(), 200);
    let status = gateway.status().await;
    assert_eq!(status["layers"]["cluster.u.breaker"]["opened_total"], 0, "{status:#}");
    assert_eq!(status["layers"]["cluster.u.bulkhead"]["in_flight"], 0, "{status:#}");
}

#[tokio::test]
async fn a_client_that_is_slow_with_a_small_body_takes_no_place_of_others() {
    let upstream = Upstream::fine().await;
    let route = "bulkhead = { limit = 1 }";
    let gateway = Gateway::start_with("body_timeout = \"300ms\"", &one(upstream.address, "", route));
    let mut slow = TcpStream::connect(gateway.address).await.unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
    // The body's beginning is there before the others are.
    for _ in 0..20 {
        assert_eq!(get(gateway.address, "/").await.status(), 200);
    }
    assert!(!upstream.received().contains("POST"), "{}", upstream.received());
    slow.write_all(b"llo").await.unwrap();
    until(&mut slow, "HTTP/1.1 200 OK").await;
    assert!(upstream.received().ends_with("hello"), "{}", upstream.received());

    slow.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
    let answer = until(&mut slow, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn who_goes_on_sending_after_its_answer_is_over_does_not_keep_the_upstream_for_ever() {
    let address = answers_early("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await;
    let gateway = Gateway::start_with("", &one(address, "", ""));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome").await.unwrap();
    until(&mut client, "early").await;
    let begun = Instant::now();
    while client.write_all(b"x").await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is still read");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_upload_goes_on_after_an_attempt_that_was_answered_early_and_thrown_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start_with(
        "buffer_bytes = 0",
        &one(listener.local_addr().unwrap(), "", "retry = { budget = { ratio = 1.0 } }"),
    );
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\nsome").await.unwrap();
    let (mut first, _) = listener.accept().await.unwrap();
    until(&mut first, "some").await;
    first.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let (mut second, _) = listener.accept().await.unwrap();
    until(&mut second, "some").await;
    // Longer than what is left after an answer is waited for.
    for _ in 0..56 {
        sleep(Duration::from_millis(60)).await;
        client.write_all(b"x").await.unwrap();
    }
    until(&mut second, &"x".repeat(56)).await;
    second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let answer = until(&mut client, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
