//! Clients cannot open a breaker for others, whatever they send: short deadlines, aborted uploads, slow reading.

use axum::{Router, body::Bytes as AxumBytes, extract::Request, routing::post};
use buttress::{BreakerLayer, State, deadline::Headers, prelude::*};
use buttress_tests::serve;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::ServiceBuilder;

async fn send(server: SocketAddr, text: &str) -> TcpStream {
    let mut connection = TcpStream::connect(server).await.unwrap();
    connection.write_all(text.as_bytes()).await.unwrap();
    connection
}

async fn status(server: SocketAddr, text: &str) -> String {
    let mut answer = String::new();
    send(server, text).await.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// A breaker that opens at the slightest provocation, so that a single counted call shows.
fn touchy() -> BreakerLayer {
    BreakerLayer::new(BreakerConfig::default().consecutive(3).failure_rate(0.1).min_calls(20).build().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_short_deadlines_and_a_thousand_aborted_uploads_leave_the_breaker_closed() {
    let (outer, inner) = (touchy(), touchy());
    let breakers = [outer.handle(), inner.handle()];
    let deadline = DeadlineConfig::new(Duration::from_secs(5)).read(Headers::new()).build().unwrap();
    let app = Router::new()
        .route("/upload", post(async |body: AxumBytes| body.len().to_string()))
        .route("/slow", post(async |_: Request| std::future::pending::<()>().await))
        .layer(ServiceBuilder::new().http_server().with(outer).deadline(deadline).with(inner));
    let server = serve(app).await;

    for _ in 0..10 {
        let rounds = (0..100).map(async |_| {
            let short = "POST /slow HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\ngrpc-timeout: 1m\r\n\
                         content-length: 0\r\nconnection: close\r\n\r\n";
            assert_eq!(status(server, short).await, "HTTP/1.1 200 OK", "a trailers-only refusal");
            let mut upload =
                send(server, "POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nten bytes.").await;
            upload.flush().await.unwrap();
            drop(upload);
        });
        futures_util::future::join_all(rounds).await;
    }
    let good = "POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
    assert_eq!(status(server, good).await, "HTTP/1.1 200 OK", "another client is unharmed");
    for breaker in breakers {
        let seen = breaker.snapshot();
        assert!(seen.state == State::Closed && seen.failures == 0, "{seen:?}");
    }
}
