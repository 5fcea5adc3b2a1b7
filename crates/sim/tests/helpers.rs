//! The helpers themselves.

use buttress_core::{BoxError, GateLayer, Outcome, http::HttpServer};
use buttress_sim::{
    AnyBody, Frames, Latch, Meter, PANIC, Readiness, ReadinessError, Script, Step, Tally, eventually, grpc, pauses,
    poll_once,
    wire::{HttpService, Server, Version},
};
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use std::{panic::AssertUnwindSafe, task::Poll, time::Duration};
use tower::{Layer, Service, ServiceExt};

fn text(panic: Box<dyn std::any::Any + Send>) -> String {
    panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap()
}

#[tokio::test(start_paused = true)]
async fn eventually_says_what_it_waited_for_and_where() {
    let mut polls = 0;
    eventually("three polls", || {
        polls += 1;
        polls == 3
    })
    .await;
    let waited = AssertUnwindSafe(eventually("the moon is full", || false)).catch_unwind().await;
    let said = text(waited.unwrap_err());
    assert!(said.contains("the moon is full") && said.contains("helpers.rs"), "{said}");
}

#[tokio::test]
async fn a_script_is_as_ready_as_it_is_told() {
    let script = Script::<(), ()>::new(async |()| Ok(()));
    let mut clone = script.clone().readiness(Readiness::After(2));
    assert!(clone.ready().now_or_never().is_none() && clone.ready().now_or_never().is_none());
    assert!(clone.ready().now_or_never().is_some());
    script.set(Readiness::Fails);
    let error = script.clone().oneshot(()).await.unwrap_err();
    assert!(error.is::<ReadinessError>());

    script.set(Readiness::Never);
    let parked = tokio::spawn(script.clone().oneshot(()));
    tokio::task::yield_now().await;
    script.set(Readiness::Ready);
    parked.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_script_that_is_not_ready_must_not_be_called() {
    let script = Script::<(), ()>::new(async |()| Ok(()));
    let mut used = script.clone();
    used.ready().await.unwrap().call(()).await.unwrap();
    for mut unready in [script, used.clone(), used] {
        let called = std::panic::catch_unwind(AssertUnwindSafe(|| drop(unready.call(()))));
        assert!(text(called.unwrap_err()).contains("without being ready"));
    }
}

#[tokio::test]
async fn a_probe_counts_what_goes_on_and_forgets_what_is_dropped() {
    let latch = Latch::new();
    let script = {
        let latch = latch.clone();
        Script::<(), ()>::new(move |()| {
            let latch = latch.clone();
            async move {
                latch.wait().await;
                Ok(())
            }
        })
    };
    let mut calls: Vec<_> = (0..3).map(|_| script.clone().oneshot(()).boxed()).collect();
    for call in &mut calls {
        assert!(poll_once(call).await.is_pending());
    }
    calls.pop();
    assert_eq!((script.probe().now(), script.probe().peak(), script.probe().calls()), (2, 3, 3));
    latch.open();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(script.probe().now(), 0);
}

#[tokio::test]
async fn a_meter_tells_the_story_of_every_call() {
    let meter = Meter::new();
    let script = Script::new(async |_: Request<AnyBody>| {
        pauses(1).await;
        Ok(grpc::unary("14"))
    });
    let service = GateLayer::<Meter>::new(meter.clone()).protocol(HttpServer::new()).layer(script);
    let res = service.clone().oneshot(grpc::request("/s/m")).await.unwrap();
    assert_eq!((meter.in_flight(), meter.tally().total()), (1, 0));
    res.into_body().collect().await.unwrap();
    drop(service.oneshot(grpc::request("/s/m")).await.unwrap());
    assert_eq!(meter.tally(), Tally { failure: 1, ignored: 1, ..Tally::default() });
    assert_eq!(meter.steps(0).last_chunk(), Some(&[Step::Concluded(Outcome::Failure), Step::Dropped]));
    assert_eq!(meter.steps(1), [Step::Pending, Step::Head, Step::Dropped]);
    assert_eq!((meter.in_flight(), meter.calls()), (0, 2));
}

#[tokio::test]
async fn frames_come_as_written() {
    let mut body = AnyBody::from(Frames::new().data("a").pause().error("reset"));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    assert!(matches!(poll_once(&mut body.frame()).await, Poll::Pending));
    assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "reset");
    let panic = AssertUnwindSafe(AnyBody::from(Frames::new().panic()).collect()).catch_unwind().await;
    assert_eq!(text(panic.unwrap_err()), PANIC);
}

#[tokio::test]
async fn a_client_and_a_server_speak_over_a_real_connection() {
    for version in Version::ALL {
        let script = Script::new(async |req: Request<AnyBody>| {
            let body = req.into_body().collect().await?.to_bytes();
            Ok::<_, BoxError>(Response::new(Frames::new().data(body).pause().data("!").into()))
        });
        let server = Server::start(version, HttpService::new(script)).await.unwrap();
        let client = server.connect().await.unwrap();
        for _ in 0..2 {
            let req = Request::post("/path").body(Frames::new().data("hello").into()).unwrap();
            let res = client.send(req).await.unwrap();
            assert_eq!(res.into_body().collect().await.unwrap().to_bytes(), "hello!", "{version:?}");
        }
        drop(server);
        let gone = tokio::time::timeout(Duration::from_secs(10), async {
            while client.send(Request::get("/").body(AnyBody::default()).unwrap()).await.is_ok() {}
        });
        gone.await.expect("a dropped server serves nobody");
    }
}
