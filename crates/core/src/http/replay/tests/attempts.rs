use super::*;
use crate::{
    BoxError, Deadline, Opaque, Priority, TokioClock,
    http::{HttpClient, HttpServer},
};
use ::http::Method;
use http_body_util::{Empty, Full};

const CAP: usize = 100;

fn request(headers: &[(&'static str, &'static str)]) -> Request<Fodder> {
    let mut req = Request::new(Feed::of([data("one"), data("two")]).body());
    *req.method_mut() = Method::PUT;
    *req.uri_mut() = "http://there/path?query".parse().unwrap();
    for (name, value) in headers {
        req.headers_mut().append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    req
}

fn text<B>(req: Request<ReplayBody<B>>) -> String
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut body = req.into_body();
    let mut all = String::new();
    while let Got::Data(data) = poll(&mut body) {
        all.push_str(std::str::from_utf8(&data).unwrap());
    }
    all
}

#[test]
fn every_attempt_has_the_head_and_the_body_and_says_which_it_is() {
    let protocol = HttpServer::new();
    let (first, mut kept) = protocol.record(request(&[("accept", "a"), ("accept", "b")]), CAP);
    assert!(Context::of(first.extensions()).is_none(), "the first attempt needs none");
    assert!(!first.headers().contains_key(ATTEMPT_COUNT));
    let (method, uri, version) = (first.method().clone(), first.uri().clone(), first.version());
    assert_eq!(text(first), "onetwo");
    for attempt in 1..4 {
        let again = protocol.again(&mut kept, attempt).unwrap();
        assert_eq!((again.method(), again.uri(), again.version()), (&method, &uri, version));
        assert_eq!(again.headers().get_all("accept").iter().count(), 2);
        assert_eq!(again.headers()[ATTEMPT_COUNT], (attempt + 1).to_string());
        assert!(!again.headers().contains_key(PREVIOUS_ATTEMPTS), "it is not gRPC");
        let context = Context::of(again.extensions()).unwrap();
        assert_eq!((context.attempt, context.priority), (attempt, Priority::Sheddable));
        assert_eq!(protocol.tried_before(&again), attempt);
        assert_eq!(text(again), "onetwo");
    }
}

#[test]
fn every_attempt_has_the_extensions_with_a_context_among_them_or_without() {
    #[derive(Clone, Debug, PartialEq)]
    struct Own(u8);
    let protocol = HttpServer::new();
    for (own, with_context) in [(None, false), (None, true), (Some(Own(7)), false), (Some(Own(7)), true)] {
        let mut req = request(&[]);
        let deadline = with_context.then(|| Deadline::new(crate::Clock::now(&TokioClock)));
        if with_context {
            Context::of_mut(req.extensions_mut()).deadline = deadline;
        }
        own.clone().map(|own| req.extensions_mut().insert(own));
        let (first, mut kept) = protocol.record(req, CAP);
        let attempts = [first, protocol.again(&mut kept, 1).unwrap(), protocol.again(&mut kept, 2).unwrap()];
        for attempt in attempts {
            assert_eq!(attempt.extensions().get::<Own>(), own.as_ref());
            assert_eq!(Context::of(attempt.extensions()).and_then(|context| context.deadline), deadline);
        }
    }
}

#[test]
fn grpc_counts_in_its_own_header_too() {
    let protocol = HttpClient::new();
    let mut req = request(&[("content-type", "application/grpc+proto")]);
    *req.method_mut() = Method::POST;
    let (_, mut kept) = protocol.record(req, CAP);
    let again = protocol.again(&mut kept, 2).unwrap();
    assert_eq!(again.headers()[PREVIOUS_ATTEMPTS], "2");
    assert_eq!(again.headers()[ATTEMPT_COUNT], "3");
}

#[test]
fn attempts_have_a_context_of_their_own() {
    let protocol = HttpServer::new();
    let deadline = Deadline::new(crate::Clock::now(&TokioClock));
    let mut req = request(&[]);
    *Context::of_mut(req.extensions_mut()) =
        Context { deadline: Some(deadline), priority: Priority::Critical, ..Context::default() };
    let (first, mut kept) = protocol.record(req, CAP);
    let context = Context::of(first.extensions()).unwrap();
    assert_eq!((context.priority, context.attempt), (Priority::Critical, 0));
    for attempt in 1..3 {
        let again = protocol.again(&mut kept, attempt).unwrap();
        let context = Context::of(again.extensions()).unwrap();
        assert_eq!((context.deadline, context.priority), (Some(deadline), Priority::Normal), "lowered once");
    }
}

#[test]
fn attempts_of_somebody_further_out_are_counted_on() {
    let protocol = HttpServer::new();
    let (_, mut kept) = protocol.record(request(&[("x-envoy-attempt-count", "3")]), CAP);
    let again = protocol.again(&mut kept, 1).unwrap();
    assert_eq!((protocol.tried_before(&again), &again.headers()[ATTEMPT_COUNT]), (3, &HeaderValue::from(4)));
    let mut req = request(&[]);
    Context::of_mut(req.extensions_mut()).attempt = u32::MAX;
    let (_, mut kept) = protocol.record(req, CAP);
    assert_eq!(protocol.tried_before(&protocol.again(&mut kept, 1).unwrap()), u32::MAX);
}

#[test]
fn who_tried_before_is_read_from_the_context_else_from_headers_else_nobody_did() {
    let before = |headers: &[(&'static str, &'static str)]| HttpServer::new().tried_before(&request(headers));
    assert_eq!(before(&[]), 0);
    for (count, want) in [("1", 0), ("2", 1), ("0", 0), ("0003", 2), ("4294967295", u32::MAX - 1)] {
        assert_eq!(before(&[("x-envoy-attempt-count", count)]), want, "{count}");
    }
    assert_eq!(before(&[("x-envoy-attempt-count", "99999999999999999999")]), u32::MAX - 1);
    for (count, want) in [("0", 0), ("1", 1), ("4", 4), ("99999999999999999999", u32::MAX)] {
        assert_eq!(before(&[("grpc-previous-rpc-attempts", count)]), want, "{count}");
    }
    for garbage in ["", "-1", "+2", "2 ", "two", "1.5", "0x3", "\u{feff}2"] {
        assert_eq!(before(&[("x-envoy-attempt-count", garbage)]), 0, "{garbage:?}");
        assert_eq!(before(&[("grpc-previous-rpc-attempts", garbage)]), 0, "{garbage:?}");
    }
    assert_eq!(before(&[("x-envoy-attempt-count", "3"), ("grpc-previous-rpc-attempts", "1")]), 2);
    let mut req = request(&[("x-envoy-attempt-count", "9")]);
    Context::of_mut(req.extensions_mut()).attempt = 1;
    assert_eq!(HttpServer::new().tried_before(&req), 1, "ours counts what came in");
}

#[test]
fn a_request_that_is_not_sent_again_is_passed_on_as_it_is() {
    let attempt = HttpServer::new().once(request(&[]));
    assert!(Context::of(attempt.extensions()).is_none());
    assert_eq!(format!("{:?}", attempt.body()), "ReplayBody(\"own\")");
    assert_eq!(text(attempt), "onetwo");
}

#[test]
fn a_request_without_a_body_shares_none() {
    let protocol = HttpServer::new();
    let (first, mut kept) = protocol.record(Request::new(Empty::<Bytes>::new()), CAP);
    assert_eq!(format!("{:?}", first.body()), "ReplayBody(\"own\")");
    assert_eq!((first.body().size_hint().exact(), first.body().is_end_stream()), (Some(0), true));
    let again = protocol.again(&mut kept, 1).unwrap();
    assert_eq!(format!("{:?}", again.body()), "ReplayBody(\"empty\")");
    assert_eq!((again.body().size_hint().exact(), again.body().is_end_stream()), (Some(0), true));
    assert_eq!((text(again), kept.buffered(), protocol.lost(&kept)), (String::new(), 0, None));
}

#[test]
fn what_is_kept_says_why_it_cannot_be_sent_again() {
    let protocol = HttpServer::new();
    let (first, mut kept) = protocol.record(request(&[]), 5);
    assert!(!protocol.is_sent(&kept));
    let second = protocol.again(&mut kept, 1).expect("nothing was read yet");
    assert_eq!(
        (text(first), text(second), protocol.lost(&kept)),
        (String::new(), "onetwo".into(), Some(Lost::TooLarge))
    );
    assert!(protocol.is_sent(&kept));
    assert!(protocol.again(&mut kept, 2).is_none());

    let feed = Feed::default();
    feed.push(Err("gone"));
    let (first, mut kept) = protocol.record(Request::new(feed.body()), 5);
    assert_eq!((text(first), protocol.lost(&kept)), (String::new(), Some(Lost::Failed)));
    assert!(protocol.again(&mut kept, 1).is_none());
    assert_eq!([Lost::TooLarge, Lost::Failed].map(Lost::as_str), ["body_too_large", "body_failed"]);
}

#[test]
fn what_is_kept_is_free_when_nobody_will_send_it_again() {
    let protocol = HttpServer::new();
    let (first, kept) = protocol.record(Request::new(Full::new(Bytes::from_static(b"all"))), CAP);
    let mut body = first.into_body();
    assert_eq!((poll(&mut body), kept.buffered()), (got("all"), 3));
    let feed = Feed::default();
    let (first, kept) = protocol.record(Request::new(feed.body()), CAP);
    let store = kept.body.as_ref().unwrap().0.clone();
    let mut body = first.into_body();
    feed.data("one");
    assert_eq!((poll(&mut body), store.buffered()), (got("one"), 3));
    drop(kept);
    assert_eq!(store.buffered(), 0);
    feed.data("two");
    assert_eq!((poll(&mut body), store.buffered()), (got("two"), 0));
    drop(body);
    drop(store);
    assert!(feed.with(|fed| fed.gone));
}

#[test]
fn an_opaque_request_is_cloned() {
    let (first, mut kept) = Opaque::new().record(vec![1], 0);
    assert_eq!((first, Opaque::new().again(&mut kept, 1)), (vec![1], Some(vec![1])));
    assert_eq!((Opaque::new().once(3), Replay::<u8>::tried_before(&Opaque::new(), &3)), (3, 0));
    assert_eq!(Replay::<u8>::lost(&Opaque::new(), &3), None);
    assert!(Replay::<u8>::is_sent(&Opaque::new(), &3));
}
