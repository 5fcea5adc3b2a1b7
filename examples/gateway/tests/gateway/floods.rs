//! HTTP/2 clients that mean no good: the gateway stays alive and small, and others are served.

use crate::{
    process::{Gateway, get, one},
    strict::Upstream,
};
use bytes::Bytes;
use http::Request;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// By how much a gateway may grow under a flood.
const GROWTH: usize = 32 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("short enough for one byte");
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// `GET http://a/`, without an end of headers.
fn head() -> Vec<u8> {
    [literal(":method", "GET"), literal(":scheme", "http"), literal(":path", "/"), literal(":authority", "a")].concat()
}

/// What is sent at each turn.
type Flood = Box<dyn Fn(u32) -> Vec<u8> + Send>;

/// What is sent again and again on one connection, by turns.
fn floods() -> Vec<(&'static str, Flood)> {
    vec![
        (
            "rapid reset",
            Box::new(|i| {
                let stream = 2 * i + 1;
                [frame(HEADERS, 5, stream, &head()), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
            }),
        ),
        (
            "CONTINUATION without an end",
            Box::new(|i| match i {
                0 => frame(HEADERS, 1, 1, &head()),
                _ => frame(CONTINUATION, 0, 1, &literal("x", &"y".repeat(100)).repeat(100)),
            }),
        ),
        ("empty CONTINUATION", Box::new(|i| frame(if i == 0 { HEADERS } else { CONTINUATION }, 0, 1, &[]))),
        ("SETTINGS", Box::new(|_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))),
        ("PING", Box::new(|_| frame(PING, 0, 0, &[0; 8]))),
        ("streams that never end", Box::new(|i| frame(HEADERS, 4, 2 * i + 1, &head()))),
        ("resets of nothing", Box::new(|i| frame(RST_STREAM, 0, 2 * i + 1, &[0, 0, 0, 8]))),
        ("windows that overflow", Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]))),
        ("PRIORITY of nothing", Box::new(|i| frame(2, 0, 2 * i + 1, &[0, 0, 0, 0, 1]))),
        ("frames of no kind", Box::new(|_| frame(99, 0, 0, &[0; 100]))),
    ]
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_harm_nobody_else() {
    let upstream = Upstream::fine().await;
    // One connection may hold as many places as it has streams, with bodies that it does not send: there must be more of them.
    let bulkhead = "bulkhead = { limit = 1000 }";
    let gateway = Gateway::start_with("", &one(upstream.address, bulkhead, bulkhead));
    assert_eq!(get(gateway.address, "/").await.status(), 200);
    let before = gateway.memory();
    for (name, flood) in floods() {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        let flooding = tokio::spawn(async move {
            let begun = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
            let mut sent = client.write_all(&begun).await.is_ok();
            // Whoever does not read what it is told is not waited for either.
            for i in 0..10_000 {
                let written = timeout(Duration::from_millis(500), client.write_all(&flood(i))).await;
                sent &= matches!(written, Ok(Ok(())));
                if !sent {
                    return client;
                }
            }
            client
        });
        let mut served = 0;
        while served < 20 || !flooding.is_finished() {
            assert_eq!(get(gateway.address, "/").await.status(), 200, "{name}");
            served += 1;
        }
        drop(flooding.await.unwrap());
        let grown = gateway.memory().saturating_sub(before);
        assert!(grown < GROWTH, "{name}: {grown} bytes");
        eprintln!("{name}: {served} others served, {} KiB more", grown >> 10);
    }
}

#[tokio::test]
async fn malformed_heads_of_streams_never_reach_an_upstream() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with("header_timeout = \"500ms\"", &one(upstream.address, "", ""));
    let (method, scheme, path) = (literal(":method", "GET"), literal(":scheme", "http"), literal(":path", "/"));
    let authority = literal(":authority", "a");
    let whole = || [method.clone(), scheme.clone(), path.clone(), authority.clone()].concat();
    let with = |name: &str, value: &str| [whole(), literal(name, value)].concat();
    for (what, block) in [
        ("nothing", whole()),
        ("no method", [scheme.clone(), path.clone(), authority.clone()].concat()),
        ("no path", [method.clone(), scheme.clone(), authority.clone()].concat()),
        ("two paths", [whole(), path.clone()].concat()),
        ("an empty path", [method.clone(), scheme.clone(), literal(":path", ""), authority.clone()].concat()),
        ("a path with a space", [method.clone(), scheme.clone(), literal(":path", "/ x"), authority.clone()].concat()),
        (
            "a path with CRLF",
            [method.clone(), scheme.clone(), literal(":path", "/\r\nx: y"), authority.clone()].concat(),
        ),
        (
            "a method with CRLF",
            [literal(":method", "GET / x\r\n"), scheme.clone(), path.clone(), authority.clone()].concat(),
        ),
        (
            "an authority with CRLF",
            [method.clone(), scheme.clone(), path.clone(), literal(":authority", "a\r\nx: y")].concat(),
        ),
        ("a status", with(":status", "200")),
        ("an unknown pseudo-header", with(":x", "y")),
        ("an upper-case name", with("X", "y")),
        ("a name with a colon", with("x:y", "z")),
        ("a name with CRLF", with("x\r\ny", "z")),
        ("an empty name", with("", "z")),
        ("a value with CRLF", with("x", "y\r\nz: 1")),
        ("a value with NUL", with("x", "\0")),
        ("connection", with("connection", "close")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("te", with("te", "gzip")),
        ("a pseudo-header at the end", [literal("x", "y"), whole()].concat()),
        ("content-length without a body", with("content-length", "5")),
        ("two lengths", [with("content-length", "0"), literal("content-length", "5")].concat()),
        ("no length", with("content-length", "x")),
        (
            "user information",
            [
                literal(":method", "GET"),
                literal(":scheme", "http"),
                literal(":path", "/"),
                literal(":authority", "u@a"),
            ]
            .concat(),
        ),
        ("another Host", with("host", "b, c")),
    ] {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        let sent = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 5, 1, &block)].concat();
        client.write_all(&sent).await.unwrap();
        // A PING is answered after what came before it.
        client.write_all(&frame(PING, 0, 0, b"all done")).await.unwrap();
        let mut seen = Vec::<u8>::new();
        let mut chunk = [0; 4096];
        while let Ok(Ok(n @ 1..)) = timeout(Duration::from_millis(300), client.read(&mut chunk)).await {
            seen.extend(&chunk[..n]);
        }
        let upstream = upstream.take();
        assert_eq!(upstream.whole.len(), usize::from(what == "nothing"), "{what}: {upstream:?}");
        assert!(upstream.wrong.is_empty(), "{what}: {upstream:?}");
    }
    assert_eq!(get(gateway.address, "/").await.status(), 200);
}

async fn connect(gateway: &Gateway) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (client, connection) = h2::client::Builder::new().initial_window_size(0).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn a_length_that_is_not_the_bodys_is_no_whole_request() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with("", &one(upstream.address, "", "retry = false"));
    for (length, body) in [("5", "hello!"), ("5", "hell")] {
        let mut client = connect(&gateway).await.ready().await.unwrap();
        let req = Request::post("http://a/").header("content-length", length).body(()).unwrap();
        let (answer, mut sending) = client.send_request(req, false).unwrap();
        let _ = sending.send_data(Bytes::from_static(body.as_bytes()), true);
        let answer = timeout(Duration::from_secs(5), answer).await.expect("it is answered or reset");
        assert!(answer.map_or(true, |answer| answer.status().is_client_error()), "{length}: {body}");
        let seen = upstream.take();
        assert!(seen.whole.is_empty() && seen.wrong.is_empty(), "{length}: {body}: {seen:?}");
    }
}

/// The window for bodies is zero and stays so: each stream has its head, and its body waits in the upstream.
#[tokio::test]
async fn clients_that_never_open_their_windows_hold_nothing_for_ever() {
    let upstream = Upstream::start(|_| {
        let body = "x".repeat(1 << 20);
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    })
    .await;
    // No deadline ends the calls.
    let gateway = Gateway::start_with("write_timeout = \"1s\"", &one(upstream.address, "", "deadline = false"));
    let before = gateway.memory();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = connect(&gateway).await.ready().await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..10 {
            let req = Request::get("http://a/").body(()).unwrap();
            answers.push(client.send_request(req, true).unwrap().0.await.unwrap());
            client = client.ready().await.unwrap();
        }
        clients.push((client, answers));
    }
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes");
    let freed = async {
        while gateway.status().await["layers"]["cluster.u.bulkhead"]["in_flight"] != 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), freed).await.expect("what nobody takes is given up");
    drop(clients);
}

/// The kind of the next frame, and what is in it; `None`: the connection is closed.
async fn next_frame(client: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    timeout(Duration::from_secs(5), client.read_exact(&mut head)).await.expect("something happens").ok()?;
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    client.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}

#[tokio::test]
async fn who_shakes_hands_and_asks_for_nothing_is_told_to_go() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with("header_timeout = \"300ms\"", &one(upstream.address, "", ""));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let mut kinds = Vec::new();
    while let Some((kind, _)) = next_frame(&mut client).await {
        kinds.push(kind);
    }
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_the_others_answered() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with("streams = 10", &one(upstream.address, "", ""));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for i in 0..100 {
        sent.extend(frame(HEADERS, 4, 2 * i + 1, &head()));
    }
    client.write_all(&sent).await.unwrap();
    let mut refused = 0;
    while refused < 90 {
        let (kind, payload) = next_frame(&mut client).await.expect("90 are refused");
        refused += u32::from(kind == RST_STREAM && payload == [0, 0, 0, 7]);
    }
    assert_eq!(get(gateway.address, "/").await.status(), 200);
}
