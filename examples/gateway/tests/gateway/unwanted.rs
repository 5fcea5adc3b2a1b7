//! Request bodies that nobody wants: who sends one gets to see its answer all the same.

use crate::{
    process::{Gateway, one},
    strict::{Client, Upstream},
};
use bytes::Bytes;
use http::Request;
use std::{future::poll_fn, task::Poll, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// Where uploads go, and what becomes of them. All have `Max-Forwards: 0`, which counts for OPTIONS.
const ROWS: [(&str, &str, u16); 4] =
    [("POST", "/nowhere", 404), ("POST", "/r", 413), ("POST", "/r/../x", 400), ("OPTIONS", "/r", 200)];
const BODY: usize = 40_000;
const PIECES: usize = 20;

async fn gateway() -> (Gateway, Upstream) {
    let upstream = Upstream::fine().await;
    let tables = one(upstream.address, "", "").replace("prefix = \"/\"", "prefix = \"/r\"");
    (Gateway::start_with("body_bytes = 10", &tables), upstream)
}

#[tokio::test]
async fn who_sends_all_of_it_before_reading_can_do_so_and_reads_its_answer() {
    let (gateway, upstream) = gateway().await;
    for (method, path, status) in ROWS {
        let mut client = Client::connect(gateway.address).await;
        let lines = format!("Host: a\r\nMax-Forwards: 0\r\nContent-Length: {BODY}\r\n");
        client.send(format!("{method} {path} HTTP/1.1\r\n{lines}\r\n")).await;
        // Long enough for a connection that is closed to be seen to be.
        for _ in 0..PIECES {
            tokio::time::sleep(Duration::from_millis(10)).await;
            client.stream.write_all(&[b'x'; BODY / PIECES]).await.expect(path);
        }
        let answer = client.answer(false).await.expect(path);
        assert_eq!(answer.status(), status.to_string(), "{path}");
        if [404, 200].contains(&status) {
            client.send("GET /r HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.answer(false).await.expect("the connection goes on").status(), "200");
        } else {
            assert!(client.is_closed().await, "{path}");
        }
    }
    assert_eq!(upstream.take().whole.len(), 2, "those that were wanted");
}

#[tokio::test]
async fn a_stream_that_is_still_sending_is_not_reset() {
    let (gateway, upstream) = gateway().await;
    for (method, path, status) in ROWS {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let req = Request::builder().method(method).uri(format!("http://a{path}")).header("max-forwards", 0);
        let req = req.header("content-length", BODY).body(()).unwrap();
        let (answer, mut sending) = client.send_request(req, false).unwrap();
        let answer = answer.await.expect(path);
        assert_eq!(answer.status(), status);
        let (mut body, mut text) = (answer.into_body(), Vec::new());
        while let Some(data) = body.data().await {
            text.extend(data.expect(path));
        }
        assert!(!text.is_empty(), "{path}");
        // What was said of the stream before this answer is known by now.
        let (next, _) =
            client.ready().await.unwrap().send_request(Request::get("http://a/r").body(()).unwrap(), true).unwrap();
        assert_eq!(next.await.unwrap().status(), 200);
        let reset = poll_fn(|cx| Poll::Ready(sending.poll_reset(cx))).await;
        assert!(reset.is_pending(), "{path}: {reset:?}");
        sending.send_data(Bytes::from(vec![b'x'; BODY]), true).unwrap();
    }
    assert_eq!(upstream.take().whole.len(), ROWS.len(), "the others");
}
