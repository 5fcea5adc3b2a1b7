//! Many threads, one state.

use buttress::{BreakerLayer, BulkheadLayer, prelude::*};
use std::{
    future::{Future, Ready},
    pin::pin,
    sync::Barrier,
    task::{Context, Poll, Waker},
    thread,
};
use tower::{Service, ServiceBuilder, service_fn};

const THREADS: usize = 4;
const CALLS: u64 = 20_000;

#[test]
fn peer_03_no_call_ever_waits_for_another() {
    let (breaker, bulkhead) = (BreakerLayer::new(Breaker::default()), BulkheadLayer::new(THREADS as u32));
    let (circuit, limit) = (breaker.handle(), bulkhead.handle());
    let inner = service_fn(|id: u64| -> Ready<Result<u64, buttress::BoxError>> { std::future::ready(Ok(id)) });
    let service = ServiceBuilder::new().layer(breaker).layer(bulkhead).service(inner);
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (mut service, start) = (service.clone(), &start);
            scope.spawn(move || {
                let mut cx = Context::from_waker(Waker::noop());
                start.wait();
                for id in 0..CALLS {
                    assert!(service.poll_ready(&mut cx).is_ready());
                    // As many permits as threads: an admission that is exact under contention never refuses here, and one
                    // that takes an async lock would be pending.
                    assert!(matches!(pin!(service.call(id)).poll(&mut cx), Poll::Ready(Ok(same)) if same == id));
                }
            });
        }
    });
    assert_eq!((limit.snapshot().in_flight, limit.snapshot().refused_total), (0, 0));
    assert_eq!(circuit.snapshot().failures, 0);
}
