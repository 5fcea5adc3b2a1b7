//! When a permit is back, and when the time that the limit learns is over, are two things.
#![cfg(feature = "http")]
use buttress_core::http::HttpServer;
use buttress_shed::{
    Shed, ShedConfig, ShedLayer,
    limit::{Limit, Span, Window},
};
use buttress_sim::{AnyBody, Frames, Script, grpc};
use http::{Request, Response};
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};

const MS: Duration = Duration::from_millis(1);

/// A window of every call.
#[derive(Debug)]
struct Each;

impl Limit for Each {
    fn limit(&self) -> u32 {
        8
    }

    fn span(&self) -> Span {
        Span::of(1)
    }

    fn observe(&mut self, _: &Window) {}

    fn name(&self) -> &'static str {
        "each"
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_gives_its_permit_back_at_the_head_and_takes_time_to_its_first_message() {
    let shed = Shed::with_limit(ShedConfig::default(), |_| Box::new(Each)).unwrap();
    let layer = ShedLayer::new(shed).protocol(HttpServer::new());
    let handle = layer.handle();
    let service = layer.layer(Script::<Request<AnyBody>, Response<AnyBody>>::new(async |_| {
        sleep(30 * MS).await;
        let messages = Frames::new().wait(sleep(200 * MS)).data(grpc::message(b"first")).wait(sleep(500 * MS));
        Ok(grpc::response(messages.data(grpc::message(b"second")).trailers([("grpc-status", "0")])))
    }));
    let (start, call) = (Instant::now(), tokio::spawn(service.oneshot(grpc::request("/news"))));
    sleep(MS).await;
    assert_eq!(handle.snapshot().in_flight, 1);
    let mut body = call.await.unwrap().unwrap().into_body();
    assert_eq!(start.elapsed(), 30 * MS);
    let seen = handle.snapshot();
    assert_eq!((seen.in_flight, seen.mean), (0, None), "the permit is back, and the limit has learnt nothing yet");
    let first = body.frame().await.unwrap().unwrap();
    assert!(first.is_data() && start.elapsed() == 230 * MS);
    assert_eq!(handle.snapshot().mean, Some(230 * MS), "what came before the first message is the call's time");
    body.collect().await.unwrap();
    assert_eq!((start.elapsed(), handle.snapshot().mean), (530 * MS, Some(230 * MS)));
}
