//! tonic on both sides. The server has one limit for all its services and one for the health service alone; the generated
//! client has a deadline, which travels as `grpc-timeout`, retries (here, of calls for which there was no connection yet), and a breaker
//! that reads `grpc-status` in the trailers.
//!
//! `cargo run -p buttress-example-tonic`

use buttress::{BreakerLayer, HttpServer, RetryLayer, deadline::Headers, http::TransportError, prelude::*};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::{
    body::Body,
    service::LayerExt as _,
    transport::{Channel, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{ServiceBuilder, ServiceExt as _, util::MapRequestLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Nobody listens there yet.
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;

    let (_reporter, health) = tonic_health::server::health_reporter();
    let per_service = buttress::http::BulkheadLayer::new(4);
    let health_limit = per_service.handle();
    let global = ServiceBuilder::new().http_server().deadline(Duration::from_secs(5)).bulkhead(100);
    let server = Server::builder().layer(global).add_service(per_service.named_layer(health));
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.serve(address).await
    });

    // The server's protocol on a client: a refusal is a response with the right status, which the generated client turns
    // into the right `tonic::Status`. No error type changes.
    let patient = Backoff::decorrelated_jitter(Duration::from_millis(50), Duration::from_millis(200));
    let retry = RetryLayer::new(
        RetryConfig::new(15).backoff(patient).budget(BudgetConfig::default().min_per_sec(20.0)).build()?,
    );
    let retries = retry.handle();
    let breaker = BreakerLayer::new(BreakerConfig::default().consecutive(30).build()?);
    let circuit = breaker.handle();
    let channel = Channel::from_shared(format!("http://{address}"))?.connect_lazy();
    let chain = ServiceBuilder::new()
        .protocol(HttpServer::new())
        .deadline(DeadlineConfig::new(Duration::from_secs(2)).emit(Headers::new()).build()?)
        .with(retry)
        .with(breaker)
        .layer(MapRequestLayer::new(|request: http::Request<_>| request.map(Body::new)))
        .service(channel.map_err(TransportError::unsent_if_refused));
    let mut client = HealthClient::new(chain);

    let answer = client.check(HealthCheckRequest::default()).await?;
    println!("healthy: {:?}", answer.into_inner().status());
    println!("it took more than one attempt: {}", retries.snapshot().retries_total > 0);

    health_limit.set_limit(0)?;
    let refused = client.check(HealthCheckRequest::default()).await.unwrap_err();
    println!("limited: {:?}: {}", refused.code(), refused.message());
    println!("pushback: {:?}", refused.metadata().get("grpc-retry-pushback-ms"));

    health_limit.set_limit(4)?;
    circuit.set_mode(Mode::ForcedOpen)?;
    let refused = client.check(HealthCheckRequest::default()).await.unwrap_err();
    println!("circuit open: {:?}: {}", refused.code(), refused.message());
    Ok(())
}
