//! A hyper client of three servers, one of which is bad: calls are balanced by load, what may be sent twice is sent again to
//! another server, paid from a budget, and a breaker keeps calls away from what is down.
//!
//! `cargo run -p buttress-example-hyper-client`

use buttress::{http::ReplayBody, prelude::*};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, uri::Authority};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower::{ServiceBuilder, ServiceExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Retries of its own are off: what is sent twice is sent twice knowingly.
    let hyper = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
    let mut servers = Vec::new();
    for status in ["503 Service Unavailable", "200 OK", "200 OK"] {
        let address: Authority = server(status).await?.parse()?;
        let to = address.clone();
        let transport = ServiceBuilder::new()
            .map_request(move |request: Request<ReplayBody<Empty<Bytes>>>| at(&to, request))
            .service(hyper.clone())
            .lift_errors();
        servers.push((address.to_string(), transport));
    }

    // deadline > retry > balance > per server: breaker > bulkhead > per-try deadline > hyper
    let stack = buttress::stack::client()
        .deadline(Duration::from_secs(5))
        .per_try(Duration::from_secs(1))
        .breaker(BreakerConfig::default().consecutive(3))
        .build()?;
    let balanced = stack.balanced(servers)?;
    let balancer = balanced.balancer();
    let client = balanced.into_service();

    let mut well = 0;
    for _ in 0..200 {
        let response = client.clone().oneshot(Request::get("/").body(Empty::new())?).await?;
        well += u32::from(response.status() == StatusCode::OK);
    }
    println!(
        "{well} of 200 calls went well, {} of them at the second attempt",
        stack.retry().snapshot().recovered_total
    );
    for server in balancer.snapshot().endpoints {
        println!("{}: {} calls, {} failed", server.name, server.picks_total, server.failures_total);
    }
    Ok(())
}

/// The same request, to this server.
fn at<B>(server: &Authority, mut request: Request<B>) -> Request<B> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() =
        Uri::builder().scheme("http").authority(server.as_str()).path_and_query(path).build().expect("parts of URIs");
    request
}

/// A server that answers everything with `status`.
async fn server(status: &'static str) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
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
    Ok(address)
}
