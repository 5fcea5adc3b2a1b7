//! Replayed requests through hyper, to the byte.
#![cfg(all(feature = "http", not(buttress_loom)))]

mod raw;

use buttress_core::{
    BoxError, Outcome, Replay,
    http::{HttpClient, KeptRequest, ReplayBody, is_unsent},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use raw::{DATA, HEADERS, Http2, client, http1, listen};
use std::{net::SocketAddr, time::Duration};
use tokio::io::AsyncReadExt;

type Any = UnsyncBoxBody<Bytes, BoxError>;
type Make = fn() -> Any;

/// Bodies of every kind, by name: a known length, none, trailers, one that is slow to come.
fn bodies() -> Vec<(&'static str, Make)> {
    fn frames(trailers: bool, slow: bool) -> Any {
        let mut frames = vec![Frame::data(Bytes::from_static(b"hello ")), Frame::data(Bytes::from_static(b"world"))];
        if trailers {
            let mut map = HeaderMap::new();
            map.insert("x-sum", HeaderValue::from_static("11"));
            frames.push(Frame::trailers(map));
        }
        let (tx, rx) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            for frame in frames {
                if slow {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                if tx.send(frame).await.is_err() {
                    return;
                }
            }
        });
        Channel(rx).map_err(Into::into).boxed_unsync()
    }
    vec![
        ("known length", || Full::new(Bytes::from_static(b"hello world")).map_err(Into::into).boxed_unsync()),
        ("unknown length", || frames(false, false)),
        ("trailers", || frames(true, false)),
        ("slow", || frames(false, true)),
        ("slow, trailers", || frames(true, true)),
        ("empty", || Full::default().map_err(Into::into).boxed_unsync()),
        ("empty, though nobody knows", || Channel(tokio::sync::mpsc::channel(1).1).map_err(Into::into).boxed_unsync()),
    ]
}

struct Channel(tokio::sync::mpsc::Receiver<Frame<Bytes>>);
impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

fn record(addr: SocketAddr, body: Any) -> (Request<ReplayBody<Any>>, KeptRequest<Any>) {
    let req = Request::builder().method(Method::PUT).uri(format!("http://{addr}/")).header("trailer", "x-sum");
    HttpClient::new().record(req.body(body).unwrap(), 1 << 16)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it hangs")
}

/// As it came, without what tells the attempts apart.
fn without_count(request: &str) -> String {
    request.lines().filter(|line| !line.starts_with("x-envoy-attempt-count")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn over_http1_a_replay_is_the_same_to_the_byte() {
    for (name, body) in bodies() {
        let (listener, addr) = listen().await;
        let plain = {
            let req = Request::builder().method(Method::PUT).uri(format!("http://{addr}/")).header("trailer", "x-sum");
            let once = HttpClient::new().once(req.body(body()).unwrap());
            let (seen, res) =
                soon(async { tokio::join!(http1(&listener, "200 OK"), client(false).request(once)) }).await;
            res.unwrap();
            seen
        };
        assert_eq!(plain.contains("content-length: 11"), name == "known length", "{name}: {plain}");
        assert_eq!(plain.contains("x-sum: 11"), name.contains("trailers"), "{name}: {plain}");
        let (first, mut kept) = record(addr, body());
        let mut attempt = Some(first);
        for n in 1..4 {
            let send = client(false).request(attempt.take().unwrap());
            let (seen, res) = soon(async { tokio::join!(http1(&listener, "503 Service Unavailable"), send) }).await;
            assert_eq!(res.unwrap().status(), 503, "{name}");
            assert_eq!(without_count(&seen), without_count(&plain), "{name}, attempt {n}");
            assert_eq!(seen.contains(&format!("x-envoy-attempt-count: {n}")), n > 1, "{name}: {seen}");
            attempt = HttpClient::new().again(&mut kept, n);
        }
    }
}

#[tokio::test]
async fn over_http2_a_replay_has_the_same_frames() {
    /// Type, flags and data: the header block differs by the attempt.
    async fn frames(listener: &tokio::net::TcpListener) -> Vec<(u8, u8, Option<Vec<u8>>)> {
        let mut peer = Http2::accept(listener).await;
        let request = peer.request().await;
        peer.send(HEADERS, 5, 1, &[0x8e]).await; // :status 500, END_HEADERS, END_STREAM
        tokio::spawn(async move { peer.drain().await });
        request.into_iter().map(|(kind, flags, _, payload)| (kind, flags, (kind == DATA).then_some(payload))).collect()
    }
    for (name, body) in bodies() {
        let (listener, addr) = listen().await;
        let once = HttpClient::new().once(Request::put(format!("http://{addr}/")).body(body()).unwrap());
        let (plain, res) = soon(async { tokio::join!(frames(&listener), client(true).request(once)) }).await;
        assert_eq!(res.unwrap().status(), 500);
        let headers = plain.iter().filter(|(kind, ..)| *kind == HEADERS).count();
        assert_eq!(headers, if name.contains("trailers") { 2 } else { 1 }, "{name}");
        let (first, mut kept) = record(addr, body());
        let mut attempt = Some(first);
        for n in 1..4 {
            let send = client(true).request(attempt.take().unwrap());
            let (seen, res) = soon(async { tokio::join!(frames(&listener), send) }).await;
            res.unwrap();
            assert_eq!(seen, plain, "{name}, attempt {n}");
            attempt = HttpClient::new().again(&mut kept, n);
        }
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_midway_is_whole_in_the_next_attempt() {
    let (listener, addr) = listen().await;
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let (first, mut kept) = record(addr, Channel(rx).map_err(Into::into).boxed_unsync());
    let breaks_off = async {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"half\r\n") {
            peer.read_buf(&mut read).await.unwrap();
        }
    };
    let send = async { tokio::join!(client(false).request(first), tx.send(Frame::data(Bytes::from_static(b"half")))) };
    let (_, (res, _)) = soon(async { tokio::join!(breaks_off, send) }).await;
    assert!(!is_unsent(&res.unwrap_err()));
    assert_eq!((kept.buffered(), kept.lost()), (4, None));
    let again = HttpClient::new().again(&mut kept, 1).unwrap();
    let rest = async {
        tx.send(Frame::data(Bytes::from_static(b"rest"))).await.unwrap();
        drop(tx);
    };
    let (seen, res, ()) =
        soon(async { tokio::join!(http1(&listener, "200 OK"), client(false).request(again), rest) }).await;
    assert_eq!(res.unwrap().status(), 200);
    assert!(seen.ends_with("\r\n\r\n4\r\nhalf\r\n4\r\nrest\r\n0\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn a_refused_connection_leaves_a_large_upload_to_the_next_attempt() {
    let (listener, addr) = listen().await;
    drop(listener);
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let req = Request::post(format!("http://{addr}/")).body(Channel(rx)).unwrap();
    let (first, mut kept) = HttpClient::new().record(req, 10);
    let error = soon(client(false).request(first)).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    assert_eq!(kept.lost(), None);
    let Ok(listener) = tokio::net::TcpListener::bind(addr).await else { return };
    let again = HttpClient::new().again(&mut kept, 1).unwrap();
    let upload = async {
        for _ in 0..100 {
            tx.send(Frame::data(Bytes::from_static(&[b'x'; 1000]))).await.unwrap();
        }
        drop(tx);
    };
    let (seen, res, ()) =
        soon(async { tokio::join!(http1(&listener, "200 OK"), client(false).request(again), upload) }).await;
    res.unwrap();
    assert_eq!(seen.matches('x').count() - seen.matches("x-envoy").count(), 100_000);
    assert!(HttpClient::new().again(&mut kept, 2).is_none(), "now it was read");
}

#[tokio::test]
async fn an_attempt_sends_everything_though_the_one_before_it_is_stuck_and_that_one_ends() {
    let (stuck, stuck_addr) = listen().await;
    let (listener, addr) = listen().await;
    let (tx, rx) = tokio::sync::mpsc::channel::<Frame<Bytes>>(1);
    let req = Request::put(format!("http://{stuck_addr}/")).body(Channel(rx)).unwrap();
    let (first, mut kept) = HttpClient::new().record(req, 1 << 24);
    let first = tokio::spawn(client(false).request(first));
    // It takes the connection and reads nothing.
    let (mut held, _) = soon(stuck.accept()).await.unwrap();
    let mut second = HttpClient::new().again(&mut kept, 1).unwrap();
    *second.uri_mut() = format!("http://{addr}/").parse().unwrap();
    let upload = async {
        for _ in 0..200 {
            tx.send(Frame::data(Bytes::from_static(&[b'x'; 64 * 1024]))).await.unwrap();
        }
        drop(tx);
    };
    let (seen, res, ()) =
        soon(async { tokio::join!(http1(&listener, "200 OK"), client(false).request(second), upload) }).await;
    res.unwrap();
    assert!(seen.len() > 200 * 64 * 1024);
    let error = soon(first).await.unwrap().unwrap_err();
    assert!(!is_unsent(&error));
    assert_eq!(buttress_core::http::error_outcome(&error), Outcome::Ignored, "it accuses nobody: {error:?}");
    let mut read = Vec::new();
    soon(held.read_to_end(&mut read)).await.unwrap();
    assert!(read.len() < 1000, "the head, and nothing of the body");
}
