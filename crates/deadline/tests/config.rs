//! Configs, the handle, live updates.
mod common;

use buttress_core::{BoxError, ConfigError, Handle, Mode, Value};
use buttress_deadline::{DeadlineConfig, DeadlineLayer, Deadlines, Headers};
use common::*;
use std::{future::pending, time::Duration};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

fn error(config: DeadlineConfig) -> String {
    config.build().map(drop).unwrap_err().to_string()
}

#[test]
fn a_wrong_value_is_named_with_what_is_allowed() {
    let zero = Duration::ZERO;
    let config = DeadlineConfig::default();
    assert_eq!(error(config.clone().total(zero)), "`total` is 0s, allowed: more than 0");
    assert_eq!(error(config.clone().per_try(zero)), "`per_try` is 0s, allowed: more than 0");
    assert_eq!(error(config.clone().idle(zero)), "`idle` is 0s, allowed: more than 0");
    assert_eq!(error(config.clone().absolute(zero)), "`absolute` is 0s, allowed: more than 0");
    let equal = config.clone().total(2 * MS).per_try(2 * MS);
    assert_eq!(error(equal), "`per_try` is 2ms, allowed: less than `total`, 2ms");
    let silent = config.clone().read(Headers::new().grpc_timeout(false));
    assert_eq!(error(silent), "`read.grpc_timeout` is false, allowed: true, or a `header` beside it");
    for name in ["", "x y", ":path", "Connection", "TE", "content-length", "grpc-timeout", "é"] {
        let named = error(config.clone().emit(Headers::new().header(name)));
        assert!(named.starts_with(&format!("`emit.header` is {name:?}, allowed: ")), "{named}");
    }
    let fine = config.total(Duration::MAX).per_try(MS).idle(MS).absolute(MS).read(Headers::new().header("X-Wait-Ms"));
    fine.build().unwrap();
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_as_people_write_it() {
    let text = r#"{"total": "2s", "per_try": "500ms", "read": {"header": "x-wait"}, "idle": "30s"}"#;
    let config: DeadlineConfig = serde_json::from_str(text).unwrap();
    let same = DeadlineConfig::new(Duration::from_secs(2)).per_try(500 * MS).idle(Duration::from_secs(30));
    assert_eq!(config, same.read(Headers::new().header("x-wait")));
    let again = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(config, again);
    assert_eq!(serde_json::from_str::<DeadlineConfig>("{}").unwrap(), DeadlineConfig::default());
    for wrong in [r#"{"totl": "2s"}"#, r#"{"total": 2}"#, r#"{"read": {"headers": "x"}}"#] {
        assert!(serde_json::from_str::<DeadlineConfig>(wrong).is_err(), "{wrong}");
    }
    let snapshot = serde_json::to_value(config.build().unwrap().snapshot()).unwrap();
    assert_eq!((&snapshot["mode"], &snapshot["total"]), (&"auto".into(), &"2s".into()));
    assert_eq!((&snapshot["absolute"], &snapshot["passed_total"]), (&serde_json::Value::Null, &0.into()));
}

async fn ends_after(layer: &DeadlineLayer) -> Duration {
    let start = Instant::now();
    let hang = layer.layer(service_fn(|_: ()| pending::<Result<(), BoxError>>()));
    hang.oneshot(()).await.unwrap_err();
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn an_update_holds_from_the_next_call_on_and_keeps_the_counts() {
    let layer = DeadlineLayer::new(50 * MS);
    let handle = layer.handle();
    assert_eq!(ends_after(&layer).await, 50 * MS);
    let hang = layer.layer(service_fn(|_: ()| pending::<Result<(), BoxError>>()));
    let (start, in_flight) = (Instant::now(), tokio::spawn(hang.oneshot(())));
    tokio::task::yield_now().await;
    handle.update(DeadlineConfig::new(20 * MS).per_try(10 * MS)).unwrap();
    assert_eq!(ends_after(&layer).await, 10 * MS);
    in_flight.await.unwrap().unwrap_err();
    assert_eq!(start.elapsed(), 50 * MS, "a call keeps what it began with");
    handle.update(DeadlineConfig::new(20 * MS)).unwrap();
    assert_eq!(ends_after(&layer.clone()).await, 20 * MS);
    assert_eq!(handle.snapshot().passed_total, 4);
    assert_eq!(handle.config(), DeadlineConfig::new(20 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_refused_update_changes_nothing() {
    let layer = DeadlineLayer::new(DeadlineConfig::new(50 * MS).read(Headers::new()).build().unwrap());
    let handle = layer.handle();
    let before = handle.snapshot();
    handle.update(DeadlineConfig::new(Duration::ZERO).read(Headers::new())).unwrap_err();
    let other = handle.update(DeadlineConfig::new(MS).read(Headers::new().header("x-wait"))).unwrap_err();
    assert_eq!(other.field, "read");
    assert!(other.to_string().contains("grpc-timeout, x-wait"), "{other}");
    assert!(
        other.to_string().ends_with("allowed: grpc-timeout: the headers are fixed when the layer is made"),
        "{other}"
    );
    assert_eq!(handle.snapshot(), before);
    assert_eq!(ends_after(&layer).await, 50 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_mode_holds_for_calls_to_come() {
    let layer = DeadlineLayer::new(10 * MS);
    let handle = layer.handle();
    let mut late = layer.layer(service_fn(|_: ()| async {
        sleep(30 * MS).await;
        Ok::<_, BoxError>(())
    }));
    handle.set_mode(Mode::OBSERVE_ONLY).unwrap();
    late.call(()).await.unwrap();
    assert_eq!((handle.snapshot().observed_total, handle.snapshot().passed_total), (1, 0));
    handle.set_mode(Mode::Disabled).unwrap();
    late.call(()).await.unwrap();
    assert_eq!(handle.snapshot().observed_total, 1);
    handle.set_mode(Mode::Auto).unwrap();
    late.call(()).await.unwrap_err();
    handle.set_mode(Mode::Enforcing(30)).unwrap();
    let mut ended = 0;
    for _ in 0..1000 {
        ended += u64::from(late.call(()).await.is_err());
    }
    assert!((230..=370).contains(&ended), "{ended}");
    assert_eq!(handle.snapshot().observed_total, 1 + 1000 - ended);

    let before = handle.mode();
    let error = handle.set_mode(Mode::ForcedOpen).unwrap_err();
    assert_eq!(error, ConfigError::new("mode", "forced_open", "auto, disabled, observe_only or enforcing"));
    handle.set_mode(Mode::Enforcing(101)).unwrap_err();
    assert_eq!(handle.mode(), before);
    advance(MS).await;
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_share_their_counts_and_a_fresh_layer_has_its_own() {
    let layer = DeadlineLayer::new(10 * MS);
    let (clone, fresh) = (layer.clone(), layer.fresh());
    ends_after(&layer).await;
    ends_after(&clone).await;
    assert_eq!(ends_after(&fresh).await, 10 * MS);
    assert_eq!((layer.handle().snapshot().passed_total, fresh.handle().snapshot().passed_total), (2, 1));
}

#[test]
fn a_registry_sees_every_reading() {
    let deadlines: Deadlines = DeadlineConfig::new(MS).idle(2 * MS).build().unwrap();
    let mut names = Vec::new();
    deadlines.visit(&mut |name, value| {
        if name == "idle" {
            assert_eq!(value, Value::Duration(2 * MS));
        }
        names.push(name);
    });
    assert_eq!(deadlines.kind(), "deadline");
    assert_eq!(
        names,
        [
            "mode",
            "total",
            "idle",
            "passed_total",
            "client_passed_total",
            "refused_total",
            "bodies_cut_total",
            "idle_total",
            "malformed_total",
            "observed_total"
        ]
    );
}
