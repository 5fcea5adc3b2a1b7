//! Endpoints that come and go while calls run.

use buttress_balance::{Balance, BalanceConfig, Endpoint};
use buttress_core::{BoxError, Reason, Rejection};
use buttress_sim::{Latch, Readiness, Script};
use std::time::Duration;
use tower::ServiceExt;

type Echo = Script<u64, String>;

fn echo(name: &str) -> Echo {
    let name = name.to_owned();
    Script::new(move |_| {
        let name = name.clone();
        async move { Ok(name) }
    })
}

fn endpoint(name: &'static str) -> Endpoint<Echo> {
    Endpoint::new(name, echo(name))
}

async fn ask(balance: &Balance<Echo>) -> Result<String, BoxError> {
    tokio::time::timeout(Duration::from_secs(3600), balance.clone().oneshot(0)).await.expect("it hangs")
}

/// What a task came to, in bounded time.
async fn done<T>(task: tokio::task::JoinHandle<T>) -> T {
    tokio::time::timeout(Duration::from_secs(3600), task).await.expect("it hangs").unwrap()
}

fn reason(answer: Result<String, BoxError>) -> Reason {
    Rejection::find(&*answer.unwrap_err()).expect("a refusal").reason
}

fn empty() -> Balance<Echo> {
    Balance::empty(BalanceConfig::default().build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_the_first_endpoint_and_once_there_was_one_an_empty_balance_refuses() {
    let balance = empty();
    let early: Vec<_> = (0..3).map(|n| tokio::spawn(balance.clone().oneshot(n))).collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(early.iter().all(|call| !call.is_finished()));
    assert_eq!(balance.handle().snapshot().waited_total, 3);
    balance.endpoints().insert(endpoint("a"));
    for call in early {
        assert_eq!(done(call).await.unwrap(), "a");
    }
    assert!(balance.endpoints().remove("a") && !balance.endpoints().remove("a"));
    assert_eq!(reason(ask(&balance).await), Reason::NoEndpoint);
    assert_eq!(balance.handle().snapshot().refused_total, 1);
    balance.endpoints().insert(endpoint("b"));
    assert_eq!(ask(&balance).await.unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn somebody_says_that_there_is_none_and_who_waits_is_refused() {
    let balance = empty();
    let early = tokio::spawn(balance.clone().oneshot(0));
    tokio::task::yield_now().await;
    balance.endpoints().set([]);
    let answer = tokio::time::timeout(Duration::from_secs(1), early).await.expect("it hangs").unwrap();
    assert_eq!(reason(answer), Reason::NoEndpoint);
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_finishes_its_calls_and_gets_no_more() {
    let latch = Latch::new();
    let held: Echo = {
        let latch = latch.clone();
        Script::new(move |_| {
            let latch = latch.clone();
            async move {
                latch.wait().await;
                Ok("held".to_owned())
            }
        })
    };
    let balance = Balance::new([Endpoint::new("a", held.clone())]).unwrap();
    let call = tokio::spawn(balance.clone().oneshot(0));
    while held.probe().now() == 0 {
        tokio::task::yield_now().await;
    }
    balance.endpoints().set([endpoint("b")]);
    assert_eq!(format!("{:?}", balance.endpoints()), r#"["b"]"#);
    for _ in 0..20 {
        assert_eq!(ask(&balance).await.unwrap(), "b");
    }
    let seen = balance.handle().snapshot();
    assert_eq!((seen.in_flight, seen.leaving, seen.endpoints.len()), (1, 1, 1));
    latch.open();
    assert_eq!(done(call).await.unwrap(), "held");
    let seen = balance.handle().snapshot();
    assert_eq!((seen.in_flight, seen.leaving, seen.picks_total), (0, 0, 21));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_takes_the_endpoint_that_comes_and_lets_go_of_the_one_that_leaves() {
    let stuck = echo("stuck").readiness(Readiness::Never);
    let balance = Balance::new([Endpoint::new("stuck", stuck.clone())]).unwrap();
    let call = tokio::spawn(balance.clone().oneshot(0));
    while balance.handle().snapshot().waited_total == 0 {
        tokio::task::yield_now().await;
    }
    balance.endpoints().insert(endpoint("new"));
    assert_eq!(done(call).await.unwrap(), "new");
    // A waiting call whose endpoint leaves does not wait for it, nor take it.
    balance.endpoints().set([Endpoint::new("stuck", stuck.clone())]);
    let call = tokio::spawn(balance.clone().oneshot(0));
    while balance.handle().snapshot().waited_total == 1 {
        tokio::task::yield_now().await;
    }
    balance.endpoints().set([]);
    stuck.set(Readiness::Ready);
    assert_eq!(reason(done(call).await), Reason::NoEndpoint);
    assert_eq!(stuck.probe().calls(), 0);
}

#[tokio::test]
async fn a_service_may_change_the_endpoints_when_it_is_dropped() {
    struct Last(std::sync::Mutex<Option<buttress_balance::Endpoints<Guarded>>>);
    impl Drop for Last {
        fn drop(&mut self) {
            if let Some(endpoints) = self.0.lock().unwrap().take() {
                endpoints.insert(Endpoint::new("heir", Guarded(echo("heir"), std::sync::Arc::new(Last(None.into())))));
            }
        }
    }
    #[derive(Clone)]
    #[allow(dead_code, reason = "it is there to be dropped")]
    struct Guarded(Echo, std::sync::Arc<Last>);
    let last = std::sync::Arc::new(Last(None.into()));
    let balance = Balance::new([Endpoint::new("a", Guarded(echo("a"), last.clone()))]).unwrap();
    *last.0.lock().unwrap() = Some(balance.endpoints());
    drop(last);
    let endpoints = balance.endpoints();
    let removed = std::thread::spawn(move || endpoints.remove("a"));
    buttress_sim::eventually("the endpoint is gone", || removed.is_finished()).await;
    assert_eq!(format!("{:?}", balance.endpoints()), r#"["heir"]"#);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_replaced_starts_afresh() {
    let failing: Echo = Script::new(async |_| Err("fails".into()));
    let balance = Balance::new([Endpoint::new("a", failing)]).unwrap();
    for _ in 0..3 {
        ask(&balance).await.unwrap_err();
    }
    let id = balance.handle().snapshot().endpoint("a").unwrap().id;
    balance.endpoints().insert(endpoint("a"));
    let seen = balance.handle().snapshot();
    let a = seen.endpoint("a").unwrap();
    assert_eq!((a.latency, a.failures_total, a.id == id, seen.endpoints.len()), (None, 0, false, 1));
    assert_eq!((seen.failures_total, seen.picks_total), (3, 3));
    assert_eq!(ask(&balance).await.unwrap(), "a");
}

#[cfg(feature = "discover")]
mod stream {
    use super::*;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio_stream::wrappers::UnboundedReceiverStream;
    use tower::discover::Change;

    type Said = Result<Change<u32, Echo>, BoxError>;

    fn discovered() -> (Balance<Echo>, UnboundedSender<Said>) {
        let (say, changes) = unbounded_channel::<Said>();
        let changes = UnboundedReceiverStream::new(changes);
        let balance =
            BalanceConfig::default().discover(changes, |key, service| Endpoint::new(format!("{key}"), service));
        (balance.unwrap(), say)
    }

    async fn names(balance: &Balance<Echo>, wanted: &str) {
        for _ in 0..100 {
            if format!("{:?}", balance.endpoints()) == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{:?}, wanted {wanted}", balance.endpoints());
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_follow_a_stream_through_its_errors_and_stay_when_it_ends() {
        let (balance, say) = discovered();
        let early = tokio::spawn(balance.clone().oneshot(0));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!early.is_finished(), "the stream has said nothing yet");
        for key in 1..=3 {
            say.send(Ok(Change::Insert(key, echo("x")))).unwrap();
        }
        assert_eq!(done(early).await.unwrap(), "x");
        names(&balance, r#"["1", "2", "3"]"#).await;
        say.send(Ok(Change::Remove(2))).unwrap();
        say.send(Ok(Change::Remove(7))).unwrap();
        say.send(Err("the resolver is down".into())).unwrap();
        say.send(Ok(Change::Insert(4, echo("y")))).unwrap();
        names(&balance, r#"["1", "3", "4"]"#).await;
        assert_eq!(balance.handle().snapshot().discovery_errors_total, 1);
        drop(say);
        tokio::time::sleep(Duration::from_secs(5)).await;
        names(&balance, r#"["1", "3", "4"]"#).await;
        ask(&balance).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_ends_without_an_endpoint_makes_calls_fail_and_not_hang() {
        let (balance, say) = discovered();
        let early = tokio::spawn(balance.clone().oneshot(0));
        tokio::task::yield_now().await;
        drop(say);
        assert_eq!(reason(done(early).await), Reason::NoEndpoint);
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_is_read_on_for_a_call_that_outlives_its_balance() {
        let (balance, say) = discovered();
        // The last clone is gone as soon as it is called.
        let call = tokio::spawn(balance.oneshot(0));
        tokio::time::sleep(Duration::from_secs(1)).await;
        say.send(Ok(Change::Insert(1, echo("late")))).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(1), call).await.expect("it hangs");
        assert_eq!(answer.unwrap().unwrap(), "late");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(say.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_the_last_clone() {
        let (balance, say) = discovered();
        let other = balance.clone();
        drop(balance);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!say.is_closed());
        drop(other);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(say.is_closed(), "nobody reads the stream any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_errors_alone_leaves_time_for_others() {
        let errors = tokio_stream::iter(std::iter::repeat_with(|| Said::Err("down".into())));
        let balance = BalanceConfig::default().discover(errors, |_, service| Endpoint::new("", service)).unwrap();
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        let errors = balance.handle().snapshot().discovery_errors_total;
        assert!((1..10_000).contains(&errors), "{errors}");
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_come_and_go_while_calls_run_and_every_call_is_answered() {
        let (balance, say) = discovered();
        say.send(Ok(Change::Insert(0, echo("0")))).unwrap();
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let balance = balance.clone();
                tokio::spawn(async move {
                    for _ in 0..100 {
                        ask(&balance).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                })
            })
            .collect();
        for key in 1..100u32 {
            say.send(Ok(Change::Insert(key % 5, echo("x")))).unwrap();
            if key % 5 != 0 {
                say.send(Ok(Change::Remove((key + 2) % 4 + 1))).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for caller in callers {
            caller.await.unwrap();
        }
        let seen = balance.handle().snapshot();
        assert_eq!((seen.in_flight, seen.leaving, seen.picks_total, seen.refused_total), (0, 0, 5_000, 0));
    }
}

#[test]
fn ten_thousand_endpoints_are_set_in_no_time() {
    use buttress_core::{Clock, TokioClock};
    let all =
        |service: u64| (0..10_000).map(move |i| Endpoint::new(format!("10.0.{}.{}:80", i / 256, i % 256), service));
    let start = TokioClock.now();
    let balance = BalanceConfig::default().endpoints(all(0)).unwrap();
    balance.endpoints().set(all(1));
    balance.endpoints().set(all(2).skip(5_000));
    assert_eq!(balance.endpoints().len(), 5_000);
    // Each with each takes many times as long, optimised or not.
    let took = TokioClock.now() - start;
    assert!(took < Duration::from_secs(2), "{took:?}");
    balance.endpoints().insert(Endpoint::new("10.0.39.15:80", 3));
    assert!(balance.endpoints().remove("10.0.39.15:80"));
    assert_eq!(balance.endpoints().len(), 4_999);
}
