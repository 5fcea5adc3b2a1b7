//! The layer whose callers wait, under a paused clock.
use buttress_bulkhead::{BulkheadConfig, QueueOrder, QueuedBulkheadLayer};
use buttress_core::{Error, Handle, Mode, Reason};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

type Refusable = Error<std::io::Error>;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn queued(limit: u32, max_queue: u32, max_wait: Duration) -> QueuedBulkheadLayer {
    BulkheadConfig::new(limit).max_queue(max_queue).max_wait(max_wait).queued_layer().unwrap()
}

/// Takes `call` milliseconds, and says so.
fn sleeper() -> impl Service<u64, Response = u64, Error = Refusable, Future: Send> + Clone {
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

struct Woken(AtomicU32);
impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn peer_14_a_full_queue_and_a_wait_that_is_too_long_are_never_confused() {
    let layer = queued(1, 1, ms(50));
    let handle = layer.handle();
    let service = layer.layer(sleeper());
    let start = Instant::now();
    let runs = tokio::spawn(service.clone().oneshot(1_000));
    tokio::task::yield_now().await;
    let waits = tokio::spawn(service.clone().oneshot(10));
    tokio::task::yield_now().await;
    assert_eq!(handle.snapshot().queued, 1);
    assert_eq!(reason(service.clone().oneshot(1).await), Some(Reason::AtCapacity));
    assert_eq!(start.elapsed(), Duration::ZERO, "a full queue refuses at once");
    assert_eq!(reason(waits.await.unwrap()), Some(Reason::QueueTimeout));
    assert!((ms(50)..=ms(51)).contains(&start.elapsed()));
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.refused_total, snapshot.timed_out_total, snapshot.queued), (1, 1, 0));
    assert_eq!(reason(runs.await.unwrap()), None);
    assert_eq!(handle.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_are_served_in_the_order_that_was_asked_for() {
    for (order, expected) in [(QueueOrder::Fifo, [0, 1, 2, 3]), (QueueOrder::Lifo, [0, 3, 2, 1])] {
        let layer = queued(1, 10, ms(1_000));
        let handle = layer.handle();
        handle.update(handle.config().order(order)).unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let service = layer.layer(service_fn(|call: usize| {
            let served = served.clone();
            async move {
                served.lock().unwrap().push(call);
                sleep(ms(10)).await;
                Ok::<_, Refusable>(())
            }
        }));
        let mut calls = Vec::new();
        for call in 0..4 {
            calls.push(service.clone().oneshot(call));
        }
        let mut calls: Vec<_> = calls.into_iter().map(Box::pin).collect();
        for call in &mut calls {
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let all = std::future::poll_fn(|cx| {
            calls.retain_mut(|call| call.as_mut().poll(cx).is_pending());
            if calls.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        all.await;
        assert_eq!(*served.lock().unwrap(), expected, "{order:?}");
        assert_eq!(handle.snapshot().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn peer_09_peer_10_a_waiting_call_is_polled_when_its_turn_comes_and_not_before() {
    let layer = queued(1, 1, ms(60_000));
    let service = layer.layer(sleeper());
    let woken = Arc::new(Woken(AtomicU32::new(0)));
    let waker = Waker::from(woken.clone());
    let mut runs = Box::pin(service.clone().oneshot(30_000));
    let mut waits = Box::pin(service.clone().oneshot(1));
    assert!(runs.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..20 {
        advance(ms(1_000)).await;
    }
    assert_eq!(woken.0.load(Relaxed), 0, "twenty seconds, nothing to do");
    runs.await.unwrap();
    assert_eq!(woken.0.load(Relaxed), 1);
    assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "it runs now");
    assert_eq!(waits.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_any_number_of_polls_leaves_the_queue_and_its_permit() {
    for polls_before in 0..3 {
        for polls_after in 0..3 {
            let layer = queued(1, 2, ms(1_000));
            let handle = layer.handle();
            let service = layer.layer(sleeper());
            let mut cx = Context::from_waker(Waker::noop());
            let mut runs = Box::pin(service.clone().oneshot(10));
            let mut ready = service.clone();
            ready.ready().await.unwrap();
            assert!(runs.as_mut().poll(&mut cx).is_pending());
            let mut dropped = Box::pin(ready.call(10));
            let mut last = Box::pin(service.clone().oneshot(10));
            for _ in 0..polls_before {
                assert!(dropped.as_mut().poll(&mut cx).is_pending());
            }
            assert!(last.as_mut().poll(&mut cx).is_pending());
            assert_eq!((handle.snapshot().in_flight, handle.snapshot().queued), (1, 2));
            drop(runs);
            assert_eq!((handle.snapshot().in_flight, handle.snapshot().queued), (1, 1), "handed over");
            for _ in 0..polls_after {
                assert!(dropped.as_mut().poll(&mut cx).is_pending());
            }
            drop(dropped);
            assert_eq!((handle.snapshot().in_flight, handle.snapshot().queued), (1, 0), "and on to the last");
            assert_eq!(last.await.unwrap(), 10);
            assert_eq!((handle.snapshot().in_flight, handle.snapshot().queued), (0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_granted_in_time_counts_though_it_is_looked_at_late() {
    let layer = queued(1, 1, ms(50));
    let handle = layer.handle();
    let service = layer.layer(sleeper());
    let permit = handle.try_acquire().unwrap();
    let mut waits = Box::pin(service.clone().oneshot(1));
    assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(permit);
    advance(ms(500)).await;
    assert_eq!(waits.await.unwrap(), 1);
    assert_eq!(handle.snapshot().timed_out_total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_queue_in_front_needs_no_timer_and_one_with_room_does_not_wait() {
    let layer = queued(2, 8, ms(1));
    let service = layer.layer(sleeper());
    let start = Instant::now();
    let calls = [service.clone().oneshot(20), service.clone().oneshot(20)].map(tokio::spawn);
    for call in calls {
        assert_eq!(reason(call.await.unwrap()), None);
    }
    assert!(start.elapsed() <= ms(21));
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_and_a_mode_that_lets_pass_wake_those_who_wait() {
    let layer = queued(1, 8, ms(1_000));
    let handle = layer.handle();
    let service = layer.layer(sleeper());
    let mut calls = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..5 {
        let mut call = Box::pin(service.clone().oneshot(10));
        assert!(call.as_mut().poll(&mut cx).is_pending());
        calls.push(call);
    }
    assert_eq!(handle.snapshot().queued, 4);
    handle.set_limit(3).unwrap();
    assert_eq!((handle.snapshot().queued, handle.snapshot().in_flight), (2, 3));
    handle.set_mode(Mode::Disabled).unwrap();
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.queued, snapshot.in_flight, snapshot.over_limit, snapshot.over_limit_total), (0, 5, 2, 2));
    for call in calls {
        assert_eq!(call.await.unwrap(), 10);
    }
    assert_eq!(handle.snapshot().in_flight, 0);
    assert_eq!(handle.snapshot().over_limit, 0);
}

#[tokio::test(start_paused = true)]
async fn a_queue_can_be_closed_and_opened_again_while_it_runs() {
    let layer = queued(1, 2, ms(1_000));
    let handle = layer.handle();
    let service = layer.layer(sleeper());
    let _permit = handle.try_acquire().unwrap();
    handle.update(handle.config().max_queue(0)).unwrap();
    assert_eq!(reason(service.clone().oneshot(1).await), Some(Reason::AtCapacity));
    handle.update(handle.config().max_queue(1).max_wait(ms(5))).unwrap();
    assert_eq!(reason(service.clone().oneshot(1).await), Some(Reason::QueueTimeout));
}

#[tokio::test(start_paused = true)]
async fn the_clone_that_was_ready_serves_the_call_that_waited() {
    /// Ready only after it was asked; panics when it is called unready.
    #[derive(Default)]
    struct Strict(bool);
    impl Clone for Strict {
        fn clone(&self) -> Self {
            Self(false)
        }
    }
    impl Service<u64> for Strict {
        type Response = u64;
        type Error = Refusable;
        type Future = Pin<Box<dyn Future<Output = Result<u64, Refusable>> + Send>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusable>> {
            self.0 = true;
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, call: u64) -> Self::Future {
            assert!(std::mem::take(&mut self.0), "called without being ready");
            Box::pin(async move {
                sleep(ms(call)).await;
                Ok(call)
            })
        }
    }
    let service = queued(1, 2, ms(100)).layer(Strict::default());
    let calls = [1, 2, 3].map(|call| tokio::spawn(service.clone().oneshot(call)));
    for (call, expected) in calls.into_iter().zip(1..) {
        assert_eq!(call.await.unwrap().unwrap(), expected);
    }
}
