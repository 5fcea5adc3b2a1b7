//! Through tower, on a paused clock.

use super::{MS, S, consecutive};
use crate::{Admission, BreakerConfig, BreakerLayer, KeyedBreakerLayer, State};
use buttress_core::{
    Error, Handle, KeyedConfig, Mode, Outcome, Reason, Resting, Settle, Signal,
    http::{HttpServer, UploadBody},
};
use buttress_sim::{AnyBody, Frames, any};
use http_body_util::BodyExt;
use std::{
    convert::Infallible,
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

type Failure = Error<io::Error>;

/// `true` works, `false` fails.
async fn answer(good: bool) -> Result<u32, Failure> {
    if good { Ok(1) } else { Err(Error::Inner(io::Error::other("broken"))) }
}

fn layer(config: BreakerConfig) -> BreakerLayer {
    BreakerLayer::new(config.build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn it_opens_refuses_probes_and_closes() {
    let layer = layer(consecutive(2).close_after(1).probe_window(1));
    let handle = layer.handle();
    let service = ServiceBuilder::new().layer(layer).service(service_fn(answer));
    for _ in 0..2 {
        assert!(matches!(service.clone().oneshot(false).await, Err(Error::Inner(_))));
    }
    let refusal = *service.clone().oneshot(true).await.unwrap_err().rejection().unwrap();
    assert_eq!((refusal.reason, refusal.layer), (Reason::BreakerOpen, "breaker"));
    sleep(refusal.retry_after.unwrap()).await;
    assert_eq!(service.clone().oneshot(true).await.unwrap(), 1);
    let seen = handle.snapshot();
    assert_eq!((seen.state, seen.opened_total, seen.refused_total), (State::Closed, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn every_service_of_a_layer_shares_the_circuit_and_a_fresh_one_does_not() {
    let layer = layer(consecutive(1));
    let (a, b) = (layer.layer(service_fn(answer)), layer.layer(service_fn(answer)));
    let fresh = layer.fresh().layer(service_fn(answer));
    a.oneshot(false).await.unwrap_err();
    assert!(b.oneshot(true).await.unwrap_err().rejection().is_some());
    assert_eq!(fresh.oneshot(true).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn peer_07_calls_dropped_by_an_outer_deadline_open_it() {
    let layer = layer(BreakerConfig::default());
    let handle = layer.handle();
    let hung = layer.layer(service_fn(|()| pending::<Result<(), Failure>>()));
    let calls: Vec<_> = (0..1000).map(|_| tokio::spawn(timeout(6 * S, hung.clone().oneshot(())))).collect();
    for call in calls {
        assert!(call.await.unwrap().is_err());
    }
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn clients_that_give_up_soon_do_not_open_it() {
    let layer = layer(BreakerConfig::default().consecutive(5));
    let handle = layer.handle();
    let service = layer.layer(service_fn(|()| async {
        sleep(S).await;
        Ok::<(), Failure>(())
    }));
    for _ in 0..1000 {
        assert!(timeout(MS, service.clone().oneshot(())).await.is_err());
    }
    let seen = handle.snapshot();
    assert_eq!((seen.state, seen.calls, seen.in_flight), (State::Closed, 0, 0));
    service.oneshot(()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_any_number_of_polls_leaves_nothing() {
    for polls in 0..5 {
        let layer = layer(consecutive(1));
        let handle = layer.handle();
        let mut service = layer.layer(service_fn(|()| pending::<Result<(), Failure>>()));
        let mut cx = Context::from_waker(Waker::noop());
        let mut call = Box::pin(service.ready().await.unwrap().call(()));
        for _ in 0..polls {
            assert!(call.as_mut().poll(&mut cx).is_pending());
        }
        drop(call);
        let seen = handle.snapshot();
        assert_eq!((seen.in_flight, seen.calls, seen.state), (0, 0, State::Closed), "{polls} polls");
        assert_eq!(handle.shared.leased(), 0);
    }
}

/// Ready only when told.
#[derive(Clone, Default)]
struct Stubborn(Arc<AtomicBool>, Arc<AtomicUsize>);

impl Service<()> for Stubborn {
    type Response = ();
    type Error = Failure;
    type Future = std::future::Ready<Result<(), Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.1.fetch_add(1, SeqCst);
        if self.0.load(SeqCst) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(self.0.load(SeqCst), "called before it was ready");
        std::future::ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_parked_on_an_inner_service_is_woken_and_refused_when_it_opens() {
    let layer = layer(consecutive(1));
    let handle = layer.handle();
    let service = layer.layer(Stubborn::default());
    let parked = tokio::spawn(service.oneshot(()));
    sleep(MS).await;
    assert!(!parked.is_finished());
    let failing = handle.try_acquire().unwrap();
    failing.settle_at(Outcome::Failure, None, &buttress_core::TokioClock);
    let refused = timeout(S, parked).await.expect("woken").unwrap();
    assert!(refused.unwrap_err().rejection().is_some());
}

/// Not ready, and while it is asked the circuit opens.
struct Trips(Arc<crate::Breaker>);

impl Service<()> for Trips {
    type Response = ();
    type Error = Failure;
    type Future = std::future::Ready<Result<(), Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let _ = self.0.try_acquire().map(|permit| permit.settle(Outcome::Failure, None));
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        unreachable!("never ready")
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_woken_even_if_the_circuit_opens_while_it_parks() {
    let layer = layer(consecutive(1));
    let call = tokio::spawn(layer.layer(Trips(layer.handle())).oneshot(()));
    sleep(S).await;
    assert!(call.is_finished(), "woken by nobody");
    assert!(call.await.unwrap().unwrap_err().rejection().is_some());
}

#[tokio::test(start_paused = true)]
async fn open_it_does_not_ask_the_inner_service_and_keeps_its_word() {
    let layer = layer(consecutive(1));
    let handle = layer.handle();
    let inner = Stubborn::default();
    let mut service = layer.layer(inner.clone());
    handle.call(async { Err::<(), _>(()) }).await.unwrap_err();
    service.ready().await.unwrap();
    assert_eq!(inner.1.load(SeqCst), 0, "not asked");
    handle.reset();
    assert!(service.call(()).await.unwrap_err().rejection().is_some(), "refused although it has closed");
}

#[tokio::test(start_paused = true)]
async fn with_back_pressure_callers_wait_for_the_next_probe() {
    let layer = layer(consecutive(1).close_after(1).probe_window(1).admission(Admission::BackPressure));
    let handle = layer.handle();
    let service = layer.layer(service_fn(answer));
    service.clone().oneshot(false).await.unwrap_err();
    let wait = handle.snapshot().retry_in.unwrap();
    let waiting = tokio::spawn(service.clone().oneshot(true));
    sleep(wait - 2 * MS).await;
    assert!(!waiting.is_finished());
    sleep(4 * MS).await;
    assert!(waiting.is_finished());
    assert_eq!(waiting.await.unwrap().unwrap(), 1);

    service.clone().oneshot(false).await.unwrap_err();
    let waiting = tokio::spawn(service.clone().oneshot(true));
    sleep(MS).await;
    handle.reset();
    assert_eq!(timeout(MS, waiting).await.expect("a reset wakes them").unwrap().unwrap(), 1);

    handle.set_mode(Mode::ForcedOpen).unwrap();
    let waiting = tokio::spawn(service.clone().oneshot(true));
    sleep(MS).await;
    assert!(!waiting.is_finished());
    handle.set_mode(Mode::Auto).unwrap();
    assert_eq!(timeout(MS, waiting).await.expect("a mode wakes them").unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn observe_only_lets_calls_through_a_layer_and_counts_them_apart() {
    let layer = layer(consecutive(1));
    let handle = layer.handle();
    handle.set_mode(Mode::OBSERVE_ONLY).unwrap();
    let service = layer.layer(service_fn(answer));
    for _ in 0..5 {
        assert!(matches!(service.clone().oneshot(false).await, Err(Error::Inner(_))));
    }
    let seen = handle.snapshot();
    assert_eq!((seen.state, seen.let_through_total, seen.refused_total), (State::Open, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_circuit_and_only_a_resting_one_is_forgotten() {
    let circuits = KeyedConfig::new(1000).build(|(host, _): &(u32, bool)| *host, |_| consecutive(1).build().unwrap());
    let service = KeyedBreakerLayer::new(circuits.unwrap()).layer(service_fn(|(_, good)| answer(good)));
    service.clone().oneshot((1, false)).await.unwrap_err();
    assert!(service.clone().oneshot((1, true)).await.unwrap_err().rejection().is_some());
    assert_eq!(service.clone().oneshot((2, true)).await.unwrap(), 1);

    let breaker = consecutive(1).close_after(1).probe_window(1).build().unwrap();
    assert!(breaker.is_resting());
    let permit = breaker.try_acquire().unwrap();
    assert!(!breaker.is_resting(), "a call in flight");
    permit.settle(Outcome::Failure, None);
    assert!(!breaker.is_resting(), "open");
    sleep(5 * S).await;
    breaker.try_acquire().unwrap().settle(Outcome::Success, None);
    assert!(!breaker.is_resting(), "it knows how long to stay open next time");
    sleep(60 * S).await;
    assert!(breaker.is_resting());
    breaker.set_mode(Mode::Disabled).unwrap();
    assert!(!breaker.is_resting(), "an operator's word");
}

#[tokio::test(start_paused = true)]
async fn things_that_are_not_services_can_be_called_through_it() {
    let breaker = consecutive(2).build().unwrap();
    let lost = || async { Err::<Infallible, _>("lost") };
    assert_eq!(breaker.call(lost()).await, Err(Error::Inner("lost")));
    assert_eq!(breaker.call_with(lost(), |_| Outcome::Success).await, Err(Error::Inner("lost")));
    assert_eq!(breaker.snapshot().consecutive, 0, "judged a success");
    for _ in 0..2 {
        breaker.call(lost()).await.unwrap_err();
    }
    assert!(breaker.call(lost()).await.unwrap_err().rejection().is_some());
    assert!(breaker.signal().is(Signal::OPEN));

    let breaker = BreakerConfig::default().min_calls(1).build().unwrap();
    let call = timeout(6 * S, breaker.call(pending::<Result<(), ()>>()));
    assert!(call.await.is_err());
    assert_eq!(breaker.state(), State::Open, "a hung call");
}

#[tokio::test(start_paused = true)]
async fn peer_07_errors_of_inner_readiness_are_failures() {
    #[derive(Clone)]
    struct Broken;
    impl Service<bool> for Broken {
        type Response = u32;
        type Error = Failure;
        type Future = std::future::Ready<Result<u32, Failure>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
            Poll::Ready(Err(Error::Inner(io::Error::other("no connection"))))
        }
        fn call(&mut self, _: bool) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let layer = layer(consecutive(3));
    let handle = layer.handle();
    let service = layer.layer(Broken);
    for _ in 0..3 {
        assert!(matches!(service.clone().oneshot(true).await, Err(Error::Inner(_))));
    }
    assert_eq!(service.oneshot(true).await.unwrap_err().rejection().unwrap().reason, Reason::BreakerOpen);
    assert_eq!(handle.snapshot().state, State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_panic_that_somebody_catches_is_a_failure() {
    use futures_util::FutureExt;
    let layer = layer(consecutive(3));
    let handle = layer.handle();
    let service =
        layer.layer(service_fn(|_: bool| async { if true { panic!("on purpose") } else { answer(true).await } }));
    for _ in 0..3 {
        let call = std::panic::AssertUnwindSafe(service.clone().oneshot(true));
        assert!(call.catch_unwind().await.is_err());
    }
    assert_eq!(handle.snapshot().state, State::Open);
}

/// A request whose client sends its body so much later, or never.
fn upload(delay: Option<std::time::Duration>) -> http::Request<UploadBody<AnyBody>> {
    let frames = Frames::new().wait(async move {
        match delay {
            Some(delay) => sleep(delay).await,
            None => pending().await,
        }
    });
    UploadBody::track(http::Request::post("/").body(any(frames.data("late"))).unwrap())
}

/// Reads all of a request before it answers, after `work`.
fn reader(
    layer: BreakerLayer,
    work: std::time::Duration,
) -> impl Service<
    http::Request<UploadBody<AnyBody>>,
    Response = http::Response<impl http_body::Body>,
    Error = Infallible,
    Future: Send,
> + Clone {
    let read = move |req: http::Request<UploadBody<AnyBody>>| async move {
        // So it has been pending before it waits for its client.
        sleep(MS).await;
        let status = if req.into_body().collect().await.is_ok() { 200 } else { 400 };
        sleep(work).await;
        let res = http::Response::builder().status(status).body(http_body_util::Empty::<bytes::Bytes>::new());
        Ok::<_, Infallible>(res.unwrap())
    };
    layer.protocol(HttpServer::new()).layer(service_fn(read))
}

#[tokio::test(start_paused = true)]
async fn slow_uploads_do_not_open_it() {
    let layer = layer(BreakerConfig::default().consecutive(5).slow_after(S).slow_rate(0.5).hang_after(5 * S));
    let handle = layer.handle();
    let service = reader(layer, MS);
    let slow = (0..50).map(|_| tokio::spawn(timeout(60 * S, service.clone().oneshot(upload(Some(20 * S))))));
    let stalled = (0..50).map(|_| tokio::spawn(timeout(60 * S, service.clone().oneshot(upload(None)))));
    let (slow, stalled): (Vec<_>, Vec<_>) = (slow.collect(), stalled.collect());
    sleep(10 * S).await;
    assert_eq!(handle.snapshot().in_flight, 0, "nobody waits for the service");
    for call in slow {
        assert_eq!(call.await.unwrap().unwrap().unwrap().status(), 200);
    }
    for call in stalled {
        assert!(call.await.unwrap().is_err());
    }
    let seen = handle.snapshot();
    assert_eq!((seen.state, seen.opened_total, seen.failures), (State::Closed, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_after_a_slow_upload_does_open_it() {
    let layer = layer(BreakerConfig::default().consecutive(5).hang_after(5 * S));
    let handle = layer.handle();
    let service = reader(layer, 3600 * S);
    let calls: Vec<_> = (0..10).map(|_| tokio::spawn(service.clone().oneshot(upload(Some(20 * S))))).collect();
    sleep(24 * S).await;
    assert_eq!(handle.state(), State::Closed, "it has had the word for 4 s");
    sleep(4 * S).await;
    assert_eq!((handle.snapshot().state, handle.state()), (State::Open, State::Open));
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_waits_for_its_client_keeps_nobody_from_probing_and_its_outcome_counts() {
    let layer = layer(consecutive(1).probes(1).close_after(1).probe_window(1).hang_after(5 * S));
    let handle = layer.handle();
    let service = reader(layer, 30 * S);
    let reopen = async || {
        handle.reset();
        handle.try_acquire().unwrap().settle(Outcome::Failure, None);
        sleep(handle.snapshot().retry_in.unwrap() + MS).await;
        let probe = tokio::spawn(timeout(20 * S, service.clone().oneshot(upload(Some(10 * S)))));
        sleep(S).await;
        assert_eq!(handle.state(), State::HalfOpen);
        [probe]
    };
    let [first] = reopen().await;
    handle.try_acquire().expect("the place of the one that waits").settle(Outcome::Success, None);
    assert_eq!(handle.state(), State::Closed);
    first.abort();
    // The same, but the service hangs once it has all.
    let [second] = reopen().await;
    assert!(second.await.unwrap().is_err(), "given up 10 s after the upload");
    assert_eq!(handle.state(), State::Open);
}
