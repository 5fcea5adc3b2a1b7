//! An axum server that stays useful under load: every request has a deadline, and at most two run at a time; Prometheus sees it.
//!
//! `cargo run -p buttress-example-axum-server` asks itself five times at once and shows the answers;
//! with an address (`-- 127.0.0.1:3000`) it serves until it is stopped.

use axum::{Json, Router, extract::State, http::header::CONTENT_TYPE, routing::get};
use buttress::prelude::*;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::ServiceBuilder;

fn app(registry: Registry) -> Router {
    let chain = ServiceBuilder::new()
        .http_server()
        .registry(&registry)
        .telemetry(Telemetry::server())
        .deadline(Duration::from_millis(500))
        .bulkhead(2);
    Router::new()
        .route("/report", get(async || tokio::time::sleep(Duration::from_millis(200)).await))
        .route("/stuck", get(async || std::future::pending::<()>().await))
        .layer(chain)
        // Outside the chain: it answers when everything else is full.
        .route("/status", get(async |State(registry): State<Registry>| Json(registry.snapshot())))
        .route("/metrics", get(async |State(registry): State<Registry>| metrics(&registry)))
        .with_state(registry)
}

/// What Prometheus reads.
fn metrics(registry: &Registry) -> impl axum::response::IntoResponse + use<> {
    ([(CONTENT_TYPE, Registry::OPENMETRICS)], registry.encode_prometheus())
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let local = listener.local_addr()?;
    println!("listening on http://{local}");
    let server = tokio::spawn(async move { axum::serve(listener, app(Registry::new())).await });
    if address.is_some() {
        return server.await?;
    }

    let asked = ["/report", "/report", "/report", "/report", "/report"].map(|path| tokio::spawn(ask(local, path)));
    for (n, answer) in asked.into_iter().enumerate() {
        println!("report {n}: {}", answer.await??);
    }
    println!("stuck:    {}", ask(local, "/stuck").await?);
    println!("status:\n{}", ask(local, "/status").await?);
    println!("metrics:\n{}", ask(local, "/metrics").await?);
    Ok(())
}

/// The status line and, of a refusal, when to come back; of the status page, the page; of the metrics, who was refused.
async fn ask(server: std::net::SocketAddr, path: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect(server).await?;
    connection
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    if let Some(page) = answer.lines().last().filter(|line| line.starts_with('[')) {
        return Ok(page.replace("},{", "},\n {"));
    }
    let refusals = answer.lines().filter(|line| line.contains("refusals_total{") && !line.ends_with(" 0"));
    if let [first, rest @ ..] = &*refusals.collect::<Vec<_>>() {
        return Ok(rest.iter().fold((*first).to_owned(), |page, line| page + "\n" + line));
    }
    let retry_after = answer.lines().find(|line| line.starts_with("retry-after")).unwrap_or_default();
    Ok(format!("{} {retry_after}", answer.lines().next().unwrap_or_default()))
}
