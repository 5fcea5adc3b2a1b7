//! What can be read.

use super::Admin;
use crate::server::Phase;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use buttress::Registry;
use http::{StatusCode, header};
use serde_json::{Map, json};

pub(super) async fn index() -> &'static str {
    "GET  /livez /readyz /startupz   is it alive, is it ready, has it started\n\
     GET  /status                    what its layers do, as JSON\n\
     GET  /metrics                   the same for Prometheus\n\
     GET  /clusters                  how much each takes, who waits, what was shed, as JSON\n\
     GET  /levels /toggles           how much of the service there is, as JSON\n\
     POST /drain                     end in good order\n\
     POST /breaker/CLUSTER?mode=open|close|auto[&endpoint=HOST:PORT]\n\
     POST /shed/CLUSTER?mode=auto|observe|off\n\
     POST /inject/CLUSTER?fault=FAULT[&fault=..][&endpoint=HOST:PORT], or ?clear\n\
     POST /canary/ROUTE?weight=PERCENT, or ?reset\n\
     POST /failover/ROUTE?prefer=CLUSTER, or ?auto\n\
     POST /levels?pin=LEVEL, or ?unpin\n\
     POST /toggle/TOGGLE?switch=on|off|auto\n\
     POST /mode/LAYER?mode=auto|forced_open|disabled|observe_only|enforcing:PERCENT\n"
}

pub(super) async fn nowhere() -> Response {
    (StatusCode::NOT_FOUND, "there is no such page; `/` lists those there are\n").into_response()
}

pub(super) async fn alive() -> &'static str {
    "alive\n"
}

pub(super) async fn started() -> &'static str {
    // The listeners were bound before this one answered.
    "started\n"
}

pub(super) async fn ready(State(admin): State<Admin>) -> Response {
    match *admin.phases.borrow() {
        Phase::Running => "ready\n".into_response(),
        Phase::Draining | Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
    }
}

pub(super) async fn status(State(admin): State<Admin>) -> Response {
    let controls = admin.gateway.controls();
    let mut layers = Map::new();
    for entry in controls.registry.snapshot() {
        let mut readings = serde_json::to_value(&entry).unwrap_or_default();
        // The key says it.
        readings.as_object_mut().and_then(|readings| readings.remove("name"));
        layers.insert(entry.name, readings);
    }
    let mut faults = Map::new();
    for (cluster, endpoints) in &controls.endpoints {
        for (endpoint, controls) in endpoints.iter().filter(|(_, controls)| controls.chaos.is_injecting()) {
            let injected = serde_json::to_value(controls.chaos.snapshot()).unwrap_or_default();
            faults.insert(format!("{cluster}/{endpoint}"), injected);
        }
    }
    let state = match *admin.phases.borrow() {
        Phase::Running => "running",
        Phase::Draining => "draining",
        Phase::Stopping => "stopping",
    };
    let status = json!({
        "state": state,
        "version": env!("CARGO_PKG_VERSION"),
        "name": admin.gateway.name(),
        "uptime_seconds": admin.started.elapsed().as_secs(),
        "layers": layers,
        "pressure": controls.pressure.sources.snapshot(),
        "injected": faults,
    });
    json(&status)
}

fn json(value: &impl serde::Serialize) -> Response {
    let value = serde_json::to_value(value).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response()
}

/// What load shedding does for each cluster, by class and cause, and the gate of those that have one.
pub(super) async fn clusters(State(admin): State<Admin>) -> Response {
    let controls = admin.gateway.controls();
    let mut clusters = Map::new();
    for (name, shed) in &controls.sheds {
        let gate = controls.gates.get(name).map(|gate| gate.snapshot());
        clusters.insert(name.clone(), json!({ "shed": shed.snapshot(), "gate": gate }));
    }
    json(&clusters)
}

pub(super) async fn levels(State(admin): State<Admin>) -> Response {
    match &admin.gateway.controls().levels {
        Some(levels) => json(&levels.snapshot()),
        None => (StatusCode::NOT_FOUND, "there are no levels: the config has no `[levels]`\n").into_response(),
    }
}

pub(super) async fn toggles(State(admin): State<Admin>) -> Response {
    let mut toggles = Vec::new();
    admin.gateway.controls().toggles.for_each(|toggle| toggles.push(toggle.snapshot()));
    json(&toggles)
}

pub(super) async fn metrics(State(admin): State<Admin>) -> Response {
    let text = admin.gateway.controls().registry.encode_prometheus();
    ([(header::CONTENT_TYPE, Registry::OPENMETRICS)], text).into_response()
}
