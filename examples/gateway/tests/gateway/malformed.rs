//! Requests that are none: an upstream never gets to see them.

use crate::{
    process::Gateway,
    raw::{self, Upstream, exchange},
};
use std::time::Duration;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

#[tokio::test]
async fn a_malformed_request_never_reaches_an_upstream() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(1000));
    for (bytes, status) in [
        ("GARBAGE\r\n\r\n", "400"),
        ("GET /\r\n\r\n", "400"),
        ("GET / HTTP/3.7\r\nHost: a\r\n\r\n", "400"),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nx: \0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nb c: d\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nx: 1\r\n folded\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400"),
        ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "400"),
        ("GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /a/.. HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /./a HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /a/%2e%2E/b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /a/.%2e?q HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /a/..%2fb HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /a/x%5C..%5cb HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /a/..;x=y/b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET http://a/../b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "501"),
        (&long, "431"),
        (&many, "431"),
    ] {
        // Whatever is kept alive is told to close by a second, fine request; the first answer counts.
        let answer = exchange_once(&gateway, bytes).await;
        let shown = &bytes[..bytes.len().min(80)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer:?}");
        assert_eq!(upstream.received(), "", "{shown:?}");
    }
}

async fn exchange_once(gateway: &Gateway, bytes: &str) -> String {
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let _ = client.write_all(bytes.as_bytes()).await;
    raw::until(&mut client, "\r\n\r\n").await
}

#[tokio::test]
async fn a_request_with_two_framings_reaches_the_upstream_with_one() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    // With Content-Length the rest would be a body; with chunks it is another request.
    let answer = exchange(
        gateway.address,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    let received = upstream.received().to_ascii_lowercase();
    assert!(!received.contains("smuggled"), "{received}");
    if answer.starts_with("HTTP/1.1 200 ") {
        assert!(received.contains("transfer-encoding: chunked") && !received.contains("content-length"), "{received}");
        assert!(raw::is_whole(&received) && received.contains("hello"), "{received}");
    } else {
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(received, "");
    }
}

#[tokio::test]
async fn a_framing_that_is_named_hop_by_hop_is_still_framed() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: content-length, host, via, close\r\n\r\n";
    let answer = exchange(gateway.address, format!("{head}hello")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let received = upstream.received();
    assert!(received.ends_with("\r\n\r\nhello") && received.contains("content-length: 5\r\n"), "{received}");
    assert!(received.contains("host: a\r\n") && received.contains("via: 1.1 buttress\r\n"), "{received}");
}

#[tokio::test]
async fn a_body_with_a_bad_chunk_never_arrives_whole() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["zz\r\nhello\r\n0\r\n\r\n", "5\r\nhelloworld\r\n0\r\n\r\n", "ffffffffffffffffff\r\nx\r\n0\r\n\r\n"] {
        let answer = exchange(gateway.address, format!("{head}{body}")).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    for request in upstream.received().split("POST / ").skip(1) {
        assert!(!raw::is_whole(request), "{request}");
    }
}

#[tokio::test]
async fn a_request_head_that_comes_too_slowly_is_not_waited_for() {
    let upstream = Upstream::fine().await;
    let tables = crate::process::one(upstream.address, "", "");
    let gateway = Gateway::start_with("header_timeout = \"300ms\"", &tables);
    // Nothing, the beginning of what may be HTTP/2, a head without an end.
    for bytes in ["", "PRI * HT", "GET / HTTP/1.1\r\nHost: a\r\nx-slow: "] {
        let start = Instant::now();
        exchange(gateway.address, bytes).await;
        assert!(start.elapsed() >= Duration::from_millis(250), "{bytes:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{bytes:?}");
    }
    assert_eq!(upstream.received(), "");

    // A connection that has been served before is not waited for either.
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nx-slow: ").await.unwrap();
    let answers = raw::rest(&mut client).await;
    assert!(answers.contains("200 OK"), "{answers}");
    assert_eq!(upstream.received().matches("GET ").count(), 1);
}
