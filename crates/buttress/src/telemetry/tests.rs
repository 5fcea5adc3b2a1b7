use super::*;
use crate::{Error, Mode, Outcome, Reason, Rejection, Telemetry, core::Settle};
use std::time::Duration;
use tower::{Layer, ServiceExt as _, service_fn};

const MS: Duration = Duration::from_millis(1);

fn near(seconds: Option<f64>, millis: u64) -> bool {
    let want = (MS * millis as u32).as_secs_f64();
    seconds.is_some_and(|seconds| (seconds - want).abs() <= want / 16.0)
}

#[tokio::test(start_paused = true)]
async fn a_call_is_in_flight_until_it_ends_and_its_time_is_known() {
    let layer = TelemetryLayer::new(Telemetry::new());
    let telemetry = layer.handle();
    let service = layer.layer(service_fn(async |ok: bool| {
        tokio::time::sleep(MS * 30).await;
        if ok { Ok(()) } else { Err(Error::Inner(std::io::Error::other("down"))) }
    }));
    let call = tokio::spawn(service.clone().oneshot(true));
    tokio::time::sleep(MS).await;
    assert_eq!(telemetry.snapshot().in_flight, 1);
    call.await.unwrap().unwrap();
    service.oneshot(false).await.unwrap_err();
    let seen = telemetry.snapshot();
    assert_eq!((seen.in_flight, seen.count(End::Success), seen.count(End::Failure)), (0, 1, 1));
    assert!(near(seen.duration(End::Success).quantile(0.5), 30), "{seen:?}");
    assert!(near(seen.all().quantile(1.0), 30) && seen.head().count() == 0, "what is no HTTP has no head");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_abandoned_unless_somebody_says_why() {
    let layer = TelemetryLayer::new(Telemetry::new());
    let telemetry = layer.handle();
    let service =
        layer.layer(service_fn(async |_: ()| std::future::pending::<Result<(), Error<std::io::Error>>>().await));
    let _ = tokio::time::timeout(MS * 10, service.clone().oneshot(())).await;
    let call = Box::pin(service.oneshot(()));
    let mut call = polled_once(call);
    crate::core::abandon(Outcome::Failure, || drop(call.take()));
    let seen = telemetry.snapshot();
    assert_eq!((seen.in_flight, seen.count(End::Abandoned), seen.count(End::Failure)), (0, 1, 1));
    assert!(near(seen.duration(End::Abandoned).quantile(0.5), 10));
}

/// Polls once.
fn polled_once<F: Future + Unpin>(mut call: F) -> Option<F> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(std::pin::Pin::new(&mut call).poll(&mut cx).is_pending());
    Some(call)
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_counted_by_its_reason_and_once() {
    let layer = TelemetryLayer::new(Telemetry::new());
    let telemetry = layer.handle();
    let refused = |_: ()| async { Err::<(), _>(Error::<std::io::Error>::from(Rejection::new(Reason::Shed, "shed"))) };
    layer.layer(service_fn(refused)).oneshot(()).await.unwrap_err();
    let seen = telemetry.snapshot();
    assert_eq!((seen.refused(Reason::Shed), seen.refused(Reason::AtCapacity), seen.count(End::Ignored)), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn disabled_it_measures_nothing_and_other_modes_are_errors() {
    let layer = TelemetryLayer::new(Telemetry::new());
    let telemetry = layer.handle();
    let service = layer.layer(service_fn(async |_: ()| Ok::<_, Error<std::io::Error>>(())));
    crate::Handle::set_mode(&*telemetry, Mode::Disabled).unwrap();
    service.clone().oneshot(()).await.unwrap();
    assert_eq!(telemetry.snapshot().count(End::Success), 0);
    crate::Handle::set_mode(&*telemetry, Mode::Auto).unwrap();
    service.oneshot(()).await.unwrap();
    assert_eq!(telemetry.snapshot().count(End::Success), 1);
    let error = crate::Handle::set_mode(&*telemetry, Mode::ForcedOpen).unwrap_err();
    assert_eq!(error.to_string(), "`mode` is forced_open, allowed: auto or disabled: telemetry refuses nothing");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_two_threads_end_is_counted_where_it_began() {
    let telemetry = TelemetryConfig::new().stripes(4).build().unwrap();
    let call = telemetry.begin();
    std::thread::spawn(move || call.settle(Outcome::Overload, None)).join().unwrap();
    let fresh = crate::core::Fresh::fresh(&telemetry);
    assert_eq!((telemetry.snapshot().count(End::Overload), fresh.snapshot().count(End::Overload)), (1, 0));
}

#[cfg(feature = "http")]
mod http_calls {
    use super::*;
    use crate::http::{HttpGateway, HttpServer};
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Request, Response};
    use http_body::Frame;
    use http_body_util::{BodyExt, Full, StreamBody};
    use std::convert::Infallible;
    use tower::util::BoxCloneService;

    type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>;

    /// A service that answers after 20 ms in a telemetry layer that speaks `$protocol`, and the handle.
    macro_rules! served {
        ($protocol:expr, $answer:expr) => {{
            let layer = TelemetryLayer::new(Telemetry::server()).protocol($protocol);
            let answer = $answer;
            let inner = service_fn(move |_: Request<()>| {
                let answer = answer.clone();
                async move {
                    tokio::time::sleep(MS * 20).await;
                    Ok::<_, Infallible>(answer())
                }
            });
            let handle = layer.handle();
            let service = layer.layer(inner).map_response(|res| res.map(BodyExt::boxed_unsync));
            (BoxCloneService::new(service), handle)
        }};
    }

    fn request() -> Request<()> {
        Request::new(())
    }

    fn slow_body() -> Answer {
        let frames = futures(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
        Response::new(frames)
    }

    /// A frame each 50 ms.
    fn futures(mut frames: Vec<Bytes>) -> http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible> {
        frames.reverse();
        let mut timer = Box::pin(tokio::time::sleep(MS * 50));
        let stream = Poller(move |cx: &mut std::task::Context<'_>| {
            if frames.is_empty() {
                return std::task::Poll::Ready(None);
            }
            std::task::ready!(timer.as_mut().poll(cx));
            timer.set(tokio::time::sleep(MS * 50));
            std::task::Poll::Ready(frames.pop().map(|data| Ok(Frame::data(data))))
        });
        StreamBody::new(stream).boxed_unsync()
    }

    struct Poller<F>(F);
    impl<F, T> futures_core::Stream for Poller<F>
    where
        F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Unpin,
    {
        type Item = T;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<T>> {
            (self.0)(cx)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_to_the_head_and_to_the_end_of_the_body_are_two() {
        let (service, telemetry) = served!(HttpServer::new(), slow_body);
        let response = service.oneshot(request()).await.unwrap();
        let at_head = telemetry.snapshot();
        assert_eq!((at_head.in_flight, at_head.count(End::Success), at_head.responses(2)), (1, 0, 1));
        assert!(near(at_head.head().quantile(0.5), 20));
        response.into_body().collect().await.unwrap();
        let seen = telemetry.snapshot();
        assert_eq!((seen.in_flight, seen.count(End::Success), seen.head().count()), (0, 1, 1));
        assert!(near(seen.duration(End::Success).quantile(0.5), 120), "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_its_reader_leaves_is_abandoned() {
        let (service, telemetry) = served!(HttpServer::new(), slow_body);
        drop(service.oneshot(request()).await.unwrap());
        let seen = telemetry.snapshot();
        assert_eq!((seen.in_flight, seen.count(End::Abandoned), seen.count(End::Success)), (0, 1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_is_a_response_is_counted_by_its_reason() {
        let refusal = || {
            let mut response = Response::new(Full::from("full").boxed_unsync());
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            response.extensions_mut().insert(Rejection::new(Reason::AtCapacity, "bulkhead"));
            response
        };
        let (gateway, of_gateway) = served!(HttpGateway::new("gw"), refusal);
        let (server, of_server) = served!(HttpServer::new(), refusal);
        for (service, telemetry) in [(gateway, of_gateway), (server, of_server)] {
            service.oneshot(request()).await.unwrap().into_body().collect().await.unwrap();
            let seen = telemetry.snapshot();
            assert_eq!((seen.refused(Reason::AtCapacity), seen.responses(5), seen.count(End::Ignored)), (1, 1, 1));
            assert_eq!(seen.head().count(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_grpc_code_is_counted_from_the_trailers_and_from_a_head_alone() {
        let grpc = |status: Option<&'static str>, trailers: Option<&'static str>| {
            move || {
                let mut map = HeaderMap::new();
                if let Some(code) = trailers {
                    map.insert("grpc-status", HeaderValue::from_static(code));
                }
                let body = Full::from("x").with_trailers(async move { trailers.is_some().then_some(Ok(map)) });
                let mut response = Response::new(body.boxed_unsync());
                let headers = response.headers_mut();
                headers.insert("content-type", HeaderValue::from_static("application/grpc"));
                if let Some(code) = status {
                    headers.insert("grpc-status", HeaderValue::from_static(code));
                }
                response
            }
        };
        for (answer, code, end) in [
            (grpc(None, Some("0")), 0, End::Success),
            (grpc(None, Some("14")), 14, End::Failure),
            (grpc(Some("8"), None), 8, End::Overload),
            (grpc(None, Some("99")), 17, End::Failure),
            (grpc(None, None), 13, End::Failure),
        ] {
            let (service, telemetry) = served!(HttpServer::new(), answer);
            let mut req = Request::post("/").body(()).unwrap();
            req.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let _ = service.oneshot(req).await.unwrap().into_body().collect().await;
            let seen = telemetry.snapshot();
            assert_eq!((seen.grpc(code), seen.count(end)), (1, 1), "{code}");
        }
    }
}
