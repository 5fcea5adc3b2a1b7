//! Calls that are shared: who makes them, who gets what, and what is never shared.

use buttress_core::{BoxError, Handle, Mode, Reason, Rejection};
use buttress_fallback::{Coalesce, CoalesceConfig, CoalesceLayer};
use buttress_sim::{Latch, Script};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tower::{Layer, Service, ServiceExt};

fn by_value(value: &u32) -> Option<u32> {
    (*value != 0).then_some(*value)
}

#[tokio::test]
async fn peer_09_ten_thousand_callers_make_one_call_and_are_polled_twice() {
    let latch = Latch::new();
    let script = Script::new({
        let latch = latch.clone();
        move |value: u32| {
            let latch = latch.clone();
            async move {
                latch.wait().await;
                Ok::<_, BoxError>(value * 2)
            }
        }
    });
    let layer = CoalesceLayer::new(Coalesce::default(), by_value);
    let (handle, service) = (layer.handle(), layer.layer(script.clone()));
    let polls = Arc::new(AtomicU32::new(0));
    let callers: Vec<_> = (0..10_000)
        .map(|_| {
            let (mut service, polls) = (service.clone(), polls.clone());
            tokio::spawn(async move {
                std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
                let mut call = pin!(service.call(7));
                std::future::poll_fn(|cx| {
                    polls.fetch_add(1, Relaxed);
                    call.as_mut().poll(cx)
                })
                .await
            })
        })
        .collect();
    buttress_sim::eventually("all wait", || handle.snapshot().shared_total == 9_999).await;
    let before = polls.load(Relaxed);
    assert!(before <= 10_000, "{before}");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(polls.load(Relaxed) <= 10_000, "nobody is polled while there is nothing new");
    latch.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), 14);
    }
    assert_eq!(script.probe().calls(), 1);
    assert_eq!(polls.load(Relaxed), 20_000, "one poll to wait, one for the result");
    let seen = handle.snapshot();
    assert_eq!((seen.calls_total, seen.shared_total, seen.in_flight, seen.handed_over_total), (1, 9_999, 0, 0));
}

/// Holds every call until it is opened.
fn held(answer: fn(u32) -> Result<u32, BoxError>) -> (Latch, Script<u32, u32>) {
    let latch = Latch::new();
    let script = Script::new({
        let latch = latch.clone();
        move |value: u32| {
            let latch = latch.clone();
            async move {
                latch.wait().await;
                answer(value)
            }
        }
    });
    (latch, script)
}

#[tokio::test]
async fn only_what_is_the_same_is_shared() {
    let (latch, script) = held(Ok);
    let layer = CoalesceLayer::new(Coalesce::default(), by_value);
    let service = layer.layer(script.clone());
    let calls: Vec<_> = [1, 1, 2, 0, 0].into_iter().map(|value| tokio::spawn(service.clone().oneshot(value))).collect();
    buttress_sim::eventually("four calls", || script.probe().calls() == 4).await;
    latch.open();
    let mut got = Vec::new();
    for call in calls {
        got.push(call.await.unwrap().unwrap());
    }
    assert_eq!(got, [1, 1, 2, 0, 0]);
    assert_eq!(layer.handle().snapshot().shared_total, 1);
    // It is over: the next one asks anew.
    assert_eq!(service.oneshot(1).await.unwrap(), 1);
    assert_eq!(script.probe().calls(), 5);
}

#[tokio::test]
async fn a_caller_that_leaves_hands_the_call_over() {
    let (latch, script) = held(Ok);
    let layer = CoalesceLayer::new(Coalesce::default(), by_value);
    let service = layer.layer(script.clone());
    let leader = tokio::spawn(service.clone().oneshot(1));
    buttress_sim::eventually("it is called", || script.probe().calls() == 1).await;
    let others: Vec<_> = (0..3).map(|_| tokio::spawn(service.clone().oneshot(1))).collect();
    buttress_sim::eventually("three wait", || layer.handle().snapshot().shared_total == 3).await;
    leader.abort();
    others[0].abort();
    buttress_sim::eventually("one goes on", || layer.handle().snapshot().handed_over_total >= 1).await;
    latch.open();
    for other in others.into_iter().skip(1) {
        assert_eq!(other.await.unwrap().unwrap(), 1);
    }
    assert_eq!(script.probe().calls(), 1, "the same call");
    assert_eq!(layer.handle().snapshot().in_flight, 0);
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_dropped() {
    let (_latch, script) = held(Ok);
    let layer = CoalesceLayer::new(Coalesce::default(), by_value);
    let service = layer.layer(script.clone());
    for polls in 0..3 {
        let (mut a, mut b) = (Box::pin(service.clone().oneshot(1)), Box::pin(service.clone().oneshot(1)));
        for _ in 0..polls {
            assert!(buttress_sim::poll_once(&mut a).await.is_pending());
            assert!(buttress_sim::poll_once(&mut b).await.is_pending());
        }
        drop(a);
        drop(b);
        assert_eq!(layer.handle().snapshot().in_flight, 0);
    }
}

#[tokio::test]
async fn an_error_is_the_callers_own_and_the_others_are_refused() {
    type Case = (fn(u32) -> Result<u32, BoxError>, &'static str, Reason);
    let cases: [Case; 2] = [
        (|_| Err("lost".into()), "lost", Reason::SharedCallFailed),
        (|_| Err(Rejection::new(Reason::Shed, "shed").into()), "refused by the shed: overloaded", Reason::Shed),
    ];
    for (answer, own, reason) in cases {
        let (latch, script) = held(answer);
        let service = CoalesceLayer::new(Coalesce::default(), by_value).layer(script);
        let (mut a, mut b) = (Box::pin(service.clone().oneshot(1)), Box::pin(service.clone().oneshot(1)));
        assert!(buttress_sim::poll_once(&mut a).await.is_pending());
        assert!(buttress_sim::poll_once(&mut b).await.is_pending());
        latch.open();
        let (a, b) = tokio::join!(a, b);
        assert_eq!(a.unwrap_err().to_string(), own);
        assert_eq!(Rejection::find(&*b.unwrap_err()).unwrap().reason, reason);
    }
}

/// The time of the caller who made the call is over: theirs is not.
#[tokio::test]
async fn a_deadline_of_the_one_who_called_ends_nobody_else() {
    for reason in [Reason::DeadlinePassed, Reason::ClientDeadlinePassed] {
        let latch = Latch::new();
        let calls = Arc::new(AtomicU32::new(0));
        let script = Script::new({
            let (latch, calls) = (latch.clone(), calls.clone());
            move |value: u32| {
                let (latch, call) = (latch.clone(), calls.fetch_add(1, Relaxed));
                async move {
                    latch.wait().await;
                    buttress_sim::pauses(1).await;
                    match call {
                        0 => Err(BoxError::from(Rejection::new(reason, "deadline"))),
                        _ => Ok(value),
                    }
                }
            }
        });
        let layer = CoalesceLayer::new(Coalesce::default(), by_value);
        let service = layer.layer(script);
        let callers: Vec<_> = (0..20).map(|_| tokio::spawn(service.clone().oneshot(1))).collect();
        buttress_sim::eventually("all wait", || layer.handle().snapshot().shared_total == 19).await;
        latch.open();
        let mut failed = 0;
        for caller in callers {
            match caller.await.unwrap() {
                Ok(value) => assert_eq!(value, 1),
                Err(error) => {
                    assert_eq!(Rejection::find(&*error).unwrap().reason, reason);
                    failed += 1;
                }
            }
        }
        assert_eq!((failed, calls.load(Relaxed)), (1, 2), "one more call for all the others");
        assert_eq!(layer.handle().snapshot().in_flight, 0);
    }
}

#[tokio::test]
async fn a_panic_is_the_callers_own_and_the_others_are_refused() {
    let (latch, script) = held(|_| panic!("oh"));
    let layer = CoalesceLayer::new(Coalesce::default(), by_value);
    let service = layer.layer(script);
    let callers: Vec<_> = (0..3).map(|_| tokio::spawn(service.clone().oneshot(1))).collect();
    buttress_sim::eventually("all wait", || layer.handle().snapshot().shared_total == 2).await;
    latch.open();
    let mut panics = 0;
    for caller in callers {
        match caller.await {
            Err(join) => panics += u32::from(join.is_panic()),
            Ok(answer) => assert_eq!(Rejection::find(&*answer.unwrap_err()).unwrap().reason, Reason::Panicked),
        }
    }
    assert_eq!((panics, layer.handle().snapshot().in_flight), (1, 0));
}

#[tokio::test]
async fn modes() {
    let (latch, script) = held(Ok);
    latch.open();
    let layer = CoalesceLayer::new(Coalesce::default(), by_value);
    let handle = layer.handle();
    let service = layer.layer(script.clone());
    for mode in [Mode::Disabled, Mode::OBSERVE_ONLY] {
        handle.set_mode(mode).unwrap();
        service.clone().oneshot(1).await.unwrap();
        assert_eq!(handle.snapshot().calls_total, 0, "{mode:?}");
    }
    handle.set_mode(Mode::Auto).unwrap();
    service.oneshot(1).await.unwrap();
    assert_eq!(handle.snapshot().calls_total, 1);
    assert!(handle.set_mode(Mode::ForcedOpen).is_err());
    handle.update(CoalesceConfig::default().max_body(1)).unwrap();
    assert_eq!(handle.config().max_body, 1);
    assert!(handle.update(CoalesceConfig::default().collect_within(Duration::MAX)).is_err());
    assert_eq!(layer.fresh().handle().snapshot().calls_total, 0);
}

/// It stands inside of the deadline: each caller has his own time, and a call goes on as long as somebody waits.
#[tokio::test(start_paused = true)]
async fn each_caller_has_his_own_time() {
    use buttress_deadline::{DeadlineConfig, DeadlineLayer};
    let script = Script::new(async |value: u32| {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        Ok::<_, BoxError>(value)
    });
    let coalesce = CoalesceLayer::new(Coalesce::default(), by_value);
    let deadline = DeadlineLayer::new(DeadlineConfig::new(Duration::from_secs(1)).build().unwrap());
    let service = deadline.layer(coalesce.layer(script.clone()));
    let first = tokio::spawn(service.clone().oneshot(1));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = tokio::spawn(service.oneshot(1));
    let refused = first.await.unwrap().unwrap_err();
    assert_eq!(Rejection::find(&*refused).unwrap().reason, Reason::DeadlinePassed);
    assert_eq!(second.await.unwrap().unwrap(), 1);
    assert_eq!((script.probe().calls(), coalesce.handle().snapshot().handed_over_total), (1, 1));
}

#[cfg(feature = "http")]
mod http {
    use super::*;
    use ::http::{Request, Response};
    use buttress_core::{Context, Deadline, http::HttpClient};
    use buttress_sim::{AnyBody, Frames};
    use bytes::Bytes;
    use http_body_util::BodyExt;

    type HttpScript = Script<Request<AnyBody>, Response<AnyBody>>;

    /// Answers when it is opened; each body says which call it is of.
    fn held(answer: fn(u32) -> Response<AnyBody>) -> (Latch, HttpScript) {
        let latch = Latch::new();
        let calls = Arc::new(AtomicU32::new(0));
        let script = Script::new({
            let latch = latch.clone();
            move |_: Request<AnyBody>| {
                let (latch, call) = (latch.clone(), calls.fetch_add(1, Relaxed));
                async move {
                    latch.wait().await;
                    Ok(answer(call))
                }
            }
        });
        (latch, script)
    }

    fn get(pairs: &[(&'static str, &'static str)]) -> Request<AnyBody> {
        let mut req = Request::get("http://a.test/x?y").body(AnyBody::default()).unwrap();
        pairs.iter().for_each(|(name, value)| _ = req.headers_mut().append(*name, value.parse().unwrap()));
        req
    }

    fn with(pairs: &[(&'static str, &'static str)], body: Frames) -> Response<AnyBody> {
        let mut res = Response::new(body.into());
        pairs.iter().for_each(|(name, value)| _ = res.headers_mut().append(*name, value.parse().unwrap()));
        res
    }

    async fn read<B>(res: Response<B>) -> Result<Bytes, BoxError>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        Ok(res.into_body().collect().await.map_err(Into::into)?.to_bytes())
    }

    /// What two callers at once get, and how many calls they make.
    async fn two(
        config: CoalesceConfig,
        answer: fn(u32) -> Response<AnyBody>,
    ) -> ([Result<Bytes, String>; 2], u64, u64) {
        let (latch, script) = held(answer);
        let layer = CoalesceLayer::http(config.build().unwrap());
        let service = layer.layer(script.clone());
        let (mut a, mut b) = (Box::pin(service.clone().oneshot(get(&[]))), Box::pin(service.oneshot(get(&[]))));
        assert!(buttress_sim::poll_once(&mut a).await.is_pending());
        assert!(buttress_sim::poll_once(&mut b).await.is_pending());
        latch.open();
        let text = |error: BoxError| error.to_string();
        let (a, b) = tokio::join!(async { read(a.await.unwrap()).await.map_err(text) }, async {
            read(b.await.unwrap()).await.map_err(text)
        });
        assert_eq!(layer.handle().snapshot().in_flight, 0);
        ([a, b], script.probe().calls(), layer.handle().snapshot().parted_total)
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_collected_and_shared() {
        let bodies: [fn(u32) -> Response<AnyBody>; 4] = [
            |_| with(&[], Frames::new().data("abc").data("de").declared()),
            |_| with(&[("content-length", "5")], Frames::new().data("abc").pause().data("de")),
            |_| with(&[("vary", "accept")], Frames::new().data("abcde").pause()),
            |_| with(&[("cache-control", "max-age=5")], Frames::new().data("abc").data("d").data("e").end_known()),
        ];
        for body in bodies {
            let (got, calls, parted) = two(CoalesceConfig::default(), body).await;
            assert_eq!((got, calls, parted), ([Ok("abcde".into()), Ok("abcde".into())], 1, 0));
        }
    }

    /// The one who called gets its stream as it comes, each of the others makes a call of its own.
    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_shared_is_not() {
        type Case = (&'static str, fn(u32) -> Response<AnyBody>);
        fn id_of(call: u32) -> Frames {
            Frames::new().data(call.to_string())
        }
        let cases: [Case; 11] = [
            ("private", |call| with(&[("cache-control", "private")], id_of(call))),
            ("no-store", |call| with(&[("cache-control", "max-age=5, No-Store")], id_of(call))),
            ("no-cache", |call| with(&[("cache-control", "no-cache")], id_of(call))),
            ("a cookie", |call| with(&[("set-cookie", "a=b")], id_of(call))),
            ("Vary: *", |call| with(&[("vary", "x, *")], id_of(call))),
            ("events", |call| with(&[("content-type", "text/event-stream")], id_of(call))),
            ("declared too large", |call| with(&[("content-length", "11")], id_of(call).data("0123456789"))),
            ("by its hint", |call| with(&[], id_of(call).data("0123456789").declared())),
            ("too large", |call| with(&[], id_of(call).data("01234").pause().data("56789"))),
            ("trailers", |call| with(&[], id_of(call).trailers([("x-sum", "1")]))),
            ("late", |call| with(&[], id_of(call).wait(tokio::time::sleep(Duration::from_secs(3))))),
        ];
        for (what, answer) in cases {
            let (got, calls, parted) = two(CoalesceConfig::default().max_body(10), answer).await;
            let first: Vec<_> = got.iter().map(|body| body.as_ref().unwrap()[..1].to_vec()).collect();
            assert_eq!((first, calls, parted), (vec![b"0".to_vec(), b"1".to_vec()], 2, 1), "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_a_body_is_lost_where_it_is_not_shared() {
        let config = || CoalesceConfig::default().max_body(6);
        let (got, ..) = two(config(), |_| with(&[], Frames::new().data("abc").pause().data("defg").data("h"))).await;
        assert_eq!(got, [Ok("abcdefgh".into()), Ok("abcdefgh".into())]);
        let (got, calls, _) = two(config(), |_| with(&[], Frames::new().data("abc").error("reset"))).await;
        assert_eq!((got[0].clone(), calls), (Err("reset".to_owned()), 1));
        assert_eq!(got[1], Ok("the call this one shared failed".into()), "a refusal");
    }

    #[tokio::test]
    async fn only_reads_without_a_body_are_shared() {
        let (latch, script) = held(|_| with(&[], Frames::new().data("x").declared()));
        let layer = CoalesceLayer::http(Coalesce::default());
        let service = layer.layer(script.clone());
        let mut post = get(&[]);
        *post.method_mut() = ::http::Method::POST;
        let mut body = get(&[]);
        *body.body_mut() = Frames::new().data("query").into();
        for req in [post, body, get(&[("upgrade", "websocket"), ("connection", "upgrade")])] {
            let mut call = Box::pin(service.clone().oneshot(req));
            assert!(buttress_sim::poll_once(&mut call).await.is_pending());
            assert_eq!(layer.handle().snapshot().calls_total, 0);
        }
        latch.open();
    }

    #[tokio::test]
    async fn requests_are_the_same_if_nothing_but_noise_tells_them_apart() {
        let same: [&[(&str, &str)]; 3] = [
            &[],
            &[("traceparent", "00-1-1-01"), ("x-request-id", "7")],
            &[("x-envoy-attempt-count", "1"), ("x-correlation-id", "7"), ("tracestate", "a=b")],
        ];
        let others: [&[(&str, &str)]; 10] = [
            &[("authorization", "Basic YQ==")],
            &[("authorization", "Basic Yg==")],
            &[("cookie", "a")],
            &[("accept", "text/html")],
            &[("accept-language", "de")],
            &[("range", "bytes=0-1")],
            &[("if-none-match", "\"a\"")],
            &[("x-api-key", "a")],
            &[("x-list", "a"), ("x-list", "b")],
            &[("x-list", "a, b")],
        ];
        let (latch, script) = held(|_| with(&[], Frames::new().data("x").declared()));
        let layer = CoalesceLayer::http(Coalesce::default());
        let service = layer.layer(script.clone());
        let mut calls = Vec::new();
        for pairs in same.into_iter().chain(others) {
            let mut call = Box::pin(service.clone().oneshot(get(pairs)));
            assert!(buttress_sim::poll_once(&mut call).await.is_pending());
            calls.push(call);
        }
        let mut head = get(&[]);
        *head.method_mut() = ::http::Method::HEAD;
        let mut elsewhere = get(&[]);
        *elsewhere.uri_mut() = "http://a.test/x?z".parse().unwrap();
        for req in [head, elsewhere] {
            let mut call = Box::pin(service.clone().oneshot(req));
            assert!(buttress_sim::poll_once(&mut call).await.is_pending());
            calls.push(call);
        }
        let seen = layer.handle().snapshot();
        assert_eq!((seen.shared_total, script.probe().calls()), (2, 13));
        latch.open();
    }

    /// Who is alone gets the response as it is, its body untouched, and its head at once.
    #[tokio::test]
    async fn who_is_alone_gets_the_response_as_it_came() {
        let (latch, script) = held(|_| with(&[("set-cookie", "a=b")], Frames::new().data("abc").never()));
        latch.open();
        let layer = CoalesceLayer::http(Coalesce::default());
        let res = layer.layer(script).oneshot(get(&[])).await.unwrap();
        assert_eq!(res.headers()["set-cookie"], "a=b");
        let frame = res.into_body().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "abc");
        assert_eq!(layer.handle().snapshot().in_flight, 0);
    }

    #[tokio::test]
    async fn a_refusal_is_written_for_each_as_he_asked() {
        let (latch, script) = held(|_| {
            let mut res = with(&[], Frames::new().data("full"));
            *res.status_mut() = ::http::StatusCode::SERVICE_UNAVAILABLE;
            res.extensions_mut().insert(Rejection::new(Reason::AtCapacity, "bulkhead"));
            res
        });
        let layer = CoalesceLayer::http(Coalesce::default()).key(|_: &Request<AnyBody>| Some(()));
        let service = layer.layer(script.clone());
        let json = get(&[("accept", "application/json")]);
        let (mut a, mut b) = (Box::pin(service.clone().oneshot(get(&[]))), Box::pin(service.oneshot(json)));
        assert!(buttress_sim::poll_once(&mut a).await.is_pending());
        assert!(buttress_sim::poll_once(&mut b).await.is_pending());
        latch.open();
        let (a, b) = tokio::join!(a, b);
        assert_eq!(read(a.unwrap()).await.unwrap(), "full");
        let b = b.unwrap();
        assert_eq!(b.headers()["content-type"], "application/problem+json");
        assert_eq!(b.extensions().get::<Rejection>().unwrap().reason, Reason::AtCapacity);
        assert_eq!(script.probe().calls(), 1);
    }

    /// A call that may outlive its caller is not held to what ends that one.
    #[tokio::test]
    async fn nobody_enforces_the_deadline_of_a_shared_call_but_who_sets_a_timer() {
        let seen = Arc::new(std::sync::Mutex::new(None));
        let script = Script::new({
            let seen = seen.clone();
            move |req: Request<AnyBody>| {
                *seen.lock().unwrap() = Context::of(req.extensions()).cloned();
                async { Ok(Response::new(AnyBody::default())) }
            }
        });
        let now = tokio::time::Instant::now().into_std();
        let mut req = get(&[]);
        let context = Context::of_mut(req.extensions_mut());
        context.deadline = Some(Deadline::new(now));
        context.enforced = Some(now);
        let layer = CoalesceLayer::http(Coalesce::default()).protocol(HttpClient::new());
        layer.layer(script).oneshot(req).await.unwrap();
        let seen = seen.lock().unwrap().clone().unwrap();
        assert_eq!((seen.deadline, seen.enforced), (Some(Deadline::new(now)), None));
    }

    /// RFC 9111, 5.2.1.4, 5.2.1.5, 5.4: who says so wants an answer of his own.
    #[tokio::test]
    async fn who_wants_an_answer_of_his_own_makes_a_call_of_his_own() {
        for pairs in [
            &[("cache-control", "no-cache")][..],
            &[("cache-control", "max-age=5, No-Store")],
            &[("cache-control", "no-store; x")],
            &[("pragma", "no-cache")],
        ] {
            let (_latch, script) = held(|_| with(&[], Frames::new().data("x").declared()));
            let layer = CoalesceLayer::http(Coalesce::default());
            let service = layer.layer(script.clone());
            let (mut a, mut b) =
                (Box::pin(service.clone().oneshot(get(pairs))), Box::pin(service.clone().oneshot(get(pairs))));
            assert!(buttress_sim::poll_once(&mut a).await.is_pending());
            assert!(buttress_sim::poll_once(&mut b).await.is_pending());
            assert_eq!((script.probe().calls(), layer.handle().snapshot().calls_total), (2, 0), "{pairs:?}");
        }
    }

    /// Who may be shed does not decide for who may not.
    #[tokio::test]
    async fn requests_of_another_priority_are_not_the_same() {
        use buttress_core::Priority;
        let (_latch, script) = held(|_| with(&[], Frames::new().data("x").declared()));
        let layer = CoalesceLayer::http(Coalesce::default());
        let service = layer.layer(script.clone());
        let mut calls = Vec::new();
        for priority in [None, Some(Priority::Normal), Some(Priority::Sheddable), Some(Priority::Critical)] {
            let mut req = get(&[]);
            if let Some(priority) = priority {
                Context::of_mut(req.extensions_mut()).priority = priority;
            }
            let mut call = Box::pin(service.clone().oneshot(req));
            assert!(buttress_sim::poll_once(&mut call).await.is_pending());
            calls.push(call);
        }
        assert_eq!((script.probe().calls(), layer.handle().snapshot().shared_total), (3, 1));
    }
}
