//! Deadlines of response bodies.
mod common;

use Step::*;
use buttress_core::{BoxError, Mode, Outcome, Reason, Rejection, http::HttpServer};
use buttress_deadline::{CutLayer, DeadlineConfig, DeadlineLayer, Headers};
use common::*;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use std::{convert::Infallible, pin::Pin, sync::Mutex, time::Duration};
use tokio::{
    runtime::Handle,
    time::{Instant, advance, sleep},
};
use tower::{Layer, ServiceExt, service_fn};

type Server = CutLayer<HttpServer>;

fn server(config: DeadlineConfig) -> Server {
    DeadlineLayer::new(config.build().unwrap()).protocol(HttpServer::new())
}

fn idle(span: Duration) -> Server {
    server(DeadlineConfig::default().idle(span))
}

fn total(span: Duration) -> Server {
    server(DeadlineConfig::new(span))
}

/// The body that `layer` gives for a handler that answers at once with `body`; a permit is held inside.
async fn through(
    layer: &Server,
    inside: &Meter,
    req: Request<()>,
    body: Script,
) -> impl Body<Data = bytes::Bytes, Error = BoxError> + Unpin + Send + 'static {
    let body = Mutex::new(Some(body));
    let handler = service_fn(move |_: Request<()>| {
        let body = body.lock().unwrap().take().unwrap();
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let service = layer.layer(inside.server().layer(handler));
    Box::pin(service.oneshot(req).await.unwrap().into_body())
}

fn cut<T: std::fmt::Debug>(frame: Option<Result<T, BoxError>>) -> Reason {
    Rejection::find(&*frame.expect("a frame").unwrap_err()).expect("a refusal of ours").reason
}

/// A watched body, and one that is watched while it is polled.
fn both_ways(steps: impl Fn() -> Vec<Step>) -> [Script; 2] {
    [script(steps()), script(steps()).declaring(100)]
}

#[tokio::test(start_paused = true)]
async fn a_stuck_body_ends_at_the_deadline_of_the_whole_call() {
    for body in both_ways(|| vec![Wait(20 * MS), Data("a"), Hang]) {
        let (layer, inside) = (total(50 * MS), Meter::default());
        let start = Instant::now();
        let mut body = through(&layer, &inside, get(), body).await;
        assert_eq!(text(next(&mut body).await), "a");
        assert_eq!(cut(next(&mut body).await), Reason::DeadlinePassed);
        assert_eq!((start.elapsed(), inside.held()), (50 * MS, 0));
        assert!(next(&mut body).await.is_none(), "and then it is over");
        let snapshot = layer.handle().snapshot();
        assert_eq!((snapshot.bodies_cut_total, snapshot.idle_total, snapshot.passed_total), (1, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_before_the_head_counts() {
    let layer = total(50 * MS);
    let service = layer.layer(service_fn(|_: Request<()>| async {
        sleep(30 * MS).await;
        Ok::<_, Infallible>(Response::new(script([Hang])))
    }));
    let start = Instant::now();
    let mut body = service.oneshot(get()).await.unwrap().into_body();
    assert_eq!(cut(next(&mut body).await), Reason::DeadlinePassed);
    assert_eq!(start.elapsed(), 50 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_stream_ends_with_status_4() {
    let mut body = through(&total(50 * MS), &Meter::default(), grpc(""), script([Data("a"), Hang])).await;
    assert_eq!(text(next(&mut body).await), "a");
    let trailers = next(&mut body).await.unwrap().unwrap().into_trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "4");
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn a_body_in_time_comes_whole_and_its_task_is_gone() {
    let before = Handle::current().metrics().num_alive_tasks();
    for body in both_ways(|| vec![Data("a"), Wait(20 * MS), Data("b"), Wait(20 * MS), Trailers("0")]) {
        let (layer, inside) = (server(DeadlineConfig::new(50 * MS).idle(30 * MS)), Meter::default());
        let body = through(&layer, &inside, grpc(""), body).await;
        let whole = body.collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(whole.to_bytes(), "ab");
        assert_eq!(inside.outcomes(), [Some(Outcome::Success)]);
        tokio::task::yield_now().await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
        advance(Duration::from_secs(9)).await;
        assert_eq!(layer.handle().snapshot().bodies_cut_total, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_ready_together_with_the_timer_wins() {
    for layer in [total(100 * MS), idle(50 * MS)] {
        for body in both_ways(|| vec![Wait(50 * MS), Data("a"), Wait(50 * MS), Data("b")]) {
            let body = through(&layer, &Meter::default(), get(), body).await;
            // The task that watches sets its timer first, so it is the first to wake.
            tokio::task::yield_now().await;
            let reader = tokio::spawn(body.collect());
            assert_eq!(reader.await.unwrap().unwrap().to_bytes(), "ab");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_without_progress_is_idle_and_every_frame_is_progress() {
    for body in both_ways(|| vec![Wait(20 * MS), Data("a"), Wait(29 * MS), Data("b"), Hang]) {
        let (layer, inside) = (idle(30 * MS), Meter::default());
        let start = Instant::now();
        let mut body = through(&layer, &inside, get(), body).await;
        assert_eq!(text(next(&mut body).await), "a");
        assert_eq!(text(next(&mut body).await), "b");
        assert_eq!(cut(next(&mut body).await), Reason::DeadlinePassed);
        assert_eq!((start.elapsed(), inside.held()), (79 * MS, 0));
        let snapshot = layer.handle().snapshot();
        assert_eq!((snapshot.bodies_cut_total, snapshot.idle_total), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_go_on_as_long_as_it_moves_unless_it_has_an_absolute_end() {
    let ticks = || (0..40).flat_map(|_| [Wait(20 * MS), Data("x")]).collect::<Vec<_>>();
    let body = through(&idle(30 * MS), &Meter::default(), get(), script(ticks())).await;
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), 40);

    for body in both_ways(ticks) {
        let layer = server(DeadlineConfig::default().idle(30 * MS).absolute(110 * MS));
        let mut body = through(&layer, &Meter::default(), get(), body).await;
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(text(next(&mut body).await), "x");
        }
        assert_eq!(cut(next(&mut body).await), Reason::DeadlinePassed);
        assert_eq!(start.elapsed(), 110 * MS);
        assert_eq!(layer.handle().snapshot().bodies_cut_total, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_polls_gives_its_permit_back() {
    for config in [
        DeadlineConfig::new(50 * MS),
        DeadlineConfig::default().per_try(50 * MS),
        DeadlineConfig::default().idle(50 * MS),
        DeadlineConfig::default().absolute(50 * MS),
    ] {
        for polled in [false, true] {
            let (layer, inside) = (server(config.clone()), Meter::default());
            let endless = (0..1000).map(|_| Data("x"));
            let mut body = through(&layer, &inside, get(), script(endless)).await;
            if polled {
                assert_eq!(text(next(&mut body).await), "x");
            }
            sleep(40 * MS).await;
            assert_eq!(inside.held(), 1);
            sleep(20 * MS).await;
            assert_eq!(inside.held(), 0, "{config:?}");
            let snapshot = layer.handle().snapshot();
            assert_eq!(snapshot.bodies_cut_total + snapshot.idle_total, 1);
            assert!(!body.is_end_stream(), "the reader has yet to hear of it");
            assert_eq!(cut(next(&mut body).await), Reason::ClientDeadlinePassed, "the reader was slow");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_body_that_is_left_after_its_first_frame_gives_its_permit_back() {
    // As hyper leaves one whose client opened no HTTP/2 window.
    for config in [DeadlineConfig::new(50 * MS), DeadlineConfig::default().idle(50 * MS)] {
        let (layer, inside) = (server(config), Meter::default());
        let mut body = through(&layer, &inside, get(), script([Data("a"), Data("b")]).declaring(2)).await;
        assert_eq!(text(next(&mut body).await), "a");
        sleep(40 * MS).await;
        assert_eq!(inside.held(), 1);
        sleep(20 * MS).await;
        assert_eq!(inside.held(), 0);
        assert_eq!(cut(next(&mut body).await), Reason::ClientDeadlinePassed, "the reader was slow");
    }
}

#[test]
fn without_a_runtime_a_body_is_watched_while_it_is_polled() {
    let layer = total(20 * MS);
    let service = layer
        .layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(script([Hang]).declaring(2))) }));
    let call = service.oneshot(get());
    let mut body = futures_util::FutureExt::now_or_never(call).expect("it is ready").unwrap().into_body();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let begin = Instant::now();
    loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            std::task::Poll::Pending => assert!(begin.elapsed() < Duration::from_secs(10), "it never ends"),
            std::task::Poll::Ready(frame) => break assert_eq!(cut(frame), Reason::DeadlinePassed),
        }
        std::thread::yield_now();
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_but_is_not_polled_again_does_not_hold_the_body() {
    let (layer, inside) = (idle(50 * MS), Meter::default());
    let mut body = through(&layer, &inside, get(), script([Hang])).await;
    assert!(poll_once(std::pin::pin!(next(&mut body))).is_pending());
    sleep(70 * MS).await;
    assert_eq!(inside.held(), 0);
    assert_eq!(cut(next(&mut body).await), Reason::DeadlinePassed, "it waited: the service is slow");
}

#[tokio::test(start_paused = true)]
async fn an_endless_body_that_is_always_ready_ends_too() {
    let (layer, inside) = (total(50 * MS), Meter::default());
    let endless = (0..1_000_000).map(|_| Data("x"));
    let mut body = through(&layer, &inside, get(), script(endless)).await;
    let mut frames = 0;
    let reason = loop {
        match next(&mut body).await {
            Some(Ok(_)) => frames += 1,
            frame => break cut(frame),
        }
        if frames % 10 == 0 {
            sleep(MS).await;
        }
    };
    assert!((400..=700).contains(&frames), "{frames}");
    assert_eq!((reason, inside.held()), (Reason::ClientDeadlinePassed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_dropped_goes_at_once_and_takes_its_task_along() {
    let before = Handle::current().metrics().num_alive_tasks();
    let steps = || vec![Data("a"), Wait(MS), Data("b"), Wait(MS), Data("c"), Hang];
    for polls in 0..6 {
        for body in both_ways(steps) {
            let (layer, inside) = (server(DeadlineConfig::new(50 * MS).idle(30 * MS)), Meter::default());
            let mut body = through(&layer, &inside, get(), body).await;
            for _ in 0..polls {
                let _ = poll_once(std::pin::pin!(next(&mut body)));
                advance(MS).await;
            }
            assert_eq!(inside.held(), 1);
            drop(body);
            assert_eq!(inside.held(), 0, "after {polls} polls");
            tokio::task::yield_now().await;
            assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
            advance(Duration::from_secs(1)).await;
            let snapshot = layer.handle().snapshot();
            assert_eq!(snapshot.bodies_cut_total + snapshot.idle_total, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_stays_broken() {
    for body in both_ways(|| vec![Data("a"), Fail, Hang]) {
        let (layer, inside) = (total(50 * MS), Meter::default());
        let mut body = through(&layer, &inside, get(), body).await;
        assert_eq!(text(next(&mut body).await), "a");
        assert_eq!(next(&mut body).await.unwrap().unwrap_err().to_string(), "broken");
        assert_eq!(inside.outcomes(), [Some(Outcome::Failure)]);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(layer.handle().snapshot().bodies_cut_total, 0, "its task is gone");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_body_says_of_itself_is_passed_on() {
    let layer = total(50 * MS);
    for (declared, watched) in [(Some(3), false), (Some(1_000_000), true), (None, true)] {
        let body = script([Data("abc")]);
        let body = if let Some(bytes) = declared { body.declaring(bytes) } else { body };
        let before = Handle::current().metrics().num_alive_tasks();
        let mut body = through(&layer, &Meter::default(), get(), body).await;
        assert_eq!(Handle::current().metrics().num_alive_tasks() - before, usize::from(watched));
        assert_eq!(body.size_hint().exact(), declared);
        assert!(!body.is_end_stream());
        assert_eq!(text(next(&mut body).await), "abc");
        assert!(body.is_end_stream());
        tokio::task::yield_now().await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), before, "gone before anyone asks for the end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_cut_at_the_clients_short_deadline_accuses_nobody() {
    for (millis, want, outcome) in
        [("20", Reason::ClientDeadlinePassed, Outcome::Ignored), ("99", Reason::DeadlinePassed, Outcome::Failure)]
    {
        for body in both_ways(|| vec![Data("a"), Hang]) {
            let layer = server(DeadlineConfig::new(50 * MS).read(Headers::new().header("x-wait")));
            let (outside, body) = (Meter::default(), Mutex::new(Some(body)));
            let handler = service_fn(move |_: Request<()>| {
                let body = body.lock().unwrap().take().unwrap();
                async { Ok::<_, Infallible>(Response::new(body)) }
            });
            let req = Request::get("/").header("x-wait", millis).body(()).unwrap();
            let mut body = outside.server().layer(layer.layer(handler)).oneshot(req).await.unwrap().into_body();
            assert_eq!(text(next(&mut body).await), "a");
            assert_eq!(cut(next(&mut body).await), want);
            assert_eq!(outside.outcomes(), [Some(outcome)]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_layers_the_outer_one_cuts_the_body() {
    let (outer, inner) = (total(50 * MS), total(80 * MS));
    let before = Handle::current().metrics().num_alive_tasks();
    let handler = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(script([Hang]))) });
    let mut body = outer.layer(inner.layer(handler)).oneshot(get()).await.unwrap().into_body();
    assert_eq!(Handle::current().metrics().num_alive_tasks() - before, 1, "one task for both");
    assert_eq!(cut(next(&mut body).await), Reason::DeadlinePassed);
    assert_eq!((outer.handle().snapshot().bodies_cut_total, inner.handle().snapshot().bodies_cut_total), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_only_observes_counts_and_cuts_nothing() {
    for (mode, observed) in [(Mode::OBSERVE_ONLY, 2), (Mode::Disabled, 0)] {
        for body in both_ways(|| vec![Data("a"), Wait(500 * MS), Data("b")]) {
            let layer = server(DeadlineConfig::new(50 * MS).idle(30 * MS));
            layer.handle().set_mode(mode).unwrap();
            let body = through(&layer, &Meter::default(), get(), body).await;
            assert_eq!(body.collect().await.unwrap().to_bytes(), "ab");
            let snapshot = layer.handle().snapshot();
            assert_eq!((snapshot.bodies_cut_total, snapshot.idle_total), (0, 0));
            assert!(snapshot.observed_total <= observed && (observed == 0 || snapshot.observed_total > 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_a_body_frees_it_and_passes_on() {
    struct Bug;
    impl Body for Bug {
        type Data = bytes::Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
            panic!("a bug")
        }
    }
    let (layer, inside) = (total(50 * MS), Meter::default());
    let handler = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Bug)) });
    let body = layer.layer(inside.server().layer(handler)).oneshot(get()).await.unwrap().into_body();
    let panic = tokio::spawn(body.collect()).await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"a bug"));
    assert_eq!(inside.held(), 0);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(layer.handle().snapshot().bodies_cut_total, 0);
}
