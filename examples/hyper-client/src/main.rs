//! A hyper client that gives up in time, stops asking what is down, and never has more than eight requests under way.
//!
//! `cargo run -p buttress-example-hyper-client`

use buttress::prelude::*;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower::{Service, ServiceBuilder, ServiceExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Retries of its own are off: what is sent twice is sent twice knowingly.
    let hyper = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
    let breaker = BreakerConfig::default().consecutive(3).open_for(Duration::from_millis(300)).build()?;
    let mut client = ServiceBuilder::new()
        .http_client()
        .deadline(Duration::from_secs(2))
        .breaker(breaker)
        .bulkhead(8)
        .service(hyper.lift_errors());

    let server = bad_server().await?;
    for n in 1..=5 {
        let request = Request::get(&server).body(Empty::<Bytes>::new())?;
        // The deadline covers the body as well, so the response is dropped only when it has been looked at.
        let answer: Result<Response<_>, _> = client.ready().await?.call(request).await;
        match answer {
            Ok(response) if response.status() == StatusCode::OK => println!("{n}: ok"),
            Ok(response) => println!("{n}: the server says {}", response.status()),
            Err(Error::Rejected(refusal)) => println!("{n}: not sent: {refusal}"),
            Err(Error::Inner(error)) => println!("{n}: the transport failed: {error}"),
        }
    }
    Ok(())
}

/// A server that answers everything with 500.
async fn bad_server() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                while connection.read(&mut request).await.is_ok_and(|n| n > 0) {
                    let answer = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
                    if connection.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}
