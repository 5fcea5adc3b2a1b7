//! Buttress' layers: `light` is the least that each can be, `stack` what `buttress::stack::client` builds.

use crate::{
    contest::{Field, Title, Who},
    traffic::{Inner, Plain, Web},
};
use buttress::{
    Balance, Balancer, Breaker, BreakerConfig, BreakerLayer, Bulkhead, BulkheadConfig, BulkheadLayer, CanaryConfig,
    CanaryLayer, ChaosConfig, ChaosLayer, DeadlineConfig, DeadlineLayer, Endpoint, FailoverConfig, FallbackConfig,
    FallbackLayer, Fault, Opaque, QueuedBulkheadLayer, RetryConfig, RetryLayer, StaleConfig, StaleLayer, Telemetry,
    TelemetryLayer, ToggleConfig, ToggleLayer, backup,
    breaker::{State, Window},
    http::{HttpServer, ReplayBody},
    stack,
    telemetry::{AttemptSpanLayer, RequestSpanLayer},
};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use std::{sync::Arc, time::Duration};
use tower::{Layer, ServiceExt};

/// The rows of a protocol. A macro, because that a service ties a permit to its response is said in types that no bound can
/// say for all protocols at once.
macro_rules! rows {
    ($name:ident, $traffic:ty, $protocol:expr, $attempt:expr) => {
        pub fn $name(field: &mut Field<'_, $traffic>) {
            for (config, breaker) in breakers() {
                let layer = BreakerLayer::new(breaker.clone().build().expect(VALID)).protocol($protocol);
                field.admitted(title("breaker-closed", config), |inner| {
                    (layer.layer(inner), in_state(layer.handle(), State::Closed))
                });
                let layer =
                    BreakerLayer::new(breaker.open_for(HOUR).max_open(HOUR).build().expect(VALID)).protocol($protocol);
                field.tripped(title("breaker-open", config), |inner| {
                    (layer.layer(inner), in_state(layer.handle(), State::Open))
                });
            }

            for (config, bulkhead) in bulkheads() {
                let layer = BulkheadLayer::new(bulkhead.build().expect(VALID)).protocol($protocol);
                field.admitted(title("bulkhead", config), |inner| (layer.layer(inner), at_rest(layer.handle())));
            }
            let layer = QueuedBulkheadLayer::new(queued().build().expect(VALID)).protocol($protocol);
            field.admitted(title("bulkhead", "queued"), |inner| (layer.layer(inner), at_rest(layer.handle())));
            let layer = BulkheadLayer::new(BulkheadConfig::new(1).build().expect(VALID)).protocol($protocol);
            field.full(title("bulkhead-full", "light"), |inner| (layer.layer(inner), at_rest(layer.handle())));

            for (config, deadline) in deadlines() {
                field.timed(title("deadline", config), |inner, after| {
                    let deadlines = deadline.clone().total(after).build().expect(VALID);
                    DeadlineLayer::new(deadlines).protocol($protocol).layer(inner)
                });
            }

            for (case, endpoints) in [("balance-10", 10), ("balance-1000", 1000)] {
                field.admitted(title(case, "light"), |inner| {
                    let endpoints = (0..endpoints).map(|n| Endpoint::new(n.to_string(), inner.clone()));
                    let balance = Balance::new(endpoints).expect(VALID).protocol($protocol);
                    let rest = none_in_flight(balance.handle());
                    (balance, rest)
                });
            }

            // Both services are the same one.
            let canary = CanaryConfig::new(50.0).build().expect(VALID);
            field.admitted(title("canary", "light"), |inner| {
                let layer = CanaryLayer::new(canary, inner.clone()).protocol($protocol);
                let handle = layer.handle();
                let rest = move || assert_eq!(handle.snapshot().in_flight, 0, "every call was counted to its end");
                (layer.layer(inner), rest)
            });

            let off = ChaosLayer::default().protocol($protocol);
            field.admitted(title("chaos", "off"), |inner| (off.layer(inner), || ()));
            // Draws for every call, and hits none.
            let armed = ChaosConfig::default().fault(Fault::hang().percent(0.0)).layer().expect(VALID);
            let armed = armed.protocol($protocol);
            field.admitted(title("chaos", "armed"), |inner| (armed.layer(inner), || ()));

            let layer = FallbackLayer::new(FallbackConfig::default(), backup::none()).protocol($protocol);
            let handle = layer.handle();
            let rest = move || assert_eq!(handle.snapshot().answered_total(), 0, "nothing failed");
            field.admitted(title("fallback", "light"), |inner| (layer.layer(inner), rest));

            let toggle = ToggleConfig::new("bench").failure_rate(0.5).build().expect(VALID);
            let layer = ToggleLayer::new(toggle.clone(), backup::none()).protocol($protocol);
            let rest = move || assert!(toggle.is_on(), "nothing failed");
            field.admitted(title("toggle", "rate"), |inner| (layer.layer(inner), rest));

            // Both services are the same one.
            field.admitted(title("failover", "light"), |inner| {
                let tiers = FailoverConfig::default().max_body(0).backup("spare", $attempt(inner.clone()));
                let layer = tiers.build().expect(VALID).protocol($protocol);
                let handle = layer.handle();
                let rest = move || assert_eq!(handle.snapshot().failovers_total, 0, "nothing failed");
                (layer.layer($attempt(inner)), rest)
            });

            for (config, retry) in [("light", RetryConfig::default().max_body(0)), ("stack", RetryConfig::default())] {
                let layer = RetryLayer::new(retry.build().expect(VALID)).protocol($protocol);
                let handle = layer.handle();
                let rest = move || assert_eq!(handle.snapshot().retries_total, 0, "nothing failed");
                field.admitted(title("retry", config), |inner| (layer.layer($attempt(inner)), rest));
            }

            let layer = TelemetryLayer::new(Telemetry::new()).protocol($protocol);
            let handle = layer.handle();
            let rest = move || assert_eq!(handle.snapshot().in_flight, 0, "every call was counted to its end");
            field.admitted(title("telemetry", "light"), |inner| (layer.layer(inner), rest));

            let server = stack::server().build().expect(VALID).protocol($protocol);
            field.admitted(title("server-stack", "stack"), |inner| (server.layer(inner), at_rest(server.bulkhead())));
            let client = stack::client().build().expect(VALID).protocol($protocol);
            field.admitted(title("client-stack", "stack"), |inner| {
                (client.layer($attempt(inner)), at_rest(client.bulkhead()))
            });
        }
    };
}

rows!(opaque, Plain, Opaque::new(), |inner| inner);
// Inside of a retry a request has a body that may be sent again.
rows!(layers_of_http, Web, HttpServer::new(), |inner: Inner<Web>| inner
    .map_request(|attempt: Request<_>| attempt.map(|_: ReplayBody<Empty<Bytes>>| Empty::new())));

pub fn http(field: &mut Field<'_, Web>) {
    layers_of_http(field);
    // Everything is kept that may be, and nothing given.
    let layer = StaleLayer::new(StaleConfig::default().max(HOUR).build().expect(VALID));
    let handle = layer.handle();
    let rest = move || assert_eq!(handle.snapshot().served_stale_total, 0, "nothing failed");
    field.admitted(title("stale", "light"), |inner| (layer.layer(inner), rest));
    // Nobody subscribes: what is left is the trace context that is passed on.
    let layer = RequestSpanLayer::new();
    field.admitted(title("request-span", "light"), |inner| (layer.layer(inner), || {}));
    let layer = AttemptSpanLayer::new().protocol(HttpServer::new());
    field.admitted(title("attempt-span", "light"), |inner| (layer.layer(inner), || {}));
}

const VALID: &str = "a valid config";
const HOUR: Duration = Duration::from_secs(3600);

fn title(case: &'static str, config: &'static str) -> Title {
    Title { case, config, who: Who::Buttress }
}

fn breakers() -> [(&'static str, BreakerConfig); 4] {
    let time = BreakerConfig::default();
    [
        ("light", time.clone().window(Window::Count(100))),
        ("time-window", time.clone()),
        ("slow-calls", time.slow_after(Duration::from_millis(500)).slow_rate(0.5)),
        ("stack", stack::client().breaker.expect("the stack has a breaker")),
    ]
}

fn bulkheads() -> [(&'static str, BulkheadConfig); 3] {
    let light = BulkheadConfig::new(100);
    [
        ("light", light.clone()),
        ("one-stripe", light.stripes(1)),
        ("stack", stack::client().bulkhead.expect("the stack has a bulkhead")),
    ]
}

fn queued() -> BulkheadConfig {
    BulkheadConfig::new(100).max_queue(100).max_wait(Duration::from_millis(200))
}

fn deadlines() -> [(&'static str, DeadlineConfig); 2] {
    [
        ("light", DeadlineConfig::default().propagate(false)),
        ("stack", stack::client().deadline.expect("the stack has a deadline")),
    ]
}

fn in_state(breaker: Arc<Breaker>, state: State) -> impl Fn() {
    move || assert_eq!(breaker.state(), state)
}

fn none_in_flight(balancer: Arc<Balancer>) -> impl Fn() {
    move || assert_eq!(balancer.snapshot().in_flight, 0, "every call was counted to its end")
}

fn at_rest(bulkhead: Arc<Bulkhead>) -> impl Fn() {
    move || assert_eq!(bulkhead.snapshot().in_flight, 0, "every permit came back")
}
