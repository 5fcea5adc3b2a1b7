//! A hyper client of three servers, one of which is bad: calls are balanced by load, what may be sent twice is sent again to
//! another server, paid from a budget, and a breaker keeps calls away from what is down.
//!
//! `cargo run -p buttress-example-hyper-client`

use buttress::{Hyper, http::OriginLayer, prelude::*};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower::{Layer as _, ServiceExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Retries of its own are off: what is sent twice is sent twice knowingly.
    let hyper = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
    let mut servers = Vec::new();
    for status in ["503 Service Unavailable", "200 OK", "200 OK"] {
        let origin = server(status).await?;
        let transport = OriginLayer::new(&origin)?.layer(Hyper(hyper.clone()).lift_errors());
        servers.push((origin, transport));
    }

    // deadline > retry > balance > per server: breaker > bulkhead > per-try deadline > hyper
    let stack = buttress::stack::client()
        .deadline(Duration::from_secs(5))
        .per_try(Duration::from_secs(1))
        .breaker(BreakerConfig::default().consecutive(3))
        // By default a client that has just started can afford one retry a second.
        .retry(RetryConfig::default().budget(BudgetConfig::default().min_per_sec(10.0)))
        .build()?;
    let client = stack.balanced(servers)?;

    let mut well = 0;
    for _ in 0..200 {
        let response = client.clone().oneshot(Request::get("/").body(Empty::new())?).await?;
        well += u32::from(response.status() == StatusCode::OK);
    }
    println!(
        "{well} of 200 calls went well, {} of them at the second attempt",
        stack.retry().snapshot().recovered_total
    );
    for server in client.balancer().snapshot().endpoints {
        println!("{}: {} calls, {} failed", server.name, server.picks_total, server.failures_total);
    }
    Ok(())
}

/// A server that answers everything with `status`.
async fn server(status: &'static str) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                while connection.read(&mut request).await.is_ok_and(|n| n > 0) {
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    if connection.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(origin)
}
