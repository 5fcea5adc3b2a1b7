//! gRPC through the gateway, trailers and all.

use crate::process::{Gateway, one};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use std::{convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

async fn health_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("up", tonic_health::ServingStatus::Serving).await;
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

async fn client(gateway: &Gateway) -> HealthClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", gateway.address)).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn a_tonic_client_sees_answers_streams_and_codes() {
    let gateway = Gateway::before(health_server().await, "http2 = true");
    let mut client = client(&gateway).await;
    let answer = client.check(ask("up")).await.unwrap();
    assert_eq!(answer.get_ref().status(), ServingStatus::Serving);
    assert_eq!(answer.metadata().get("grpc-status").unwrap(), "0", "tonic merges trailers into the metadata");
    assert_eq!(client.check(ask("unknown")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(ask("up")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn a_refusal_reaches_a_tonic_client_with_its_code() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gateway = Gateway::before(nobody, "http2 = true\nbreaker = { consecutive = 1, open_for = \"30s\" }");
    let mut client = client(&gateway).await;
    assert_eq!(client.check(ask("up")).await.unwrap_err().code(), Code::Unavailable);
    let refused = client.check(ask("up")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "circuit breaker open"));
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"));
}

#[tokio::test]
async fn a_client_may_shorten_the_deadline_and_opens_no_breaker_by_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tables = one(listener.local_addr().unwrap(), "http2 = true\nbreaker = { consecutive = 1 }", "");
    let gateway = Gateway::start_with("", &tables);
    // tonic's own client would end the call by itself.
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for _ in 0..3 {
        let req = Request::post(format!("http://{}/x.Y/Z", gateway.address)).header("content-type", "application/grpc");
        let req = req.header("grpc-timeout", "50m").body(Full::<Bytes>::default()).unwrap();
        let late = timeout(Duration::from_secs(10), http.request(req)).await.unwrap().unwrap();
        assert_eq!(late.headers()["grpc-status"], "4");
    }
    let status = gateway.status().await;
    assert_eq!(status["layers"]["cluster.u.breaker"]["opened_total"], 0, "{status:#}");
}

#[tokio::test]
async fn an_upstream_is_told_what_remains_of_the_deadline() {
    let upstream = crate::raw::Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for (asked, least, most) in [("2S", 1_000, 2_000), ("1H", 29_000, 30_000)] {
        let req = Request::post(format!("http://{}/x.Y/Z", gateway.address)).header("content-type", "application/grpc");
        let req = req.header("grpc-timeout", asked).body(Full::<Bytes>::default()).unwrap();
        http.request(req).await.unwrap();
        let received = upstream.received();
        let told = received.rsplit("grpc-timeout: ").next().unwrap().lines().next().unwrap();
        let (number, unit) = told.split_at(told.len() - 1);
        let number: u64 = number.parse().unwrap();
        let millis = match unit {
            "S" => number * 1000,
            "m" => number,
            "u" => number / 1000,
            unit => panic!("{unit}"),
        };
        assert!((least..=most).contains(&millis), "{asked}: {told}");
        assert_eq!(received.matches("POST ").count(), received.matches("grpc-timeout: ").count(), "one each");
    }
}

/// A server whose calls all end with a message, and with this status in trailers.
async fn ending_with(status: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |_: Request<hyper::body::Incoming>| async move {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static(status));
                trailers.insert("x-detail", HeaderValue::from_static("kept"));
                let body = Full::new(Bytes::from_static(&[0, 0, 0, 0, 0])).with_trailers(async { Some(Ok(trailers)) });
                Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
            });
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http2.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn trailers_arrive_intact_and_open_the_breaker() {
    let gateway = Gateway::before(ending_with("14").await, "http2 = true\nbreaker = { consecutive = 5 }");
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let call = || {
        let req = Request::post(format!("http://{}/x.Y/Z", gateway.address));
        let req = req.header("content-type", "application/grpc").header("te", "trailers");
        http.request(req.body(Full::new(Bytes::from_static(&[0, 0, 0, 0, 0]))).unwrap())
    };
    for _ in 0..5 {
        let (head, body) = call().await.unwrap().into_parts();
        assert!(!head.headers.contains_key("grpc-status"));
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["x-detail"]),
            (&"14".parse().unwrap(), &"kept".parse().unwrap())
        );
        assert_eq!(body.to_bytes().len(), 5);
    }
    let refused = call().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["grpc-message"]),
        (200, &"circuit breaker open".parse().unwrap())
    );
}
