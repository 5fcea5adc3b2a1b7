//! Requests on which two readers may disagree: an upstream gets one of them, framed by us, or nothing.

use crate::{
    process::{Gateway, one},
    strict::{Client, Upstream},
};
use tokio::io::AsyncWriteExt;

/// What must come of a row.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Nothing reaches the upstream; the client gets this, and its connection is closed.
    Refused(&'static str),
    /// A body that broke off: what has begun at the upstream never ends. The connection is closed.
    Broken,
    /// One request with this body.
    One(&'static str),
    /// The same, and the connection is closed.
    OneThenClosed(&'static str),
    /// One request, and a refusal of what follows.
    OneThenRefused(&'static str),
}
use Then::{Broken, One, OneThenClosed, OneThenRefused, Refused};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A POST with these lines, which end in CRLF, and this body.
fn post(lines: &str, body: &str) -> String {
    format!("POST /row HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}")
}

fn get(lines: &str) -> String {
    format!("GET /row HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn lengths_and_codings() -> Vec<(String, Then)> {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let both = format!("{chunks}{SMUGGLED}");
    let mut rows = vec![
        (post("Content-Length: 52\r\nTransfer-Encoding: chunked\r\n", &both), OneThenClosed("hello")),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 52\r\n", &both), OneThenClosed("hello")),
        (post("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", &both), OneThenClosed("hello")),
        (post("transfer-ENCODING:CHUNKED\r\n", chunks), One("hello")),
        (post("Transfer-Encoding:\tchunked \t\r\n", chunks), One("hello")),
        (post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), One("hello")),
        (post("Content-Length:  5 \t\r\n", "hello"), One("hello")),
        (post("Content-Length: 005\r\n", "hello"), One("hello")),
        (post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"), Refused("400")),
        (format!("POST /row HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"), Refused("400")),
        (format!("POST /row HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}"), OneThenClosed("hello")),
        (get("Transfer-Encoding: chunked\r\n") + chunks, One("hello")),
        (get("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\nzz\r\n", Broken),
        (get("Content-Length: 5\r\n") + "hello", One("hello")),
        ("POST /row HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello".to_owned(), One("hello")),
    ];
    for name in
        ["Transfer-Encoding ", "Transfer-Encoding\t", " Transfer-Encoding", "Transfer-Encoding\0", "Transfer\u{b}"]
    {
        rows.push((post(&format!("{name}: chunked\r\n"), chunks), Refused("400")));
        rows.push((post(&format!("Content-Length: 5\r\n{name}: chunked\r\n"), chunks), Refused("400")));
    }
    // Not the body that an upstream would be told it is: what is below the chunks would be lost.
    for coding in ["chunked, chunked", "gzip, chunked", "identity, chunked", "gzip\r\nTransfer-Encoding: chunked"] {
        rows.push((post(&format!("Transfer-Encoding: {coding}\r\n"), chunks), Refused("501")));
    }
    rows.push((post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks), Refused("501")));
    for coding in
        ["identity", "xchunked", "chunkedx", "chunked, identity", "", "\"chunked\"", "chunked;q=1", "\u{b}chunked"]
    {
        rows.push((post(&format!("Transfer-Encoding: {coding}\r\n"), chunks), Refused("400")));
        rows.push((post(&format!("Content-Length: 5\r\nTransfer-Encoding: {coding}\r\n"), "hello"), Refused("400")));
    }
    for length in ["5, 5", "5,6", "+5", "-5", "0x5", "5 5", "5;", "5.0", "", "١", "1e1"] {
        rows.push((post(&format!("Content-Length: {length}\r\n"), "hello"), Refused("400")));
    }
    for length in ["18446744073709551615", "99999999999999999999"] {
        let status = if length.starts_with('1') { "431" } else { "400" };
        rows.push((post(&format!("Content-Length: {length}\r\n"), "hello"), Refused(status)));
    }
    rows
}

fn chunks() -> Vec<(String, Then)> {
    let mut rows = Vec::new();
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    for body in [
        "5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "0000000005\r\nhello\r\n00\r\n\r\n".to_owned(),
        "5;a=b;c=\"d\"\r\nhello\r\n0;last\r\n\r\n".to_owned(),
        "5 \t;a\r\nhello\r\n0\r\n\r\n".to_owned(),
        "5\r\nhello\r\n0\r\nX-Trailer: y\r\n\r\n".to_owned(),
    ] {
        rows.push((chunked(&body), One("hello")));
    }
    for body in [
        "zz\r\nhello\r\n0\r\n\r\n".to_owned(),
        "-5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "+5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "0x5\r\nhello\r\n0\r\n\r\n".to_owned(),
        " 5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "\r\n".to_owned(),
        ";a\r\nhello\r\n0\r\n\r\n".to_owned(),
        "5\nhello\r\n0\r\n\r\n".to_owned(),
        "5;a\nhello\r\n0\r\n\r\n".to_owned(),
        "5\r\nhello\n0\r\n\r\n".to_owned(),
        "5\r\nhello0\r\n\r\n".to_owned(),
        "5\r\nhelloworld\r\n0\r\n\r\n".to_owned(),
        "5\r\nhello\r\n0\n\r\n".to_owned(),
        "5\rXhello\r\n0\r\n\r\n".to_owned(),
        "10000000000000005\r\nhello\r\n0\r\n\r\n".to_owned(),
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n".to_owned(),
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(32 << 10)),
        format!("5\r\nhello\r\n0\r\n{}\r\n", "x: y\r\n".repeat(2000)),
        format!("5\r\nhello\r\n0\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)),
        "5\r\nhello\r\n0\r\nno field\r\n\r\n".to_owned(),
        "5\r\nhello\r\n0\r\nx : y\r\n\r\n".to_owned(),
        "5\r\nhello\r\n0\r\nx: \0\r\n\r\n".to_owned(),
    ] {
        rows.push((chunked(&body), Broken));
    }
    rows
}

fn lines() -> Vec<(String, Then)> {
    let mut rows = vec![
        ("\r\n\r\nGET /row HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), One("")),
        // RFC 9112, 2.2 lets a line end in LF; it goes on with CRLF.
        ("POST /row HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello".to_owned(), One("hello")),
        (get("x: 1\r\n folded\r\n"), Refused("400")),
        (get("x:\r\n\tTransfer-Encoding: chunked\r\n"), Refused("400")),
        (get("x: 1\ry: 2\r\n"), Refused("400")),
        (get("x: 1\r\r\n"), Refused("400")),
        (get("x: 1\0\r\n"), Refused("400")),
        (get("x: 1\u{1}\r\n"), Refused("400")),
        (get("x: 1\u{7f}\r\n"), Refused("400")),
        (get("x\0: 1\r\n"), Refused("400")),
        (get("x\u{1}: 1\r\n"), Refused("400")),
        (get("x y: 1\r\n"), Refused("400")),
        (get("x : 1\r\n"), Refused("400")),
        (get("x\r: 1\r\n"), Refused("400")),
        (get("x(y): 1\r\n"), Refused("400")),
        (get(": 1\r\n"), Refused("400")),
        (get("é: 1\r\n"), Refused("400")),
        ("GET  /row HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row  HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row HTTP/1.1 \r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        (" GET /row HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET\t/row\tHTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row /more HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row\r\n".to_owned(), Refused("400")),
        ("GET /row\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row HTTP/0.9\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row http/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row HTTP/1.1\rHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("G\0T /row HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("G(T /row HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row\u{1}x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET /row#x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), One("")),
        ("GET row HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET http:/row HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET http:///row HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET ftp://a/row HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
        ("GET ?q HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused("400")),
    ];
    for host in [
        "u@a", "u:p@a", "a, b", "a,b", "a b", "a/b", "a?b", "a#b", "a\\b", "a:b", "a:80:80", "a:99999", "a:-1", ":80",
        "[::1", "::1", "[::1]x", "[a]", "[]", "a\u{e9}", "a%00", "a\"b", "<a>", "a;b", "",
    ] {
        rows.push((format!("GET /row HTTP/1.1\r\nHost: {host}\r\n\r\n"), Refused("400")));
        // What is below these is a host, and then a path.
        if !host.contains(['/', '?', '#']) {
            rows.push((format!("GET http://{host}/row HTTP/1.1\r\nHost: a\r\n\r\n"), Refused("400")));
        }
    }
    for host in ["a", "a.example.", "a_b-c", "a:80", "a:", "127.0.0.1:1", "[::1]", "[::1]:80", "[::ffff:1.2.3.4]"] {
        rows.push((format!("GET /row HTTP/1.1\r\nHost: {host}\r\n\r\n"), One("")));
    }
    rows.push(("GET /row HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), Refused("400")));
    rows.push(("GET http://b/row HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), One("")));
    rows
}

fn connections() -> Vec<(String, Then)> {
    let fine = post("Content-Length: 5\r\n", "hello");
    vec![
        (format!("{fine}GET /second HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n"), OneThenRefused("hello")),
        (format!("{fine}\0"), OneThenRefused("hello")),
        (post("Content-Length: 5\r\n", &format!("hello {SMUGGLED}")), OneThenRefused("hello")),
        (post("Content-Length: 5\r\nConnection: close\r\n", &format!("hello{SMUGGLED}")), OneThenClosed("hello")),
        (
            post("Content-Length: 5\r\nConnection: close, content-length, transfer-encoding, host\r\n", "hello"),
            OneThenClosed("hello"),
        ),
        (
            post("Connection: close, transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            OneThenClosed("hello"),
        ),
        (
            post(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 5\r\n",
                "hello",
            ),
            One("hello"),
        ),
        (post("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", "hello"), One("hello")),
        (post("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello"), One("hello")),
        (post("Expect: 100-CONTINUE\r\nContent-Length: 5\r\n", "hello"), One("hello")),
        (post("Expect: 200-ok\r\nContent-Length: 5\r\n", "hello"), One("hello")),
    ]
}

/// The rows are independent; all that fail are told.
#[tokio::test]
async fn what_two_readers_may_read_differently_is_one_request_or_none() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with("header_timeout = \"30s\"", &one(upstream.address, "", "retry = false"));
    let mut failed = Vec::new();
    for (bytes, then) in [lengths_and_codings(), chunks(), lines(), connections()].concat() {
        if let Err(why) = row(&gateway, &upstream, &bytes, then).await {
            failed.push(format!("{:?}\n    {then:?}: {why}", &bytes[..bytes.floor_char_boundary(200)]));
        }
    }
    assert!(failed.is_empty(), "{} rows:\n{}", failed.len(), failed.join("\n"));
}

async fn row(gateway: &Gateway, upstream: &Upstream, bytes: &str, then: Then) -> Result<(), String> {
    let mut client = Client::connect(gateway.address).await;
    client.send(bytes).await;
    let answer = client.answer(false).await;
    let status = answer.as_ref().map_or_else(String::clone, |answer| answer.status().to_owned());
    let closes = matches!(then, Refused(_) | Broken | OneThenClosed(_) | OneThenRefused(_));
    let rest = match then {
        OneThenRefused(_) => client.answer(false).await,
        _ => Err(String::new()),
    };
    let closed = closes && client.is_closed().await;
    let seen = upstream.take();
    let error = |what: &str| Err(format!("{what}; answered {status:?}, closed: {closed}, seen: {seen:?}"));
    if !seen.wrong.is_empty() {
        return error("the upstream cannot read it");
    }
    if closes && !closed {
        return error("the connection stays open");
    }
    if !client.pending.is_empty() && closes {
        return error("there is more than one answer");
    }
    match then {
        Refused(expected) => {
            if status != expected || !seen.whole.is_empty() || !seen.partial.is_empty() {
                return error("it is not refused");
            }
        }
        Broken => {
            if status != "400" || !seen.whole.is_empty() {
                return error("it is not broken off");
            }
        }
        One(body) | OneThenClosed(body) | OneThenRefused(body) => {
            let [message] = &seen.whole[..] else { return error("it is not one") };
            if status != "200" || message.text() != body || !message.target().starts_with("/row") {
                return error("it is another");
            }
            let framings = message.all("content-length").count() + message.all("transfer-encoding").count();
            if framings > 1 || message.all("host").count() > 1 || !message.header("expect").is_empty() {
                return error("it is not framed once");
            }
            if matches!(then, OneThenRefused(_)) && rest.is_ok_and(|rest| rest.status() != "400") {
                return error("what follows is not refused");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_ends_early_never_arrives_whole() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with("", &one(upstream.address, "", "retry = false"));
    for bytes in [
        post("Content-Length: 6\r\n", "hello"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nhel"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nx: y\r\n"),
    ] {
        let mut client = Client::connect(gateway.address).await;
        client.send(&bytes).await;
        client.stream.shutdown().await.unwrap();
        let answer = client.answer(false).await;
        assert!(answer.as_ref().map_or(true, |answer| answer.status() == "400"), "{bytes:?}: {answer:?}");
        assert!(client.is_closed().await, "{bytes:?}");
        let seen = upstream.take();
        assert!(seen.whole.is_empty() && seen.wrong.is_empty(), "{bytes:?}: {seen:?}");
    }
}

#[tokio::test]
async fn trailers_are_no_way_around_what_is_said_of_a_request() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with("", &one(upstream.address, "", ""));
    let names = ["x-sum", "x-forwarded-for", "forwarded", "via", "host", "content-length", "connection"];
    let trailers: String = names.iter().map(|name| format!("{name}: 9\r\n")).collect();
    let lines = format!("TE: trailers\r\nTrailer: {}\r\nTransfer-Encoding: chunked\r\n", names.join(", "));
    let mut client = Client::connect(gateway.address).await;
    client.send(post(&lines, &format!("5\r\nhello\r\n0\r\n{trailers}\r\n"))).await;
    assert_eq!(client.answer(false).await.unwrap().status(), "200");
    let seen = upstream.take();
    assert_eq!(seen.whole[0].text(), "hello", "{seen:?}");
    assert_eq!(seen.whole[0].trailers, [("x-sum".to_owned(), "9".to_owned())]);
}
