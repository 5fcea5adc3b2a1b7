//! Coalescing keeps the contract of every layer: a call that nobody shares does not notice it.
#![cfg(feature = "http")]

use buttress_core::http::{HttpClient, HttpServer};
use buttress_fallback::{Coalesce, CoalesceLayer};
use buttress_sim::{contract::Subject, contract_suite};

/// Responses with bodies are no `Clone`: in the opaque role of the suite stands the client's protocol.
fn coalesce() -> Subject {
    let layer = CoalesceLayer::http(Coalesce::default());
    let handle = layer.handle();
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    Subject::new(layer.protocol(HttpClient::new()), server, client)
        .at_rest("shared calls", move || handle.snapshot().in_flight)
}

contract_suite!(coalesce);
