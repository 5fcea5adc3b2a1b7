//! Deadlines up to the response head.
mod common;

use buttress_core::{
    BoxError, Outcome, Reason, Rejection,
    http::{HttpClient, HttpGateway, HttpServer},
};
use buttress_deadline::{DeadlineConfig, DeadlineLayer};
use bytes::Bytes;
use common::*;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

type Reply = Result<Response<Empty<Bytes>>, Infallible>;

fn reason<T: std::fmt::Debug>(result: Result<T, BoxError>) -> Reason {
    Rejection::find(&*result.unwrap_err()).expect("a refusal").reason
}

#[test]
fn a_call_that_is_ready_at_once_makes_no_timer() {
    // This runtime has no timers: a Sleep would panic.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let service = DeadlineLayer::new(MS).layer(service_fn(|n: u64| async move { Ok::<_, BoxError>(n + 1) }));
    assert_eq!(runtime.block_on(service.oneshot(1)).unwrap(), 2);
    let layer = DeadlineLayer::new(DeadlineConfig::new(MS).idle(MS).build().unwrap()).protocol(HttpServer::new());
    let service = layer.layer(service_fn(|_: Request<()>| async { Reply::Ok(Response::default()) }));
    let res = runtime.block_on(service.oneshot(get())).unwrap();
    assert_eq!(res.status(), 200);
    let body = runtime.block_on(http_body_util::Full::new(Bytes::from("x")).collect());
    assert_eq!(body.unwrap().to_bytes(), "x");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_at_its_deadline_and_not_before() {
    let layer = DeadlineLayer::new(250 * MS);
    let service = layer.layer(service_fn(|_: ()| pending::<Result<(), BoxError>>()));
    let start = Instant::now();
    assert_eq!(reason(service.oneshot(()).await), Reason::DeadlinePassed);
    assert_eq!(start.elapsed(), 250 * MS);
    assert_eq!(layer.handle().snapshot().passed_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_ready_together_with_the_timer_wins() {
    let service = DeadlineLayer::new(100 * MS).layer(service_fn(|_: ()| async {
        sleep(100 * MS).await;
        Ok::<_, BoxError>("in time")
    }));
    assert_eq!(service.oneshot(()).await.unwrap(), "in time");
}

#[tokio::test(start_paused = true)]
async fn a_finished_response_that_is_looked_at_late_wins() {
    let mut service = DeadlineLayer::new(100 * MS).layer(service_fn(|_: ()| async {
        sleep(50 * MS).await;
        Ok::<_, BoxError>("in time")
    }));
    let mut call = pin!(service.call(()));
    assert!(poll_once(call.as_mut()).is_pending());
    advance(Duration::from_secs(1)).await;
    assert!(matches!(poll_once(call.as_mut()), Poll::Ready(Ok("in time"))));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_burns_its_task_budget_still_ends() {
    let service = DeadlineLayer::new(20 * MS).layer(service_fn(|_: ()| async {
        // Every poll ends with tokio's budget used up; time passes in between.
        loop {
            tokio::task::consume_budget().await;
        }
        #[allow(unreachable_code)]
        Ok::<(), BoxError>(())
    }));
    let clock = tokio::spawn(async {
        loop {
            advance(MS).await;
        }
    });
    assert_eq!(reason(service.oneshot(()).await), Reason::DeadlinePassed);
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn a_hung_handler_is_503_at_an_origin_504_in_a_gateway_and_4_in_grpc() {
    let hang = || service_fn(|_: Request<()>| pending::<Reply>());
    let origin = DeadlineLayer::new(MS).protocol(HttpServer::new()).layer(hang()).oneshot(get()).await.unwrap();
    assert_eq!(origin.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(origin.extensions().get::<Rejection>().unwrap().reason, Reason::DeadlinePassed);

    let gateway = DeadlineLayer::new(MS).protocol(HttpGateway::new("gw")).layer(hang()).oneshot(get()).await.unwrap();
    assert_eq!(gateway.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(gateway.headers()["proxy-status"], "gw; error=http_response_timeout");

    let grpc = DeadlineLayer::new(MS).protocol(HttpServer::new()).layer(hang()).oneshot(grpc("")).await.unwrap();
    assert_eq!(grpc.status(), StatusCode::OK);
    assert_eq!(grpc.headers()["grpc-status"], "4");
    assert!(http_body::Body::is_end_stream(grpc.body()), "trailers only");
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_an_error() {
    let service = service_fn(|_: Request<()>| pending::<Result<Response<Empty<Bytes>>, BoxError>>());
    let result = DeadlineLayer::new(MS).protocol(HttpClient::new()).layer(service).oneshot(get()).await;
    assert_eq!(reason(result), Reason::DeadlinePassed);
}

#[tokio::test(start_paused = true)]
async fn what_a_late_call_holds_is_free_before_anyone_hears_of_its_end() {
    let meter = Meter::default();
    let service = meter.layer().layer(service_fn(|_: ()| pending::<Result<(), BoxError>>()));
    let mut service = DeadlineLayer::new(10 * MS).layer(service);
    let mut call = pin!(service.call(()));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!(meter.held(), 1);
    advance(11 * MS).await;
    assert!(poll_once(call.as_mut()).is_ready());
    assert_eq!(meter.held(), 0, "the future is not dropped yet");
}

#[tokio::test(start_paused = true)]
async fn a_layer_further_out_counts_our_own_deadline_as_a_failure() {
    let meter = Meter::default();
    let late = DeadlineLayer::new(MS).layer(service_fn(|_: ()| pending::<Result<(), BoxError>>()));
    let _ = meter.layer().layer(late).oneshot(()).await;
    assert_eq!(meter.outcomes(), [Some(Outcome::Failure)]);
}

/// Pending `polls` times, and holds a place meanwhile.
async fn yields(polls: usize, inside: Arc<AtomicUsize>) -> Result<(), BoxError> {
    struct Place(Arc<AtomicUsize>);
    impl Drop for Place {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    inside.fetch_add(1, SeqCst);
    let _place = Place(inside);
    let mut left = polls;
    poll_fn(|_| {
        left = left.saturating_sub(1);
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_polled_k_times_and_dropped_leaves_nothing_behind() {
    let inside = Arc::new(AtomicUsize::new(0));
    let layer = DeadlineLayer::new(Duration::from_secs(1));
    let mut service = layer.layer(service_fn({
        let inside = inside.clone();
        move |_: ()| yields(8, inside.clone())
    }));
    for k in 0..8 {
        let mut call = Box::pin(service.call(()));
        for _ in 0..k {
            assert!(poll_once(call.as_mut()).is_pending());
        }
        assert_eq!(inside.load(SeqCst), usize::from(k > 0));
        drop(call);
        assert_eq!(inside.load(SeqCst), 0, "after {k} polls");
    }
    advance(Duration::from_secs(2)).await;
    assert_eq!(layer.handle().snapshot().passed_total, 0, "nobody's time ran out");
}

#[tokio::test(start_paused = true)]
async fn peer_15_a_panic_is_not_reported_as_a_time_out() {
    let meter = Meter::default();
    let layer = DeadlineLayer::new(10 * MS);
    let handle = layer.handle();
    let service = layer.layer(meter.layer().layer(service_fn(|late: bool| async move {
        if late {
            sleep(MS).await;
        }
        if true {
            panic!("a bug");
        }
        Ok::<(), BoxError>(())
    })));
    for late in [false, true] {
        let error = tokio::spawn(service.clone().oneshot(late)).await.unwrap_err();
        assert_eq!(error.into_panic().downcast_ref::<&str>(), Some(&"a bug"));
    }
    assert_eq!((handle.snapshot().passed_total, meter.held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_has_a_deadline_of_its_own() {
    let config = DeadlineConfig::default().per_try(30 * MS);
    let service =
        DeadlineLayer::new(config.build().unwrap()).layer(service_fn(|_: ()| pending::<Result<(), BoxError>>()));
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(reason(service.clone().oneshot(()).await), Reason::DeadlinePassed);
        assert_eq!(start.elapsed(), 30 * MS);
    }
}
