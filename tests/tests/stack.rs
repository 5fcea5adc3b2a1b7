//! The standard stacks: what they build, what they say of themselves, what they refuse to build.

use buttress::{breaker::State, http::ReplayBody, prelude::*, stack};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use std::{convert::Infallible, time::Duration};
use tower::{Layer, ServiceExt as _, service_fn};

/// What a transport gets.
type Attempt = Request<ReplayBody<Empty<Bytes>>>;

fn get() -> Request<Empty<Bytes>> {
    Request::new(Empty::new())
}

#[tokio::test(start_paused = true)]
async fn a_client_stack_cuts_attempts_opens_and_refuses() {
    let stack = stack::client()
        .deadline(Duration::from_secs(5))
        .per_try(Duration::from_secs(1))
        .without_retry()
        .breaker(BreakerConfig::default().consecutive(3).open_for(Duration::from_secs(4)))
        .build()
        .unwrap();
    let registry = Registry::new();
    stack.register(&registry, "users");
    let hung = service_fn(|_: Attempt| std::future::pending::<Result<Response<Full<Bytes>>, std::io::Error>>());
    let client = stack.layer(hung.lift_errors());
    for _ in 0..3 {
        let started = tokio::time::Instant::now();
        let late = client.clone().oneshot(get()).await.unwrap_err();
        assert_eq!(late.rejection().unwrap().reason, Reason::DeadlinePassed);
        assert_eq!(started.elapsed().as_millis().div_ceil(10), 100, "the time of one attempt");
    }
    let open = client.oneshot(get()).await.unwrap_err();
    assert_eq!(open.rejection().unwrap().reason, Reason::BreakerOpen);
    assert_eq!(stack.breaker().state(), State::Open);
    let names: Vec<_> = registry.snapshot().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["users.deadline", "users.retry", "users.breaker", "users.bulkhead", "users.per_try"]);
}

/// A transport that answers with this status.
fn answering(
    status: u16,
) -> impl tower::Service<Attempt, Response = Response<Full<Bytes>>, Error = std::io::Error, Future: Send> + Clone {
    service_fn(move |_: Attempt| async move { Ok(Response::builder().status(status).body(Full::default()).unwrap()) })
}

#[tokio::test(start_paused = true)]
async fn a_client_stack_retries_what_its_budget_pays_for() {
    let stack = stack::client().without_breaker().build().unwrap();
    let client = stack.layer(answering(503).lift_errors());
    for _ in 0..1000 {
        assert_eq!(client.clone().oneshot(get()).await.unwrap().status(), 503, "the last real answer");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = stack.retry().snapshot();
    // A tenth of the calls, and one a second.
    assert!((80..=115).contains(&seen.retries_total), "{seen:?}");
    assert_eq!(seen.first_total, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_balanced_stack_goes_to_the_endpoints_that_work() {
    let stack = stack::client().breaker(BreakerConfig::default().consecutive(3)).build().unwrap();
    let endpoints = [("a", 503), ("b", 200), ("c", 200)].map(|(name, status)| (name, answering(status).lift_errors()));
    let balanced = stack.balanced(endpoints).unwrap();
    let registry = Registry::new();
    balanced.register(&registry, "users");
    let balancer = balanced.balancer();
    let text = balanced.describe().to_string();
    assert!(text.lines().any(|line| line.starts_with("balance    endpoints=3")), "{text}");
    let client = balanced.clone();
    for _ in 0..1000 {
        assert_eq!(client.clone().oneshot(get()).await.unwrap().status(), 200);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seen = balancer.snapshot();
    assert!(seen.endpoint("a").unwrap().picks_total <= 5, "{seen:#?}");
    assert_eq!(stack.retry().snapshot().recovered_total, seen.endpoint("a").unwrap().failures_total);
    let names: Vec<_> = registry.snapshot().into_iter().map(|entry| entry.name).collect();
    let each = ["a", "b", "c"].into_iter().flat_map(|e| [format!("users/{e}.breaker"), format!("users/{e}.bulkhead")]);
    let all = ["users.deadline", "users.retry", "users.balance", "users.per_try"].map(str::to_owned);
    assert_eq!(names, all.into_iter().chain(each).collect::<Vec<_>>());

    // Endpoints come and go while calls run.
    balanced.breaker("b").unwrap().set_mode(Mode::ForcedOpen).unwrap();
    balanced.insert("d", answering(204).lift_errors()).unwrap();
    assert!(balanced.remove("c") && !balanced.remove("c") && balanced.breaker("c").is_none());
    for _ in 0..20 {
        assert_eq!(client.clone().oneshot(get()).await.unwrap().status(), 204, "no other works");
    }
    assert_eq!(balanced.bulkhead("d").unwrap().snapshot().in_flight, 0);

    let twice = [("a", answering(200).lift_errors()), ("a", answering(200).lift_errors())];
    assert_eq!(stack.balanced(twice).unwrap_err().to_string(), "`endpoints` is \"a\" twice, allowed: each name once");
}

#[tokio::test(start_paused = true)]
async fn a_server_stack_answers_by_itself() {
    let stack = stack::server().deadline(Duration::from_secs(1)).bulkhead(1).build().unwrap();
    let slow = service_fn(|_: Request<Empty<Bytes>>| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("late")))
    });
    let server = stack.layer(slow);
    let first = tokio::spawn(server.clone().oneshot(get()));
    tokio::task::yield_now().await;
    let full = server.oneshot(get()).await.unwrap();
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(full.into_body().collect().await.unwrap().to_bytes(), "at capacity");
    let late = first.await.unwrap().unwrap();
    assert_eq!(late.into_body().collect().await.unwrap().to_bytes(), "deadline passed");
    assert_eq!(stack.bulkhead().snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn an_opaque_stack_guards_what_is_no_http() {
    let stack = stack::client().bulkhead(1).build().unwrap().opaque();
    let slow = service_fn(|id: u64| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, std::io::Error>(id)
    });
    let client: stack::ClientService<_, _> = stack.layer(slow.lift_errors());
    let first = tokio::spawn(client.clone().oneshot(7));
    tokio::task::yield_now().await;
    let refused = client.oneshot(8).await.unwrap_err();
    assert_eq!(refused.rejection().unwrap().reason, Reason::AtCapacity);
    assert_eq!(first.await.unwrap().unwrap(), 7);
}

#[test]
fn parts_that_are_switched_off_are_there_and_disabled() {
    let stack = stack::client().without_breaker().without_bulkhead().build().unwrap();
    assert_eq!((stack.breaker().mode(), stack.bulkhead().mode()), (Mode::Disabled, Mode::Disabled));
    assert_eq!(stack.describe().get("breaker.mode"), Some("disabled"));
    assert_eq!(stack.describe().get("deadline.mode"), None);
}

#[test]
fn a_description_is_a_line_per_layer_and_two_can_be_compared() {
    let stack = stack::client().build().unwrap();
    let before = stack.describe();
    assert_eq!(before.layers().collect::<Vec<_>>(), ["deadline", "retry", "breaker", "bulkhead", "per_try"]);
    let text = before.to_string();
    assert!(text.lines().next().unwrap().starts_with("deadline   total=30s idle=30s"), "{text}");
    stack.bulkhead().set_limit(7).unwrap();
    stack.breaker().set_mode(Mode::ForcedOpen).unwrap();
    let changes: Vec<_> = stack.describe().diff(&before).iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["breaker.mode: (none) -> forced_open", "bulkhead.limit: 128 -> 7"]);
}

#[test]
fn layers_that_do_not_fit_together_are_named() {
    let client = |change: fn(stack::ClientConfig) -> stack::ClientConfig| {
        change(stack::client()).build().unwrap_err().to_string()
    };
    assert_eq!(
        client(|c| c.per_try(Duration::from_secs(30))),
        "`per_try.per_try` is 30s, allowed: less than `deadline.total`, which is 30s"
    );
    assert_eq!(
        client(|c| c.breaker(BreakerConfig::default().slow_after(Duration::from_secs(20)).slow_rate(0.5))),
        "`breaker.slow_after` is 20s, allowed: less than `per_try.per_try`, which is 10s"
    );
    assert_eq!(
        client(|c| c.breaker(BreakerConfig::default().failure_rate(1.5))),
        "`breaker.failure_rate` is 1.5, allowed: more than 0 and at most 1"
    );
    assert!(
        client(|c| c.bulkhead(BulkheadConfig::new(5).max_queue(10)))
            .starts_with("`bulkhead.max_queue` is 10, allowed: 0")
    );
    let server = stack::server().bulkhead(BulkheadConfig::new(5).max_queue(10)).build().unwrap_err();
    assert_eq!(server.field, "bulkhead.max_queue");
    assert_eq!(
        client(|c| c.deadline(Duration::ZERO)),
        "`per_try.per_try` is 10s, allowed: less than `deadline.total`, which is 0s"
    );
}

#[test]
fn a_stack_is_read_from_a_file_and_a_typo_is_named() {
    let config: stack::ClientConfig = serde_json::from_str(r#"{"bulkhead": {"limit": 5}, "breaker": null}"#).unwrap();
    let stack = config.build().unwrap();
    assert_eq!((stack.bulkhead().config().limit, stack.breaker().mode()), (5, Mode::Disabled));
    let error = serde_json::from_str::<stack::ClientConfig>(r#"{"bulkhead": {"limmit": 5}}"#).unwrap_err().to_string();
    assert!(error.contains("limmit") && error.contains("limit"), "{error}");
}
