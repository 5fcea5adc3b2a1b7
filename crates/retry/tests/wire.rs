//! Through hyper: bodies are sent again, and a connection survives a failed response.

mod common;

use buttress_core::{
    BoxError,
    http::{HttpClient, ReplayBody},
};
use buttress_retry::{Backoff, ResendLayer, Why};
use buttress_sim::{
    AnyBody, Frames, any,
    wire::{Client, HttpService, Server, Version},
};
use common::{MS, config};
use http::{Request, Response};
use http_body_util::BodyExt;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::SeqCst},
};
use tower::{Layer, ServiceExt, service_fn, util::MapRequest};

type Attempt = Request<ReplayBody<AnyBody>>;

/// Fails twice, with a body that takes some time, and then answers with what it was sent.
async fn server(version: Version, bodies: Arc<Mutex<Vec<usize>>>) -> Server {
    let service = service_fn(move |req: Request<AnyBody>| {
        let bodies = bodies.clone();
        async move {
            let body = req.into_body().collect().await?.to_bytes();
            let count = {
                let mut bodies = bodies.lock().unwrap();
                bodies.push(body.len());
                bodies.len()
            };
            let res = if count < 3 {
                let frames =
                    Frames::new().data(vec![b'-'; 20_000]).wait(tokio::time::sleep(5 * MS)).data(vec![b'-'; 20_000]);
                Response::builder().status(503).body(any(frames))?
            } else {
                Response::new(any(Frames::new().data(body)))
            };
            Ok::<_, buttress_core::BoxError>(res)
        }
    });
    Server::start(version, HttpService::new(service)).await.unwrap()
}

#[tokio::test]
async fn a_put_is_sent_three_times_over_one_connection() {
    for version in Version::ALL {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let server = server(version, bodies.clone()).await;
        // One connection, and no second one.
        let client: Client = server.connect().await.unwrap();
        let rebox: fn(Attempt) -> Request<AnyBody> = |req| req.map(any);
        let layer = ResendLayer::<HttpClient>::new(config().backoff(Backoff::constant(50 * MS)).build().unwrap());
        let service = layer.layer(MapRequest::new(client, rebox));
        let body = any(Frames::new().data(vec![b'a'; 10_000]).pause().data(vec![b'b'; 10_000]));
        let res = service.oneshot(Request::put("/").body(body).unwrap()).await.unwrap();
        assert_eq!(res.status(), 200);
        let echoed = res.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((echoed.len(), echoed[0], echoed[19_999]), (20_000, b'a', b'b'));
        assert_eq!(*bodies.lock().unwrap(), [20_000; 3], "{version:?}");
        assert_eq!(layer.handle().snapshot().budget.in_flight, 0);
    }
}

/// Answers the first request before it has read it, and reads on all the same; the others when it has.
async fn hasty(version: Version, bodies: Arc<Mutex<Vec<usize>>>) -> Server {
    let first = Arc::new(AtomicBool::new(true));
    let service = service_fn(move |req: Request<AnyBody>| {
        let (bodies, first) = (bodies.clone(), first.swap(false, SeqCst));
        async move {
            let mut body = req.into_body();
            if first {
                tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
                return Ok(Response::builder().status(503).body(any(Frames::new().data("busy")))?);
            }
            let body = body.collect().await?.to_bytes();
            bodies.lock().unwrap().push(body.len());
            Ok::<_, BoxError>(Response::new(any(Frames::new().data("done"))))
        }
    });
    Server::start(version, HttpService::new(service)).await.unwrap()
}

#[tokio::test]
async fn an_early_answer_is_no_race_between_the_old_attempt_and_the_new_one() {
    const FRAME: usize = 16 * 1024;
    const FRAMES: usize = 64;
    for version in Version::ALL {
        for (first_wait, gap) in [(0, 0), (0, 1), (0, 3), (20, 1), (60, 0)] {
            let case = format!("{version:?}, {first_wait} ms, {gap} ms");
            let bodies = Arc::new(Mutex::new(Vec::new()));
            let server = Arc::new(hasty(version, bodies.clone()).await);
            let send = service_fn(move |req: Attempt| {
                let server = server.clone();
                async move { server.connect().await?.oneshot(req.map(any)).await }
            });
            let layer = ResendLayer::<HttpClient>::new(config().backoff(Backoff::constant(40 * MS)).build().unwrap());
            let body = (0..FRAMES).fold(Frames::new().wait(tokio::time::sleep(first_wait * MS)), |frames, _| {
                frames.data(vec![7; FRAME]).wait(async move {
                    match gap {
                        0 => tokio::task::yield_now().await,
                        _ => tokio::time::sleep(gap * MS).await,
                    }
                })
            });
            let call = layer.layer(send).oneshot(Request::put("/").body(any(body)).unwrap());
            let res = tokio::time::timeout(20 * common::SEC, call).await.expect(&case).expect(&case);
            let seen = layer.handle().snapshot();
            match res.status().as_u16() {
                200 => assert_eq!((seen.retries_total, bodies.lock().unwrap()[0]), (1, FRAME * FRAMES), "{case}"),
                503 => assert_eq!((seen.retries_total, seen.gave_up(Why::BodyTooLarge)), (0, 1), "{case}"),
                other => panic!("{case}: {other}"),
            }
            if first_wait > 0 {
                assert_eq!(res.status(), 200, "{case}: nothing had been read of the body");
            }
            assert!(res.into_body().collect().await.is_ok(), "{case}: it is whole");
        }
    }
}
