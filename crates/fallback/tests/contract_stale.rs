//! The stale store keeps the contract of every layer: an answer that is no failure passes as it is, and so does a failure where nothing is stored.
#![cfg(feature = "http")]

use buttress_core::http::{HttpClient, HttpServer};
use buttress_fallback::{StaleConfig, StaleLayer};
use buttress_sim::{contract::Subject, contract_suite};
use std::time::Duration;

/// It speaks HTTP only: in the opaque role of the suite stands the client's protocol.
fn subject(config: StaleConfig) -> Subject {
    let layer = StaleLayer::new(config.build().unwrap());
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    Subject::new(layer.protocol(HttpClient::new()), server, client)
}

fn stale() -> Subject {
    subject(StaleConfig::default())
}

/// Every good answer of the suite is recorded, and nothing is given: the suite sees what its services do.
fn recording() -> Subject {
    let layer = StaleLayer::new(StaleConfig::default().max(Duration::from_secs(3600)).build().unwrap());
    let handle = layer.handle();
    buttress_core::Handle::set_mode(&*handle, buttress_core::Mode::OBSERVE_ONLY).unwrap();
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    Subject::new(layer.protocol(HttpClient::new()), server, client)
}

contract_suite!(stale);
contract_suite!(recording);
