//! The deadlines keep the contract of every layer: a call that is in time does not notice them.

use buttress_core::http::{HttpClient, HttpServer};
use buttress_deadline::{DeadlineConfig, DeadlineLayer};
use buttress_sim::{contract::Subject, contract_suite};
use std::time::Duration;

fn deadlines(config: DeadlineConfig) -> Subject {
    let layer = DeadlineLayer::new(config.build().unwrap());
    let handle = layer.handle();
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    Subject::new(layer, server, client).at_rest("ended", move || {
        let seen = handle.snapshot();
        seen.passed_total + seen.bodies_cut_total + seen.idle_total
    })
}

fn total() -> Subject {
    deadlines(DeadlineConfig::new(Duration::from_secs(60)))
}

fn per_try_and_idle() -> Subject {
    deadlines(DeadlineConfig::default().per_try(Duration::from_secs(60)).idle(Duration::from_secs(30)))
}

contract_suite!(total);
contract_suite!(per_try_and_idle);
