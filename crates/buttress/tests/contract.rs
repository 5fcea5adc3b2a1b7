//! The layers of telemetry keep the contract of every layer.
#![cfg(all(feature = "telemetry", feature = "http"))]

use buttress::{
    Opaque, Telemetry, TelemetryLayer,
    http::{HttpClient, HttpServer},
    telemetry::{AccessLog, AttemptSpanLayer, End, RequestSpanLayer},
};
use buttress_sim::{contract::Subject, contract_suite};
use std::sync::Arc;

fn telemetry() -> Subject {
    let layer = TelemetryLayer::new(Telemetry::new());
    let telemetry = layer.handle();
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    counted(Subject::new(layer, server, client), telemetry)
}

fn counted(subject: Subject, telemetry: Arc<Telemetry>) -> Subject {
    let counts = telemetry.clone();
    subject.in_flight(move || telemetry.snapshot().in_flight).outcomes(move || {
        let seen = counts.snapshot();
        (seen.count(End::Success), seen.count(End::Failure))
    })
}

/// With a telemetry of its own, which is to see what one around it would.
fn request_span() -> Subject {
    let telemetry = Arc::new(Telemetry::server());
    let layer = RequestSpanLayer::new().access(AccessLog::All).telemetry(telemetry.clone());
    let subject = Subject::new(layer.clone().protocol(Opaque::new()), layer.clone(), layer.protocol(HttpClient::new()));
    counted(subject, telemetry)
}

fn attempt_span() -> Subject {
    let telemetry = Arc::new(Telemetry::client());
    let layer = AttemptSpanLayer::new().telemetry(telemetry.clone());
    let subject = Subject::new(layer.clone().protocol(Opaque::new()), layer.clone().protocol(HttpServer::new()), layer);
    counted(subject, telemetry)
}

contract_suite!(telemetry);
contract_suite!(request_span);
contract_suite!(attempt_span);
