//! The bulkheads keep the contract of every layer.

use buttress_bulkhead::{AdmissionMode, Bulkhead, BulkheadConfig};
use buttress_core::{
    Handle, Mode,
    http::{HttpClient, HttpServer},
};
use buttress_sim::{contract::Subject, contract_suite};
use std::{sync::Arc, time::Duration};

fn knobs(subject: Subject, bulkhead: Arc<Bulkhead>) -> Subject {
    let [calls, waiting, operator] = [bulkhead.clone(), bulkhead.clone(), bulkhead];
    subject
        .in_flight(move || calls.snapshot().in_flight.into())
        .at_rest("queued", move || waiting.snapshot().queued.into())
        .limit(4)
        .shut(move |shut| operator.set_mode(if shut { Mode::ForcedOpen } else { Mode::Auto }).unwrap())
}

fn at_once(config: BulkheadConfig) -> Subject {
    let layer = config.layer().unwrap();
    let bulkhead = layer.handle();
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    knobs(Subject::new(layer, server, client), bulkhead)
}

fn bulkhead() -> Subject {
    at_once(BulkheadConfig::new(4))
}

fn striped() -> Subject {
    at_once(BulkheadConfig::new(4).stripes(4))
}

fn back_pressure() -> Subject {
    at_once(BulkheadConfig::new(4).admission(AdmissionMode::BackPressure)).back_pressure()
}

fn queued() -> Subject {
    let layer = BulkheadConfig::new(4).max_queue(100).max_wait(Duration::from_secs(20)).queued_layer().unwrap();
    let bulkhead = layer.handle();
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    knobs(Subject::new(layer, server, client), bulkhead)
}

contract_suite!(bulkhead);
contract_suite!(striped);
contract_suite!(back_pressure);
contract_suite!(queued);
