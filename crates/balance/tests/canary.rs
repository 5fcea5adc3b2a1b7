//! A canary beside a service, through tower: where calls go, and which of them count how.

use buttress_balance::{Canary, CanaryConfig, CanaryLayer, Side};
use buttress_core::{
    Context, Handle, Mode, Opaque, Reason, Rejection, Tried, abandon,
    http::{HttpClient, HttpServer},
};
use buttress_sim::{
    AnyBody, Frames, Readiness, Script,
    contract::{HttpInner, RULES, Rule, Subject},
    grpc, poll_once,
};
use http::{Request, Response};
use http_body_util::BodyExt;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tower::{Layer, Service, ServiceExt};

type Http = Script<Request<AnyBody>, Response<AnyBody>>;

fn policy(weight: f64) -> Arc<Canary> {
    Arc::new(CanaryConfig::new(weight).min_calls(5).seed(3).build().unwrap())
}

fn named(name: &'static str) -> Script<u64, &'static str> {
    Script::new(move |_| async move { Ok(name) })
}

/// A gRPC service that answers with this status, in its trailers.
fn says(status: &'static str) -> Http {
    Script::new(move |_| async move {
        Ok(grpc::response(Frames::new().data(grpc::message(b"hi")).trailers([("grpc-status", status)])))
    })
}

#[tokio::test]
async fn both_get_their_calls_and_after_a_trip_the_stable_one_gets_all() {
    let canary = policy(30.0);
    let fails: Script<u64, &str> = Script::new(async |_| Err("broken".into()));
    let service = CanaryLayer::new(canary.clone(), fails.clone()).layer(named("stable"));
    let mut failed = 0;
    for n in 0..1_000 {
        failed += u32::from(service.clone().oneshot(n).await.is_err());
    }
    assert_eq!((failed, fails.probe().calls()), (5, 5), "as many as it takes to see it");
    let seen = canary.snapshot();
    assert!(seen.tripped && seen.in_flight == 0 && seen.stable.picks_total == 995);
}

#[tokio::test]
async fn a_grpc_canary_is_judged_by_its_trailers() {
    for (status, tripped) in [("0", false), ("5", false), ("8", false), ("1", false), ("14", true), ("13", true)] {
        let canary = policy(50.0);
        let layer = CanaryLayer::new(canary.clone(), says(status)).protocol(HttpClient::new());
        let service = layer.layer(says("0"));
        for _ in 0..50 {
            let res = service.clone().oneshot(grpc::request("/a/b")).await.unwrap();
            assert!(res.into_body().collect().await.unwrap().trailers().is_some());
        }
        assert_eq!(canary.snapshot().tripped, tripped, "{status}");
    }
}

#[tokio::test]
async fn a_call_is_in_flight_to_the_end_of_its_body_and_counts_there() {
    let canary = policy(100.0);
    let service = CanaryLayer::new(canary.clone(), says("14")).protocol(HttpServer::new()).layer(says("0"));
    let res = service.oneshot(grpc::request("/a/b")).await.unwrap();
    assert_eq!((canary.snapshot().in_flight, canary.snapshot().canary.calls), (1, 0));
    res.into_body().collect().await.unwrap();
    let seen = canary.snapshot();
    assert_eq!((seen.in_flight, seen.canary.calls, seen.canary.failures), (0, 1, 1));
}

#[tokio::test]
async fn further_attempts_go_to_the_stable_service() {
    let canary = policy(100.0);
    let service = CanaryLayer::new(canary.clone(), named("canary")).layer(named("stable"));
    let mut tried = Tried::new();
    let first = tried.scope(|| service.clone().call(1));
    assert_eq!(first.await.unwrap(), "canary");
    assert!(tried.has_picked_another(), "also what the canary refuses may go elsewhere");
    tried.turn();
    let second = tried.scope(|| service.clone().call(1));
    assert_eq!(second.await.unwrap(), "stable");
    assert!(!tried.has_picked_another(), "there is no third service");

    // A process further out made the attempt, and a gateway wrote it down.
    let layer = CanaryLayer::new(canary.clone(), says("14")).protocol(HttpServer::new());
    let mut req = grpc::request("/a/b");
    Context::of_mut(req.extensions_mut()).attempt = 1;
    let body = layer.layer(says("0")).oneshot(req).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().trailers().unwrap()["grpc-status"], "0");
    assert_eq!(canary.snapshot().retried_total, 2);
}

#[tokio::test]
async fn it_is_ready_and_waits_for_the_one_that_the_call_goes_to() {
    let canary = policy(0.0);
    let (stable, other) = (named("stable"), named("canary"));
    other.set(Readiness::Never);
    stable.set(Readiness::After(3));
    let service = CanaryLayer::new(canary.clone(), other).layer(stable.clone());
    assert_eq!(service.clone().oneshot(1).await.unwrap(), "stable");
    canary.set_weight(100.0).unwrap();
    let mut ready = service.clone();
    ready.ready().await.unwrap();
    let mut call = Box::pin(ready.call(1));
    assert!(poll_once(&mut call).await.is_pending());
    assert_eq!(canary.snapshot().in_flight, 1);
    drop(call);
    assert_eq!((canary.snapshot().in_flight, canary.snapshot().canary.calls), (0, 0), "its caller went away");
    let mut call = Box::pin(ready.call(1));
    assert!(poll_once(&mut call).await.is_pending());
    abandon(buttress_core::Outcome::Failure, || drop(call));
    assert_eq!(canary.snapshot().canary.failures, 1, "a deadline passed");
}

#[tokio::test]
async fn a_canary_that_cannot_become_ready_has_failed() {
    let canary = policy(50.0);
    let other = named("canary");
    other.set(Readiness::Fails);
    let service = CanaryLayer::new(canary.clone(), other).layer(named("stable"));
    for n in 0..100 {
        let _ = service.clone().oneshot(n).await;
    }
    assert!(canary.snapshot().tripped);
    assert_eq!(service.oneshot(1).await.unwrap(), "stable");
}

#[tokio::test]
async fn a_canary_whose_circuits_are_all_open_has_failed_and_one_that_is_full_has_not() {
    for (reason, tripped) in [
        (Reason::BreakerOpen, true),
        (Reason::NoEndpoint, true),
        (Reason::AtCapacity, false),
        (Reason::ClientDeadlinePassed, false),
    ] {
        let canary = policy(50.0);
        let refuses: Script<u64, &str> =
            Script::new(move |_| async move { Err(std::io::Error::other(Rejection::new(reason, "inside")).into()) });
        let service = CanaryLayer::new(canary.clone(), refuses).layer(named("stable"));
        for n in 0..50 {
            let _ = service.clone().oneshot(n).await;
        }
        assert_eq!(canary.snapshot().tripped, tripped, "{reason}");
    }
}

#[test]
fn a_policy_is_asked_without_a_service_too() {
    let canary = policy(100.0);
    let permit = canary.pick(0);
    assert_eq!((permit.side(), permit.side().as_str(), Side::Stable.as_str()), (Side::Canary, "canary", "stable"));
}

/// The suite gives a layer a service; it is on both sides.
#[derive(Clone)]
struct Both<P> {
    canary: Arc<Canary>,
    protocol: P,
}

impl<P: Clone> Layer<HttpInner> for Both<P> {
    type Service = buttress_balance::CanaryService<HttpInner, HttpInner, P>;

    fn layer(&self, inner: HttpInner) -> Self::Service {
        CanaryLayer::new(self.canary.clone(), inner.clone()).protocol(self.protocol.clone()).layer(inner)
    }
}

fn split(weight: f64) -> Subject {
    let canary = Arc::new(CanaryConfig::new(weight).seed(1).build().unwrap());
    let [calls, ended] = [canary.clone(), canary.clone()];
    let over = |canary: &Arc<Canary>| Both { canary: canary.clone(), protocol: Opaque::new() };
    let server = Both { canary: canary.clone(), protocol: HttpServer::new() };
    let client = Both { canary: canary.clone(), protocol: HttpClient::new() };
    Subject::new(over(&canary), server, client).in_flight(move || calls.snapshot().in_flight).outcomes(move || {
        let seen = ended.snapshot();
        let failures = seen.stable.failures + seen.canary.failures;
        (seen.stable.calls + seen.canary.calls - failures, failures)
    })
}

/// These ask what `poll_ready` says of *the* inner service; here it is ready, and asks in the call.
const OF_ONE_SERVICE: [&str; 2] =
    ["poll_ready_fails_only_with_the_inner_services_own_error", "an_unready_inner_service_is_never_called"];

/// A side all of whose circuits are open has failed for it, though to a breaker a refusal says nothing.
const OF_NO_SIDE: &str = "an_inner_refusal_is_ignored_and_a_passed_deadline_is_a_failure";

fn check(rule: &Rule, weight: f64) -> Result<(), String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(rule.paused).build().unwrap();
    runtime.block_on(rule.check(&|| split(weight))).map_err(|broken| broken.to_string())
}

#[test]
fn it_keeps_the_contract_of_every_layer_but_for_what_it_is() {
    for weight in [0.0, 50.0, 100.0] {
        let rules = RULES.iter().filter(|rule| !OF_ONE_SERVICE.contains(&rule.name) && rule.name != OF_NO_SIDE);
        let broken: Vec<_> = rules.filter_map(|rule| check(rule, weight).err()).collect();
        assert!(broken.is_empty(), "{weight} % to the canary: {broken:#?}");
    }
    let said = OF_ONE_SERVICE.map(|name| check(Rule::named(name).unwrap(), 50.0).unwrap_err());
    assert!(said.iter().all(|said| said.contains("Ready(Ok")), "{said:?}");
    let said = check(Rule::named(OF_NO_SIDE).unwrap(), 50.0).unwrap_err();
    assert!(said.contains("breaker_open"), "{said}");
}

#[tokio::test]
async fn an_operator_sends_all_calls_to_the_stable_service() {
    let canary = policy(100.0);
    let service = CanaryLayer::new(canary.clone(), named("canary")).layer(named("stable"));
    canary.set_mode(Mode::ForcedOpen).unwrap();
    assert_eq!(service.clone().oneshot(1).await.unwrap(), "stable");
    canary.set_mode(Mode::Disabled).unwrap();
    assert_eq!(service.oneshot(1).await.unwrap(), "canary");
}

#[tokio::test(start_paused = true)]
async fn a_hung_canary_is_given_up_when_a_deadline_cuts_its_calls_off() {
    let canary = policy(50.0);
    let hangs: Script<u64, &str> = Script::new(async |_| std::future::pending().await);
    let service = CanaryLayer::new(canary.clone(), hangs).layer(named("stable"));
    let mut cut = 0;
    for n in 0..100 {
        let mut call = Box::pin(service.clone().oneshot(n));
        if tokio::time::timeout(Duration::from_secs(1), &mut call).await.is_err() {
            abandon(buttress_core::Outcome::Failure, || drop(call));
            cut += 1;
        }
    }
    assert!(canary.snapshot().tripped);
    assert!((5..10).contains(&cut), "{cut}: the other side must be known, too");
}

#[test]
fn layers_and_services_share_one_canary() {
    let canary = policy(100.0);
    let layer = CanaryLayer::new(canary.clone(), ());
    let handles = Mutex::new(vec![layer.handle(), layer.clone().handle(), layer.protocol(HttpClient::new()).handle()]);
    assert!(handles.lock().unwrap().iter().all(|handle| Arc::ptr_eq(handle, &canary)));
}
