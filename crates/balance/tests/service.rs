//! What a call meets on its way to an endpoint, on a paused clock.

use buttress_balance::{Balance, BalanceConfig, Endpoint};
use buttress_core::{
    BoxError, Clock, Handle, Mode, Outcome, Reason, Rejection, Signal, TokioClock, Tried,
    http::{HttpClient, HttpGateway},
};
use buttress_sim::{Latch, Readiness, Script, pauses, poll_once};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use std::{task::Poll, time::Duration};
use tower::ServiceExt;
use tower_service::Service;

type Echo = Script<u64, &'static str>;

/// A service that answers with its name.
fn echo(name: &'static str) -> Echo {
    Script::new(move |_| async move { Ok(name) })
}

fn over<const N: usize>(endpoints: [(&'static str, &Echo); N]) -> Balance<Echo> {
    let endpoints = endpoints.map(|(name, script)| Endpoint::new(name, script.clone()));
    BalanceConfig::default().seed(1).endpoints(endpoints).unwrap()
}

fn signal() -> Signal {
    Signal::new(TokioClock.now())
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn refusal(answer: Result<&'static str, BoxError>) -> Rejection {
    Rejection::find(&*answer.unwrap_err()).expect("a refusal")
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_whatever_its_endpoints_are_and_a_call_goes_to_one_that_is() {
    let (busy, idle) = (echo("busy").readiness(Readiness::Never), echo("idle"));
    let balance = over([("busy", &busy), ("idle", &idle)]);
    for _ in 0..50 {
        assert_eq!(balance.clone().oneshot(0).await.unwrap(), "idle");
    }
    let seen = balance.handle().snapshot();
    assert_eq!((seen.picks_total, seen.in_flight, seen.waited_total), (50, 0, 0));
    assert!(seen.endpoint("busy").unwrap().skipped_total > 0);
    assert_eq!(seen.endpoint("busy").unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn with_nobody_ready_a_call_waits_for_any_and_is_polled_only_when_one_is() {
    let (a, b) = (echo("a").readiness(Readiness::Never), echo("b").readiness(Readiness::Never));
    let mut balance = over([("a", &a), ("b", &b)]);
    let call = balance.ready().await.unwrap().call(0);
    let mut call = watched(call);
    assert!(call.poll().is_pending());
    assert!(!call.is_woken(), "no busy spin");
    assert_eq!(balance.handle().snapshot().waited_total, 1);
    assert_eq!(waiting(&balance), 2);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(!call.is_woken());
    b.set(Readiness::Ready);
    assert!(call.is_woken());
    assert!(matches!(call.poll(), Poll::Ready(Ok("b"))));
    assert_eq!((waiting(&balance), a.probe().calls(), b.probe().calls()), (0, 0, 1));
}

/// Calls that wait for an endpoint, over all of them.
fn waiting<S, P>(balance: &Balance<S, P>) -> u64 {
    balance.handle().snapshot().endpoints.iter().map(|endpoint| endpoint.waiting).sum()
}

/// A future with a waker that counts.
struct Task<F> {
    future: std::pin::Pin<Box<F>>,
    woken: std::sync::Arc<Woken>,
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

fn watched<F: Future>(future: F) -> Task<F> {
    Task { future: Box::pin(future), woken: Default::default() }
}

impl<F: Future> Task<F> {
    fn poll(&mut self) -> Poll<F::Output> {
        self.woken.0.store(false, std::sync::atomic::Ordering::SeqCst);
        let waker = self.woken.clone().into();
        self.future.as_mut().poll(&mut std::task::Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_ready_is_found_among_many_that_hang() {
    // The ones that hang have nothing in flight: by load they look best.
    let stuck = echo("stuck").readiness(Readiness::Never);
    let fine: Echo = Script::new(async |_| {
        tokio::time::sleep(ms(10)).await;
        Ok("fine")
    });
    let mut endpoints: Vec<_> = (0..30).map(|i| Endpoint::new(format!("stuck {i}"), stuck.clone())).collect();
    endpoints.push(Endpoint::new("fine", fine));
    let balance = BalanceConfig::default().seed(1).endpoints(endpoints).unwrap();
    let calls: Vec<_> = (0..20).map(|n| tokio::spawn(balance.clone().oneshot(n))).collect();
    for call in calls {
        assert_eq!(tokio::time::timeout(ms(100), call).await.expect("it hangs").unwrap().unwrap(), "fine");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_asks_so_many_by_load_then_every_other_and_waits_for_all_of_them() {
    let stuck = echo("stuck").readiness(Readiness::Never);
    let endpoints: Vec<_> = (0..10).map(|i| Endpoint::new(format!("{i}"), stuck.clone())).collect();
    let balance = BalanceConfig::default().picks(3).endpoints(endpoints).unwrap();
    let mut call = watched(balance.clone().oneshot(0));
    assert!(call.poll().is_pending());
    assert_eq!(waiting(&balance), 10);
    assert_eq!(balance.handle().snapshot().skipped_total, 10);
    drop(call);
    assert_eq!(waiting(&balance), 0);
}

#[tokio::test(start_paused = true)]
async fn an_open_endpoint_gets_no_calls_until_its_probe_is_due() {
    let (a, b, open) = (echo("a"), echo("b"), signal());
    let endpoints =
        [Endpoint::new("a", a.clone()).signal(signal()).signal(open.clone()), Endpoint::new("b", b.clone())];
    let balance = BalanceConfig::default().endpoints(endpoints).unwrap();
    open.raise(Signal::OPEN, Some(TokioClock.now() + ms(5_000)));
    for _ in 0..100 {
        assert_eq!(balance.clone().oneshot(0).await.unwrap(), "b");
    }
    tokio::time::advance(ms(5_000)).await;
    let probe = balance.clone().oneshot(0).await.unwrap();
    assert_eq!(probe, "a", "an open circuit stays so until a call comes");
    open.clear(Signal::OPEN);
    for _ in 0..100 {
        balance.clone().oneshot(0).await.unwrap();
    }
    assert!((30..70).contains(&a.probe().calls()), "{}", a.probe().calls());
}

#[tokio::test(start_paused = true)]
async fn all_open_is_a_refusal_at_once_that_names_the_earliest_probe() {
    let now = TokioClock.now();
    let signals = [signal(), signal()];
    signals[0].raise(Signal::OPEN, Some(now + ms(4_000)));
    signals[1].raise(Signal::EJECTED, Some(now + ms(1_500)));
    let script = echo("never");
    let endpoints =
        signals.iter().enumerate().map(|(i, s)| Endpoint::new(format!("{i}"), script.clone()).signal(s.clone()));
    let balance = Balance::new(endpoints).unwrap();
    let refused = refusal(balance.clone().oneshot(0).await);
    assert_eq!((refused.reason, refused.layer, refused.retry_after), (Reason::BreakerOpen, "balance", Some(ms(1_500))));
    assert_eq!(TokioClock.now(), now, "at once");
    assert_eq!((script.probe().calls(), balance.handle().snapshot().refused_total), (0, 1));
    assert_eq!(balance.handle().snapshot().shut(), 2);
    // An operator who only observes sends them all the same.
    balance.handle().set_mode(Mode::OBSERVE_ONLY).unwrap();
    assert_eq!(balance.clone().oneshot(0).await.unwrap(), "never");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_an_endpoint_that_opens_is_refused_when_it_is_woken() {
    let (stuck, open) = (echo("stuck").readiness(Readiness::Never), signal());
    let balance = Balance::new([Endpoint::new("a", stuck.clone()).signal(open.clone())]).unwrap();
    let mut call = watched(balance.clone().oneshot(0));
    assert!(call.poll().is_pending());
    // A breaker raises its signal, and wakes who is parked on it.
    open.raise(Signal::OPEN, Some(TokioClock.now() + ms(10)));
    stuck.set(Readiness::Never);
    assert!(call.is_woken());
    let Poll::Ready(answer) = call.poll() else { panic!("it hangs") };
    assert_eq!(refusal(answer).retry_after, Some(ms(10)));
    assert_eq!(stuck.probe().calls(), 0);
}

/// HTTP requests carry a context.
type Web = Script<Request<String>, Response<String>>;

fn web(name: &'static str) -> Web {
    Script::new(move |_| async move { Ok(Response::new(name.to_owned())) })
}

/// One attempt of a call, as a retry makes it.
async fn attempt<F: Future>(tried: &mut Tried, call: F) -> F::Output {
    let mut call = std::pin::pin!(call);
    let output = std::future::poll_fn(|cx| tried.scope(|| call.as_mut().poll(cx))).await;
    tried.turn();
    output
}

fn request() -> Request<String> {
    Request::new(String::new())
}

#[tokio::test(start_paused = true)]
async fn attempts_of_one_call_go_to_different_endpoints_and_then_round_again() {
    let scripts = ["a", "b", "c"].map(web);
    let endpoints = scripts.iter().zip(["a", "b", "c"]).map(|(script, name)| Endpoint::new(name, script.clone()));
    let balance = Balance::new(endpoints).unwrap().protocol(HttpClient::new());
    for _ in 0..100 {
        let mut tried = Tried::new();
        for n in 1..=3 {
            attempt(&mut tried, balance.clone().oneshot(request())).await.unwrap();
            assert_eq!(tried.endpoints().len(), n, "each of them somewhere else");
        }
        attempt(&mut tried, balance.clone().oneshot(request())).await.unwrap();
        assert_eq!(tried.endpoints().len(), 3, "all were tried: one of them again, rather than none");
    }
    assert_eq!(scripts.iter().map(|script| script.probe().calls()).sum::<u64>(), 400);
}

#[tokio::test(start_paused = true)]
async fn whichever_endpoint_becomes_ready_a_call_that_waits_is_told() {
    for ready in 0..10 {
        let scripts: Vec<_> = (0..10).map(|_| echo("it").readiness(Readiness::Never)).collect();
        let endpoints = scripts.iter().enumerate().map(|(i, script)| Endpoint::new(format!("{i}"), script.clone()));
        let balance = Balance::new(endpoints).unwrap();
        let mut call = watched(balance.clone().oneshot(0));
        assert!(call.poll().is_pending() && !call.is_woken());
        scripts[ready].set(Readiness::Ready);
        assert!(call.is_woken());
        assert!(matches!(call.poll(), Poll::Ready(Ok("it"))));
        assert_eq!((scripts[ready].probe().calls(), waiting(&balance)), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_looks_again_when_an_open_endpoint_is_due() {
    let (stuck, due) = (echo("stuck").readiness(Readiness::Never), echo("due"));
    for (until, waits) in [(Some(ms(300)), ms(300)), (Some(ms(60_000)), ms(5_000)), (None, ms(5_000))] {
        let (open, start) = (signal(), TokioClock.now());
        open.raise(Signal::OPEN, until.map(|until| start + until));
        let balance =
            Balance::new([Endpoint::new("a", stuck.clone()), Endpoint::new("b", due.clone()).signal(open.clone())]);
        let call = tokio::spawn(balance.unwrap().oneshot(0));
        // Somebody closes it by hand: a signal wakes nobody, but it is looked at.
        tokio::time::sleep(ms(4_500)).await;
        open.clear(Signal::OPEN);
        let answer = tokio::time::timeout(Duration::from_secs(60), async {
            let answer = call.await.unwrap().unwrap();
            (answer, TokioClock.now() - start)
        });
        let (answer, took) = answer.await.expect("it waits for ever");
        let took = if until == Some(ms(300)) { waits } else { took };
        assert!(answer == "due" && took <= waits + ms(510), "{until:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_due_endpoint_ends_the_wait_at_once() {
    let (stuck, due, open) = (echo("stuck").readiness(Readiness::Never), echo("due"), signal());
    let start = TokioClock.now();
    open.raise(Signal::OPEN, Some(start + ms(300)));
    let balance = Balance::new([Endpoint::new("a", stuck), Endpoint::new("b", due).signal(open)]).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(60), balance.oneshot(0)).await.expect("it waits for ever");
    assert_eq!(answer.unwrap(), "due");
    assert!(TokioClock.now() - start < ms(305), "{:?}", TokioClock.now() - start);
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_elsewhere_if_anybody_else_takes_calls_and_rather_back_than_wait() {
    let (failed, busy) = (web("failed"), web("busy"));
    let endpoints = [Endpoint::new("failed", failed.clone()), Endpoint::new("busy", busy.clone())];
    let balance = Balance::new(endpoints).unwrap().protocol(HttpClient::new());
    let again = || {
        let mut tried = Tried::new();
        tried.pick(balance.handle().snapshot().endpoint("failed").unwrap().id, true);
        tried.turn();
        tried
    };
    for _ in 0..50 {
        attempt(&mut again(), balance.clone().oneshot(request())).await.unwrap();
    }
    assert_eq!((failed.probe().calls(), busy.probe().calls()), (0, 50));
    busy.set(Readiness::Never);
    for _ in 0..50 {
        attempt(&mut again(), balance.clone().oneshot(request())).await.unwrap();
    }
    assert_eq!((failed.probe().calls(), waiting(&balance)), (50, 0));
    // Neither is ready: whichever is first.
    failed.set(Readiness::Never);
    let (mut call, mut tried) = (watched(balance.clone().oneshot(request())), again());
    assert!(tried.scope(|| call.poll()).is_pending());
    failed.set(Readiness::Ready);
    assert!(call.is_woken() && tried.scope(|| call.poll()).is_ready());
    // Where the other one is open, the first is better than nothing.
    let open = signal();
    open.raise(Signal::OPEN, None);
    balance.endpoints().insert(Endpoint::new("busy", busy).signal(open));
    attempt(&mut again(), balance.clone().oneshot(request())).await.unwrap();
    assert_eq!(failed.probe().calls(), 52);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_knows_whether_the_next_one_could_go_elsewhere() {
    let open = signal();
    let pick = async |endpoints: &[&'static str]| {
        let endpoints = endpoints.iter().map(|name| {
            let endpoint = Endpoint::new(*name, echo("it"));
            if *name == "open" { endpoint.signal(open.clone()) } else { endpoint }
        });
        let (balance, mut tried) = (Balance::new(endpoints).unwrap(), Tried::new());
        let mut said = Vec::new();
        for _ in 0..2 {
            tried.scope(|| watched(balance.clone().oneshot(0)).poll().is_ready());
            said.push(tried.has_picked_another());
            tried.turn();
        }
        said
    };
    open.raise(Signal::OPEN, None);
    assert_eq!(pick(&["only"]).await, [false, false]);
    assert_eq!(pick(&["a", "open"]).await, [false, false]);
    assert_eq!(pick(&["a", "b"]).await, [true, false]);
    assert_eq!(pick(&["a", "b", "c"]).await, [true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_endpoint_is_no_way_out_while_good_ones_are_busy_unless_they_are_for_long() {
    let (bad, busy) = (Script::new(async |_| Err::<&str, BoxError>("bad".into())), echo("busy"));
    let balance = over([("bad", &bad)]);
    for _ in 0..3 {
        balance.clone().oneshot(0).await.unwrap_err();
    }
    balance.endpoints().insert(Endpoint::new("busy", busy.clone()));
    let calls = bad.probe().calls();
    busy.set(Readiness::Never);
    let mut call = watched(balance.clone().oneshot(0));
    assert!(call.poll().is_pending() && bad.probe().calls() == calls);
    busy.set(Readiness::Ready);
    assert!(call.is_woken() && matches!(call.poll(), Poll::Ready(Ok("busy"))));
    busy.set(Readiness::Never);
    let start = TokioClock.now();
    let calls = (0..20).map(|_| tokio::spawn(balance.clone().oneshot(0)));
    for call in calls.collect::<Vec<_>>() {
        let answer = tokio::time::timeout(ms(10_000), call).await.expect("it waits for ever");
        assert!(answer.unwrap().is_err());
    }
    // What a failure costs.
    assert!(TokioClock.now() - start < ms(5_010), "{:?}", TokioClock.now() - start);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_own_layers_refuse_does_not_look_idle() {
    for (reason, most) in [(Reason::BreakerOpen, 20), (Reason::AtCapacity, 40)] {
        let refusing = Script::new(move |_| async move {
            Err::<u64, BoxError>(buttress_core::Error::<std::io::Error>::Rejected(Rejection::new(reason, "x")).into())
        });
        let fine = Script::new(async |n: u64| {
            tokio::time::sleep(ms(20)).await;
            Ok::<_, BoxError>(n)
        });
        let endpoints = [("refusing", &refusing), ("b", &fine), ("c", &fine)];
        let balance = Balance::new(endpoints.map(|(name, script)| Endpoint::new(name, script.clone()))).unwrap();
        for n in 0..10_000 {
            tokio::spawn(balance.clone().oneshot(n));
            tokio::time::sleep(ms(1)).await;
        }
        assert!(refusing.probe().calls() <= most, "{reason:?}: {}", refusing.probe().calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_a_response_does_not_make_an_endpoint_look_idle_either() {
    for (reason, most) in [(Reason::BreakerOpen, 20), (Reason::AtCapacity, 40)] {
        let refusing = Script::new(move |_: Request<()>| async move {
            let mut refusal = Response::new(Full::<Bytes>::from("no"));
            *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            refusal.extensions_mut().insert(Rejection::new(reason, "x"));
            Ok::<_, BoxError>(refusal)
        });
        let fine = Script::new(async |_: Request<()>| {
            tokio::time::sleep(ms(20)).await;
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("yes")))
        });
        let endpoints = [("refusing", &refusing), ("b", &fine), ("c", &fine)];
        let endpoints = endpoints.map(|(name, script)| Endpoint::new(name, script.clone()));
        let balance = Balance::new(endpoints).unwrap().protocol(HttpGateway::new("gw"));
        for _ in 0..10_000 {
            let call = balance.clone().oneshot(Request::new(()));
            tokio::spawn(async { call.await.unwrap().into_body().collect().await.unwrap() });
            tokio::time::sleep(ms(1)).await;
        }
        assert!(refusing.probe().calls() <= most, "{reason:?}: {}", refusing.probe().calls());
    }
}

#[tokio::test(start_paused = true)]
async fn one_whose_readiness_fails_is_passed_over_and_its_error_is_shown_only_if_all_fail() {
    let (broken, fine) = (echo("broken").readiness(Readiness::Fails), echo("fine"));
    let balance = over([("broken", &broken), ("fine", &fine)]);
    for _ in 0..20 {
        assert_eq!(balance.clone().oneshot(0).await.unwrap(), "fine");
    }
    let seen = balance.handle().snapshot();
    assert!(seen.endpoint("broken").unwrap().failures_total >= 1);
    assert!(seen.endpoint("broken").unwrap().failures_total < 10, "it counts as failing, and is avoided");
    fine.set(Readiness::Fails);
    let error = balance.clone().oneshot(0).await.unwrap_err();
    assert!(error.is::<buttress_sim::ReadinessError>(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_poll_leaves_nothing_behind() {
    for polls in 0..12 {
        let slow: Echo = Script::new(async |_| {
            pauses(3).await;
            Ok("slow")
        });
        let scripts = [slow.clone().readiness(Readiness::After(3)), slow];
        let balance = over([("a", &scripts[0]), ("b", &scripts[0])]);
        let mut call = boxed(balance.clone().oneshot(0));
        for _ in 0..polls {
            if poll_once(&mut call).await.is_ready() {
                break;
            }
        }
        drop(call);
        let seen = balance.handle().snapshot();
        assert_eq!((seen.in_flight, waiting(&balance)), (0, 0), "after {polls} polls");
        assert_eq!(scripts[0].probe().now(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_frees_the_call_and_counts_as_a_failure() {
    let broken: Echo = Script::new(async |_| panic!("inside"));
    let balance = over([("a", &broken)]);
    let call = tokio::spawn(balance.clone().oneshot(0));
    assert!(call.await.unwrap_err().is_panic());
    let seen = balance.handle().snapshot();
    assert_eq!((seen.in_flight, seen.failures_total), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_deadline_of_ours_cuts_off_is_a_failure() {
    let hung: Echo = Script::new(async |_| std::future::pending().await);
    let balance = over([("a", &hung)]);
    let mut call = watched(balance.clone().oneshot(0));
    assert!(call.poll().is_pending());
    tokio::time::advance(ms(7_000)).await;
    buttress_core::abandon(Outcome::Failure, || drop(call));
    let seen = balance.handle().snapshot();
    assert_eq!((seen.in_flight, seen.failures_total), (0, 1));
    assert!(seen.endpoints[0].latency.unwrap() >= ms(6_990), "longer than the penalty");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panicked_is_over_though_it_is_kept() {
    type Ask = fn(u64) -> std::future::Ready<Result<u64, BoxError>>;
    let in_call: Ask = |_| panic!("in call");
    let balance = Balance::new([Endpoint::new("a", tower::service_fn(in_call))]).unwrap();
    let mut call = Box::pin(balance.clone().oneshot(0));
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    }));
    assert!(polled.is_err());
    let seen = balance.handle().snapshot();
    assert_eq!((seen.in_flight, seen.failures_total), (0, 1));
    drop(call);
    assert_eq!(balance.handle().snapshot().failures_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_whose_calls_are_given_up_does_not_look_fast() {
    let slow: Echo = Script::new(async |_| std::future::pending().await);
    let fast: Echo = Script::new(async |_| {
        tokio::time::sleep(ms(5)).await;
        Ok("fast")
    });
    let balance = over([("slow", &slow), ("fast", &fast)]);
    for _ in 0..200 {
        let _ = tokio::time::timeout(ms(500), balance.clone().oneshot(0)).await;
    }
    let seen = balance.handle().snapshot();
    let slow = seen.endpoint("slow").unwrap();
    assert!(slow.picks_total < 5, "{slow:?}");
    assert!(slow.latency.unwrap() > ms(300), "{slow:?}");
    assert_eq!((slow.failures_total, slow.in_flight), (0, 0), "given up is no failure");
}

#[tokio::test(start_paused = true)]
async fn a_call_is_in_flight_to_the_end_of_its_body_and_its_latency_to_the_head() {
    use buttress_sim::{AnyBody, Frames};
    let script: Script<Request<AnyBody>, Response<AnyBody>> = Script::new(async |_| {
        tokio::time::sleep(ms(20)).await;
        Ok(Response::new(Frames::new().data("a").wait(tokio::time::sleep(ms(900))).data("b").into()))
    });
    let balance = Balance::new([Endpoint::new("a", script)]).unwrap().protocol(HttpClient::new());
    let answer = balance.clone().oneshot(Request::new(AnyBody::default())).await.unwrap();
    assert_eq!(balance.handle().snapshot().in_flight, 1);
    http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    let seen = balance.handle().snapshot();
    assert_eq!(seen.in_flight, 0);
    let latency = seen.endpoints[0].latency.unwrap();
    assert!(latency >= ms(19) && latency < ms(23), "{latency:?}");
}

#[tokio::test(start_paused = true)]
async fn more_calls_in_flight_make_an_endpoint_the_second_choice() {
    let latch = Latch::new();
    let held = |name: &'static str| {
        let latch = latch.clone();
        Script::new(move |_| {
            let latch = latch.clone();
            async move {
                latch.wait().await;
                Ok(name)
            }
        })
    };
    let (a, b, c) = (held("a"), held("b"), held("c"));
    let balance = over([("a", &a), ("b", &b), ("c", &c)]);
    let calls: Vec<_> = (0..300).map(|n| tokio::spawn(balance.clone().oneshot(n))).collect();
    while balance.handle().snapshot().in_flight < 300 {
        tokio::task::yield_now().await;
    }
    for script in [&a, &b, &c] {
        assert!((95..=105).contains(&script.probe().now()), "{}", script.probe().now());
    }
    latch.open();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(balance.handle().snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn modes_refuse_all_or_take_everyone_in_turn() {
    let (a, b, open) = (echo("a"), echo("b"), signal());
    let balance = Balance::new([Endpoint::new("a", a.clone()).signal(open.clone()), Endpoint::new("b", b)]).unwrap();
    let handle = balance.handle();
    handle.set_mode(Mode::ForcedOpen).unwrap();
    let refused = refusal(balance.clone().oneshot(0).await);
    assert_eq!((refused.reason, refused.retry_after), (Reason::BreakerOpen, None));
    assert_eq!(a.probe().calls(), 0);
    handle.set_mode(Mode::Disabled).unwrap();
    open.raise(Signal::OPEN, None);
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(balance.clone().oneshot(0).await.unwrap());
    }
    assert_eq!(names, ["a", "b", "a", "b"]);
    assert!(handle.snapshot().endpoints.iter().all(|endpoint| endpoint.latency.is_none() && endpoint.picks_total == 2));
}

#[test]
fn endpoints_are_named_once_and_there_is_at_least_one() {
    let error = Balance::<Echo>::new([]).unwrap_err();
    assert_eq!(error.to_string(), "`endpoints` is empty, allowed: at least one");
    let twice = ["a", "b", "a"].map(|name| Endpoint::new(name, echo(name)));
    let error = Balance::new(twice).unwrap_err();
    assert_eq!(error.to_string(), "`endpoints` is \"a\" twice, allowed: each name once");
}

/// A future whose type says no more than it must.
fn boxed<F: Future + Send + 'static>(future: F) -> std::pin::Pin<Box<dyn Future<Output = F::Output> + Send>> {
    Box::pin(future)
}

#[test]
fn many_threads_and_clones_leave_nothing_in_flight() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let scripts = ["a", "b", "c"].map(|name| -> Echo {
            Script::new(move |n| async move {
                pauses((n % 4) as u32).await;
                if n % 7 == 0 { Err("seven".into()) } else { Ok(name) }
            })
        });
        let balance = over([("a", &scripts[0]), ("b", &scripts[1]), ("c", &scripts[2])]);
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let balance = balance.clone();
                let spare = scripts[2].clone();
                tokio::spawn(async move {
                    for n in 0..2_000 {
                        let mut call = boxed(balance.clone().oneshot(n + task));
                        if n % 5 == 0 {
                            let _ = poll_once(&mut call).await;
                        } else {
                            let _ = call.await;
                        }
                        if task == 0 && n % 50 == 0 {
                            balance.endpoints().insert(Endpoint::new("c", spare.clone()));
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let seen = balance.handle().snapshot();
        assert_eq!((seen.in_flight, seen.leaving, waiting(&balance)), (0, 0, 0));
        let calls = scripts.iter().map(|script| script.probe().calls()).sum::<u64>();
        assert_eq!((seen.picks_total, calls), (16_000, 16_000));
    });
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_not_slow_because_its_caller_s_client_is() {
    use buttress_core::http::UploadBody;
    use buttress_sim::{AnyBody, Frames, any};
    type Req = Request<UploadBody<AnyBody>>;
    let script = Script::new(async |req: Req| {
        let _ = http_body_util::BodyExt::collect(req.into_body()).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok::<_, BoxError>(Response::new(String::new()))
    });
    let balance = Balance::new([Endpoint::new("a", script)]).unwrap().protocol(HttpClient::new());
    let body = Frames::new().wait(tokio::time::sleep(Duration::from_secs(60))).data("late");
    let req = UploadBody::track(Request::post("/").body(any(body)).unwrap());
    balance.clone().oneshot(req).await.unwrap();
    assert_eq!(balance.handle().snapshot().endpoints[0].latency, Some(Duration::from_millis(5)));
}
