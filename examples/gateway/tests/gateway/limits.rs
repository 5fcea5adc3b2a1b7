//! What a client may send, and how it is told that it was too much; how much the gateway itself may open.

use crate::{
    process::{Gateway, LISTEN, binary, call, header, one},
    strict::{Client, Upstream},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use std::process::Command;

const LIMITS: &str =
    "headers = 20\nuri_bytes = 100\nheader_bytes = \"8KiB\"\nbody_bytes = 10\nbody_timeout = \"200ms\"";
const ROUTE: &str = "methods = [\"GET\", \"POST\"]";

/// A request that is too much of one thing, over either protocol.
type Make = fn(&str) -> http::request::Builder;

#[tokio::test]
async fn each_limit_says_what_it_is_in_the_form_that_is_asked_for() {
    let upstream = Upstream::fine().await;
    let tables = format!(
        "[cluster.u]\nendpoints = \"{}\"\n[route.r]\nprefix = \"/r\"\ncluster = \"u\"\n{ROUTE}\n",
        upstream.address
    );
    let gateway = Gateway::start_with(LIMITS, &tables);
    let rows: [(Make, &str, u16, &str); 6] = [
        (|at| Request::get(format!("{at}/nowhere")), "", 404, "no_route"),
        (|at| Request::delete(format!("{at}/r")), "", 405, "method_not_allowed"),
        (|at| Request::post(format!("{at}/r")), "eleven bytes", 413, "body_too_large"),
        (|at| Request::get(format!("{at}/r/{}", "x".repeat(100))), "", 414, "uri_too_long"),
        (
            |at| (0..25).fold(Request::get(format!("{at}/r")), |req, i| req.header(format!("x-{i}"), "y")),
            "",
            431,
            "header_too_large",
        ),
        (|at| Request::get(format!("{at}/r")).header("x", "y".repeat(9000)), "", 431, "header_too_large"),
    ];
    for http2 in [false, true] {
        for (make, body, status, reason) in rows {
            let ask = async |name: &str, value: &str| -> Response<Bytes> {
                let req = make(&format!("http://{}", gateway.address)).header(name, value);
                call(req.body(Full::from(body.to_owned())).unwrap(), http2).await
            };
            let text = ask("accept", "*/*").await;
            assert_eq!(text.status(), status, "{reason}");
            assert!(header(&text, "content-type").starts_with("text/plain"), "{text:?}");
            assert!(header(&text, "proxy-status").starts_with("buttress; error="), "{text:?}");
            assert_eq!(header(&text, "allow").is_empty(), status != 405, "{text:?}");
            let json = ask("accept", "application/json").await;
            let problem: serde_json::Value = serde_json::from_slice(json.body()).unwrap();
            assert_eq!((&problem["status"], &problem["reason"]), (&status.into(), &reason.into()));
            assert_eq!(header(&json, "content-type"), "application/problem+json");
            // gRPC is always POST, so there is no method of it that is not allowed.
            if status == 405 {
                continue;
            }
            let req =
                make(&format!("http://{}", gateway.address)).method("POST").header("content-type", "application/grpc");
            let grpc = call(req.body(Full::from(body.to_owned())).unwrap(), http2).await;
            assert_eq!((grpc.status().as_u16(), grpc.body().len()), (200, 0), "{grpc:?}");
            assert!(!["", "0"].contains(&header(&grpc, "grpc-status")), "{grpc:?}");
        }
    }
    let seen = upstream.take();
    assert!(seen.whole.is_empty() && seen.partial.is_empty() && seen.wrong.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_declared_or_not() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with(LIMITS, &one(upstream.address, "", ""));
    for (lines, body) in [
        ("Content-Length: 11", "hello world".to_owned()),
        ("Content-Length: 11\r\nExpect: 100-continue", String::new()),
        ("Transfer-Encoding: chunked", "b\r\nhello world\r\n0\r\n\r\n".to_owned()),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n".to_owned()),
        ("Transfer-Encoding: chunked", format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(50_000))),
    ] {
        let mut client = Client::connect(gateway.address).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}")).await;
        let answer = client.answer(false).await.expect(lines);
        assert_eq!((answer.status(), answer.header("connection")), ("413", "close"), "{lines}");
        assert!(client.is_closed().await, "{lines}");
        let seen = upstream.take();
        assert!(seen.whole.is_empty() && seen.wrong.is_empty(), "{lines}: {seen:?}");
    }
    // As much as is allowed.
    let mut client = Client::connect(gateway.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello worl\r\n0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.unwrap().status(), "200");
}

#[tokio::test]
async fn heads_beyond_what_is_read_at_all_are_refused_and_their_connections_closed() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with("", &one(upstream.address, "", ""));
    let big = "y".repeat(1 << 20);
    for (bytes, status) in [
        (format!("GET /{big} HTTP/1.1\r\nHost: a\r\n\r\n"), "414"),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &big[..70_000]), "414"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nx: {big}\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{big}: x\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(201)), "431"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(20_000)), "431"),
    ] {
        let mut client = Client::connect(gateway.address).await;
        client.send(&bytes).await;
        let answer = client.answer(false).await;
        // What was sent and not read resets the connection, and may take the answer with it.
        let told =
            answer.as_ref().map_or_else(|why| why.is_empty(), |answer| ["431", status].contains(&answer.status()));
        assert!(told, "{:?}: {answer:?}", &bytes[..60]);
        assert!(client.is_closed().await, "{:?}", &bytes[..60]);
    }
    let seen = upstream.take();
    assert!(seen.whole.is_empty() && seen.partial.is_empty() && seen.wrong.is_empty(), "{seen:?}");
}

#[test]
fn it_may_open_as_many_files_as_the_system_allows() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -Sn 100 && ulimit -Hn 500 && exec \"$0\" \"$@\""]).arg(binary().get_program());
    let tables = "[cluster.u]\nendpoints = \"127.0.0.1:9\"\n[route.r]\nprefix = \"/\"\ncluster = \"u\"\n";
    let gateway = Gateway::start_by(shell, &format!("{LISTEN}{tables}"));
    assert_eq!(gateway.open_files(), "500");
}
