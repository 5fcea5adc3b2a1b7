//! The policies that decide at once keep the contract of every layer.
#![cfg(feature = "http")]

use buttress_core::{
    GateLayer, Handle, Mode,
    http::{HttpClient, HttpServer},
};
use buttress_shed::{
    pressure::{PressureConfig, PressureGateConfig},
    rate::RateLimitConfig,
    throttle::ThrottleConfig,
};
use buttress_sim::{contract::Subject, contract_suite};

macro_rules! subject {
    ($layer:expr) => {{
        let layer: GateLayer<_> = $layer;
        let operator = layer.handle();
        let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
        Subject::new(layer, server, client)
            .shut(move |shut| operator.set_mode(if shut { Mode::ForcedOpen } else { Mode::Auto }).unwrap())
    }};
}

fn rate_limit() -> Subject {
    subject!(RateLimitConfig::per_second(1_000_000).layer().unwrap())
}

/// The one of them whose calls hold something. None counts successes and failures.
fn throttle() -> Subject {
    let layer = ThrottleConfig::default().layer().unwrap();
    let calls = layer.handle();
    subject!(layer).in_flight(move || calls.snapshot().in_flight)
}

fn pressure() -> Subject {
    let pressure = PressureConfig::default().build().unwrap();
    subject!(PressureGateConfig::default().layer(&pressure).unwrap())
}

contract_suite!(rate_limit);
contract_suite!(throttle);
contract_suite!(pressure);
