//! What the gateway does to requests and responses that pass.

use crate::{
    process::{Gateway, call, get, header, one},
    raw::{Upstream, exchange, until},
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

#[tokio::test]
async fn the_longest_prefix_wins_and_a_prefix_ends_at_a_slash() {
    let (web, api) = (Upstream::fine().await, Upstream::fine().await);
    let tables = format!(
        "{}\n[cluster.api]\nendpoints = \"{}\"\n[route.z]\nprefix = \"/api/\"\ncluster = \"api\"",
        // The shorter prefix comes first in the file and by name.
        one(web.address, "", "").replace("[route.r]", "[route.a]"),
        api.address
    );
    let gateway = Gateway::start_with("", &tables);
    for path in ["/api", "/api/x?y=1", "/apix", "/"] {
        assert_eq!(get(gateway.address, path).await.status(), 200, "{path}");
    }
    assert!(api.received().contains("GET /api HTTP/1.1\r\n") && api.received().contains("GET /api/x?y=1 HTTP/1.1\r\n"));
    assert!(web.received().contains("GET /apix HTTP/1.1\r\n") && web.received().contains("GET / HTTP/1.1\r\n"));
    assert_eq!(web.received().matches("GET ").count(), 2);
}

#[tokio::test]
async fn a_path_without_a_route_is_not_found() {
    let upstream = Upstream::fine().await;
    let tables = one(upstream.address, "", "").replace("prefix = \"/\"", "prefix = \"/only\"");
    let gateway = Gateway::start_with("", &tables);
    assert_eq!(get(gateway.address, "/else").await.status(), 404);
    assert_eq!(upstream.received(), "");
}

#[tokio::test]
async fn hop_by_hop_headers_go_no_further() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Upstream-Hop\r\nX-Upstream-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Kept: 1\r\n\r\nok",
    )
    .await;
    let gateway = Gateway::before(upstream.address, "");
    let answer = exchange(
        gateway.address,
        "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close, X-Client-Hop\r\nX-Client-Hop: 1\r\nKeep-Alive: 5\r\n\
         TE: gzip\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nUpgrade: websocket\r\nX-Kept: 1\r\n\r\n",
    )
    .await
    .to_ascii_lowercase();
    let received = upstream.received().to_ascii_lowercase();
    for gone in ["x-client-hop", "keep-alive", "te:", "proxy-", "upgrade", "connection:"] {
        assert!(!received.contains(gone), "{gone} in {received}");
    }
    assert!(received.contains("x-kept: 1") && received.contains("via: 1.1 buttress"), "{received}");
    for gone in ["x-upstream-hop", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    assert!(answer.contains("x-kept: 1") && answer.contains("via: 1.1 buttress") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn an_expectation_is_met_here_and_goes_no_further() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    until(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
    client.write_all(b"hello").await.unwrap();
    until(&mut client, "HTTP/1.1 200 OK").await;
    let received = upstream.received();
    assert!(received.ends_with("hello") && !received.contains("expect"), "{received}");
}

#[tokio::test]
async fn dots_that_are_no_segment_of_their_own_go_through() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    for path in ["/.well-known/x", "/a..b", "/...", "/a./b.;c", "/%2ehidden", "/x?q=/../y", "/100%", "/%2"] {
        assert_eq!(get(gateway.address, path).await.status(), 200, "{path}");
        assert!(upstream.received().contains(&format!("GET {path} HTTP/1.1\r\n")), "{path}");
    }
}

#[tokio::test]
async fn te_trailers_is_kept() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    exchange(gateway.address, "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, gzip\r\nConnection: te, close\r\n\r\n").await;
    let received = upstream.received().to_ascii_lowercase();
    assert!(received.contains("te: trailers\r\n") && received.contains("connection: te\r\n"), "{received}");
}

#[tokio::test]
async fn what_a_client_says_of_where_it_comes_from_is_replaced() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    exchange(
        gateway.address,
        "GET / HTTP/1.1\r\nHost: example.com:81\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n\
         X-Forwarded-Proto: https\r\nX-Real-IP: 10.0.0.1\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 443\r\n\
         X-Forwarded-Prefix: /evil\r\nX_Forwarded_For: 10.0.0.1\r\nX-Forwarded-Anything: evil\r\nX-Forwarded: evil\r\n\
         X-Original-URL: /evil\r\nX-Original-Host: evil\r\nX-Rewrite-URL: /evil\r\nX-Client-IP: 10.0.0.1\r\n\
         X-Cluster-Client-IP: 10.0.0.1\r\nTrue-Client-IP: 10.0.0.1\r\nX-Forward: kept\r\nConnection: close\r\n\r\n",
    )
    .await;
    let received = upstream.received();
    assert!(!received.contains("x-forwarded-port") && received.contains("x-forward: kept\r\n"), "{received}");
    assert!(!received.contains("10.0.0.1") && !received.contains("evil") && !received.contains("https"), "{received}");
    for line in [
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: example.com:81",
        "forwarded: for=127.0.0.1;proto=http;host=\"example.com:81\"",
        "host: example.com:81",
    ] {
        assert!(received.contains(&format!("{line}\r\n")), "{line} not in {received}");
    }
}

#[tokio::test]
async fn a_stranger_can_only_lower_what_upstreams_are_told_of_its_importance() {
    let upstream = Upstream::fine().await;
    let tables = one(upstream.address, "", "");
    let (stranger, friend) = (String::new(), "[trust]\nproxies = [\"127.0.0.0/8\"]\n".to_owned());
    for (trust, said, told) in [
        (&stranger, "x-priority: critical", "x-priority: normal"),
        (&stranger, "x-priority: sheddable", "x-priority: sheddable"),
        (&stranger, "priority: u=0, i", "x-priority: normal"),
        (&stranger, "priority: u=6", "x-priority: sheddable"),
        // What this gateway and an upstream may read differently.
        (&stranger, "x-priority: junk\r\nPriority: u=0", "x-priority: normal"),
        (&stranger, "x-priority: sheddable\r\nPriority: u=0", "x-priority: sheddable"),
        (&stranger, "x-priority: sheddable\r\nX-Priority: critical", "x-priority: sheddable"),
        (&stranger, "priority: u=7, u=0", "x-priority: normal"),
        (&stranger, "accept: */*", ""),
        (&friend, "x-priority: critical", "x-priority: critical"),
        (&friend, "priority: u=0, i", "priority: u=0, i"),
    ] {
        let gateway = Gateway::start_with("", &format!("{trust}{tables}"));
        let before = upstream.received().len();
        exchange(gateway.address, format!("GET / HTTP/1.1\r\nHost: a\r\n{said}\r\nConnection: close\r\n\r\n")).await;
        let received = upstream.received()[before..].to_ascii_lowercase();
        let lines: Vec<_> = received.lines().filter(|line| line.contains("priority:")).collect();
        assert_eq!(lines.join("\n"), told, "{said}: {received}");
    }
}

#[tokio::test]
async fn the_target_of_an_absolute_form_request_wins_over_its_host() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    exchange(gateway.address, "GET http://real.example/x HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n").await;
    let received = upstream.received();
    assert!(received.starts_with("GET /x HTTP/1.1\r\n") && received.contains("host: real.example\r\n"), "{received}");
}

#[tokio::test]
async fn http_1_and_http_2_clients_are_served_on_one_port() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    for (http2, via) in [(false, "via: 1.1 buttress"), (true, "via: 2 buttress")] {
        let req = Request::post(format!("http://{}/echo", gateway.address));
        let res = call(req.body(Full::new(Bytes::from_static(b"hello"))).unwrap(), http2).await;
        assert_eq!((res.status(), &res.body()[..]), (StatusCode::OK, &b"ok"[..]));
        assert_eq!(header(&res, "via"), "1.1 buttress");
        assert!(upstream.received().contains(via) && upstream.received().ends_with("hello"), "{}", upstream.received());
    }
}

#[tokio::test]
async fn cookies_that_come_one_by_one_are_one_line_to_an_http_1_upstream() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    let req = Request::get(format!("http://{}/", gateway.address)).header("cookie", "a=1").header("cookie", "b=2");
    assert_eq!(call(req.body(Full::default()).unwrap(), true).await.status(), 200);
    assert!(upstream.received().contains("cookie: a=1; b=2\r\n"), "{}", upstream.received());
}

#[tokio::test]
async fn bodies_stream_both_ways_and_trailers_come_through() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap(), "");
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(b"3\r\none\r\n").await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    let seen = until(&mut upstream, "one\r\n").await.to_ascii_lowercase();
    assert!(seen.contains("transfer-encoding: chunked") && !seen.contains("two"), "{seen}");
    // The upstream answers before it has all of the request.
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n5\r\nfirst\r\n";
    upstream.write_all(head.as_bytes()).await.unwrap();
    until(&mut client, "first").await;
    client.write_all(b"3\r\ntwo\r\n0\r\nx-sum: 7\r\n\r\n").await.unwrap();
    let seen = until(&mut upstream, "0\r\n").await;
    assert!(seen.contains("two"), "{seen}");
    upstream.write_all(b"4\r\nlast\r\n0\r\nx-end: 1\r\n\r\n").await.unwrap();
    let seen = until(&mut client, "x-end: 1\r\n\r\n").await;
    assert!(seen.contains("last"), "{seen}");
}
