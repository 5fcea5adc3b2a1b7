//! Generated and hand-made tonic clients with retries, against a server that fails with every status.

use buttress::{HttpServer, RetryLayer, http::TransportError, prelude::*, retry::RetrySnapshot};
use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    codegen::http,
    server::{NamedService, StreamingService},
    transport::{Channel, Server},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tonic_prost::ProstCodec;
use tower::{Layer as _, Service, ServiceExt as _, util::MapRequestLayer};

type Messages = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

/// How often each call was received; its first `n` attempts fail with its code, if the name is `code/n/..`.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<HashMap<String, Received>>>);

/// How often, and with which attempt marks.
type Received = (u32, Vec<String>);

impl Ledger {
    fn fails(&self, name: &str, metadata: &tonic::metadata::MetadataMap) -> Option<Status> {
        let mut parts = name.split('/').map(|part| part.parse::<u32>().expect("numbers"));
        let (code, times) = (parts.next().unwrap(), parts.next().unwrap());
        let mut calls = self.0.lock().unwrap();
        let (received, marks) = calls.entry(name.to_owned()).or_default();
        *received += 1;
        let mark = metadata.get("grpc-previous-rpc-attempts").map_or("", |value| value.to_str().unwrap());
        marks.push(mark.to_owned());
        (*received <= times).then(|| Status::new(Code::from(code as i32), "as asked"))
    }

    fn received(&self, name: &str) -> u32 {
        self.0.lock().unwrap().get(name).map_or(0, |(received, _)| *received)
    }

    fn marks(&self, name: &str) -> Vec<String> {
        self.0.lock().unwrap()[name].1.clone()
    }
}

#[tonic::async_trait]
impl Health for Ledger {
    async fn check(&self, req: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.fails(&req.get_ref().service, req.metadata()) {
            Some(status) => Err(status),
            None => Ok(Response::new(HealthCheckResponse { status: 1 })),
        }
    }

    type WatchStream = Messages;

    /// Its status comes after the head, and without a message.
    async fn watch(&self, req: Request<HealthCheckRequest>) -> Result<Response<Messages>, Status> {
        let item = match self.fails(&req.get_ref().service, req.metadata()) {
            Some(status) => Err(status),
            None => Ok(HealthCheckResponse { status: 1 }),
        };
        Ok(Response::new(Box::pin(tokio_stream::iter([item]))))
    }
}

/// Answers every message of a stream, once it has the first of them.
#[derive(Clone)]
struct Bidi(Ledger);

impl NamedService for Bidi {
    const NAME: &'static str = "test.Bidi";
}

impl StreamingService<HealthCheckRequest> for Bidi {
    type Response = HealthCheckResponse;
    type ResponseStream = Messages;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Messages>, Status>> + Send>>;

    fn call(&mut self, req: Request<Streaming<HealthCheckRequest>>) -> Self::Future {
        let ledger = self.0.clone();
        Box::pin(async move {
            let (metadata, _, mut messages) = req.into_parts();
            let first = messages.message().await?.expect("a message");
            if let Some(status) = ledger.fails(&first.service, &metadata) {
                return Err(status);
            }
            let answers = messages
                .map(|message| message.map(|message| HealthCheckResponse { status: message.service.len() as i32 }));
            let all = tokio_stream::once(Ok(HealthCheckResponse { status: 1 })).chain(answers);
            Ok(Response::new(Box::pin(all) as Messages))
        })
    }
}

impl Service<http::Request<Body>> for Bidi {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<HealthCheckResponse, HealthCheckRequest>::default();
            Ok(tonic::server::Grpc::new(codec).streaming(this, req).await)
        })
    }
}

async fn server() -> (SocketAddr, Ledger) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, ledger) = (listener.local_addr().unwrap(), Ledger::default());
    let router = Server::builder().add_service(HealthServer::new(ledger.clone())).add_service(Bidi(ledger.clone()));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, ledger)
}

/// A channel with retries, and what they did.
macro_rules! channel {
    ($address:expr, $config:expr) => {{
        let config: RetryConfig = $config;
        let plenty = BudgetConfig::new(2.0).min_per_sec(1000.0).capacity(1000);
        let retry = config.backoff(Backoff::constant(Duration::from_millis(20))).budget(plenty).build().unwrap();
        let retry = RetryLayer::new(retry).protocol(HttpServer::new());
        let handle = retry.handle();
        let channel = Channel::from_shared(format!("http://{}", $address)).unwrap().connect_lazy();
        let body = MapRequestLayer::new(|req: http::Request<_>| req.map(Body::new));
        let chain = retry.layer(body.layer(channel.map_err(TransportError::unsent_if_refused)));
        (chain, move || -> RetrySnapshot { handle.snapshot() })
    }};
}

fn ask(name: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: name.to_owned() }
}

#[tokio::test]
async fn unary_calls_are_retried_by_code() {
    let (address, ledger) = server().await;
    let (channel, _) = channel!(address, RetryConfig::new(3));
    let mut client = HealthClient::new(channel);
    for code in 1..=16 {
        let name = format!("{code}/1/unary");
        let answer = client.check(ask(&name)).await;
        let retried = code == Code::Unavailable as i32;
        assert_eq!((answer.is_ok(), ledger.received(&name)), (retried, 1 + u32::from(retried)), "{code}: {answer:?}");
    }
    assert_eq!(ledger.marks("14/1/unary"), ["", "1"]);
    let exhausted = client.check(ask("14/9/unary")).await.unwrap_err();
    assert_eq!((exhausted.code(), exhausted.message()), (Code::Unavailable, "as asked"), "the last real answer");
    assert_eq!(ledger.received("14/9/unary"), 3);
}

#[tokio::test]
async fn a_status_behind_a_head_is_retried_only_with_a_peek() {
    let (address, ledger) = server().await;
    for (peek, name) in [(false, "14/1/plain"), (true, "14/1/peek")] {
        let (channel, _) = channel!(address, RetryConfig::new(3).grpc_peek(peek));
        let mut messages = HealthClient::new(channel).watch(ask(name)).await.unwrap().into_inner();
        let first = messages.message().await;
        assert_eq!((first.is_ok(), ledger.received(name)), (peek, 1 + u32::from(peek)), "{name}: {first:?}");
    }
}

#[tokio::test]
async fn streams_in_both_directions_are_sent_again_with_all_their_messages() {
    let (address, ledger) = server().await;
    let (channel, retries) = channel!(address, RetryConfig::new(3));
    for code in 1..=16 {
        let name = format!("{code}/2/bidi");
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let messages = tokio_stream::iter([ask(&name), ask("four"), ask("seventeen")]);
        let path = http::uri::PathAndQuery::from_static("/test.Bidi/Echo");
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let answer = client.streaming(Request::new(messages), path, codec).await;
        let retried = code == Code::Unavailable as i32;
        assert_eq!((answer.is_ok(), ledger.received(&name)), (retried, if retried { 3 } else { 1 }), "{code}");
        if let Ok(answer) = answer {
            let got: Vec<_> = answer.into_inner().map(|message| message.unwrap().status).collect().await;
            assert_eq!(got, [1, 4, 9]);
        }
    }
    assert_eq!(retries().recovered_total, 1);
}

#[tokio::test]
async fn a_bidi_call_that_is_answered_is_never_sent_again() {
    let (address, ledger) = server().await;
    let (channel, _) = channel!(address, RetryConfig::new(3));
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let (send, receive) = tokio::sync::mpsc::channel(4);
    send.send(ask("14/0/begun")).await.unwrap();
    let messages = tokio_stream::wrappers::ReceiverStream::new(receive);
    let path = http::uri::PathAndQuery::from_static("/test.Bidi/Echo");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let mut answers = client.streaming(Request::new(messages), path, codec).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().status, 1);
    send.send(ask("four")).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().status, 4);
    drop(send);
    assert!(answers.message().await.unwrap().is_none());
    assert_eq!(ledger.received("14/0/begun"), 1);
}

#[tokio::test]
async fn a_client_may_be_used_in_a_spawned_task_and_waits_for_its_server() {
    // Nobody listens there yet.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let ledger = Ledger::default();
    let (channel, retries) = channel!(address, RetryConfig::new(15));
    let mut client = HealthClient::new(channel);
    let call = tokio::spawn(async move { client.check(ask("14/0/late")).await });
    buttress_sim::eventually("it has been refused once", || retries().retries_total > 0).await;
    tokio::spawn(Server::builder().add_service(HealthServer::new(ledger.clone())).serve(address));
    assert_eq!(call.await.unwrap().unwrap().into_inner().status, 1);
    assert_eq!(ledger.received("14/0/late"), 1);
}
