//! The shedder keeps the contract of every layer.

use buttress_core::{
    Handle, Mode,
    http::{HttpClient, HttpServer},
};
use buttress_shed::{Algorithm, QueueConfig, Release, ShedConfig};
use buttress_sim::{contract::Subject, contract_suite};
use std::time::Duration;

/// Permits are held to the end of bodies.
fn subject(config: ShedConfig) -> Subject {
    let layer = config.limit(Algorithm::Fixed(4)).release(Release::BodyEnd).layer().unwrap();
    let [calls, waiting, operator] = [layer.handle(), layer.handle(), layer.handle()];
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    Subject::new(layer, server, client)
        .in_flight(move || calls.snapshot().in_flight.into())
        .at_rest("queued", move || waiting.snapshot().queued.into())
        .limit(4)
        .shut(move |shut| operator.set_mode(if shut { Mode::ForcedOpen } else { Mode::Auto }).unwrap())
}

fn queued() -> Subject {
    let waits = Duration::from_secs(20);
    let queue = QueueConfig::default().max(100).burst_wait(waits).normal_wait(waits);
    subject(ShedConfig::default().queue(queue))
}

fn at_once() -> Subject {
    subject(ShedConfig::default().queue(QueueConfig::none()))
}

fn striped() -> Subject {
    subject(ShedConfig::default().queue(QueueConfig::none()).stripes(4))
}

/// The default: bodies hold no permit, so nothing is said of how many are open.
fn until_the_head() -> Subject {
    let layer = ShedConfig::default().limit(Algorithm::Fixed(4)).layer().unwrap();
    let [calls, waiting, operator] = [layer.handle(), layer.handle(), layer.handle()];
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    Subject::new(layer, server, client)
        .at_rest("in flight", move || calls.snapshot().in_flight.into())
        .at_rest("queued", move || waiting.snapshot().queued.into())
        .shut(move |shut| operator.set_mode(if shut { Mode::ForcedOpen } else { Mode::Auto }).unwrap())
}

contract_suite!(queued);
contract_suite!(at_once);
contract_suite!(striped);
contract_suite!(until_the_head);
