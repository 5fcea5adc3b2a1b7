//! The end in good order, and what the admin pages say meanwhile.

use crate::{
    process::{Gateway, binary, get, one},
    raw::{exchange, rest, until},
};
use buttress_sim::eventually;
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn sigterm_lets_calls_end_and_takes_no_new_ones() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tables = one(upstream.local_addr().unwrap(), "", "");
    let mut gateway = Gateway::start_with("[drain]\nmin = \"1s\"", &tables);
    assert_eq!(get(gateway.admin, "/readyz").await.status(), 200);

    let mut in_flight = TcpStream::connect(gateway.address).await.unwrap();
    in_flight.write_all(GET).await.unwrap();
    let (mut serving, _) = upstream.accept().await.unwrap();
    until(&mut serving, "\r\n\r\n").await;
    // Connected, and has not asked yet.
    let mut fresh = TcpStream::connect(gateway.address).await.unwrap();
    let mut late = TcpStream::connect(gateway.address).await.unwrap();
    gateway.terminate();

    while get(gateway.admin, "/readyz").await.status() != 503 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(gateway.admin, "/livez").await.status(), 200);

    // Until the listener closes, everybody is answered, and told to go.
    fresh.write_all(b"GET /fresh HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (mut second, _) = upstream.accept().await.unwrap();
    until(&mut second, "\r\n\r\n").await;
    second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let answer = rest(&mut fresh).await;
    assert!(answer.ends_with("ok") && answer.contains("connection: close"), "{answer}");

    let address = gateway.address;
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    // Who was connected by then and asks right away is still answered.
    late.write_all(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut second, "\r\n\r\n").await;
    second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let answer = rest(&mut late).await;
    assert!(answer.ends_with("ok") && answer.contains("connection: close"), "{answer}");
    assert!(gateway.ended().is_none(), "it waits for the call in flight");
    serving.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await.unwrap();
    let answer = rest(&mut in_flight).await;
    assert!(answer.ends_with("done"), "{answer}");
    eventually("the gateway has ended", || gateway.ended().is_some()).await;
    assert!(gateway.ended().unwrap().success());
}

#[tokio::test]
async fn what_does_not_end_is_aborted_and_said() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tables = one(upstream.local_addr().unwrap(), "", "");
    let mut gateway = Gateway::start_with("[drain]\nmin = \"10ms\"\nmax = \"200ms\"", &tables);
    let mut in_flight = TcpStream::connect(gateway.address).await.unwrap();
    in_flight.write_all(GET).await.unwrap();
    let _serving = upstream.accept().await.unwrap();
    gateway.terminate();
    eventually("the gateway has ended", || gateway.ended().is_some()).await;
    assert_eq!(gateway.ended().unwrap().code(), Some(1));
    assert_eq!(rest(&mut in_flight).await, "");
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    for (second, drain_min) in [("-TERM", "10ms"), ("-INT", "10ms"), ("-TERM", "40s")] {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tables = one(upstream.local_addr().unwrap(), "", "");
        let server = format!("[drain]\nmin = \"{drain_min}\"\nmax = \"60s\"");
        let mut gateway = Gateway::start_with(&server, &tables);
        let mut in_flight = TcpStream::connect(gateway.address).await.unwrap();
        in_flight.write_all(GET).await.unwrap();
        let _serving = upstream.accept().await.unwrap();
        gateway.terminate();
        let phase = if drain_min == "40s" { "draining" } else { "stopping" };
        while gateway.status().await["state"] != phase {
            tokio::task::yield_now().await;
        }
        gateway.signal(second);
        eventually("the gateway has ended", || gateway.ended().is_some()).await;
        assert_eq!(gateway.ended().unwrap().code(), Some(1));
    }
    let help = binary().args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("a second signal stops at once"), "{help}");
}

#[tokio::test]
async fn http_2_clients_are_told_to_go_before_the_listener_closes_and_idle_http_1_clients_after() {
    let upstream = crate::raw::Upstream::fine().await;
    let gateway = Gateway::start_with("[drain]\nmin = \"40s\"\nmax = \"60s\"", &one(upstream.address, "", ""));
    let mut idle = TcpStream::connect(gateway.address).await.unwrap();
    idle.write_all(GET).await.unwrap();
    until(&mut idle, "ok").await;
    let stream = TokioIo::new(TcpStream::connect(gateway.address).await.unwrap());
    let (mut h2, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let req = Request::get(format!("http://{}/", gateway.address)).body(Empty::new()).unwrap();
    assert_eq!(h2.send_request(req).await.unwrap().status(), 200);
    gateway.terminate();
    eventually("the HTTP/2 connection has ended", || connection.is_finished()).await;
    idle.write_all(GET).await.unwrap();
    assert!(until(&mut idle, "ok").await.contains("connection: close"));
    assert_eq!(gateway.status().await["state"], "draining");
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end_up() {
    let upstream = crate::raw::Upstream::fine().await;
    // Who says nothing is not waited for as long as for a head.
    let server = "header_timeout = \"60s\"\n[drain]\nmin = \"10ms\"\nmax = \"60s\"";
    let mut gateway = Gateway::start_with(server, &one(upstream.address, "", ""));
    let mut idle = TcpStream::connect(gateway.address).await.unwrap();
    idle.write_all(GET).await.unwrap();
    until(&mut idle, "ok").await;
    let h2: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri: http::Uri = format!("http://{}/", gateway.address).parse().unwrap();
    assert_eq!(h2.get(uri).await.unwrap().status(), 200);
    let _silent = TcpStream::connect(gateway.address).await.unwrap();
    gateway.terminate();
    eventually("the gateway has ended", || gateway.ended().is_some()).await;
    assert!(gateway.ended().unwrap().success());
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_one_to_end() {
    let upstream = crate::raw::Upstream::fine().await;
    let gateway = Gateway::start_with("connections = 1", &one(upstream.address, "", ""));
    let mut first = TcpStream::connect(gateway.address).await.unwrap();
    first.write_all(GET).await.unwrap();
    until(&mut first, "ok").await;
    let mut second = TcpStream::connect(gateway.address).await.unwrap();
    second.write_all(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // The first connection is served all the while; the second one is not.
    for _ in 0..20 {
        first.write_all(GET).await.unwrap();
        until(&mut first, "ok").await;
    }
    assert!(!upstream.received().contains("/second"));
    drop(first);
    until(&mut second, "ok").await;
}

#[tokio::test]
async fn the_admin_pages_are_for_reading_and_for_this_machine() {
    let upstream = crate::raw::Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    let status = gateway.status().await;
    assert_eq!(status["state"], "running");
    for layer in
        ["route.r.deadline", "route.r.bulkhead", "cluster.u.breaker", "cluster.u.bulkhead", "cluster.u.deadline"]
    {
        let kind = layer.rsplit('.').next().unwrap();
        assert_eq!(
            (&status["layers"][layer]["kind"], &status["layers"][layer]["mode"]),
            (&kind.into(), &"auto".into())
        );
    }
    assert_eq!(get(gateway.admin, "/else").await.status(), 404);
    let post = format!("POST /status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.admin);
    assert!(exchange(gateway.admin, post).await.starts_with("HTTP/1.1 405 "));
    // A name that somebody pointed at this machine.
    let rebound = "GET /status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(exchange(gateway.admin, rebound).await.starts_with("HTTP/1.1 403 "));
}
