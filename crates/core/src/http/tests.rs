use super::*;
use crate::{NoCut, Reason};
use ::http::{HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Poll, Waker},
    time::Duration,
};

/// Writes down what happens to a permit.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);
struct Guard(Log);

impl Log {
    fn guard(&self) -> Guard {
        Guard(self.clone())
    }
    fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }
    fn read(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Settle for Guard {
    fn pending(&mut self) {
        self.0.write("pending");
    }
    fn head(&mut self) {
        self.0.write("head");
    }
    fn conclude(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        let pushback = pushback.map(|p| format!(" {p:?}")).unwrap_or_default();
        self.0.write(format!("{outcome}{pushback}"));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.write("end");
    }
}

/// Frames as scripted, then the end; it says that it has ended only where told to.
struct Script {
    frames: Vec<Result<Frame<Bytes>, &'static str>>,
    says_end: bool,
}

fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn trailers(status: &'static str) -> Result<Frame<Bytes>, &'static str> {
    let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static(status));
    Ok(Frame::trailers([status].into_iter().collect()))
}

fn script(frames: impl IntoIterator<Item = Result<Frame<Bytes>, &'static str>>) -> Script {
    Script { frames: frames.into_iter().collect(), says_end: false }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxedText;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxedText>>> {
        let next = (!self.frames.is_empty()).then(|| self.frames.remove(0));
        Poll::Ready(next.map(|frame| frame.map_err(Into::into)))
    }
    fn is_end_stream(&self) -> bool {
        self.says_end && self.frames.is_empty()
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

type BoxedText = crate::BoxError;

fn get() -> Request<()> {
    Request::new(())
}

fn grpc() -> Request<()> {
    Request::post("/s/m").header("content-type", "application/grpc+proto").body(()).unwrap()
}

/// Ties a guard to `res` as the answer to `req`, reads `polls` frames of its body and drops it.
fn drive<B: ResponseBody>(req: Request<()>, res: Response<B>, polls: usize) -> Vec<String> {
    let log = Log::default();
    let call = HttpServer::new().start(&req);
    let res = call.finish::<Guard, NoCut>(Ok::<_, Infallible>(res), &mut Some(log.guard()), NoCut).unwrap();
    {
        let mut body = pin!(res.into_body());
        let mut cx = std::task::Context::from_waker(Waker::noop());
        for _ in 0..polls {
            let _ = body.as_mut().poll_frame(&mut cx);
        }
        if polls > 0 {
            log.write("drop");
        }
    }
    log.read()
}

fn status(code: u16) -> Response<Script> {
    Response::builder().status(code).body(script([data("a"), data("b")])).unwrap()
}

#[test]
fn a_body_is_finished_when_it_yields_none_and_not_before() {
    assert_eq!(drive(get(), status(200), 3), ["head", "success", "end", "drop"]);
    assert_eq!(drive(get(), status(500), 3), ["head", "failure", "end", "drop"]);
}

#[test]
fn a_body_that_says_it_is_at_its_end_is_finished_after_that_frame() {
    let res = || Response::new(Script { says_end: true, ..script([data("a"), data("b")]) });
    assert_eq!(drive(get(), res(), 2), ["head", "success", "end", "drop"]);
    assert_eq!(drive(get(), res(), 1), ["head", "drop", "end"], "one frame is not the end");
    assert_eq!(drive(get(), Response::new(Full::from("all")), 1), ["head", "success", "end", "drop"]);
}

#[test]
fn a_body_is_finished_when_its_declared_length_was_delivered() {
    let res = |length: &str| {
        Response::builder().header("content-length", length).body(script([data("a"), data("b")])).unwrap()
    };
    assert_eq!(drive(get(), res("2"), 2), ["head", "success", "end", "drop"]);
    assert_eq!(drive(get(), res("3"), 2), ["head", "drop", "end"]);
    assert_eq!(drive(get(), res("2"), 1), ["head", "drop", "end"]);
    assert_eq!(drive(get(), res("0"), 0), ["head", "success", "end"], "nothing was declared");
}

#[test]
fn responses_without_a_body_are_finished_with_their_head() {
    for code in [204, 304] {
        assert_eq!(drive(get(), status(code), 0), ["success", "end"], "{code}");
    }
    let head = Request::head("/").body(()).unwrap();
    assert_eq!(drive(head, status(503), 0), ["failure", "end"]);
    assert_eq!(drive(get(), Response::new(Empty::new()), 0), ["success", "end"]);
}

#[test]
fn an_early_drop_says_what_a_bad_head_said_and_nothing_after_a_good_one() {
    assert_eq!(drive(get(), status(200), 1), ["head", "drop", "end"]);
    assert_eq!(drive(get(), status(502), 1), ["head", "drop", "failure", "end"]);
    let busy = Response::builder().status(429).header("retry-after", "3").body(script([data("a")])).unwrap();
    assert_eq!(drive(get(), busy, 0), ["head", "overload Pushback(3s)", "end"]);
}

#[test]
fn an_error_of_the_body_is_a_failure() {
    let cut = Response::new(script([data("a"), Err("reset")]));
    assert_eq!(drive(get(), cut, 2), ["head", "failure", "end", "drop"]);
}

/// A gRPC response, which says so.
fn spoken<B>(body: B) -> Response<B> {
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

#[test]
fn grpc_is_decided_by_trailers_a_trailers_only_head_or_an_end_without_either() {
    for (code, want) in [("0", "success"), ("14", "failure"), ("8", "overload"), ("5", "success"), ("1", "ignored")] {
        let res = spoken(script([data("m"), trailers(code)]));
        assert_eq!(drive(grpc(), res, 2), ["head", "head", want, "end", "drop"], "{code}");
        let only = Response::builder().header("grpc-status", code).body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(drive(grpc(), only, 0), [want, "end"], "{code}");
    }
    assert_eq!(drive(grpc(), spoken(script([data("m")])), 2), ["head", "head", "failure", "end", "drop"]);
    assert_eq!(drive(grpc(), spoken(Empty::new()), 0), ["failure", "end"]);
    assert_eq!(drive(grpc(), spoken(script([data("m"), trailers("0")])), 1), ["head", "head", "drop", "end"]);
    let web = Request::post("/").header("content-type", "application/grpc-web").body(()).unwrap();
    assert_eq!(drive(web, spoken(Full::from("m")), 1), ["head", "success", "end", "drop"], "grpc-web is HTTP here");
    let get = Request::get("/").header("content-type", "application/grpc").body(()).unwrap();
    assert_eq!(drive(get, spoken(Full::from("m")), 1), ["head", "success", "end", "drop"], "gRPC is POST");
}

#[test]
fn a_client_that_calls_its_request_grpc_makes_no_failure_of_a_plain_http_answer() {
    assert_eq!(drive(grpc(), Response::new(Full::from("hello")), 1), ["head", "success", "end", "drop"]);
    assert_eq!(drive(grpc(), Response::new(Empty::new()), 0), ["success", "end"]);
    for code in [400, 404, 405, 415] {
        assert_eq!(drive(grpc(), status(code), 3), ["head", "success", "end", "drop"], "{code}");
    }
    assert_eq!(drive(grpc(), status(503), 3), ["head", "failure", "end", "drop"], "what is bad stays bad");
}

#[test]
fn an_upgraded_connection_concludes_with_its_head_and_holds_its_permit_until_the_tunnel_closes() {
    let log = Log::default();
    let res = Response::builder().status(101).body(Empty::<Bytes>::new()).unwrap();
    let call = HttpServer::new().start(&get());
    let mut res = call.finish::<Guard, NoCut>(Ok::<_, Infallible>(res), &mut Some(log.guard()), NoCut).unwrap();
    let tunnel = Tunnel::take(res.extensions_mut()).unwrap();
    drop(res);
    assert_eq!((log.read(), tunnel.len()), (vec!["head".into(), "success".into()], 1));
    drop(tunnel);
    assert_eq!(log.read(), ["head", "success", "end"]);
    let connect = Request::connect("example.com:443").body(()).unwrap();
    assert_eq!(drive(connect, Response::new(Empty::new()), 0), ["head", "success", "end"]);
}

fn refused<M: Refuse<crate::BoxError>>(protocol: &Http<M>, req: &Request<()>, rejection: Rejection) -> Response<Bytes> {
    let call = protocol.start_refusable(req);
    let res = Call::<Response<Full<Bytes>>, crate::BoxError>::reject::<(), NoCut>(call, rejection).unwrap();
    let (head, body) = res.into_parts();
    let mut cx = std::task::Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(body)) = std::future::Future::poll(pin!(body.collect()), &mut cx) else {
        panic!("it is all there")
    };
    Response::from_parts(head, body.to_bytes())
}

const OPEN: Rejection = Rejection::new(Reason::BreakerOpen, "breaker").retry_after(Duration::from_millis(9500));

#[test]
fn a_refusal_is_text_or_a_problem_document_with_status_and_retry_after() {
    let res = refused(&HttpServer::new(), &get(), OPEN);
    assert_eq!((res.status().as_u16(), res.body().as_ref()), (503, &b"circuit breaker open"[..]));
    let after: u64 = res.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((10..=12).contains(&after), "{after}");
    assert_eq!(res.extensions().get::<Rejection>(), Some(&OPEN));
    let json = Request::get("/").header("accept", "text/html, application/json").body(()).unwrap();
    let res = refused(&HttpServer::new(), &json, OPEN);
    assert_eq!(res.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_slice(res.body()).unwrap();
    assert_eq!((&problem["reason"], &problem["title"]), (&"breaker_open".into(), &"circuit breaker open".into()));
}

#[test]
fn a_grpc_refusal_is_trailers_only() {
    let res = refused(&HttpServer::new(), &grpc(), OPEN);
    assert_eq!((res.status().as_u16(), res.body().len()), (200, 0));
    assert_eq!(res.headers()["content-type"], "application/grpc");
    assert_eq!(
        (&res.headers()["grpc-status"], &res.headers()["grpc-message"]),
        (&"14".parse().unwrap(), &"circuit breaker open".parse().unwrap())
    );
    let pushback: u64 = res.headers()["grpc-retry-pushback-ms"].to_str().unwrap().parse().unwrap();
    assert!((9_500..=11_400).contains(&pushback), "{pushback}");
    assert!(!res.headers().contains_key("retry-after"));
}

#[test]
fn a_gateway_says_504_and_proxy_status_where_an_origin_says_503() {
    let late = Rejection::new(Reason::DeadlinePassed, "deadline");
    assert_eq!(refused(&HttpServer::new(), &get(), late).status().as_u16(), 503);
    let res = refused(&HttpGateway::new("edge"), &get(), late);
    assert_eq!(
        (res.status().as_u16(), &res.headers()["proxy-status"]),
        (504, &"edge; error=http_response_timeout".parse().unwrap())
    );
}

#[test]
fn a_refusal_can_be_written_by_a_closure_and_is_marked_all_the_same() {
    let teapot =
        HttpServer::new().render(|_, _| Response::builder().status(418).body(Bytes::from("short and stout")).unwrap());
    let res = refused(&teapot, &get(), OPEN);
    assert_eq!((res.status().as_u16(), res.extensions().get::<Rejection>()), (418, Some(&OPEN)));
    let friendly = HttpServer::new().render(|_, _| Response::new(Bytes::from("come back later")));
    let res = refused(&friendly, &get(), OPEN).map(Full::new);
    assert_eq!(
        drive(get(), res, 1),
        ["head", "ignored Pushback(9.5s)", "end", "drop"],
        "a refusal is no success, whatever its status"
    );
}

#[test]
fn a_refusal_further_in_says_nothing_except_a_passed_deadline_of_ours() {
    for (reason, want) in [
        (Reason::BreakerOpen, "ignored"),
        (Reason::AtCapacity, "ignored"),
        (Reason::ClientDeadlinePassed, "ignored"),
        (Reason::DeadlinePassed, "failure"),
    ] {
        for req in [get(), grpc()] {
            let inner = refused(&HttpServer::new(), &req, Rejection::new(reason, "inner")).map(Full::new);
            assert!(drive(req, inner, 1).contains(&want.to_owned()), "{reason}");
        }
        let log = Log::default();
        let call = HttpClient::new().start(&get());
        let error: Result<Response<Full<Bytes>>, crate::Error<Infallible>> =
            Err(Rejection::new(reason, "inner").into());
        assert!(call.finish::<Guard, NoCut>(error, &mut Some(log.guard()), NoCut).is_err());
        assert_eq!(log.read(), [want, "end"]);
    }
}

#[test]
fn a_short_deadline_of_the_client_excuses_what_the_service_says_of_it() {
    let mut req = grpc();
    let at = crate::Clock::now(&crate::TokioClock);
    Context::of_mut(req.extensions_mut()).deadline = Some(crate::Deadline { at, by_client: true });
    let late = || Response::builder().header("grpc-status", "4").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(drive(req, late(), 0), ["ignored", "end"]);
    assert_eq!(drive(grpc(), late(), 0), ["failure", "end"]);
    let mut unread = grpc();
    unread.headers_mut().insert("grpc-timeout", HeaderValue::from_static("1m"));
    assert_eq!(drive(unread, late(), 0), ["ignored", "end"], "a time-out that no deadline of ours was compared with");
}

#[test]
fn rows_of_the_table_are_overridden_by_a_closure_for_heads_and_trailers() {
    let strict = HttpServer::new().classify(|head: &Head<'_>, by_table: Outcome| match head.status.as_u16() {
        404 => Outcome::Failure,
        _ if head.headers.get("grpc-status").is_some_and(|code| code == "5") => Outcome::Failure,
        _ => by_table,
    });
    let judge = |req: Request<()>, res: Response<Empty<Bytes>>| {
        Call::<_, Infallible>::judge(&strict.start(&req), Ok(&res)).outcome
    };
    assert_eq!(judge(get(), Response::builder().status(404).body(Empty::new()).unwrap()), Outcome::Failure);
    assert_eq!(
        judge(grpc(), Response::builder().header("grpc-status", "5").body(Empty::new()).unwrap()),
        Outcome::Failure
    );
    assert_eq!(judge(get(), Response::new(Empty::new())), Outcome::Success);
}

#[test]
fn an_empty_layer_costs_a_body_little() {
    let plain = size_of::<Tracked<Full<Bytes>, (), NoCut, HttpCall<Reply, Table>>>();
    assert!(plain <= size_of::<Full<Bytes>>() + 48, "{plain}");
}
