//! tonic on both sides. The server has one limit for all its services and one for the health service alone; the generated
//! client has a deadline, which travels as `grpc-timeout`, and a breaker that reads `grpc-status` in the trailers.
//!
//! `cargo run -p buttress-example-tonic`

use buttress::{BreakerLayer, HttpServer, deadline::Headers, prelude::*};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    service::LayerExt as _,
    transport::{Channel, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    let (_reporter, health) = tonic_health::server::health_reporter();
    let per_service = buttress::http::BulkheadLayer::new(4);
    let health_limit = per_service.handle();
    let global = ServiceBuilder::new().http_server().deadline(Duration::from_secs(5)).bulkhead(100);
    let server = Server::builder().layer(global).add_service(per_service.named_layer(health));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    // The server's protocol on a client: a refusal is a response with the right status, which the generated client turns
    // into the right `tonic::Status`. No error type changes.
    let breaker = BreakerLayer::new(BreakerConfig::default().consecutive(3).build()?);
    let circuit = breaker.handle();
    let channel = Channel::from_shared(format!("http://{address}"))?.connect_lazy();
    let chain = ServiceBuilder::new()
        .protocol(HttpServer::new())
        .deadline(DeadlineConfig::new(Duration::from_secs(2)).emit(Headers::new()).build()?)
        .with(breaker)
        .service(channel);
    let mut client = HealthClient::new(chain);

    let answer = client.check(HealthCheckRequest::default()).await?;
    println!("healthy: {:?}", answer.into_inner().status());

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
