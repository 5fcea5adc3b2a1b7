//! The layer in front of services, under a paused clock.
use buttress_core::{Context as CallContext, Deadline, Error, Handle, KeyedConfig, Mode, Priority, Reason, TokioClock};
use buttress_shed::{Algorithm, Ask, KeyedShedLayer, QueueConfig, ShedConfig, ShedLayer};
use std::{
    future::{Future, pending},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};

type Refusable = Error<std::io::Error>;
type Running = Pin<Box<dyn Future<Output = Result<u64, Refusable>> + Send>>;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config(limit: u32, max: u32) -> ShedConfig {
    ShedConfig::default().limit(Algorithm::Fixed(limit)).queue(QueueConfig::default().max(max)).seed(1)
}

fn layer(limit: u32, max: u32) -> ShedLayer {
    config(limit, max).layer().unwrap()
}

/// Takes `call` milliseconds, and says so.
fn sleeper() -> impl Service<u64, Response = u64, Error = Refusable, Future: Send> + Clone + Send + 'static {
    service_fn(|call: u64| async move {
        sleep(ms(call)).await;
        Ok(call)
    })
}

fn reason<T>(result: Result<T, Refusable>) -> Option<Reason> {
    match result {
        Ok(_) => None,
        Err(Error::Rejected(rejection)) => Some(rejection.reason),
        Err(other) => panic!("{other}"),
    }
}

fn poll<F: Future + ?Sized>(call: &mut Pin<Box<F>>) -> Poll<F::Output> {
    call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_room_and_goes_as_soon_as_there_is_some() {
    let layer = layer(1, 10);
    let handle = layer.handle();
    let service = layer.layer(sleeper());
    let start = Instant::now();
    let calls = [service.clone().oneshot(50), service.clone().oneshot(20)].map(tokio::spawn);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().queued), (1, 1));
    for call in calls {
        assert_eq!(reason(call.await.unwrap()), None);
    }
    assert_eq!(start.elapsed().as_millis(), 70);
    assert_eq!((handle.snapshot().admitted_total, handle.snapshot().shed_total()), (2, 0));
}

#[derive(Clone, Copy)]
struct Job {
    priority: Priority,
    tenant: u64,
    deadline: Option<Deadline>,
}

impl Job {
    fn of(priority: Priority) -> Self {
        Self { priority, tenant: 0, deadline: None }
    }

    fn ask(&self) -> Ask {
        let ask = Ask::new().priority(self.priority).tenant_hash(self.tenant);
        self.deadline.map_or(ask, |deadline| ask.deadline(deadline))
    }
}

/// Keeps jobs as they come, for 10 ms each.
fn recorder(
    seen: Arc<Mutex<Vec<Job>>>,
) -> impl Service<Job, Response = u64, Error = Refusable, Future: Send> + Clone + Send + 'static {
    service_fn(move |job: Job| {
        seen.lock().unwrap().push(job);
        async {
            sleep(ms(10)).await;
            Ok(0)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn the_more_important_go_first_and_push_others_out_of_a_full_queue() {
    use Priority::{Critical, Normal, Sheddable};
    let seen = Arc::default();
    let layer = config(1, 4).layer_by(Job::ask).unwrap();
    let handle = layer.handle();
    let service = layer.layer(recorder(Arc::clone(&seen)));
    let mut calls = Vec::new();
    for priority in [Normal, Sheddable, Normal, Sheddable, Normal, Critical, Critical, Sheddable] {
        let mut call: Running = Box::pin(service.clone().oneshot(Job::of(priority)));
        let polled = poll(&mut call);
        let pending = polled.is_pending();
        calls.push((pending.then(|| tokio::spawn(call)), polled));
    }
    // One runs; of the seven others four wait.
    let snapshot = handle.snapshot();
    assert_eq!(snapshot.queued, 4);
    assert_eq!(snapshot.class(Sheddable).queued + snapshot.class(Normal).queued + snapshot.class(Critical).queued, 4);
    assert_eq!((snapshot.class(Critical).queued, snapshot.class(Normal).queued), (2, 2));
    let mut refused = 0;
    for (call, polled) in calls {
        let result = match (polled, call) {
            (Poll::Ready(result), _) => result,
            (Poll::Pending, call) => call.unwrap().await.unwrap(),
        };
        refused += u32::from(reason(result) == Some(Reason::Shed));
    }
    assert_eq!(refused, 3);
    let order: Vec<_> = seen.lock().unwrap().iter().map(|job: &Job| job.priority).collect();
    assert_eq!(order, [Normal, Critical, Critical, Normal, Normal]);
    let sheddable = *handle.snapshot().class(Sheddable);
    assert_eq!((sheddable.pushed_out_total, sheddable.full_total, sheddable.shed_total()), (2, 1, 3));
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().shed_total()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_so_and_comes_back_later() {
    let layer = layer(1, 10);
    let handle = layer.handle();
    let service = layer.layer(sleeper());
    let start = Instant::now();
    let _runs = tokio::spawn(service.clone().oneshot(60_000));
    tokio::task::yield_now().await;
    let Err(Error::Rejected(refused)) = service.clone().oneshot(1).await else { panic!("it was served") };
    assert_eq!((refused.reason, refused.layer), (Reason::QueueTimeout, "shed"));
    assert!(refused.retry_after >= Some(ms(1_000)));
    assert!((ms(250)..=ms(251)).contains(&start.elapsed()));
    assert_eq!((handle.snapshot().class(Priority::Normal).waited_total, handle.snapshot().queued), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_says_whose_it_was_and_one_that_cannot_be_met_is_shed() {
    let layer = config(1, 10).layer_by(Job::ask).unwrap();
    let handle = layer.handle();
    let service = layer.layer(recorder(Arc::default()));
    let permit = handle.try_acquire().unwrap();
    let now = Instant::now().into_std();
    for (by_client, reason_) in [(false, Reason::DeadlinePassed), (true, Reason::ClientDeadlinePassed)] {
        let job = Job { deadline: Some(Deadline { at: now, by_client }), ..Job::of(Priority::Normal) };
        assert_eq!(reason(service.clone().oneshot(job).await), Some(reason_));
    }
    assert_eq!(handle.snapshot().class(Priority::Normal).deadline_total, 2);
    let start = Instant::now();
    let job = Job { deadline: Some(Deadline::new(now + ms(100))), ..Job::of(Priority::Normal) };
    assert_eq!(reason(service.clone().oneshot(job).await), Some(Reason::QueueTimeout));
    assert!((ms(60)..=ms(61)).contains(&start.elapsed()), "three fifths of the time it had");
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn the_context_of_a_request_says_how_important_it_is_and_how_much_time_it_has() {
    use buttress_core::http::HttpClient;
    type Request = http::Request<()>;
    let layer = layer(1, 2).protocol(HttpClient::new());
    let handle = layer.handle();
    let service = layer.layer(service_fn(|_: Request| async {
        sleep(ms(10)).await;
        Ok::<_, Refusable>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
    }));
    let request = |priority, deadline: Option<Deadline>| {
        let mut request = Request::new(());
        let context = CallContext::of_mut(request.extensions_mut());
        (context.priority, context.deadline) = (priority, deadline);
        request
    };
    let _permit = handle.try_acquire().unwrap();
    let calls: Vec<_> = [Priority::Sheddable, Priority::Normal, Priority::Critical]
        .into_iter()
        .map(|priority| {
            let mut call = Box::pin(service.clone().oneshot(request(priority, None)));
            assert!(poll(&mut call).is_pending());
            call
        })
        .collect();
    let snapshot = handle.snapshot();
    assert_eq!(snapshot.class(Priority::Sheddable).pushed_out_total, 0, "it has not looked yet");
    assert_eq!((snapshot.class(Priority::Critical).queued, snapshot.class(Priority::Normal).queued), (1, 1));
    let late = Deadline { at: Instant::now().into_std(), by_client: true };
    let result = service.clone().oneshot(request(Priority::Critical, Some(late))).await;
    assert_eq!(reason(result), Some(Reason::ClientDeadlinePassed));
    drop(calls);
    assert_eq!((handle.snapshot().queued, handle.snapshot().class(Priority::Sheddable).pushed_out_total), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_any_number_of_polls_leaves_the_queue_and_its_permit() {
    for polls_before in 0..3 {
        for polls_after in 0..3 {
            let layer = layer(1, 2);
            let handle = layer.handle();
            let service = layer.layer(sleeper());
            let seen = || (handle.snapshot().in_flight, handle.snapshot().queued);
            let mut runs = Box::pin(service.clone().oneshot(10));
            let mut ready = service.clone();
            ready.ready().await.unwrap();
            assert!(poll(&mut runs).is_pending());
            let mut dropped = Box::pin(ready.call(10));
            let mut last = Box::pin(service.clone().oneshot(10));
            for _ in 0..polls_before {
                assert!(poll(&mut dropped).is_pending());
            }
            assert!(poll(&mut last).is_pending());
            assert_eq!(seen(), (1, 2));
            drop(runs);
            assert_eq!(seen(), (1, 1), "handed over");
            for _ in 0..polls_after {
                assert!(poll(&mut dropped).is_pending());
            }
            drop(dropped);
            assert_eq!(seen(), (1, 0), "and on to the last");
            assert_eq!(last.await.unwrap(), 10);
            assert_eq!(seen(), (0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_gives_everything_back() {
    let layer = layer(1, 10);
    let handle = layer.handle();
    let service = layer.layer(service_fn(|call: u64| async move {
        tokio::task::yield_now().await;
        if call == 0 {
            panic!("inside");
        }
        Ok::<_, Refusable>(call)
    }));
    let panics = tokio::spawn(service.clone().oneshot(0));
    let waits = tokio::spawn(service.clone().oneshot(1));
    assert!(panics.await.unwrap_err().is_panic());
    assert_eq!(waits.await.unwrap().unwrap(), 1);
    // Caught and kept, it holds nothing either.
    let mut kept = Box::pin(service.clone().oneshot(0));
    assert!(poll(&mut kept).is_pending());
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| poll(&mut kept))).is_err());
    assert_eq!(handle.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_larger_limit_a_mode_that_lets_pass_and_another_config_reach_those_who_wait() {
    let layer = layer(1, 8);
    let handle = layer.handle();
    let service = layer.layer(sleeper());
    let mut calls: Vec<Running> = Vec::new();
    for _ in 0..5 {
        let mut call: Running = Box::pin(service.clone().oneshot(10));
        assert!(poll(&mut call).is_pending());
        calls.push(call);
    }
    assert_eq!(handle.snapshot().queued, 4);
    handle.update(handle.config().limit(Algorithm::Fixed(3))).unwrap();
    assert_eq!((handle.snapshot().queued, handle.snapshot().in_flight), (2, 3));
    handle.set_mode(Mode::Disabled).unwrap();
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.queued, snapshot.in_flight, snapshot.over_limit_total), (0, 5, 2));
    for call in calls {
        assert_eq!(call.await.unwrap(), 10);
    }
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().over_limit), (0, 0));
    handle.set_mode(Mode::Auto).unwrap();
    handle.update(handle.config().queue(QueueConfig::none())).unwrap();
    let _permits: Vec<_> = (0..3).map(|_| handle.try_acquire().unwrap()).collect();
    let start = Instant::now();
    assert_eq!(reason(service.clone().oneshot(1).await), Some(Reason::Shed));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_million_tenants_are_as_cheap_as_one() {
    let layer = config(1, 100).layer_by(Job::ask).unwrap();
    let handle = layer.handle();
    let mut service = layer.layer(recorder(Arc::default()));
    let permit = handle.try_acquire().unwrap();
    let mut waiting = std::collections::VecDeque::new();
    for tenant in 0..1_000_000 {
        waiting.push_back(service.call(Job { tenant, ..Job::of(Priority::Normal) }));
        if waiting.len() > 50 {
            waiting.pop_front();
        }
    }
    assert!(handle.snapshot().queued <= 100);
    drop(permit);
    drop(waiting);
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_answers_is_found_out_by_those_who_give_up() {
    let layer = layer(10, 0);
    let handle = layer.handle();
    let service = layer.layer(service_fn(|hangs: bool| async move {
        if hangs {
            pending::<()>().await;
        }
        sleep(ms(5)).await;
        Ok::<_, Refusable>(0)
    }));
    let service = tower::util::BoxCloneService::new(service);
    for _ in 0..300 {
        assert!(service.clone().oneshot(false).await.is_ok());
    }
    assert!(handle.snapshot().mean < Some(ms(20)), "{:?}", handle.snapshot().mean);
    for _ in 0..20 {
        let calls: Vec<_> = (0..30).map(|_| tokio::spawn(timeout(ms(200), service.clone().oneshot(true)))).collect();
        let mut refused = 0;
        for call in calls {
            refused += u32::from(matches!(call.await.unwrap(), Ok(Err(_))));
        }
        assert_eq!(refused, 20);
    }
    assert_eq!(handle.snapshot().in_flight, 0);
    assert!(handle.snapshot().mean >= Some(ms(199)), "its time is the time it was waited for");
    for _ in 0..300 {
        assert!(service.clone().oneshot(false).await.is_ok());
    }
    assert!(handle.snapshot().mean < Some(ms(20)), "{:?}", handle.snapshot().mean);
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_limit_and_a_queue_of_its_own() {
    let keyed =
        KeyedConfig::new(100).build(|tenant: &u64| *tenant, |_| config(1, 1).stripes(1).build().unwrap()).unwrap();
    let layer = KeyedShedLayer::<u64, _>::new(keyed);
    let handle = layer.handle();
    let service = layer.layer(service_fn(|_: u64| pending::<Result<u64, Refusable>>()));
    let mut calls: Vec<_> = [1, 1, 2].map(|tenant| Box::pin(service.clone().oneshot(tenant))).into();
    for call in &mut calls {
        assert!(poll(call).is_pending());
    }
    let seen = |tenant| {
        let snapshot = handle.get(&tenant).unwrap().snapshot();
        (snapshot.in_flight, snapshot.queued)
    };
    assert_eq!((seen(1), seen(2)), ((1, 1), (1, 0)));
    drop(calls);
    assert_eq!((seen(1), seen(2)), ((0, 0), (0, 0)));
    let later = buttress_core::Clock::now(&TokioClock) + Duration::from_secs(10_000);
    handle.sweep(later);
    handle.sweep(later + Duration::from_secs(10_000));
    assert_eq!(handle.snapshot().keys, 0, "they rest");
}

#[tokio::test]
async fn a_gate_and_a_table_of_keys_show_the_context_too() {
    use buttress_core::{GateLayer, Keyed, http::HttpClient};
    type Request = http::Request<()>;
    let request = || {
        let mut request = Request::new(());
        CallContext::of_mut(request.extensions_mut()).priority = Priority::Critical;
        request
    };
    let inner = || {
        service_fn(|_: Request| async {
            Ok::<_, Refusable>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
        })
    };
    let gate = GateLayer::<buttress_shed::Shed>::new(config(1, 0).build().unwrap()).protocol(HttpClient::new());
    let handle = gate.handle();
    let _permit = handle.try_acquire().unwrap();
    assert_eq!(reason(gate.layer(inner()).oneshot(request()).await), Some(Reason::Shed));
    assert_eq!(handle.snapshot().class(Priority::Critical).full_total, 1);
    let keyed = || {
        let key = |_: &Request| 0;
        KeyedConfig::new(10).build(key, |_: &u8| config(1, 0).build().unwrap()).unwrap()
    };
    let gate = GateLayer::<Keyed<_, _, _>>::new(keyed()).protocol(HttpClient::new());
    let queue = buttress_core::QueueLayer::<Keyed<_, _, _>>::new(keyed()).protocol(HttpClient::new());
    let (gated, queued) = (gate.handle().entry(&0), queue.handle().entry(&0));
    let _permits = [gated.try_acquire().unwrap(), queued.try_acquire().unwrap()];
    assert_eq!(reason(gate.layer(inner()).oneshot(request()).await), Some(Reason::Shed));
    assert_eq!(reason(queue.layer(inner()).oneshot(request()).await), Some(Reason::Shed));
    for handle in [gated, queued] {
        assert_eq!(handle.snapshot().class(Priority::Critical).full_total, 1);
    }
}

/// Twenty workers, first come first served, that finish what they began whoever has left: a call takes as long as the service takes
/// now, after its wait for a worker.
#[derive(Clone)]
struct Workers {
    free: Arc<tokio::sync::Semaphore>,
    millis: Arc<std::sync::atomic::AtomicU64>,
}

impl Workers {
    async fn work(self) -> u64 {
        let work = tokio::spawn(async move {
            let _worker = self.free.acquire().await;
            let millis = self.millis.load(std::sync::atomic::Ordering::Relaxed);
            sleep(ms(millis)).await;
            millis
        });
        work.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn peer_08_goodput_recovers_from_a_latency_step_at_three_times_the_load() {
    let workers = Workers { free: Arc::new(tokio::sync::Semaphore::new(20)), millis: Arc::default() };
    let layer = config(25, 200).layer().unwrap();
    let handle = layer.handle();
    let inner = workers.clone();
    let service = layer.layer(service_fn(move |(): ()| {
        let workers = inner.clone();
        async move { Ok::<_, Refusable>(workers.work().await) }
    }));
    // Twenty workers of 10 ms do 2000 calls a second; 6000 come.
    let mut good = Vec::new();
    for millis in [10, 100, 10] {
        workers.millis.store(millis, std::sync::atomic::Ordering::Relaxed);
        let served = Arc::new(std::sync::atomic::AtomicU64::new(0));
        for tick in 0..2_000 {
            for _ in 0..6 {
                let (service, served) = (service.clone(), served.clone());
                tokio::spawn(async move {
                    if matches!(timeout(ms(500), service.oneshot(())).await, Ok(Ok(_))) {
                        served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
            sleep(ms(1)).await;
            if tick == 999 {
                served.store(0, std::sync::atomic::Ordering::Relaxed);
            }
        }
        good.push(served.load(std::sync::atomic::Ordering::Relaxed));
    }
    // In the second second of each.
    assert!(good[0] > 1_700 && good[1] > 180 && good[2] > 1_700, "{good:?}");
    advance(Duration::from_secs(5)).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().queued), (0, 0));
}
