//! The toggle keeps the contract of every layer: on, and counted or not.
#![cfg(feature = "http")]

use buttress_core::http::{HttpClient, HttpServer};
use buttress_fallback::{Switch, Toggle, ToggleConfig, ToggleLayer, backup};
use buttress_sim::{contract::Subject, contract_suite};

fn suite(toggle: Toggle) -> Subject {
    let layer = ToggleLayer::new(toggle.clone(), backup::none());
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    let seen = toggle.clone();
    Subject::new(layer, server, client)
        .at_rest("probes", move || seen.snapshot().probe_out.into())
        .shut(move |shut| toggle.set(if shut { Switch::Off } else { Switch::Auto }))
        .asks_first()
}

fn by_hand() -> Subject {
    suite(ToggleConfig::new("feature").build().unwrap())
}

fn counted() -> Subject {
    suite(ToggleConfig::new("feature").failure_rate(1.0).min_calls(1_000_000).build().unwrap())
}

contract_suite!(by_hand);
contract_suite!(counted);
