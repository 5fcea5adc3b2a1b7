//! tonic over real sockets: a server layer, a per-service layer, generated clients with a chain of ours.

use buttress::{BreakerLayer, BulkheadLayer, HttpServer, State, deadline::Headers, prelude::*};
use buttress_sim::eventually;
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Response, Status,
    service::LayerExt as _,
    transport::{Channel, Server},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower::ServiceBuilder;

/// A health service that answers with whatever the asked service's name says: `ok`, or a status code; a stream ends with it.
struct Scripted;

#[tonic::async_trait]
impl Health for Scripted {
    async fn check(&self, req: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match req.into_inner().service.as_str() {
            "ok" => Ok(Response::new(HealthCheckResponse { status: 1 })),
            "hang" => std::future::pending().await,
            code => Err(Status::new(Code::from(code.parse::<i32>().unwrap()), "as asked")),
        }
    }

    type WatchStream = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, req: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let code = Code::from(req.into_inner().service.parse::<i32>().unwrap());
        let items = [Ok(HealthCheckResponse { status: 1 }), Err(Status::new(code, "after a message"))];
        Ok(Response::new(Box::pin(futures_util::stream::iter(items))))
    }
}

async fn listen() -> (SocketAddr, TcpListenerStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), TcpListenerStream::new(listener))
}

async fn server() -> SocketAddr {
    let (address, incoming) = listen().await;
    tokio::spawn(Server::builder().add_service(HealthServer::new(Scripted)).serve_with_incoming(incoming));
    address
}

fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

fn ask(service: impl ToString) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_string() }
}

#[tokio::test]
async fn refusals_of_a_server_layer_and_of_one_service_reach_a_generated_client_with_code_and_pushback() {
    let (address, incoming) = listen().await;
    let one = buttress::http::BulkheadLayer::new(4);
    let handle = one.handle();
    let global = BulkheadLayer::new(100);
    let all = global.handle();
    let chain = ServiceBuilder::new().http_server().deadline(Duration::from_millis(200)).with(global);
    let server = Server::builder().layer(chain).add_service(one.named_layer(HealthServer::new(Scripted)));
    tokio::spawn(server.serve_with_incoming(incoming));
    let mut client = HealthClient::new(channel(address));

    assert_eq!(client.check(ask("ok")).await.unwrap().into_inner().status, 1);
    for refusing in [&handle, &all] {
        refusing.set_limit(0).unwrap();
        let refused = client.check(ask("ok")).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "at capacity"));
        let pushback: u64 =
            refused.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
        assert!(pushback >= 1);
        refusing.set_limit(4).unwrap();
    }
    let late = client.check(ask("hang")).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    eventually("nothing is held", || handle.snapshot().in_flight == 0 && all.snapshot().in_flight == 0).await;
}

#[tokio::test]
async fn fifty_answers_with_status_14_in_their_trailers_open_the_breaker() {
    let address = server().await;
    let layer = BreakerLayer::new(BreakerConfig::default().failure_rate(None).consecutive(50).build().unwrap())
        .protocol(HttpServer::new());
    let breaker = layer.handle();
    let mut client = HealthClient::new(ServiceBuilder::new().layer(layer).service(channel(address)));

    for n in 0..50 {
        assert_eq!(breaker.state(), State::Closed, "{n} failures are not enough");
        let mut messages = client.watch(ask(14)).await.unwrap().into_inner();
        assert_eq!(messages.message().await.unwrap().unwrap().status, 1, "the head and a message were good");
        assert_eq!(messages.message().await.unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(breaker.state(), State::Open);
    let refused = client.check(ask("ok")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "circuit breaker open"));
    assert!(refused.metadata().get("grpc-retry-pushback-ms").is_some());
}

#[tokio::test]
async fn a_generated_client_counts_each_status_as_the_table_says() {
    let address = server().await;
    let opened_by = async |code: i32| {
        let layer =
            BreakerLayer::new(BreakerConfig::default().consecutive(1).build().unwrap()).protocol(HttpServer::new());
        let breaker = layer.handle();
        let mut client = HealthClient::new(ServiceBuilder::new().layer(layer).service(channel(address)));
        assert_eq!(client.check(ask(code)).await.unwrap_err().code(), Code::from(code));
        breaker.state() == State::Open
    };
    let mut opening = vec![];
    for code in 1..=16 {
        if opened_by(code).await {
            opening.push(code);
        }
    }
    assert_eq!(opening, [2, 4, 13, 14, 15]);
}

#[tokio::test]
async fn a_lifted_client_chain_refuses_with_an_error() {
    let address = server().await;
    let chain = ServiceBuilder::new().http_client().bulkhead(0).service(channel(address).lift_errors());
    let mut client = HealthClient::new(chain);
    let refused = client.check(ask("ok")).await.unwrap_err();
    let rejection = Rejection::find(&refused).expect("the refusal is among the sources");
    assert_eq!(rejection.reason, Reason::AtCapacity);
}

#[tokio::test]
async fn a_client_deadline_travels_and_the_server_obeys_it() {
    let (address, incoming) = listen().await;
    let reading = DeadlineConfig::new(Duration::from_secs(30)).read(Headers::new()).build().unwrap();
    let chain = ServiceBuilder::new().http_server().deadline(reading);
    tokio::spawn(Server::builder().layer(chain).add_service(HealthServer::new(Scripted)).serve_with_incoming(incoming));
    // The client itself would wait for a minute; what it sends is shorter.
    let mut client = HealthClient::new(channel(address));
    let mut hang = Request::new(ask("hang"));
    hang.set_timeout(Duration::from_millis(100));
    let late = tokio::time::timeout(Duration::from_secs(10), client.check(hang)).await.expect("in time").unwrap_err();
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
}
