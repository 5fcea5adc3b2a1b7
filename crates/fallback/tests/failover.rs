//! A primary and its backups, through tower: which tier answers what.
#![cfg(feature = "http")]

use buttress_core::{
    BoxError, BudgetConfig, Cause, Context, Deadline, Degraded, DegradedBy, Error, Handle, Mode, Opaque, Outcome,
    Reason, Rejection,
    http::{HttpClient, HttpServer, ReplayBody, TransportError, Unsent, X_DEGRADED},
};
use buttress_fallback::{
    Failover, FailoverConfig, TierConfig, Trigger,
    failover::{FailoverRule, FailoverService, FailoverSnapshot},
};
use buttress_sim::{
    AnyBody, Frames, Latch, Readiness, Script, any,
    contract::{HttpInner, RULES, Rule, Subject},
    grpc, poll_once,
};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, util::MapRequest};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

type Tier = Script<u64, &'static str>;
type HttpTier = Script<Request<ReplayBody<AnyBody>>, Response<AnyBody>>;

fn says(name: &'static str) -> Tier {
    Script::new(move |_| async move { Ok(name) })
}

fn fails(why: &'static str) -> Tier {
    Script::new(move |_| async move { Err(why.into()) })
}

fn refuses(reason: Reason) -> Tier {
    Script::new(move |_| async move { Err(std::io::Error::other(Rejection::new(reason, "inside")).into()) })
}

fn hangs() -> Tier {
    Script::new(async |_| std::future::pending().await)
}

/// Any request may go on.
fn config() -> FailoverConfig {
    FailoverConfig::default().any_request(true)
}

/// Answers with what it reads of the request, and this status.
fn http(status: u16) -> HttpTier {
    Script::new(move |req: Request<ReplayBody<AnyBody>>| async move {
        let body = req.into_body().collect().await?.to_bytes();
        Ok(Response::builder().status(status).body(any(Full::new(body)))?)
    })
}

fn request(method: Method, body: &'static str) -> Request<AnyBody> {
    Request::builder().method(method).body(any(Full::new(Bytes::from_static(body.as_bytes())))).unwrap()
}

#[tokio::test]
async fn the_first_good_answer_in_the_order_of_the_tiers_is_the_answer() {
    let (near, far) = (fails("near"), says("far"));
    let layer = config().backup("near", near.clone()).backup("far", far.clone()).build().unwrap();
    assert_eq!(layer.clone().layer(says("primary")).oneshot(1).await.unwrap(), "primary");
    assert_eq!((near.probe().calls(), far.probe().calls()), (0, 0));
    assert_eq!(layer.clone().layer(fails("primary")).oneshot(1).await.unwrap(), "far");
    assert_eq!((near.probe().calls(), far.probe().calls()), (1, 1));
    let seen = layer.handle().snapshot();
    let counts: Vec<_> = seen.tiers.iter().map(|t| (t.calls_total, t.answered_total, t.failed_total)).collect();
    assert_eq!((counts, seen.in_flight), (vec![(2, 1, 1), (1, 0, 1), (1, 1, 0)], 0));
}

#[tokio::test]
async fn when_all_tiers_are_bad_the_caller_gets_the_last_real_answer() {
    let run = |primary: Tier, near: Tier, far: Tier| async {
        let layer = config().backup("near", near).backup("far", far).build().unwrap();
        layer.layer(primary).oneshot(1).await.unwrap_err().to_string()
    };
    let full = || refuses(Reason::AtCapacity);
    assert_eq!(run(fails("a"), fails("b"), fails("c")).await, "c");
    assert_eq!(run(fails("a"), fails("b"), full()).await, "b", "a refusal is no answer of a service");
    assert_eq!(run(fails("a"), full(), full()).await, "a");
    assert!(run(full(), full(), full()).await.contains("at capacity"));
}

#[tokio::test]
async fn a_tier_that_is_full_is_passed_over_and_what_is_there_is_given() {
    let latch = Latch::new();
    let wait = latch.clone();
    let near: Tier = Script::new(move |_| {
        let wait = wait.clone();
        async move {
            wait.wait().await;
            Ok("near")
        }
    });
    let layer = config().tier(TierConfig::new("near").max_concurrent(1), near).build().unwrap();
    let service = layer.layer(fails("primary"));
    let mut first = Box::pin(service.clone().oneshot(1));
    assert!(poll_once(&mut first).await.is_pending());
    assert_eq!(service.clone().oneshot(2).await.unwrap_err().to_string(), "primary");
    assert_eq!(layer.handle().snapshot().tiers[1].capped_total, 1);
    latch.open();
    assert_eq!(first.await.unwrap(), "near");
    assert_eq!(service.oneshot(3).await.unwrap(), "near", "its place is free again");
}

#[tokio::test]
async fn a_budget_pays_for_backups_also_after_the_failover() {
    let budget = Arc::new(BudgetConfig::new(0.2).min_per_sec(0.0).capacity(10).build().unwrap());
    let backup = says("backup");
    let layer = config().backup("backup", backup.clone()).budget(budget).build().unwrap();
    let service = layer.layer(fails("primary"));
    let mut good = 0;
    for n in 0..100 {
        good += u32::from(service.clone().oneshot(n).await.is_ok());
    }
    assert!((15..=20).contains(&good), "{good}");
    let seen = layer.handle().snapshot();
    assert!(seen.failed_over.is_some() && seen.tiers[1].unpaid_total == u64::from(100 - good));
    assert_eq!(seen.budget.unwrap().in_flight, 0);
}

#[tokio::test]
async fn a_place_that_nobody_pays_for_is_free_again() {
    let budget = Arc::new(BudgetConfig::new(0.5).min_per_sec(0.0).build().unwrap());
    let layer = config().tier(TierConfig::new("b").max_concurrent(1), says("b")).budget(budget).build().unwrap();
    let service = layer.layer(fails("primary"));
    assert!(service.clone().oneshot(1).await.is_err(), "half a token");
    assert_eq!(service.oneshot(2).await.unwrap(), "b");
    assert_eq!(layer.handle().snapshot().tiers[1].capped_total, 0);
}

#[tokio::test]
async fn where_no_time_is_left_no_other_tier_is_asked() {
    let backup = http(200);
    let layer = FailoverConfig::default().backup("b", backup.clone()).build().unwrap().protocol(HttpServer::new());
    let mut req = request(Method::GET, "");
    Context::of_mut(req.extensions_mut()).deadline = Some(Deadline::new(Instant::now().into_std()));
    assert_eq!(layer.layer(http(500)).oneshot(req).await.unwrap().status(), 500);
    assert_eq!(backup.probe().calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_failures_in_a_row_calls_go_to_the_backup_at_once_and_probes_bring_them_back() {
    let up = Arc::new(Mutex::new(false));
    let is_up = up.clone();
    let primary: Tier = Script::new(move |_| {
        let up = *is_up.lock().unwrap();
        async move { if up { Ok("primary") } else { Err("down".into()) } }
    });
    let layer = config().fail_after(3).return_after(2).probe_every(SEC).backup("b", says("b")).build().unwrap();
    let service = layer.layer(primary.clone());
    let ask = |n| service.clone().oneshot(n);
    for n in 0..50 {
        assert_eq!(ask(n).await.unwrap(), "b");
    }
    assert_eq!(primary.probe().calls(), 3);
    assert_eq!(layer.handle().snapshot().active, "b");
    tokio::time::advance(SEC).await;
    for n in 0..50 {
        assert_eq!(ask(n).await.unwrap(), "b", "a probe that fails is served by the backup");
    }
    assert_eq!(primary.probe().calls(), 4);
    *up.lock().unwrap() = true;
    for probe in ["primary", "primary"] {
        tokio::time::advance(SEC).await;
        assert_eq!(ask(0).await.unwrap(), probe);
    }
    assert_eq!(ask(0).await.unwrap(), "primary");
    let seen = layer.handle().snapshot();
    assert_eq!((seen.failovers_total, seen.returns_total, seen.probes_total), (1, 1, 3));
    assert_eq!((seen.active.as_ref(), seen.failed_over), ("primary", None));
}

#[tokio::test]
async fn while_failed_over_the_primary_is_the_last_resort() {
    let primary = Arc::new(Mutex::new(1));
    let fails_once: Tier = Script::new(move |_| {
        let mut left = primary.lock().unwrap();
        let fails = *left > 0;
        *left = 0;
        async move { if fails { Err("down".into()) } else { Ok("primary") } }
    });
    let layer = config().fail_after(1).probe_every(SEC * 3600).backup("b", fails("b")).build().unwrap();
    let service = layer.layer(fails_once);
    assert!(service.clone().oneshot(1).await.is_err());
    assert_eq!(layer.handle().snapshot().active, "b");
    assert_eq!(service.oneshot(2).await.unwrap(), "primary");
    assert_eq!(layer.handle().snapshot().active, "b", "only probes bring calls back");
}

#[tokio::test(start_paused = true)]
async fn a_hung_tier_has_its_share_of_the_time_and_the_last_one_the_rest() {
    let start = Instant::now();
    let at = Arc::new(Mutex::new(Vec::new()));
    let noting = |hangs: bool| {
        let at = at.clone();
        Script::<u64, &'static str>::new(move |_| {
            at.lock().unwrap().push(start.elapsed_ms());
            async move { if hangs { std::future::pending().await } else { Ok("last") } }
        })
    };
    let layer = config()
        .timeout(SEC)
        .share(0.4)
        .tier(TierConfig::new("near").share(0.5), noting(true))
        .backup("far", noting(false))
        .build()
        .unwrap();
    let res = layer.clone().layer(noting(true)).oneshot(1).await;
    assert_eq!((res.unwrap(), at.lock().unwrap().clone()), ("last", vec![0, 400, 700]));
    let seen = layer.handle().snapshot();
    assert_eq!(
        seen.tiers.iter().map(|t| (t.timed_out_total, t.failed_total)).collect::<Vec<_>>(),
        [(1, 1), (1, 1), (0, 0)]
    );

    let layer = config().timeout(SEC).backup("b", hangs()).build().unwrap();
    let service = layer.layer(hangs());
    let error = service.oneshot(1).await.unwrap_err();
    let rejection = buttress_core::ChainError::rejection(&error).unwrap();
    assert_eq!((rejection.reason, rejection.layer), (Reason::DeadlinePassed, "failover"));
    assert_eq!(layer.handle().snapshot().in_flight, 0);

    let layer = config().timeout(SEC).backup("b", hangs()).build().unwrap();
    assert_eq!(layer.layer(fails("a")).oneshot(1).await.unwrap_err().to_string(), "a", "a real answer comes first");
}

trait ElapsedMs {
    fn elapsed_ms(self) -> u64;
}

impl ElapsedMs for Instant {
    fn elapsed_ms(self) -> u64 {
        u64::try_from((Instant::now() - self).as_millis()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_tier_is_given_up_only_for_one_that_takes_the_call() {
    let slow: Tier = Script::new(async |_| {
        tokio::time::sleep(800 * MS).await;
        Ok("slow")
    });
    let full = hangs();
    let layer = config().timeout(SEC).tier(TierConfig::new("b").max_concurrent(1), full).build().unwrap();
    let mut blocker = Box::pin(layer.clone().layer(fails("primary")).oneshot(1));
    assert!(poll_once(&mut blocker).await.is_pending());
    assert_eq!(layer.clone().layer(slow).oneshot(1).await.unwrap(), "slow");
    let seen = layer.handle().snapshot();
    assert_eq!((seen.tiers[0].timed_out_total, seen.tiers[0].failed_total, seen.tiers[0].answered_total), (1, 2, 0));
}

/// Hangs, and notes what its permits are told when it is dropped.
fn noting_drops(noted: &Arc<Mutex<Vec<Outcome>>>) -> HttpTier {
    struct Permit(Arc<Mutex<Vec<Outcome>>>);
    impl Drop for Permit {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(buttress_core::abandoned());
        }
    }
    let noted = noted.clone();
    Script::new(move |_| {
        let permit = Permit(noted.clone());
        async move {
            let _permit = permit;
            std::future::pending().await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_the_client_made_short_accuses_nobody() {
    for (by_client, said, failed) in [(true, Outcome::Ignored, 0), (false, Outcome::Failure, 1)] {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let layer = FailoverConfig::default().backup("b", http(200)).build().unwrap().protocol(HttpClient::new());
        let mut req = request(Method::GET, "");
        let mut deadline = Deadline::new(Instant::now().into_std() + SEC);
        deadline.by_client = by_client;
        Context::of_mut(req.extensions_mut()).deadline = Some(deadline);
        let started = Instant::now();
        let res = layer.layer(noting_drops(&noted)).oneshot(req).await.unwrap();
        assert_eq!((res.status().as_u16(), started.elapsed_ms()), (200, 500));
        assert_eq!(*noted.lock().unwrap(), [said]);
        assert_eq!(layer.handle().snapshot().tiers[0].failed_total, failed);
    }
}

#[tokio::test]
async fn what_may_have_been_processed_goes_on_only_if_two_may_process_it() {
    let run = |config: FailoverConfig, primary: Tier| async {
        config.backup("b", says("b")).build().unwrap().layer(primary).oneshot(1).await.is_ok()
    };
    let plain = FailoverConfig::default;
    assert!(!run(plain(), fails("a")).await);
    assert!(run(config(), fails("a")).await);
    for (reason, goes) in [
        (Reason::BreakerOpen, true),
        (Reason::AtCapacity, true),
        (Reason::Shed, true),
        (Reason::NoEndpoint, true),
        (Reason::ConnectRefused, true),
        (Reason::SwitchedOff, true),
        (Reason::DeadlinePassed, false),
        (Reason::PeerClosed, false),
    ] {
        assert_eq!(run(plain(), refuses(reason)).await, goes, "{reason:?}");
        assert!(run(config(), refuses(reason)).await, "{reason:?}");
    }
    for reason in [Reason::RateLimited, Reason::BadRequest, Reason::ClientDeadlinePassed, Reason::NotStored] {
        assert!(!run(config(), refuses(reason)).await, "{reason:?} is the client's");
    }
    let unsent: Tier = Script::new(async |_| Err(Box::new(TransportError::unsent("no connection")) as BoxError));
    assert!(run(plain(), unsent).await);
    assert!(!run(config().on([Trigger::Overload]), fails("a")).await);
}

#[tokio::test]
async fn http_requests_go_on_by_their_method() {
    for (method, goes) in [
        (Method::GET, true),
        (Method::PUT, true),
        (Method::DELETE, true),
        (Method::POST, false),
        (Method::PATCH, false),
    ] {
        let layer = FailoverConfig::default().backup("b", http(200)).build().unwrap().protocol(HttpServer::new());
        let res = layer.layer(http(500)).oneshot(request(method.clone(), "body")).await.unwrap();
        assert_eq!(res.status().as_u16(), if goes { 200 } else { 500 }, "{method}");
        assert_eq!(Degraded::of(&res), goes.then_some(Degraded::new(DegradedBy::Failover, Cause::Failure)));
        assert_eq!(res.headers().contains_key(X_DEGRADED), goes);
        assert_eq!(res.into_body().collect().await.unwrap().to_bytes(), "body", "all of it, wherever it went");
    }
    let layer = FailoverConfig::default().backup("b", http(200)).build().unwrap().protocol(HttpServer::new());
    let res = layer.layer(http(503)).oneshot(request(Method::POST, "")).await.unwrap();
    assert_eq!(res.status(), 503, "it is no UNAVAILABLE of gRPC");
    // Nothing was sent: any method.
    let unsent: HttpTier = Script::new(async |_| Err(Unsent::new("no connection").into()));
    let layer = FailoverConfig::default().backup("b", http(201)).build().unwrap().protocol(HttpClient::new());
    assert_eq!(layer.layer(unsent).oneshot(request(Method::POST, "x")).await.unwrap().status(), 201);
    // A tunnel goes to one tier only.
    let req = Request::get("/").header("upgrade", "websocket").body(any(Full::<Bytes>::default())).unwrap();
    let layer = FailoverConfig::default().backup("b", http(200)).build().unwrap().protocol(HttpServer::new());
    assert_eq!(layer.layer(http(500)).oneshot(req).await.unwrap().status(), 500);
}

#[tokio::test]
async fn a_key_of_idempotency_is_honoured_by_one_tier() {
    let refusing = || -> HttpTier {
        Script::new(async |_| Err(std::io::Error::other(Rejection::new(Reason::BreakerOpen, "inside")).into()))
    };
    // Inside of the first tier a retry may have sent it before the circuit opened.
    for (method, key, goes) in [
        (Method::POST, false, true),
        (Method::POST, true, false),
        (Method::PATCH, true, false),
        (Method::PUT, true, true),
    ] {
        for config in [FailoverConfig::default(), config()] {
            let backup = http(200);
            let layer = config.backup("b", backup.clone()).build().unwrap().protocol(HttpClient::new());
            let mut req = request(method.clone(), "pay");
            if key {
                req.headers_mut().insert("idempotency-key", "\"8e03978e\"".parse().unwrap());
            }
            let res = layer.layer(refusing()).oneshot(req).await;
            assert_eq!((res.is_ok(), backup.probe().calls()), (goes, u64::from(goes)), "{method} {key}");
        }
    }
}

#[tokio::test]
async fn what_is_too_much_moves_no_one_and_goes_on_only_if_asked_to() {
    let only = |status| -> HttpTier { Script::new(move |_| async move { Ok(grpc::trailers_only(status)) }) };
    let unary = |status| -> HttpTier { Script::new(move |_| async move { Ok(grpc::unary(status)) }) };
    let all = [Trigger::Refused, Trigger::Failure, Trigger::Overload];
    for (config, goes) in [(FailoverConfig::default(), false), (FailoverConfig::default().on(all), true)] {
        for (primary, is_grpc) in [(http(429), false), (only("8"), true), (unary("8"), true)] {
            let backup = if is_grpc { unary("0") } else { http(200) };
            let layer = config.clone().fail_after(2).backup("b", backup.clone()).build().unwrap();
            let layer = layer.protocol(HttpServer::new());
            let service = layer.layer(primary);
            for _ in 0..10 {
                let req = if is_grpc { grpc::request("/a/b") } else { request(Method::GET, "") };
                let res = service.clone().oneshot(req).await.unwrap();
                res.into_body().collect().await.unwrap();
            }
            let seen = layer.handle().snapshot();
            assert_eq!((seen.active.as_ref(), seen.failovers_total), ("primary", 0));
            let went = if goes && !is_grpc { 10 } else { 0 };
            assert_eq!(backup.probe().calls(), went, "of gRPC it may have been processed");
        }
    }
}

#[tokio::test]
async fn calls_for_which_the_primary_has_no_room_go_on_one_by_one_and_move_no_other() {
    for reason in [Reason::Shed, Reason::QueueTimeout, Reason::AtCapacity] {
        let backup = says("b");
        let layer = config().fail_after(2).backup("b", backup.clone()).build().unwrap();
        // In between it fails once: a refusal neither is a bad result nor ends a row of them.
        let primary: Tier = Script::new(move |n| async move {
            match n {
                0 => Err("failed".into()),
                _ => Err(std::io::Error::other(Rejection::new(reason, "inside")).into()),
            }
        });
        let service = layer.layer(primary);
        for n in [1, 2, 3, 0, 4, 5] {
            assert_eq!(service.clone().oneshot(n).await.unwrap(), "b");
        }
        let seen = layer.handle().snapshot();
        let primary = &seen.tiers[0];
        assert_eq!((seen.active.as_ref(), primary.calls_total, primary.failed_total), ("primary", 6, 1), "{reason:?}");
        assert_eq!(backup.probe().calls(), 6);
        service.clone().oneshot(0).await.unwrap();
        assert_eq!(layer.handle().snapshot().active.as_ref(), "b", "{reason:?}");
    }
}

#[tokio::test]
async fn an_answer_of_a_backup_says_whether_the_primary_failed_or_an_operator_chose() {
    let layer = FailoverConfig::default().fail_after(2).backup("b", http(200)).build().unwrap();
    let layer = layer.protocol(HttpServer::new());
    let ask = || async {
        let res = layer.layer(http(500)).oneshot(request(Method::GET, "")).await.unwrap();
        res.headers()[X_DEGRADED].to_str().unwrap().to_owned()
    };
    assert_eq!(ask().await, "failover; cause=failure");
    assert_eq!(ask().await, "failover; cause=failure");
    assert_eq!(ask().await, "failover; cause=failed_over");
    layer.handle().prefer("b").unwrap();
    assert_eq!(ask().await, "failover; cause=switched_off");
}

#[tokio::test]
async fn a_body_that_is_too_large_goes_to_one_tier() {
    let layer =
        FailoverConfig::default().max_body(3).backup("b", http(200)).build().unwrap().protocol(HttpServer::new());
    let res = layer.layer(http(500)).oneshot(request(Method::PUT, "four")).await.unwrap();
    assert_eq!((res.status().as_u16(), Degraded::of(&res)), (500, None));
    assert_eq!(res.into_body().collect().await.unwrap().to_bytes(), "four");
}

#[tokio::test]
async fn an_answer_that_is_not_accepted_goes_to_the_next_tier_and_is_better_than_none() {
    let accepts = |res: Result<&&'static str, &BoxError>| res.is_ok_and(|res| *res != "empty");
    let layer = config().backup("b", says("b")).build().unwrap().accept(accepts);
    assert_eq!(layer.layer(says("empty")).oneshot(1).await.unwrap(), "b");
    assert_eq!(layer.handle().snapshot().tiers[0].failed_total, 1);
    let layer = config().backup("b", refuses(Reason::BreakerOpen)).build().unwrap().accept(accepts);
    assert_eq!(layer.layer(says("empty")).oneshot(1).await.unwrap(), "empty");

    let not_found = |res: Result<&Response<AnyBody>, &BoxError>| res.is_ok_and(|res| res.status() != 404);
    let layer = FailoverConfig::default().backup("b", http(200)).build().unwrap().protocol(HttpServer::new());
    let res = layer.accept(not_found).layer(http(404)).oneshot(request(Method::GET, "")).await.unwrap();
    assert_eq!(Degraded::of(&res).unwrap().cause, Cause::Unwanted);
}

/// Reads may go on.
#[derive(Clone)]
struct Reads;

impl<Res, Err> FailoverRule<u64, Res, Err> for Reads {
    fn repeatable(&self, req: &u64) -> Option<bool> {
        Some(*req == 1)
    }
}

#[tokio::test]
async fn a_rule_says_which_requests_two_tiers_may_process() {
    let layer = FailoverConfig::default().backup("b", says("b")).build().unwrap().accept(Reads);
    let service = layer.layer(fails("a"));
    assert!(service.clone().oneshot(1).await.is_ok() && service.oneshot(2).await.is_err());
}

#[tokio::test]
async fn grpc_is_judged_by_its_trailers_and_unavailable_goes_on() {
    let trailers = |status| -> HttpTier { Script::new(move |_| async move { Ok(grpc::unary(status)) }) };
    let only = |status| -> HttpTier { Script::new(move |_| async move { Ok(grpc::trailers_only(status)) }) };
    let layer = FailoverConfig::default().fail_after(2).backup("b", trailers("0")).build().unwrap();
    let layer = layer.protocol(HttpClient::new());
    for _ in 0..2 {
        let res = layer.layer(trailers("14")).oneshot(grpc::request("/a/b")).await.unwrap();
        assert_eq!(Degraded::of(&res), None, "its head was good");
        res.into_body().collect().await.unwrap();
    }
    assert_eq!(layer.handle().snapshot().active, "b");
    layer.handle().auto();
    let res = layer.layer(only("14")).oneshot(grpc::request("/a/b")).await.unwrap();
    assert!(Degraded::of(&res).is_some());
    let res = layer.layer(only("13")).oneshot(grpc::request("/a/b")).await.unwrap();
    assert!(Degraded::of(&res).is_none(), "it may have been processed");
}

#[tokio::test]
async fn a_good_head_whose_reader_leaves_is_good_and_one_of_grpc_says_nothing() {
    let stream = || any(Frames::new().data("so far").never());
    for (grpc, good) in [(false, 1), (true, 0)] {
        let answers: HttpTier = Script::new(move |_| async move {
            let kind = if grpc { "application/grpc" } else { "text/plain" };
            Ok(Response::builder().header("content-type", kind).body(stream())?)
        });
        let layer = FailoverConfig::default().backup("b", http(200)).build().unwrap().protocol(HttpClient::new());
        let req = if grpc { grpc::request("/a/b") } else { request(Method::GET, "") };
        drop(layer.layer(answers).oneshot(req).await.unwrap());
        let primary = &layer.handle().snapshot().tiers[0];
        assert_eq!((primary.answered_total, primary.failed_total), (good, 0));
    }
}

#[tokio::test]
async fn bodies_that_fail_after_a_good_head_count() {
    let cut: HttpTier = Script::new(async |_| Ok(Response::new(any(Frames::new().data("half").error("reset")))));
    let layer = FailoverConfig::default().fail_after(2).backup("b", http(200)).build().unwrap();
    let layer = layer.protocol(HttpClient::new());
    for _ in 0..2 {
        let res = layer.layer(cut.clone()).oneshot(request(Method::GET, "")).await.unwrap();
        assert!(res.into_body().collect().await.is_err());
    }
    let seen = layer.handle().snapshot();
    assert_eq!((seen.active.as_ref(), seen.tiers[0].failed_total, seen.in_flight), ("b", 2, 0));
}

#[tokio::test]
async fn a_primary_that_is_not_ready_or_cannot_be_is_what_backups_are_for() {
    let primary = says("primary");
    primary.set(Readiness::Fails);
    let layer = config().backup("b", says("b")).build().unwrap();
    assert_eq!(layer.layer(primary.clone()).oneshot(1).await.unwrap(), "b");
    primary.set(Readiness::After(3));
    assert_eq!(layer.layer(primary).oneshot(1).await.unwrap(), "primary");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_never_becomes_ready_has_its_share_and_no_more() {
    let primary = says("primary");
    primary.set(Readiness::Never);
    let layer = config().timeout(SEC).backup("b", says("b")).build().unwrap();
    assert_eq!(layer.layer(primary).oneshot(1).await.unwrap(), "b");
    assert_eq!(layer.handle().snapshot().tiers[0].timed_out_total, 1);
}

#[tokio::test]
async fn an_operator_chooses_the_tier_and_modes_keep_calls_at_home() {
    let layer = config().backup("b", says("b")).backup("c", says("c")).build().unwrap();
    let (service, handle) = (layer.layer(says("a")), layer.handle());
    handle.prefer("c").unwrap();
    assert_eq!(service.clone().oneshot(1).await.unwrap(), "c");
    handle.set_mode(Mode::OBSERVE_ONLY).unwrap();
    assert_eq!(service.clone().oneshot(1).await.unwrap(), "a");
    handle.set_mode(Mode::Disabled).unwrap();
    assert_eq!(service.clone().oneshot(1).await.unwrap(), "a");
    handle.set_mode(Mode::Auto).unwrap();
    handle.auto();
    assert_eq!(service.oneshot(1).await.unwrap(), "a");
    handle.set_mode(Mode::Disabled).unwrap();
    let failing = layer.layer(fails("a"));
    for _ in 0..10 {
        assert!(failing.clone().oneshot(1).await.is_err());
    }
    assert_eq!(handle.snapshot().failed_over, None, "nothing is measured");
}

#[test]
fn contradictory_tiers_are_named() {
    let said = |tiers: Vec<TierConfig>| {
        let built = FailoverConfig::default().tiers(tiers.into_iter().map(|tier| (tier, ()))).build();
        built.unwrap_err().to_string()
    };
    let named = |name: &'static str| TierConfig::new(name);
    assert_eq!(said(vec![]), "`tiers` is 0, allowed: 1 to 8 backups");
    let nine: Vec<_> = (0..9).map(|n| TierConfig::new(format!("b{n}"))).collect();
    assert_eq!(said(nine), "`tiers` is 9, allowed: 1 to 8 backups");
    assert!(said(vec![named("primary")]).starts_with("`tiers[1].name` is primary"));
    assert!(said(vec![named("")]).starts_with("`tiers[1].name` is empty"));
    assert!(said(vec![named("a"), named("b").share(0.95)]).starts_with("`tiers[2].share` is 0.95"));
    assert!(said(vec![named("a").max_concurrent(0)]).starts_with("`tiers[1].max_concurrent` is 0"));
    let field = |config: FailoverConfig| config.backup("b", ()).build().unwrap_err().field;
    let plain = FailoverConfig::default;
    assert_eq!(field(plain().share(f64::NAN)), "share");
    assert_eq!(field(plain().on([])), "on");
    assert_eq!(field(plain().timeout(Duration::ZERO)), "timeout");
    assert_eq!(field(plain().fail_after(0)), "fail_after");
    assert_eq!(field(plain().return_after(1001)), "return_after");
    assert_eq!(field(plain().probe_every(Duration::ZERO)), "probe_every");
    assert_eq!(field(plain().max_body(usize::MAX)), "max_body");
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_written_and_read() {
    let config = FailoverConfig::default().timeout(SEC).on([Trigger::Refused, Trigger::Failure]);
    let text = serde_json::to_string(&config).unwrap();
    assert!(text.contains(r#""on":["refused","failure"]"#) && text.contains(r#""timeout":"1s""#), "{text}");
    assert_eq!(serde_json::from_str::<FailoverConfig>(&text).unwrap(), config);
    let tier: TierConfig = serde_json::from_str(r#"{"name": "b", "max_concurrent": 5}"#).unwrap();
    assert_eq!(tier, TierConfig::new("b").max_concurrent(5));
}

/// The suite gives a layer a service; it is every tier.
struct Both<P> {
    config: FailoverConfig,
    mode: Mode,
    handles: Handles,
    protocol: P,
}

type Handles = Arc<Mutex<Vec<Arc<Failover>>>>;
type Rebox = fn(Request<ReplayBody<AnyBody>>) -> Request<AnyBody>;
type Reboxed = MapRequest<HttpInner, Rebox>;

impl<P: Clone> Both<P> {
    fn over<S: Clone>(&self, inner: S) -> FailoverService<S, S, P> {
        let layer = self.config.clone().backup("b", inner.clone()).build().unwrap();
        layer.handle().set_mode(self.mode).unwrap();
        self.handles.lock().unwrap().push(layer.handle());
        layer.protocol(self.protocol.clone()).layer(inner)
    }
}

impl<P: Clone> Layer<HttpInner> for Both<P> {
    type Service = FailoverService<Reboxed, Reboxed, P>;

    fn layer(&self, inner: HttpInner) -> Self::Service {
        self.over(MapRequest::new(inner, |req| req.map(any)))
    }
}

/// Bodies are no `Clone`: an opaque request is one that the first tier takes, and of which others get an empty one.
struct OpaqueBoth(Both<Opaque>);

#[derive(Clone)]
struct Taken(Arc<Mutex<Option<Request<AnyBody>>>>);

type Put = fn(Request<AnyBody>) -> Taken;
type Take = fn(Taken) -> Request<AnyBody>;
type Opaquely = MapRequest<HttpInner, Take>;

impl Layer<HttpInner> for OpaqueBoth {
    type Service = MapRequest<FailoverService<Opaquely, Opaquely>, Put>;

    fn layer(&self, inner: HttpInner) -> Self::Service {
        let take: Take = |req| req.0.lock().unwrap().take().unwrap_or_else(|| request(Method::GET, ""));
        MapRequest::new(self.0.over(MapRequest::new(inner, take)), |req| Taken(Arc::new(Mutex::new(Some(req)))))
    }
}

fn subject(config: &FailoverConfig, mode: Mode) -> Subject {
    fn both<P>(config: &FailoverConfig, mode: Mode, handles: &Handles, protocol: P) -> Both<P> {
        Both { config: config.clone(), mode, handles: handles.clone(), protocol }
    }
    let handles = Handles::default();
    let server = both(config, mode, &handles, HttpServer::new());
    let client = both(config, mode, &handles, HttpClient::new());
    let opaque = OpaqueBoth(both(config, mode, &handles, Opaque::new()));
    let sum = move |read: fn(&FailoverSnapshot) -> u64| {
        handles.lock().unwrap().iter().map(|handle| read(&handle.snapshot())).sum::<u64>()
    };
    let in_flight = sum.clone();
    let subject = Subject::new(opaque, server, client).in_flight(move || in_flight(|seen| seen.in_flight));
    if mode != Mode::OBSERVE_ONLY {
        return subject;
    }
    subject.outcomes(move || (sum(|seen| seen.tiers[0].answered_total), sum(|seen| seen.tiers[0].failed_total)))
}

/// These ask what `poll_ready` says of *the* inner service; here there are several, and the call asks them.
const OF_ONE_SERVICE: [&str; 2] =
    ["poll_ready_fails_only_with_the_inner_services_own_error", "an_unready_inner_service_is_never_called"];

fn check(rule: &Rule, config: &FailoverConfig, mode: Mode) -> Result<(), String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(rule.paused).build().unwrap();
    runtime.block_on(rule.check(&|| subject(config, mode))).map_err(|why| format!("{}: {why}", rule.name))
}

/// A service that answers well and whose readers leave in the middle is a good one, for who decides whether to come back to it.
const OF_EARLY_DROPS: [&str; 2] =
    ["an_early_drop_says_nothing_unless_the_head_was_bad", "a_peer_that_goes_away_is_ignored"];

fn keeps(config: &FailoverConfig, mode: Mode, but: &[&str]) {
    let rules = RULES.iter().filter(|rule| !OF_ONE_SERVICE.contains(&rule.name) && !but.contains(&rule.name));
    let broken: Vec<_> = rules.filter_map(|rule| check(rule, config, mode).err()).collect();
    assert!(broken.is_empty(), "{mode:?}: {broken:#?}");
}

/// Where bad answers go on to the backup, a layer further in sees two calls, as it should: here they stay.
#[test]
fn it_keeps_the_contract_of_every_layer() {
    keeps(&FailoverConfig::default().on([Trigger::Refused]), Mode::Auto, &[]);
    for name in OF_ONE_SERVICE {
        let said = check(Rule::named(name).unwrap(), &FailoverConfig::default(), Mode::Auto).unwrap_err();
        assert!(said.contains("Ready(Ok"), "{said}");
    }
}

#[test]
fn observing_keeps_the_contract_and_counts_every_outcome_once() {
    // Refusals and overloads count as failures where they send calls elsewhere.
    let config = FailoverConfig::default().on([Trigger::Failure]);
    keeps(&config, Mode::OBSERVE_ONLY, &OF_EARLY_DROPS);
    for name in OF_EARLY_DROPS {
        let said = check(Rule::named(name).unwrap(), &config, Mode::OBSERVE_ONLY).unwrap_err();
        assert!(said.contains("counted as (1, 0)"), "{said}");
    }
}

#[test]
fn switched_off_it_keeps_the_contract() {
    keeps(&FailoverConfig::default(), Mode::Disabled, &[]);
}

#[tokio::test]
async fn errors_are_left_as_they_are() {
    #[derive(Debug, PartialEq)]
    struct Lost;
    impl std::fmt::Display for Lost {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("lost")
        }
    }
    impl std::error::Error for Lost {}
    let lost = tower::service_fn(|_: u64| async { Err::<(), _>(Error::Inner(Lost)) });
    let layer = config().backup("b", lost).build().unwrap();
    let mut service = layer.layer(lost);
    assert_eq!(service.ready().await.unwrap().call(1).await, Err(Error::Inner(Lost)));
}
