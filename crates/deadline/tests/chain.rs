//! Deadlines that travel: headers in, the context, headers out, layers inside layers.
mod common;

use buttress_core::{Context, Deadline, Mode, Outcome, Reason, Rejection, http::HttpServer};
use buttress_deadline::{CutLayer, DeadlineConfig, DeadlineLayer, Headers};
use bytes::Bytes;
use common::*;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};

type Reply = Result<Response<Empty<Bytes>>, Infallible>;
type Server = CutLayer<HttpServer>;

fn server(config: DeadlineConfig) -> Server {
    DeadlineLayer::new(config.build().unwrap()).protocol(HttpServer::new())
}

fn both() -> Headers {
    Headers::new().header("x-request-timeout-ms")
}

fn with_millis(text: &str) -> Request<()> {
    Request::get("/").header("x-request-timeout-ms", text).body(()).unwrap()
}

/// What the service inside sees: the context and the headers.
async fn seen(layer: &Server, req: Request<()>) -> (Option<Context>, HeaderMap) {
    let seen = Arc::new(Mutex::new(None));
    let service = layer.layer(service_fn(|req: Request<()>| {
        *seen.lock().unwrap() = Some((Context::of(req.extensions()).cloned(), req.headers().clone()));
        async { Reply::Ok(Response::default()) }
    }));
    service.oneshot(req).await.unwrap();
    seen.lock().unwrap().take().expect("the service inside was called")
}

async fn deadline(layer: &Server, req: Request<()>) -> Option<Deadline> {
    seen(layer, req).await.0.and_then(|context| context.deadline)
}

async fn hang(layer: &Server, req: Request<()>) -> (Reason, Duration) {
    let start = Instant::now();
    let res = layer.layer(service_fn(|_: Request<()>| pending::<Reply>())).oneshot(req).await.unwrap();
    (res.extensions().get::<Rejection>().expect("a refusal").reason, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_the_earlier_one_and_never_above_our_own() {
    let layer = server(DeadlineConfig::new(100 * MS).read(both()));
    let at = |millis| (Instant::now() + millis * MS).into_std();
    for (req, want) in [
        (get(), Deadline::new(at(100))),
        (with_millis("40"), Deadline { at: at(40), by_client: true }),
        (with_millis("100"), Deadline::new(at(100))),
        (with_millis("40000000000000000000000000"), Deadline::new(at(100))),
        (grpc("40m"), Deadline { at: at(40), by_client: true }),
        (grpc("99999999H"), Deadline::new(at(100))),
    ] {
        let told = format!("{:?}", req.headers());
        assert_eq!(deadline(&layer, req).await, Some(want), "{told}");
    }
    let mut short = get();
    Context::of_mut(short.extensions_mut()).deadline = Some(Deadline::new(at(20)));
    assert_eq!(deadline(&layer, short).await, Some(Deadline::new(at(20))));
    let with_attempts = server(DeadlineConfig::new(100 * MS).per_try(10 * MS));
    assert_eq!(deadline(&with_attempts, get()).await, Some(Deadline::new(at(100))), "an attempt's end is its own");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_unless_the_config_says_so() {
    let layer = server(DeadlineConfig::new(100 * MS));
    let ours = Deadline::new((Instant::now() + 100 * MS).into_std());
    assert_eq!(deadline(&layer, grpc("1m")).await, Some(ours));
    assert_eq!(deadline(&layer, grpc("0m")).await, Some(ours));
    let no_grpc = server(DeadlineConfig::new(100 * MS).read(both().grpc_timeout(false)));
    assert_eq!(deadline(&no_grpc, grpc("1m")).await, Some(ours));
    // A header of gRPC on a request that is none.
    let plain = Request::get("/").header("grpc-timeout", "1m").body(()).unwrap();
    assert_eq!(deadline(&server(DeadlineConfig::new(100 * MS).read(both())), plain).await, Some(ours));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_has_passed_is_refused_without_an_attempt() {
    let calls = Arc::new(AtomicUsize::new(0));
    let layer = server(DeadlineConfig::new(100 * MS).read(both()));
    let service = layer.layer(service_fn(|_: Request<()>| {
        calls.fetch_add(1, SeqCst);
        async { Reply::Ok(Response::default()) }
    }));
    let mut passed = get();
    Context::of_mut(passed.extensions_mut()).deadline = Some(Deadline::new(Instant::now().into_std()));
    for (req, want) in [
        (with_millis("0"), Reason::ClientDeadlinePassed),
        (with_millis("-20"), Reason::ClientDeadlinePassed),
        (grpc("0S"), Reason::ClientDeadlinePassed),
        (grpc("-1S"), Reason::ClientDeadlinePassed),
        (passed, Reason::DeadlinePassed),
    ] {
        let res = service.clone().oneshot(req).await.unwrap();
        assert_eq!(res.extensions().get::<Rejection>().unwrap().reason, want);
    }
    let snapshot = layer.handle().snapshot();
    assert_eq!((calls.load(SeqCst), snapshot.refused_total, snapshot.malformed_total), (0, 5, 0));
    let zero = DeadlineLayer::new(Duration::ZERO).protocol(HttpServer::new());
    let opaque =
        DeadlineLayer::new(Duration::ZERO).layer(service_fn(|_: ()| async { Ok::<_, buttress_core::BoxError>(()) }));
    assert_eq!(hang(&zero, get()).await, (Reason::DeadlinePassed, Duration::ZERO));
    assert!(opaque.oneshot(()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn garbage_is_ignored_and_counted_and_our_own_deadline_holds() {
    let layer = server(DeadlineConfig::new(100 * MS).read(both()));
    for req in [with_millis("soon"), with_millis(""), grpc("5"), grpc("123456789S")] {
        let (reason, after) = hang(&layer, req).await;
        assert_eq!((reason, after), (Reason::DeadlinePassed, 100 * MS));
    }
    assert_eq!(layer.handle().snapshot().malformed_total, 4);
}

#[tokio::test(start_paused = true)]
async fn the_clients_short_deadline_accuses_nobody() {
    let (layer, meter) = (server(DeadlineConfig::new(100 * MS).read(both())), Meter::default());
    assert_eq!(hang(&layer, grpc("1m")).await, (Reason::ClientDeadlinePassed, MS));
    let service = meter.server().layer(layer.layer(service_fn(|_: Request<()>| pending::<Reply>())));
    for req in [grpc("1m"), with_millis("7"), grpc("1H")] {
        service.clone().oneshot(req).await.unwrap().collect().await.unwrap();
    }
    assert_eq!(meter.outcomes(), [Some(Outcome::Ignored), Some(Outcome::Ignored), Some(Outcome::Failure)]);
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.client_passed_total, snapshot.passed_total), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_layer_between_us_and_the_attempt_is_not_accused_either() {
    // total, as the client shortened it > meter > a per-try time-out that the total makes needless or not.
    let meter = Meter::default();
    let total = server(DeadlineConfig::new(Duration::from_secs(1)).read(both()));
    let per_try = server(DeadlineConfig::default().per_try(50 * MS));
    let service = total.layer(meter.server().layer(per_try.layer(service_fn(|_: Request<()>| pending::<Reply>()))));
    service.clone().oneshot(with_millis("20")).await.unwrap();
    service.clone().oneshot(with_millis("80")).await.unwrap();
    assert_eq!(meter.outcomes(), [None, Some(Outcome::Failure)], "abandoned; our own per-try time-out");
}

#[tokio::test(start_paused = true)]
async fn what_remains_goes_on_to_the_next_server() {
    let layer = server(DeadlineConfig::new(100 * MS).emit(both()));
    let (_, headers) = seen(&layer, get()).await;
    assert_eq!(headers["x-request-timeout-ms"], "100");
    let (_, headers) = seen(&layer, grpc("9S")).await;
    assert_eq!(headers.get_all("grpc-timeout").iter().collect::<Vec<_>>(), ["100000u"]);
    assert_eq!(headers["x-request-timeout-ms"], "100", "both say the same, so none of a stranger's stays");

    // total > (time passes) > per try: an attempt says what remains of itself, and the total stays what it was.
    let total = server(DeadlineConfig::new(100 * MS));
    let per_try = server(DeadlineConfig::default().per_try(50 * MS).emit(both()));
    for (spent, want) in [(20, "50"), (80, "20")] {
        let at = (Instant::now() + 100 * MS).into_std();
        let service = total.layer(service_fn(|req| {
            let per_try = per_try.clone();
            async move {
                sleep(spent * MS).await;
                let (context, headers) = seen(&per_try, req).await;
                assert_eq!(headers["x-request-timeout-ms"], want);
                assert_eq!(context.unwrap().deadline, Some(Deadline::new(at)));
                Reply::Ok(Response::default())
            }
        }));
        assert_eq!(service.oneshot(get()).await.unwrap().status(), 200);
    }
    // Nothing bounds the call: the headers stay as they came.
    let none = server(DeadlineConfig::default().emit(both()));
    assert_eq!(seen(&none, grpc("9S")).await.1["grpc-timeout"], "9S");
}

#[tokio::test(start_paused = true)]
async fn without_propagation_nobody_makes_a_context() {
    let layer = server(DeadlineConfig::new(100 * MS).propagate(false));
    assert_eq!(seen(&layer, get()).await.0, None);
    assert_eq!(hang(&layer, get()).await, (Reason::DeadlinePassed, 100 * MS));
    let per_try = server(DeadlineConfig::default().per_try(100 * MS));
    assert_eq!(seen(&per_try, get()).await.0, None);
    // A context that is there is obeyed all the same, and stays as it is.
    let with_context = |millis| {
        let (mut req, deadline) = (get(), Deadline::new((Instant::now() + millis * MS).into_std()));
        Context::of_mut(req.extensions_mut()).deadline = Some(deadline);
        (req, Some(deadline))
    };
    assert_eq!(hang(&layer, with_context(20).0).await, (Reason::DeadlinePassed, 20 * MS));
    let (long, kept) = with_context(500);
    assert_eq!(deadline(&layer, long).await, kept);
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_does_not_enforce_tells_nobody() {
    let layer = server(DeadlineConfig::new(100 * MS).emit(both()));
    for mode in [Mode::OBSERVE_ONLY, Mode::Disabled] {
        layer.handle().set_mode(mode).unwrap();
        let (context, headers) = seen(&layer, get()).await;
        assert_eq!((context, headers.len()), (None, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_deadlines_the_earlier_one_ends_the_call() {
    for (outer, inner, ended_outside) in [(30, 50, 1), (50, 30, 0), (30, 30, 1)] {
        let (outside, inside) = (server(DeadlineConfig::new(outer * MS)), server(DeadlineConfig::new(inner * MS)));
        let start = Instant::now();
        let service = outside.layer(inside.layer(service_fn(|_: Request<()>| pending::<Reply>())));
        assert_eq!(service.oneshot(get()).await.unwrap().status(), 503);
        assert_eq!(start.elapsed(), 30 * MS);
        let counts = (outside.handle().snapshot().passed_total, inside.handle().snapshot().passed_total);
        assert_eq!(counts, (ended_outside, 1 - ended_outside));
    }
}

#[test]
fn a_deadline_that_an_outer_one_makes_needless_makes_no_timer() {
    // This runtime has no timers: a Sleep would panic.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let inside = server(DeadlineConfig::new(50 * MS).per_try(20 * MS));
        let at = (Instant::now() + 10 * MS).into_std();
        let mut req = get();
        let context = Context::of_mut(req.extensions_mut());
        (context.deadline, context.enforced) = (Some(Deadline::new(at)), Some(at));
        let service = inside.layer(service_fn(|_: Request<()>| async {
            tokio::task::yield_now().await;
            Reply::Ok(Response::default())
        }));
        assert_eq!(service.oneshot(req).await.unwrap().status(), 200);
    });
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_nobody_enforces_is_enforced_here() {
    let layer = server(DeadlineConfig::default());
    let mut req = get();
    Context::of_mut(req.extensions_mut()).deadline =
        Some(Deadline { at: (Instant::now() + 10 * MS).into_std(), by_client: true });
    assert_eq!(hang(&layer, req).await, (Reason::ClientDeadlinePassed, 10 * MS));
}
