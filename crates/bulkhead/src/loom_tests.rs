use crate::BulkheadConfig;
use loom::thread;
use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

fn explore(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

#[test]
fn loom_a_dropped_future_gives_its_grant_to_the_next() {
    explore(|| {
        let bulkhead =
            BulkheadConfig::new(1).max_queue(2).max_wait(std::time::Duration::MAX).stripes(1).build().unwrap();
        let bulkhead = std::sync::Arc::new(bulkhead);
        let permit = bulkhead.try_acquire().unwrap();
        let ends = thread::spawn(move || drop(permit));
        let mut waits = Box::pin({
            let bulkhead = bulkhead.clone();
            async move { bulkhead.acquire().await.is_ok() }
        });
        let polled = waits.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        drop(waits);
        assert_ne!(polled, Poll::Ready(false));
        ends.join().unwrap();
        assert_eq!(bulkhead.snapshot().in_flight, 0);
        assert!(pin!(bulkhead.acquire()).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
}
