//! Answers that go on for long, and those that have no body.

use crate::{
    process::{Gateway, one},
    raw::{rest, until},
    strict,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use std::{convert::Infallible, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn an_event_arrives_before_the_next_is_sent() {
    for http2 in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = Gateway::before(listener.local_addr().unwrap(), "");
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Full<Bytes>>();
        let asked = tokio::spawn(client.get(format!("http://{}/", gateway.address).parse().unwrap()));
        let (mut upstream, _) = listener.accept().await.unwrap();
        until(&mut upstream, "\r\n\r\n").await;
        upstream.write_all(EVENTS.as_bytes()).await.unwrap();
        let res = asked.await.unwrap().unwrap();
        assert_eq!(res.headers()["content-type"], "text/event-stream");
        let mut body = res.into_body();
        for i in 0..3 {
            let event = format!("data: {i}\n\n");
            upstream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.unwrap();
            let frame = timeout(Duration::from_secs(5), body.frame()).await.expect("it is passed on at once");
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), event);
        }
    }
}

/// The policy of the sample config: no `total`, but an end to silence.
#[tokio::test]
async fn a_streams_policy_cuts_silence_and_nothing_else() {
    let policy = "[policy.default.route.deadline]\ntotal = \"300ms\"\n[policy.streams]\ninherits = \"default\"\n\
        [policy.streams.route.deadline]\ntotal = \"none\"\n[policy.streams.cluster.deadline]\nidle = \"1s\"\n";
    for (streams, whole) in [(true, true), (false, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lines = if streams { "policy = \"streams\"" } else { "" };
        let tables = one(listener.local_addr().unwrap(), lines, lines);
        let gateway = Gateway::start_with("", &format!("{policy}{tables}"));
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let (mut upstream, _) = listener.accept().await.unwrap();
        until(&mut upstream, "\r\n\r\n").await;
        upstream.write_all(EVENTS.as_bytes()).await.unwrap();
        // Three times as long as calls of other routes may take.
        let mut sent = true;
        for _ in 0..9 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            sent &= upstream.write_all(b"1\r\nx\r\n").await.is_ok();
        }
        let seen = if whole {
            assert!(sent);
            // And now it is silent.
            until(&mut client, &"1\r\nx\r\n".repeat(2)).await + &rest(&mut client).await
        } else {
            rest(&mut client).await
        };
        assert_eq!(seen.matches("1\r\nx\r\n").count() == 9, whole, "{seen}");
        assert!(!seen.ends_with("0\r\n\r\n"), "it is seen to break off: {seen}");
    }
}

fn trailers(names: &[&'static str]) -> HeaderMap {
    names.iter().map(|name| (http::HeaderName::from_static(name), HeaderValue::from_static("7"))).collect()
}

type Noted = mpsc::UnboundedReceiver<(Option<HeaderMap>, Bytes)>;

/// A gateway before an HTTP/2 upstream that answers with the trailer `x-down`, and notes the trailers and the body of each request.
async fn noting() -> (Gateway, Noted) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap(), "http2 = true");
    let (note, noted) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |req: Request<Incoming>| {
            let note = note.clone();
            async move {
                let body = req.into_body().collect().await.unwrap();
                note.send((body.trailers().cloned(), body.to_bytes())).unwrap();
                let body = Full::new(Bytes::from_static(b"answer"));
                Ok::<_, Infallible>(Response::new(body.with_trailers(async { Some(Ok(trailers(&["x-down"]))) })))
            }
        });
        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = http2.serve_connection(TokioIo::new(stream), service).await;
    });
    (gateway, noted)
}

/// Asks over HTTP/2, with these trailers; `declared`: the length of the body is said.
async fn ask(gateway: &Gateway, up: HeaderMap, declared: bool) -> (Option<HeaderMap>, Bytes) {
    let frames = [Frame::data(Bytes::from_static(b"question")), Frame::trailers(up)];
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Infallible>)));
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let req = Request::post(format!("http://{}/", gateway.address)).header("te", "trailers");
    let req = if declared { req.header("content-length", 8) } else { req };
    let answer = client.request(req.body(body).unwrap()).await.unwrap().into_body().collect().await.unwrap();
    (answer.trailers().cloned(), answer.to_bytes())
}

#[tokio::test]
async fn trailers_go_both_ways_from_http_2_to_http_2() {
    let (gateway, mut noted) = noting().await;
    let (down, body) = ask(&gateway, trailers(&["x-up"]), false).await;
    assert_eq!((down, &body[..]), (Some(trailers(&["x-down"])), &b"answer"[..]));
    let (up, body) = noted.recv().await.unwrap();
    assert_eq!((up, &body[..]), (Some(trailers(&["x-up"])), &b"question"[..]));
}

#[tokio::test]
async fn trailers_that_belong_in_a_head_go_no_further() {
    let (gateway, mut noted) = noting().await;
    // Small bodies of a declared length are read before the call begins.
    for declared in [false, true] {
        let up = trailers(&["x-up", "authorization", "cookie", "via", "x-forwarded-for", "x-real-ip", "forwarded"]);
        ask(&gateway, up, declared).await;
        let (up, body) = noted.recv().await.unwrap();
        assert_eq!((up, &body[..]), (Some(trailers(&["x-up"])), &b"question"[..]), "declared: {declared}");
    }
}

#[tokio::test]
async fn a_range_is_asked_for_and_answered_as_it_is() {
    let upstream = strict::Upstream::start(|req| match req.header("range") {
        "bytes=2-4" if req.header("if-range") == "\"v\"" => {
            b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 2-4/10\r\naccept-ranges: bytes\r\netag: \"v\"\r\n\
              content-length: 3\r\n\r\n234"
                .to_vec()
        }
        _ => b"HTTP/1.1 416 Range Not Satisfiable\r\ncontent-range: bytes */10\r\ncontent-length: 0\r\n\r\n".to_vec(),
    })
    .await;
    let gateway = Gateway::before(upstream.address, "");
    let mut client = strict::Client::connect(gateway.address).await;
    for (range, status, said, body) in [("2-4", "206", "bytes 2-4/10", "234"), ("20-", "416", "bytes */10", "")] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nRange: bytes={range}\r\nIf-Range: \"v\"\r\n\r\n")).await;
        let answer = client.answer(false).await.unwrap();
        assert_eq!((answer.status(), answer.header("content-range"), &*answer.text()), (status, said, body));
    }
}
