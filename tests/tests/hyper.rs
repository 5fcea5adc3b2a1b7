//! Client chains around a real hyper client: what real connections do to outcomes and permits.

use buttress::{BreakerLayer, BulkheadLayer, Reqwest, State, prelude::*};
use buttress_sim::eventually;
use buttress_tests::fresh_connections;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower::{Service, ServiceBuilder, ServiceExt as _};

/// A server that reads a request and answers with these bytes, then closes.
async fn answering(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = connection.read(&mut request).await;
                let _ = connection.write_all(answer).await;
            });
        }
    });
    address
}

fn get(server: SocketAddr) -> Request<Empty<Bytes>> {
    Request::get(format!("http://{server}/")).body(Empty::new()).unwrap()
}

fn opens_at_once() -> BreakerLayer {
    BreakerLayer::new(BreakerConfig::default().consecutive(1).open_for(Duration::from_secs(60)).build().unwrap())
}

/// Sends one request through a touchy breaker, reads the body to its end, and says what the breaker thinks of it.
async fn judged(server: SocketAddr) -> (State, u64, u64) {
    let layer = opens_at_once();
    let breaker = layer.handle();
    let client = ServiceBuilder::new().http_client().with(layer).service(fresh_connections().lift_errors());
    if let Ok(response) = client.oneshot(get(server)).await {
        let _ = response.into_body().collect().await;
    }
    let seen = breaker.snapshot();
    (seen.state, seen.calls, seen.failures)
}

#[tokio::test]
async fn answers_of_real_servers_count_for_what_they_are() {
    let good = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_eq!(judged(good).await, (State::Closed, 1, 0));
    let chunked = answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    assert_eq!(judged(chunked).await, (State::Closed, 1, 0));
    let until_close = answering(b"HTTP/1.1 200 OK\r\n\r\nuntil close").await;
    assert_eq!(judged(until_close).await, (State::Closed, 1, 0));
    let missing = answering(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(judged(missing).await, (State::Closed, 1, 0));
}

#[tokio::test]
async fn broken_answers_open_the_circuit() {
    let bad = answering(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad").await;
    let cut = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot all of it").await;
    let cut_chunk = answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nnot all").await;
    let silent = answering(b"").await;
    let garbage = answering(b"SSH-2.0-OpenSSH\r\n").await;
    for server in [bad, cut, cut_chunk, silent, garbage] {
        assert_eq!(judged(server).await.0, State::Open);
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(judged(nobody).await.0, State::Open, "connection refused");
}

#[tokio::test]
async fn a_response_that_nobody_reads_holds_its_permit_until_it_is_dropped_and_says_nothing() {
    let server = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome").await;
    let (breaker, bulkhead) = (opens_at_once(), BulkheadLayer::new(1));
    let (circuit, limit) = (breaker.handle(), bulkhead.handle());
    let mut client =
        ServiceBuilder::new().http_client().with(breaker).with(bulkhead).service(fresh_connections().lift_errors());
    let unread = client.ready().await.unwrap().call(get(server)).await.unwrap();
    let refused = client.ready().await.unwrap().call(get(server)).await.unwrap_err();
    assert_eq!((refused.rejection().unwrap().reason, limit.snapshot().in_flight), (Reason::AtCapacity, 1));
    drop(unread);
    eventually("the permit came back", || limit.snapshot().in_flight == 0).await;
    let seen = circuit.snapshot();
    assert_eq!((seen.state, seen.calls, seen.failures), (State::Closed, 0, 0));
}

#[tokio::test]
async fn peer_07_hung_calls_open_the_circuit_with_default_settings_though_their_callers_drop_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let layer = BreakerLayer::new(BreakerConfig::default().hang_after(Duration::from_millis(200)).build().unwrap());
    let breaker = layer.handle();
    let client = ServiceBuilder::new().http_client().with(layer).service(fresh_connections().lift_errors());
    let calls = (0..50).map(|_| tokio::time::timeout(Duration::from_millis(400), client.clone().oneshot(get(server))));
    let ended = futures_util::future::join_all(calls).await;
    assert!(ended.iter().any(Result::is_err), "callers gave up");
    assert_eq!(breaker.state(), State::Open, "{:?}", breaker.snapshot());
    drop(listener);
}

#[tokio::test]
async fn a_reqwest_client_keeps_its_own_request_and_response_types() {
    let server = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}").await;
    let reqwest = reqwest::Client::new();
    let chain = ServiceBuilder::new().http_client().deadline(Duration::from_secs(5)).bulkhead(1);
    let client = chain.service(Reqwest(reqwest.clone()).lift_errors());
    for _ in 0..2 {
        let request = reqwest.post(format!("http://{server}")).body("hello").build().unwrap();
        let request: Request<reqwest::Body> = request.try_into().unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        let response = reqwest::Response::from(response.map(reqwest::Body::wrap));
        assert_eq!(response.text().await.unwrap(), "{\"a\":1}");
    }
}
