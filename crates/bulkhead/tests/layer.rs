//! The layer that refuses at once, and the one that pushes back, through tower.
use buttress_bulkhead::{
    AdmissionMode, Bulkhead, BulkheadConfig, BulkheadLayer, KeyedBulkheadLayer, KeyedQueuedBulkheadLayer, Release,
};
use buttress_core::{Error, Handle, KeyedConfig, Mode, Reason};
use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tower::{Layer, Service, ServiceExt, service_fn};

type Refusable = Error<std::io::Error>;

fn reason<T>(result: Result<T, Refusable>) -> Reason {
    match result {
        Err(Error::Rejected(rejection)) => rejection.reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was admitted"),
    }
}

/// Answers after so many polls.
fn after(polls: u32) -> impl Future<Output = Result<u32, Refusable>> {
    let left = Cell::new(polls);
    poll_fn(move |cx| match left.get() {
        0 => Poll::Ready(Ok(polls)),
        n => {
            left.set(n - 1);
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
}

#[tokio::test]
async fn a_literal_is_a_limit_and_a_refusal_is_an_error() {
    let layer = BulkheadLayer::new(1);
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(|polls: u32| after(polls)));
    let running = service.ready().await.unwrap().call(3);
    assert_eq!(handle.snapshot().in_flight, 1, "admission happens in `call`");
    assert_eq!(reason(service.ready().await.unwrap().call(0).await), Reason::AtCapacity);
    assert_eq!(running.await.unwrap(), 3);
    assert_eq!(service.ready().await.unwrap().call(0).await.unwrap(), 0);
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().refused_total), (0, 1));
}

#[tokio::test]
async fn peer_02_every_clone_and_every_service_of_a_layer_share_one_limit() {
    let layer = BulkheadLayer::new(2);
    let handle = layer.handle();
    let inner = service_fn(|_: ()| pending::<Result<(), Refusable>>());
    let (mut calls, mut refused) = (Vec::new(), 0);
    for connection in 0..10 {
        let service = if connection % 2 == 0 { layer.layer(inner) } else { layer.clone().layer(inner) };
        let mut call = Box::pin(service.clone().oneshot(()));
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => calls.push(call),
            Poll::Ready(result) => {
                assert_eq!(reason(result), Reason::AtCapacity);
                refused += 1;
            }
        }
    }
    assert_eq!((calls.len(), refused, handle.snapshot().in_flight), (2, 8, 2));
    let fresh = layer.fresh();
    assert_eq!((fresh.handle().snapshot().in_flight, fresh.handle().snapshot().limit), (0, 2));
}

#[tokio::test]
async fn a_call_dropped_after_any_number_of_polls_gives_its_permit_back() {
    let layer = BulkheadLayer::new(1);
    let handle = layer.handle();
    let service = layer.layer(service_fn(|polls: u32| after(polls)));
    for polls in 0..=5 {
        let mut call = Box::pin(service.clone().oneshot(4));
        for _ in 0..polls {
            if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                break;
            }
        }
        drop(call);
        assert_eq!(handle.snapshot().in_flight, 0, "dropped after {polls} polls");
    }
    let mut ready = service.clone();
    ready.ready().await.unwrap();
    drop(ready);
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().refused_total), (0, 0));
}

#[tokio::test]
async fn a_panic_inside_gives_the_permit_back() {
    let layer = BulkheadLayer::new(1);
    let handle = layer.handle();
    let service =
        layer.layer(service_fn(|_: ()| async { if true { panic!("inside") } else { Ok::<(), Refusable>(()) } }));
    assert!(tokio::spawn(service.oneshot(())).await.unwrap_err().is_panic());
    assert_eq!(handle.snapshot().in_flight, 0);
}

#[tokio::test]
async fn with_back_pressure_a_service_is_ready_when_it_holds_a_permit() {
    let layer = BulkheadConfig::new(1).admission(AdmissionMode::BackPressure).layer().unwrap();
    let handle = layer.handle();
    let service = layer.layer(service_fn(|polls: u32| after(polls)));
    let (mut first, mut second) = (service.clone(), service.clone());
    first.ready().await.unwrap();
    first.ready().await.unwrap();
    assert_eq!(handle.snapshot().in_flight, 1, "reserved, and only once");
    let mut cx = Context::from_waker(Waker::noop());
    assert!(second.poll_ready(&mut cx).is_pending());
    assert_eq!(handle.snapshot().queued, 1);
    let call = first.call(1);
    assert!(second.poll_ready(&mut cx).is_pending());
    assert_eq!(call.await.unwrap(), 1);
    assert!(second.poll_ready(&mut cx).is_ready());
    drop(second);
    assert_eq!(handle.snapshot().in_flight, 0, "a dropped clone gives back what it reserved");

    let (mut third, mut fourth) = (service.clone(), service.clone());
    third.ready().await.unwrap();
    assert!(fourth.poll_ready(&mut cx).is_pending());
    drop(fourth);
    assert_eq!(handle.snapshot().queued, 0, "a dropped clone leaves the queue");
    drop(third);
    handle.set_mode(Mode::ForcedOpen).unwrap();
    assert_eq!(reason(service.clone().oneshot(0).await), Reason::AtCapacity);
}

#[tokio::test]
async fn each_tenant_has_a_compartment_of_its_own() {
    let per_tenant = KeyedConfig::new(100).build(|tenant: &u64| *tenant, |_| Bulkhead::from(1)).unwrap();
    let layer: KeyedBulkheadLayer<u64, _> = KeyedBulkheadLayer::new(per_tenant);
    let handle = layer.handle();
    let service = layer.layer(service_fn(|_: u64| pending::<Result<(), Refusable>>()));
    let mut cx = Context::from_waker(Waker::noop());
    let mut noisy = pin!(service.clone().oneshot(1));
    let mut quiet = pin!(service.clone().oneshot(2));
    assert!(noisy.as_mut().poll(&mut cx).is_pending() && quiet.as_mut().poll(&mut cx).is_pending());
    assert_eq!(reason(service.clone().oneshot(1).await), Reason::AtCapacity);
    for tenant in 1_000..11_000 {
        let _ = pin!(service.clone().oneshot(tenant)).poll(&mut cx);
    }
    assert_eq!(handle.get(&1).unwrap().snapshot().in_flight, 1, "it is pinned while its call is in flight");
    assert!(handle.snapshot().keys <= 100);
    assert_eq!(handle.snapshot().overflow_total, 0);
}

#[tokio::test(start_paused = true)]
async fn each_tenant_can_have_a_queue_of_its_own() {
    let config = BulkheadConfig::new(1).max_queue(1).max_wait(Duration::from_secs(1));
    let per_tenant = KeyedConfig::new(100)
        .build(|tenant: &u64| *tenant, move |_| config.clone().build().unwrap_or_else(|_| Bulkhead::from(1)));
    let layer: KeyedQueuedBulkheadLayer<u64, _> = KeyedQueuedBulkheadLayer::new(per_tenant.unwrap());
    let service = layer.layer(service_fn(|_: u64| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, Refusable>(())
    }));
    let call = |tenant| tokio::spawn(service.clone().oneshot(tenant));
    let calls = [call(1), call(1), call(1), call(2)];
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.unwrap());
    }
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true]);
}

#[cfg(feature = "http")]
mod http {
    use super::*;
    use ::http::{HeaderMap, Request, Response, StatusCode, header::RETRY_AFTER};
    use buttress_core::http::HttpServer;
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::BodyExt;
    use std::pin::Pin;

    /// Three frames, and trailers.
    struct Streamed(Vec<Frame<Bytes>>);

    impl http_body::Body for Streamed {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop().map(Ok))
        }
    }

    fn streamed() -> Streamed {
        let mut frames = vec![Frame::trailers(HeaderMap::new())];
        frames.extend((0..3).map(|_| Frame::data(Bytes::from_static(b"x"))));
        Streamed(frames)
    }

    #[tokio::test]
    async fn a_permit_is_held_to_the_end_of_the_body_and_a_refusal_is_a_503() {
        let layer = BulkheadLayer::new(1).protocol(HttpServer::new());
        let handle = layer.handle();
        let service =
            layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(streamed())) }));
        let response = service.clone().oneshot(Request::new(())).await.unwrap();
        let mut body = Box::pin(response.into_body());
        for _ in 0..3 {
            assert!(body.frame().await.unwrap().unwrap().is_data());
            assert_eq!(handle.snapshot().in_flight, 1, "the body is not at its end");
            let refused = service.clone().oneshot(Request::new(())).await.unwrap();
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(refused.headers().contains_key(RETRY_AFTER));
        }
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        assert_eq!(handle.snapshot().in_flight, 0, "the trailers were the end, though the body still lives");
        let response = service.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!((response.status(), handle.snapshot().in_flight), (StatusCode::OK, 1));
        drop(response);
        assert_eq!(handle.snapshot().in_flight, 0, "an early drop gives it back");
    }

    #[tokio::test]
    async fn a_permit_can_come_back_at_the_head() {
        let layer = BulkheadConfig::new(1).release(Release::Head).layer().unwrap().protocol(HttpServer::new());
        let handle = layer.handle();
        let service =
            layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(streamed())) }));
        let bodies: Vec<_> = responses(&service, 5).await;
        assert_eq!((bodies.len(), handle.snapshot().in_flight), (5, 0));
        drop(bodies);
        handle.update(handle.config().release(Release::BodyEnd)).unwrap();
        let held = service.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(handle.snapshot().in_flight, 1, "and live back to the end");
        drop(held);
        assert_eq!(handle.snapshot().in_flight, 0);
    }

    async fn responses<S, B>(service: &S, n: usize) -> Vec<Response<B>>
    where
        S: Service<Request<()>, Response = Response<B>, Error = Infallible> + Clone,
    {
        let mut responses = Vec::new();
        for _ in 0..n {
            responses.push(service.clone().oneshot(Request::new(())).await.unwrap());
        }
        assert!(responses.iter().all(|response| response.status() == StatusCode::OK));
        responses
    }
}

#[tokio::test]
async fn whatever_is_no_service_is_guarded_by_the_policy_alone() {
    let pool = Arc::new(Bulkhead::from(1));
    let ran = Arc::new(AtomicU32::new(0));
    let query = || {
        let ran = ran.clone();
        async move {
            ran.fetch_add(1, Relaxed);
            Err::<(), _>(std::io::Error::other("lost"))
        }
    };
    assert!(matches!(pool.call(query()).await, Err(Error::Inner(_))));
    let permit = pool.try_acquire().unwrap();
    assert!(matches!(pool.call(query()).await, Err(Error::Rejected(_))));
    assert_eq!(ran.load(Relaxed), 1, "a refused call does not run");
    drop(permit);
    assert_eq!(pool.snapshot().in_flight, 0);
}

/// Counts warnings.
struct Warnings(Arc<AtomicU32>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target() == "buttress::bulkhead"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_layer_that_ignores_a_queue_says_so_once() {
    let count = Arc::new(AtomicU32::new(0));
    let _guard = tracing::subscriber::set_default(Warnings(count.clone()));
    let refuse = |config: BulkheadConfig| {
        let layer = BulkheadLayer::new(config.build().unwrap());
        let service = layer.layer(service_fn(|_: ()| pending::<Result<(), Refusable>>()));
        for _ in 0..3 {
            let mut call = pin!(service.clone().oneshot(()));
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        }
        count.swap(0, Relaxed)
    };
    assert_eq!(refuse(BulkheadConfig::new(0).max_queue(8)), 1);
    assert_eq!(refuse(BulkheadConfig::new(0)), 0);
}
