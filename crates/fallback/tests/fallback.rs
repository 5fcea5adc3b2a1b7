//! Which results are answered otherwise, by what, and what becomes of the rest.

use buttress_core::{BoxError, Call, Cause, Error, Handle, Mode, Opaque, Outcome, Protocol, Reason, Rejection};
use buttress_fallback::{FallbackConfig, FallbackLayer, Trigger, backup};
use std::{
    convert::Infallible,
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use tower::{Layer, Service, ServiceExt, service_fn};

#[derive(Debug, PartialEq)]
struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("lost")
    }
}
impl std::error::Error for Lost {}

type Res = Result<&'static str, Error<Lost>>;

/// A request that is not `Clone`.
#[derive(Debug)]
struct Ask(Res);

fn broken() -> Ask {
    Ask(Err(Error::Inner(Lost)))
}

fn refused(reason: Reason) -> Ask {
    Ask(Err(Error::Rejected(Rejection::new(reason, "test"))))
}

/// Answers with what the request says.
fn echo()
-> impl Service<Ask, Response = &'static str, Error = Error<Lost>, Future: Send> + Clone + Send + Sync + 'static {
    service_fn(|ask: Ask| ready(ask.0))
}

#[tokio::test]
async fn what_failed_is_answered_otherwise_and_what_did_not_goes_through() {
    let layer = FallbackLayer::new(FallbackConfig::default(), backup::value("instead"));
    let fallback = layer.handle();
    let mut service = layer.layer(echo());
    assert_eq!(service.ready().await.unwrap().call(Ask(Ok("good"))).await, Ok("good"));
    assert_eq!(service.ready().await.unwrap().call(broken()).await, Ok("instead"));
    assert_eq!(service.ready().await.unwrap().call(refused(Reason::BreakerOpen)).await, Ok("instead"));
    let seen = fallback.snapshot();
    assert_eq!((seen.failure_total, seen.refused_total, seen.answered_total()), (1, 1, 2));
}

#[tokio::test]
async fn a_refusal_that_the_request_is_at_fault_for_goes_through() {
    let service = FallbackLayer::new(FallbackConfig::default(), backup::value("instead")).layer(echo());
    for reason in Reason::ALL {
        let goes_through = service.clone().oneshot(refused(reason)).await.is_err();
        let of_request = [Reason::ClientDeadlinePassed, Reason::NotImplemented, Reason::Loop, Reason::NotStored];
        assert_eq!(goes_through, reason.status() < 500 || of_request.contains(&reason), "{reason}");
    }
}

#[tokio::test]
async fn only_what_the_config_names_is_answered_and_it_can_change() {
    let by_text = Opaque::new().classify(|res: Result<&&'static str, &Error<Lost>>| match res {
        Ok(&"too much") => Outcome::Overload,
        Ok(&"nothing") => Outcome::Ignored,
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure,
    });
    let config = FallbackConfig::default().on([Trigger::Overload]);
    let layer = FallbackLayer::new(config, backup::value("instead")).protocol(by_text);
    let fallback = layer.handle();
    let service = layer.layer(echo());
    assert_eq!(service.clone().oneshot(Ask(Ok("too much"))).await, Ok("instead"));
    assert_eq!(service.clone().oneshot(Ask(Ok("nothing"))).await, Ok("nothing"));
    assert_eq!(service.clone().oneshot(broken()).await, broken().0);
    assert!(service.clone().oneshot(refused(Reason::Shed)).await.is_err());

    fallback.update(FallbackConfig::default().on([Trigger::Refused])).unwrap();
    assert_eq!(service.clone().oneshot(Ask(Ok("too much"))).await, Ok("too much"));
    assert_eq!(service.clone().oneshot(refused(Reason::Shed)).await, Ok("instead"));
    assert_eq!((fallback.snapshot().overload_total, fallback.snapshot().refused_total), (1, 1));
}

#[tokio::test]
async fn a_predicate_adds_to_the_config() {
    let layer = FallbackLayer::new(
        FallbackConfig::default().on([]),
        backup::from_fn(|_: &Ask| (), |(), cause: &Cause| Some(cause.as_str())),
    );
    let fallback = layer.handle();
    let service = layer.when(|res: Result<&&'static str, &Error<Lost>>| res == Ok(&"empty")).layer(echo());
    assert_eq!(service.clone().oneshot(Ask(Ok("empty"))).await, Ok("unwanted"));
    assert_eq!(service.clone().oneshot(Ask(Ok("full"))).await, Ok("full"));
    assert!(service.clone().oneshot(broken()).await.is_err());
    assert_eq!(fallback.snapshot().unwanted_total, 1);
}

#[tokio::test]
async fn a_function_gets_what_was_kept_and_the_cause_and_may_have_no_answer() {
    let layer = FallbackLayer::new(
        FallbackConfig::default(),
        backup::from_fn(
            |ask: &Ask| ask.0.is_ok(),
            |was_good, cause: &Cause| match cause {
                Cause::Refused(rejection) if !was_good => Some(rejection.layer),
                _ => None,
            },
        ),
    );
    let fallback = layer.handle();
    let service = layer.layer(echo());
    assert_eq!(service.clone().oneshot(refused(Reason::Shed)).await, Ok("test"));
    assert_eq!(service.clone().oneshot(broken()).await, broken().0, "the original goes on");
    assert_eq!((fallback.snapshot().refused_total, fallback.snapshot().failed_total), (1, 1));
    assert_eq!(fallback.snapshot().failure_total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_later_answer_has_its_time_and_no_more() {
    let after = |millis: u64| {
        let layer = FallbackLayer::new(
            FallbackConfig::default(),
            backup::from_async(
                move |_: &Ask| millis,
                |millis, _| async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    if millis == 5 { Err(Lost) } else { Ok("later") }
                },
                Duration::from_millis(100),
            ),
        );
        layer.layer(echo()).oneshot(broken())
    };
    let begun = tokio::time::Instant::now();
    assert_eq!(after(99).await, Ok("later"));
    assert_eq!(after(5).await, broken().0, "it failed");
    assert_eq!(after(10_000).await, broken().0, "it is too late");
    assert_eq!(begun.elapsed(), Duration::from_millis(99 + 5 + 100));
}

#[tokio::test(start_paused = true)]
async fn another_service_answers_within_its_time_if_its_answer_is_good() {
    let verdict = Opaque::new().classify(|res: Result<&&'static str, &Error<Lost>>| match res {
        Ok(&"bad") | Err(_) => Outcome::Failure,
        Ok(_) => Outcome::Success,
    });
    let ask = |told: &'static str| {
        let other = service_fn(|told: &'static str| async move {
            match told {
                "hang" => pending().await,
                "fail" => Err(Lost),
                told => Ok(told),
            }
        });
        let backup = backup::service(move |_: &Ask| told, other, backup::DEFAULT_TIMEOUT);
        FallbackLayer::new(FallbackConfig::default(), backup).protocol(verdict).layer(echo()).oneshot(broken())
    };
    assert_eq!(ask("good").await, Ok("good"));
    for told in ["bad", "fail"] {
        assert_eq!(ask(told).await, broken().0, "{told}");
    }
    let begun = tokio::time::Instant::now();
    assert_eq!(ask("hang").await, broken().0);
    assert_eq!(begun.elapsed(), backup::DEFAULT_TIMEOUT);
}

/// Ready on the second poll, and never called before.
#[derive(Clone, Default)]
struct Slow {
    polls: u32,
}

impl Service<()> for Slow {
    type Response = &'static str;
    type Error = Infallible;
    type Future = std::future::Ready<Result<&'static str, Infallible>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        self.polls += 1;
        cx.waker().wake_by_ref();
        if self.polls < 2 { std::task::Poll::Pending } else { std::task::Poll::Ready(Ok(())) }
    }
    fn call(&mut self, (): ()) -> Self::Future {
        assert_eq!(self.polls, 2);
        ready(Ok("ready"))
    }
}

#[tokio::test]
async fn another_service_is_called_when_it_is_ready() {
    let backup = backup::service(|_: &Ask| (), Slow::default(), Duration::from_secs(1));
    let service = FallbackLayer::new(FallbackConfig::default(), backup).layer(echo());
    assert_eq!(service.oneshot(broken()).await, Ok("ready"));
}

#[tokio::test]
async fn modes_are_an_operators_word() {
    let kept = Arc::new(AtomicU32::new(0));
    let called = Arc::new(AtomicU32::new(0));
    let keep = kept.clone();
    let backup = backup::from_fn(
        move |ask: &Ask| {
            keep.fetch_add(1, SeqCst);
            ask.0.is_ok()
        },
        |was_good, cause: &Cause| was_good.then(|| cause.as_str()),
    );
    let layer = FallbackLayer::new(FallbackConfig::default(), backup);
    let fallback = layer.handle();
    let count = called.clone();
    let service = layer.layer(service_fn(move |ask: Ask| {
        count.fetch_add(1, SeqCst);
        ready(ask.0)
    }));

    fallback.set_mode(Mode::Disabled).unwrap();
    assert_eq!(service.clone().oneshot(broken()).await, broken().0);
    assert_eq!((kept.load(SeqCst), called.load(SeqCst)), (0, 1), "nothing is kept");

    fallback.set_mode(Mode::OBSERVE_ONLY).unwrap();
    assert_eq!(service.clone().oneshot(broken()).await, broken().0);
    assert_eq!((fallback.snapshot().observed_total, fallback.snapshot().answered_total()), (1, 0));

    fallback.set_mode(Mode::ForcedOpen).unwrap();
    assert_eq!(service.clone().oneshot(Ask(Ok("good"))).await, Ok("switched_off"));
    let off = Error::Rejected(Rejection::new(Reason::SwitchedOff, "fallback"));
    assert_eq!(service.clone().oneshot(broken()).await, Err(off), "where the backup has nothing");
    assert_eq!(called.load(SeqCst), 2, "maintenance: nothing is called");
    assert_eq!((fallback.snapshot().switched_total, fallback.snapshot().failed_total), (1, 1));

    fallback.set_mode(Mode::Auto).unwrap();
    assert_eq!(service.oneshot(Ask(Ok("good"))).await, Ok("good"));
}

/// What a response holds.
struct Held(Arc<()>);

#[tokio::test]
async fn a_response_that_is_thrown_away_is_gone_before_the_answer_is_there() {
    let holds = Arc::new(());
    let unwanted = |res: Result<&Held, &BoxError>| res.is_ok_and(|held| Arc::strong_count(&held.0) > 1);
    let own = holds.clone();
    let inner = service_fn(move |()| ready(Ok::<_, BoxError>(Held(own.clone()))));
    let apart =
        backup::from_async(|(): &()| (), |(), _| async { Ok::<_, Lost>(Held(Arc::new(()))) }, Duration::from_secs(1));
    let service = FallbackLayer::new(FallbackConfig::default(), apart).when(unwanted).layer(inner.clone());
    let before = Arc::strong_count(&holds);
    let answer = service.clone().oneshot(()).await.unwrap();
    assert!(!Arc::ptr_eq(&answer.0, &holds));
    assert_eq!(Arc::strong_count(&holds), before);

    // Where there is no answer, it is what goes on.
    let late = backup::from_async(|(): &()| (), |(), _| pending::<Result<Held, Lost>>(), Duration::from_millis(1));
    let service = FallbackLayer::new(FallbackConfig::default(), late).when(unwanted).layer(inner);
    let answer = service.clone().oneshot(()).await.unwrap();
    assert!(Arc::ptr_eq(&answer.0, &holds));
    // A call that is dropped while the backup is asked holds nothing either.
    drop(answer);
    let before = Arc::strong_count(&holds);
    let mut call = Box::pin(service.clone().oneshot(()));
    let waker = std::task::Waker::noop();
    assert!(call.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    assert_eq!(Arc::strong_count(&holds), before + 1);
    drop(call);
    assert_eq!(Arc::strong_count(&holds), before);
}

#[tokio::test]
async fn layers_and_clones_share_one_handle_and_fresh_ones_do_not() {
    let layer = FallbackLayer::new(FallbackConfig::default(), backup::value("instead"));
    let (a, b) = (layer.layer(echo()), layer.clone().layer(echo()));
    let fresh = layer.fresh();
    for service in [a.clone(), a, b, fresh.layer(echo())] {
        service.oneshot(broken()).await.unwrap();
    }
    assert_eq!((layer.handle().snapshot().failure_total, fresh.handle().snapshot().failure_total), (3, 1));
}

#[tokio::test]
async fn a_backup_may_be_there_or_not() {
    for backup in [Some(backup::value("instead")), None] {
        let expected = if backup.is_some() { Ok("instead") } else { broken().0 };
        let service = FallbackLayer::new(FallbackConfig::default(), backup).layer(echo());
        assert_eq!(service.oneshot(broken()).await, expected);
    }
}

#[test]
fn an_opaque_call_is_judged_once_and_means_what_it_says() {
    let call = Protocol::<()>::start(&Opaque::new(), &());
    let verdict = Call::<u8, Error<Lost>>::judge(&call, Err(&Error::Inner(Lost)));
    let fallback = FallbackConfig::default().build().unwrap();
    assert_eq!(fallback.decide(&verdict), Some(Cause::Failure));
    assert_eq!(fallback.snapshot().answered_total(), 0, "nothing is counted");
}

#[cfg(feature = "serde")]
#[test]
fn triggers_are_written_as_a_list_of_names() {
    let config: FallbackConfig = serde_json::from_str(r#"{"on": ["refused", "overload"], "name": "reviews"}"#).unwrap();
    assert_eq!(config, FallbackConfig::default().on([Trigger::Overload, Trigger::Refused]).name("reviews"));
    assert_eq!(serde_json::to_value(&config).unwrap()["on"], serde_json::json!(["refused", "overload"]));
    let error = serde_json::from_str::<FallbackConfig>(r#"{"on": ["errors"]}"#).unwrap_err();
    assert!(error.to_string().contains("`refused`, `failure`, `overload`"), "{error}");
    assert_eq!(serde_json::from_str::<FallbackConfig>("{}").unwrap(), FallbackConfig::default());
}
