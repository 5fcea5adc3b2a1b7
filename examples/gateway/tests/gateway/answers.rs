//! Upstreams that answer what is no answer: a client gets one well-framed answer or an error, and nothing of the next.

use crate::{
    process::{Gateway, one},
    strict::{Client, Upstream},
};

/// What the client must get.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The upstream's answer, with this status and body.
    Whole(&'static str, &'static str),
    /// A 502 of the gateway's own.
    Failed,
    /// An answer that is seen to break off.
    Cut,
}
use Then::{Cut, Failed, Whole};

const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";

fn rows() -> Vec<(String, Then)> {
    let ok = |lines: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}");
    let chunked = |body: &str| ok("Transfer-Encoding: chunked\r\n", body);
    let hello = "5\r\nhello\r\n0\r\n\r\n";
    vec![
        (ok("Content-Length: 5\r\n", "hello"), Whole("200", "hello")),
        (ok("Content-Length: 5\r\n", &format!("hello{POISON}")), Whole("200", "hello")),
        (ok("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), Whole("200", "hello")),
        (ok("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"), Failed),
        (ok("Content-Length: 5, 5\r\n", "hello"), Whole("200", "hello")),
        (ok("Content-Length: 5, 6\r\n", "hello!"), Failed),
        (ok("Content-Length: +5\r\n", "hello"), Failed),
        (ok("Content-Length: x\r\n", "hello"), Failed),
        (ok("Content-Length: -5\r\n", "hello"), Failed),
        (ok("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", hello), Whole("200", "hello")),
        (ok("Transfer-Encoding: chunked\r\nContent-Length: 50\r\n", hello), Whole("200", "hello")),
        (ok("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", hello), Whole("200", "hello")),
        (ok("Transfer-Encoding: gzip, chunked\r\n", hello), Failed),
        (ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", hello), Failed),
        (ok("Transfer-Encoding: gzip\r\n", hello), Failed),
        (ok("Transfer-Encoding: xchunked\r\n", hello), Failed),
        (ok("Transfer-Encoding : chunked\r\n", hello), Failed),
        (format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{hello}"), Failed),
        (chunked(&format!("{hello}{POISON}")), Whole("200", "hello")),
        (chunked("5\r\nhello\r\nzz\r\n"), Cut),
        (chunked("5\r\nhello!\r\n0\r\n\r\n"), Cut),
        (chunked("5\r\nhello\r\nfffffffffffffffff\r\n"), Cut),
        (chunked("zz\r\nhello\r\n0\r\n\r\n"), Cut),
        (ok("X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n", ""), Failed),
        (ok("X: a\0\r\nContent-Length: 0\r\n", ""), Failed),
        (ok("X: a\r\n folded\r\nContent-Length: 0\r\n", ""), Failed),
        (ok("X Y: a\r\nContent-Length: 0\r\n", ""), Failed),
        (ok(": a\r\nContent-Length: 0\r\n", ""), Failed),
        (ok(&format!("X: {}\r\nContent-Length: 0\r\n", "y".repeat(1 << 20)), ""), Failed),
        (ok(&format!("{}Content-Length: 0\r\n", "x: y\r\n".repeat(1000)), ""), Failed),
        ("HTTP/1.1 99 No\r\ncontent-length: 0\r\n\r\n".to_owned(), Failed),
        ("HTTP/1.1 2000 No\r\ncontent-length: 0\r\n\r\n".to_owned(), Failed),
        ("HTTP/1.1 -20 No\r\ncontent-length: 0\r\n\r\n".to_owned(), Failed),
        ("HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(), Failed),
        ("HTTP/1.1 200 O\rK\r\ncontent-length: 0\r\n\r\n".to_owned(), Failed),
        ("<html>\r\n\r\n".to_owned(), Failed),
        (format!("{}{POISON}", "\u{1}".repeat(9)), Failed),
        (format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{POISON}"), Failed),
        (
            format!("{}{}", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2000), ok("Content-Length: 5\r\n", "hello")),
            Whole("200", "hello"),
        ),
        (format!("HTTP/1.1 204 No Content\r\n\r\n{POISON}"), Whole("204", "")),
        (format!("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello{POISON}"), Whole("204", "")),
        (format!("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n{hello}{POISON}"), Whole("304", "")),
    ]
}

/// Each of them is followed by a request for something else, by the same client.
#[tokio::test]
async fn what_an_upstream_answers_is_one_answer_or_an_error() {
    let answers = rows();
    let bytes: Vec<_> = answers.iter().map(|(bytes, _)| bytes.clone().into_bytes()).collect();
    let upstream = Upstream::start(move |req| match req.target().strip_prefix("/row/") {
        Some(row) => bytes[row.parse::<usize>().unwrap()].clone(),
        None => b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood".to_vec(),
    })
    .await;
    // Who breaks HTTP has failed; here that is not the question.
    let lines = "breaker = false\ndeadline = { per_try = \"3s\" }";
    let gateway = Gateway::start_with("", &one(upstream.address, lines, "retry = false"));
    let mut failed = Vec::new();
    for (i, (bytes, then)) in answers.iter().enumerate() {
        let mut client = Client::connect(gateway.address).await;
        client.send(format!("GET /row/{i} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.answer(false).await;
        let fine = match (then, &answer) {
            (Whole(status, body), Ok(answer)) => {
                let framings = answer.all("content-length").count() + answer.all("transfer-encoding").count();
                answer.status() == *status && answer.text() == *body && framings <= 1
            }
            (Failed, Ok(answer)) => answer.status() == "502" && !answer.header("proxy-status").is_empty(),
            // Nothing at all, where the upstream broke off before its head was sent on.
            (Cut, Err(why)) => (why.is_empty() || why.starts_with("cut: HTTP/1.1 200 ")) && client.closed,
            _ => false,
        };
        if !fine {
            let shown = &bytes[..bytes.floor_char_boundary(120)];
            failed.push(format!("{shown:?}\n    {then:?}, and not {answer:?}"));
        }
        if client.closed {
            client = Client::connect(gateway.address).await;
        }
        client.send("GET /good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let next = client.answer(false).await;
        if next.as_ref().map_or(true, |next| next.text() != "good")
            || !client.is_closed().await
            || !client.pending.is_empty()
        {
            failed.push(format!("{:?}\n    what follows: {next:?}", &bytes[..bytes.floor_char_boundary(120)]));
        }
    }
    assert!(failed.is_empty(), "{} rows:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test]
async fn informational_answers_without_an_end_are_cut_by_the_deadline() {
    let upstream = Upstream::start(|_| b"HTTP/1.1 102 Processing\r\n\r\n".repeat(100_000)).await;
    let tables = one(upstream.address, "deadline = { per_try = \"500ms\" }", "retry = false");
    let gateway = Gateway::start_with("", &tables);
    let mut client = Client::connect(gateway.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer(false).await.unwrap().status(), "504");
}

#[tokio::test]
async fn the_answer_to_a_head_request_has_no_body_whatever_follows_it() {
    let upstream = Upstream::start(|req| match req.start[0].as_str() {
        "HEAD" => format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello{POISON}").into_bytes(),
        _ => b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood".to_vec(),
    })
    .await;
    let gateway = Gateway::before(upstream.address, "");
    for _ in 0..3 {
        let mut client = Client::connect(gateway.address).await;
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer(true).await.unwrap();
        assert_eq!((answer.status(), answer.header("content-length")), ("200", "5"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer(false).await.unwrap().text(), "good");
    }
}
