//! What can be changed.

use super::Admin;
use crate::chain::EndpointControls;
use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use buttress::{Fault, Handle, Mode, fallback::Switch};
use http::StatusCode;
use serde::Deserialize;
use std::{collections::BTreeMap, fmt::Write};

/// What came of an order: a line per change, or why there is none.
type Done = Result<String, Refused>;

pub(super) struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

fn wrong(why: impl ToString) -> Refused {
    Refused(StatusCode::BAD_REQUEST, why.to_string())
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String>) -> Refused {
    let known: Vec<_> = known.map(String::as_str).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Refused(StatusCode::NOT_FOUND, format!("there is no {what} {name:?}, there are: {known}"))
}

pub(super) async fn drain(State(admin): State<Admin>) -> &'static str {
    tracing::info!("an operator orders to drain");
    admin.drain.notify_one();
    "draining\n"
}

/// The endpoints of a cluster that an order is for.
fn endpoints<'a>(
    admin: &'a Admin,
    cluster: &str,
    wanted: Option<&str>,
) -> Result<Vec<(&'a String, &'a EndpointControls)>, Refused> {
    let clusters = &admin.gateway.controls().endpoints;
    let all: &BTreeMap<_, _> = clusters.get(cluster).ok_or_else(|| unknown("cluster", cluster, clusters.keys()))?;
    let chosen: Vec<_> = all.iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name)).collect();
    match wanted {
        Some(wanted) if chosen.is_empty() => Err(unknown("endpoint", wanted, all.keys())),
        _ => Ok(chosen),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BreakerOrder {
    mode: String,
    endpoint: Option<String>,
}

pub(super) async fn breaker(
    State(admin): State<Admin>,
    Path(cluster): Path<String>,
    order: Result<Query<BreakerOrder>, axum::extract::rejection::QueryRejection>,
) -> Done {
    let Query(order) = order.map_err(|error| wrong(error.body_text()))?;
    let mode = match order.mode.as_str() {
        "open" => Mode::ForcedOpen,
        "close" => Mode::Disabled,
        "auto" => Mode::Auto,
        other => return Err(wrong(format!("`mode` is {other:?}, allowed: open, close, auto"))),
    };
    let mut said = String::new();
    for (endpoint, controls) in endpoints(&admin, &cluster, order.endpoint.as_deref())? {
        controls.breaker.set_mode(mode).map_err(wrong)?;
        tracing::info!(cluster, endpoint, mode = mode.as_str(), "an operator sets a breaker");
        let _ = writeln!(said, "the breaker of {cluster}/{endpoint}: {}", mode.as_str());
    }
    Ok(said)
}

/// `fault=..&fault=..&endpoint=..`, or `clear`.
pub(super) async fn inject(
    State(admin): State<Admin>,
    Path(cluster): Path<String>,
    Query(order): Query<Vec<(String, String)>>,
) -> Done {
    let (mut faults, mut endpoint, mut clear) = (Vec::new(), None, false);
    for (key, value) in order {
        match key.as_str() {
            "fault" => faults.push(value.parse::<Fault>().map_err(wrong)?),
            "endpoint" => endpoint = Some(value),
            "clear" => clear = true,
            other => return Err(wrong(format!("`{other}` is not known, allowed: fault, endpoint, clear"))),
        }
    }
    if faults.is_empty() != clear {
        return Err(wrong("say `fault=..`, as in \"status=503 percent=20 for=30s\", or `clear`"));
    }
    let mut said = String::new();
    for (endpoint, controls) in endpoints(&admin, &cluster, endpoint.as_deref())? {
        controls.chaos.inject(faults.clone()).map_err(wrong)?;
        let text = match faults.as_slice() {
            [] => "nothing".to_owned(),
            faults => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        };
        tracing::warn!(cluster, endpoint, faults = text, "an operator injects");
        let off = if controls.chaos.mode() == Mode::Disabled { " (without effect: the layer is disabled)" } else { "" };
        let _ = writeln!(said, "injected into {cluster}/{endpoint}: {text}{off}");
    }
    Ok(said)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShedOrder {
    mode: String,
}

pub(super) async fn shed(
    State(admin): State<Admin>,
    Path(cluster): Path<String>,
    order: Result<Query<ShedOrder>, axum::extract::rejection::QueryRejection>,
) -> Done {
    let Query(ShedOrder { mode }) = order.map_err(|error| wrong(error.body_text()))?;
    let wanted = match mode.as_str() {
        "auto" => Mode::Auto,
        "observe" => Mode::OBSERVE_ONLY,
        "off" => Mode::Disabled,
        other => return Err(wrong(format!("`mode` is {other:?}, allowed: auto, observe, off"))),
    };
    let sheds = &admin.gateway.controls().sheds;
    let shed = sheds.get(&cluster).ok_or_else(|| unknown("cluster", &cluster, sheds.keys()))?;
    shed.set_mode(wanted).map_err(wrong)?;
    tracing::info!(cluster, mode, "an operator sets load shedding");
    Ok(format!("the shedding of {cluster}: {}, its limit is {}\n", wanted.as_str(), shed.snapshot().limit))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CanaryOrder {
    weight: Option<f64>,
    reset: Option<String>,
}

pub(super) async fn canary(
    State(admin): State<Admin>,
    Path(route): Path<String>,
    order: Result<Query<CanaryOrder>, axum::extract::rejection::QueryRejection>,
) -> Done {
    let Query(order) = order.map_err(|error| wrong(error.body_text()))?;
    let canaries = &admin.gateway.controls().canaries;
    let canary = canaries.get(&route).ok_or_else(|| unknown("canary on route", &route, canaries.keys()))?;
    match (order.weight, order.reset) {
        (Some(weight), None) => canary.set_weight(weight).map_err(wrong)?,
        (None, Some(_)) => canary.reset(),
        _ => return Err(wrong("say `weight=PERCENT` or `reset`")),
    }
    let weight = canary.config().weight;
    tracing::info!(route, weight, "an operator sets a canary");
    Ok(format!("the canary of {route}: {weight} % of the calls\n"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToggleOrder {
    switch: String,
}

pub(super) async fn toggle(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    order: Result<Query<ToggleOrder>, axum::extract::rejection::QueryRejection>,
) -> Done {
    let Query(ToggleOrder { switch }) = order.map_err(|error| wrong(error.body_text()))?;
    let wanted = Switch::ALL.into_iter().find(|known| known.as_str() == switch);
    let wanted = wanted.ok_or_else(|| wrong(format!("`switch` is {switch:?}, allowed: on, off, auto")))?;
    let toggles = &admin.gateway.controls().toggles;
    let Ok(toggle) = toggles.get(&name) else {
        let mut names = Vec::new();
        toggles.for_each(|toggle| names.push(toggle.name().to_owned()));
        return Err(unknown("toggle", &name, names.iter()));
    };
    toggle.set(wanted);
    tracing::info!(toggle = name, switch, "an operator sets a toggle");
    Ok(format!("the toggle {name}: {switch}, it is {}\n", toggle.snapshot().state.as_str()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LevelsOrder {
    pin: Option<String>,
    unpin: Option<String>,
}

pub(super) async fn levels(
    State(admin): State<Admin>,
    order: Result<Query<LevelsOrder>, axum::extract::rejection::QueryRejection>,
) -> Done {
    let Query(order) = order.map_err(|error| wrong(error.body_text()))?;
    let levels = admin.gateway.controls().levels.as_ref();
    let none = || Refused(StatusCode::NOT_FOUND, "there are no levels: the config has no `[levels]`".to_owned());
    let levels = levels.ok_or_else(none)?;
    match (&order.pin, order.unpin) {
        (Some(level), None) => levels.pin(level).map_err(wrong)?,
        (None, Some(_)) => levels.unpin(),
        _ => return Err(wrong("say `pin=LEVEL` or `unpin`")),
    }
    let level = levels.current_name();
    let by = if order.pin.is_some() { "pinned" } else { "by pressure" };
    tracing::info!(level, by, "an operator sets the level");
    Ok(format!("the level: {level}, {by}\n"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailoverOrder {
    prefer: Option<String>,
    auto: Option<String>,
}

pub(super) async fn failover(
    State(admin): State<Admin>,
    Path(route): Path<String>,
    order: Result<Query<FailoverOrder>, axum::extract::rejection::QueryRejection>,
) -> Done {
    let Query(order) = order.map_err(|error| wrong(error.body_text()))?;
    let failovers = &admin.gateway.controls().failovers;
    let failover = failovers.get(&route).ok_or_else(|| unknown("failover on route", &route, failovers.keys()))?;
    match (&order.prefer, order.auto) {
        (Some(cluster), None) => failover.prefer(cluster).map_err(wrong)?,
        (None, Some(_)) => failover.auto(),
        _ => return Err(wrong("say `prefer=CLUSTER` or `auto`")),
    }
    let first = order.prefer.as_deref().unwrap_or("auto");
    tracing::info!(route, first, "an operator sets a failover");
    Ok(format!("the failover of {route}: {first}\n"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModeOrder {
    mode: String,
}

pub(super) async fn mode(
    State(admin): State<Admin>,
    Path(layer): Path<String>,
    order: Result<Query<ModeOrder>, axum::extract::rejection::QueryRejection>,
) -> Done {
    let Query(ModeOrder { mode }) = order.map_err(|error| wrong(error.body_text()))?;
    let wanted = match mode.as_str() {
        "auto" => Some(Mode::Auto),
        "forced_open" => Some(Mode::ForcedOpen),
        "disabled" => Some(Mode::Disabled),
        "observe_only" => Some(Mode::OBSERVE_ONLY),
        other => other.strip_prefix("enforcing:").and_then(|percent| percent.parse().ok()).map(Mode::Enforcing),
    };
    let wanted = wanted.ok_or_else(|| {
        wrong(format!("`mode` is {mode:?}, allowed: auto, forced_open, disabled, observe_only, enforcing:PERCENT"))
    })?;
    let registry = &admin.gateway.controls().registry;
    let Some(handle) = registry.get(&layer) else {
        let names: Vec<_> = registry.handles().into_iter().map(|(name, _)| name).collect();
        return Err(unknown("layer", &layer, names.iter()));
    };
    handle.set_mode(wanted).map_err(wrong)?;
    tracing::info!(layer, mode, "an operator sets a mode");
    Ok(format!("{layer}: {}\n", wanted.as_str()))
}
