//! reqwest with a deadline, retries, a breaker and a bulkhead: build the request and read the response with reqwest, send it through
//! the chain.
//!
//! `cargo run -p buttress-example-reqwest-client`

use buttress::{Reqwest, prelude::*};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower::{ServiceBuilder, ServiceExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reqwest = reqwest::Client::builder().retry(reqwest::retry::never()).build()?;
    let client = ServiceBuilder::new()
        .http_client()
        .deadline(Duration::from_millis(500))
        .retry(Retry::default())
        .breaker(Breaker::default())
        .bulkhead(8)
        .service(Reqwest(reqwest.clone()).lift_errors());

    let server = server().await?;
    for path in ["", "flaky", "slow"] {
        let request = reqwest.get(format!("{server}/{path}")).build()?;
        let request: http::Request<reqwest::Body> = request.try_into()?;
        match client.clone().oneshot(request).await {
            Ok(response) => {
                let response = reqwest::Response::from(response.map(reqwest::Body::wrap));
                println!("/{path}: {} {:?}", response.status(), response.text().await?);
            }
            Err(error) => println!("/{path}: {error}"),
        }
    }
    Ok(())
}

/// A server that says hello; on `/flaky` not before the second time, on `/slow` nothing at all.
async fn server() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let asked = Arc::new(AtomicU32::new(0));
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut request = [0; 1024];
                while let Ok(n @ 1..) = connection.read(&mut request).await {
                    if request[..n].starts_with(b"GET /slow") {
                        std::future::pending::<()>().await;
                    }
                    let is_first = request.starts_with(b"GET /flaky") && asked.fetch_add(1, Relaxed) == 0;
                    let status = if is_first { "503 Service Unavailable" } else { "200 OK" };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nhello");
                    if connection.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}
