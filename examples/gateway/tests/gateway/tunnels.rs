//! Connections that have become something else, and what they hold.

use crate::{
    process::{Gateway, get, one},
    raw::{rest, until},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

/// A gateway, and both ends of a tunnel through it.
async fn tunnel(limits: &str) -> (Gateway, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lines = "bulkhead = { limit = 1 }";
    let gateway = Gateway::start_with(limits, &one(listener.local_addr().unwrap(), lines, "retry = false"));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let asked = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(asked.as_bytes()).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    let head = until(&mut upstream, "\r\n\r\n").await;
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    upstream.write_all(switched.as_bytes()).await.unwrap();
    let head = until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.write_all(b"ping").await.unwrap();
    until(&mut upstream, "ping").await;
    upstream.write_all(b"pong").await.unwrap();
    until(&mut client, "pong").await;
    (gateway, client, upstream)
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(timeout(Duration::from_secs(10), stream.read(&mut [0; 8])).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn a_tunnel_holds_its_place_until_it_closes() {
    let (gateway, client, mut upstream) = tunnel("").await;
    gateway.shows("cluster.u.bulkhead", "in_flight", 1).await;
    gateway.shows("route.r.bulkhead", "in_flight", 1).await;
    gateway.shows("server", "tunnels", 1).await;
    assert_eq!(get(gateway.address, "/").await.status(), 503, "there is one place");
    drop(client);
    assert!(is_closed(&mut upstream).await);
    drop(upstream);
    gateway.shows("cluster.u.bulkhead", "in_flight", 0).await;
    gateway.shows("route.r.bulkhead", "in_flight", 0).await;
    gateway.shows("server", "connections", 0).await;
}

#[tokio::test]
async fn half_of_a_tunnel_may_close_before_the_other() {
    let (_gateway, mut client, mut upstream) = tunnel("").await;
    client.shutdown().await.unwrap();
    assert!(is_closed(&mut upstream).await);
    upstream.write_all(b"the rest").await.unwrap();
    drop(upstream);
    assert_eq!(rest(&mut client).await, "the rest");
}

#[tokio::test]
async fn silence_ends_a_tunnel_and_frees_its_place() {
    let (gateway, mut client, mut upstream) = tunnel("tunnel_idle = \"500ms\"").await;
    // One side that speaks is enough.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        upstream.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_closed(&mut client).await && is_closed(&mut upstream).await);
    gateway.shows("cluster.u.bulkhead", "in_flight", 0).await;
}

#[tokio::test]
async fn the_end_waits_for_tunnels_until_drain_max_and_says_what_it_aborted() {
    for closes in [true, false] {
        let (mut gateway, mut client, mut upstream) = tunnel("[drain]\nmin = \"10ms\"\nmax = \"1s\"").await;
        let begun = Instant::now();
        gateway.terminate();
        let address = gateway.address;
        // A connect that the listener's end meets halfway is tried again by the kernel, a second later.
        let connect = async || timeout(Duration::from_millis(100), TcpStream::connect(address)).await;
        while matches!(connect().await, Ok(Ok(_))) {
            tokio::task::yield_now().await;
        }
        // The listener is gone; the tunnel is not.
        client.write_all(b"still").await.unwrap();
        until(&mut upstream, "still").await;
        if closes {
            drop((client, upstream));
            assert_eq!(gateway.end().await.code(), Some(0));
        } else {
            assert_eq!(gateway.end().await.code(), Some(1));
            assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
            assert!(is_closed(&mut client).await && is_closed(&mut upstream).await);
        }
    }
}
