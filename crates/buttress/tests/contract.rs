//! The layers of telemetry keep the contract of every layer.
#![cfg(all(feature = "telemetry", feature = "http"))]

use buttress::{
    Opaque, Telemetry, TelemetryLayer,
    http::{HttpClient, HttpServer},
    telemetry::{AccessLog, AttemptSpanLayer, End, RequestSpanLayer},
};
use buttress_sim::{contract::Subject, contract_suite};

fn telemetry() -> Subject {
    let layer = TelemetryLayer::new(Telemetry::new());
    let [calls, counts] = [layer.handle(), layer.handle()];
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    Subject::new(layer, server, client).in_flight(move || calls.snapshot().in_flight).outcomes(move || {
        let seen = counts.snapshot();
        (seen.count(End::Success), seen.count(End::Failure))
    })
}

fn request_span() -> Subject {
    let layer = RequestSpanLayer::new().access(AccessLog::All);
    Subject::new(layer.clone().protocol(Opaque::new()), layer.clone(), layer.protocol(HttpClient::new()))
}

fn attempt_span() -> Subject {
    let layer = AttemptSpanLayer::new();
    Subject::new(layer.protocol(Opaque::new()), layer.protocol(HttpServer::new()), layer)
}

contract_suite!(telemetry);
contract_suite!(request_span);
contract_suite!(attempt_span);
