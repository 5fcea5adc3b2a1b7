//! Any tower service: readiness, opaque requests, rules, cancellation.

mod common;

use buttress_core::{Error, Mode, Opaque, Outcome, Reason, Rejection, http::Unsent};
use buttress_retry::{Backoff, Cause, Repeatable, ResendLayer, RetryLayer, RetryRule, Why};
use buttress_sim::{Probe, Readiness, Script, pauses};
use common::{MS, NOW, config};
use std::{
    fmt,
    sync::{Arc, Mutex},
};
use tower::{Layer, ServiceExt};
use tower_service::Service;

type Retries<R> = ResendLayer<Opaque, R>;

fn layer<R>(rule: R) -> Retries<R> {
    RetryLayer::new(config().build().unwrap()).when(rule)
}

/// Fails so often, and then answers with the number of attempts.
fn failing(times: u64) -> Script<u64, u64> {
    let attempts = Arc::new(Mutex::new(0));
    Script::new(move |req: u64| {
        let attempts = attempts.clone();
        async move {
            pauses(1).await;
            let mut attempts = attempts.lock().unwrap();
            *attempts += 1;
            if *attempts > times { Ok(req + *attempts) } else { Err("failed".into()) }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn an_opaque_request_is_repeated_only_if_somebody_says_that_it_may_be() {
    let service: RetryLayer = RetryLayer::new(config().build().unwrap());
    assert!(service.layer(failing(1)).oneshot(10).await.is_err());
    assert_eq!(service.handle().snapshot().gave_up(Why::NotRepeatable), 1);
    assert_eq!(layer(Repeatable).layer(failing(2)).oneshot(10).await.unwrap(), 13);
    let failed = |res: Result<&u64, &buttress_core::BoxError>| res.is_err();
    assert_eq!(layer(failed).layer(failing(2)).oneshot(10).await.unwrap(), 13);
}

#[tokio::test(start_paused = true)]
async fn an_opaque_request_that_was_not_sent_is_sent_again() {
    let attempts = Probe::default();
    let count = attempts.clone();
    let script = Script::new(move |req: u64| {
        drop(count.enter());
        let first = count.calls() == 1;
        async move { if first { Err(Unsent::new("no connection").into()) } else { Ok(req) } }
    });
    let service: RetryLayer = RetryLayer::new(config().build().unwrap());
    assert_eq!(service.layer(script).oneshot(7).await.unwrap(), 7);
    assert_eq!((attempts.calls(), service.handle().snapshot().retries(Cause::Unsent)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rule_does_not_overrule_a_refusal_that_is_not_to_be_retried() {
    for reason in [Reason::Shed, Reason::BodyCut, Reason::Panicked] {
        let script = Script::<u64, u64>::new(move |_| async move { Err(Rejection::new(reason, "inner").into()) });
        let always = layer(|_: Result<&u64, &buttress_core::BoxError>| true);
        assert!(always.layer(script.clone()).oneshot(1).await.is_err());
        assert_eq!((script.probe().calls(), always.handle().snapshot().gave_up(Why::NotRetryable)), (1, 1), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_users_own_error_type_stays_as_it_is() {
    #[derive(Debug, PartialEq)]
    enum Sql {
        Deadlock,
        Syntax,
    }
    impl fmt::Display for Sql {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{self:?}")
        }
    }
    impl std::error::Error for Sql {}
    let calls = Probe::default();
    let count = calls.clone();
    let service = tower::service_fn(move |query: &'static str| {
        drop(count.enter());
        let error = if query == "select" { Sql::Deadlock } else { Sql::Syntax };
        async move { Err::<u64, _>(Error::Inner(error)) }
    });
    let deadlocks = layer(|res: Result<&u64, &Error<Sql>>| matches!(res, Err(Error::Inner(Sql::Deadlock))));
    let service = deadlocks.layer(service);
    assert_eq!(service.clone().oneshot("select").await.unwrap_err(), Error::Inner(Sql::Deadlock));
    assert_eq!(calls.calls(), 3);
    assert_eq!(service.oneshot("selct").await.unwrap_err(), Error::Inner(Sql::Syntax));
    assert_eq!(calls.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_rule_can_say_which_requests_may_be_repeated() {
    #[derive(Clone)]
    struct Even;
    impl<Res, Err> RetryRule<u64, Res, Err> for Even {
        fn repeatable(&self, req: &u64) -> Option<bool> {
            Some(req.is_multiple_of(2))
        }
    }
    assert!(layer(Even).layer(failing(1)).oneshot(2).await.is_ok());
    assert!(layer(Even).layer(failing(1)).oneshot(3).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_ok_that_the_classifier_calls_a_failure_is_retried() {
    let protocol = Opaque::new().classify(|res: Result<&u64, &buttress_core::BoxError>| match res {
        Ok(12) => Outcome::Failure,
        _ => Outcome::Success,
    });
    let layer = layer(Repeatable).protocol(protocol);
    assert_eq!(layer.layer(failing(0)).oneshot(11).await.unwrap(), 13);
    assert_eq!(layer.handle().snapshot().retries_total, 1);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_driven_afresh_for_each_attempt() {
    // The script panics when it is called without having been ready on that very clone.
    let script = failing(2).readiness(Readiness::After(2));
    let mut service = layer(Repeatable).layer(script.clone());
    let call = service.ready().await.unwrap().call(0);
    script.set(Readiness::After(5));
    assert_eq!(call.await.unwrap(), 3);
    assert_eq!(script.probe().peak(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_can_never_be_ready_again_is_told_as_it_is() {
    let script = failing(9);
    let mut service = layer(Repeatable).layer(script.clone());
    let call = service.ready().await.unwrap().call(0);
    script.set(Readiness::Fails);
    assert_eq!(call.await.unwrap_err().to_string(), "the scripted service can never be ready");
    assert_eq!((script.probe().calls(), service.get_ref().probe().now()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_moment_leaves_no_token_behind() {
    for polls in 0..20 {
        let retries = layer(Repeatable);
        let script = failing(2).readiness(Readiness::After(1));
        let mut service = retries.layer(script.clone());
        let mut call = Box::pin(service.ready().await.unwrap().call(0));
        for _ in 0..polls {
            if buttress_sim::poll_once(&mut call).await.is_ready() {
                break;
            }
            tokio::time::advance(50 * MS).await;
        }
        drop(call);
        assert_eq!((retries.handle().snapshot().budget.in_flight, script.probe().now()), (0, 0), "{polls}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_constant_back_off_of_nothing_needs_no_timer() {
    let retries = RetryLayer::new(config().backoff(Backoff::constant(NOW)).build().unwrap()).when(Repeatable);
    let outside = std::thread::spawn(move || {
        futures_util::FutureExt::now_or_never(
            retries
                .layer(tower::service_fn(|_: u64| async { Err::<u64, buttress_core::BoxError>("no".into()) }))
                .oneshot(1),
        )
    });
    assert!(outside.join().unwrap().unwrap().is_err(), "a thread without a runtime");
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_share_one_budget() {
    let budget = buttress_core::BudgetConfig::new(0.5).min_per_sec(0.0);
    let retries = RetryLayer::new(config().budget(budget).build().unwrap()).when(Repeatable);
    let failing = Script::<u64, u64>::new(async |_| Err("down".into()));
    for _ in 0..10 {
        let _ = retries.clone().layer(failing.clone()).oneshot(1).await;
    }
    assert_eq!(failing.probe().calls(), 15);
    let fresh = retries.fresh();
    let _ = fresh.layer(failing.clone()).oneshot(1).await;
    assert_eq!((fresh.handle().snapshot().first_total, retries.handle().snapshot().first_total), (1, 10));
}

#[tokio::test(start_paused = true)]
async fn switched_off_or_with_one_attempt_nothing_is_cloned() {
    #[derive(Debug)]
    struct Once;
    impl Clone for Once {
        fn clone(&self) -> Self {
            panic!("cloned")
        }
    }
    let service = tower::service_fn(|_: Once| async { Ok::<_, buttress_core::BoxError>(1) });
    let retries = layer(Repeatable);
    buttress_core::Handle::set_mode(&*retries.handle(), Mode::Disabled).unwrap();
    assert_eq!(retries.layer(service).oneshot(Once).await.unwrap(), 1);
    let one = RetryLayer::new(config().max_attempts(1).build().unwrap());
    assert_eq!(one.layer(service).oneshot(Once).await.unwrap(), 1);
}
