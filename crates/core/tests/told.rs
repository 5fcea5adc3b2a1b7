//! What a permit is told of refusals and statuses, if it asks.
#![cfg(feature = "http")]

use buttress_core::{
    Admit, BoxError, Error, GateLayer, Gatekeeper, Opaque, Outcome, Pushback, Reason, Rejection, Settle, Status,
    http::{HttpClient, HttpGateway, HttpServer},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use std::{
    future::ready,
    marker::PhantomData,
    sync::{Arc, Mutex},
};
use tower::{Layer, ServiceExt, service_fn};

/// Writes down what its permits are told; `HEEDS`: they ask for refusals and statuses.
#[derive(Clone, Default)]
struct Log<const HEEDS: bool>(Arc<Mutex<Vec<String>>>);

impl<const HEEDS: bool> Log<HEEDS> {
    fn write(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl<const HEEDS: bool> Settle for Log<HEEDS> {
    const HEEDS_REFUSALS: bool = HEEDS;
    fn refused(&mut self, rejection: Rejection) {
        self.write(rejection.reason.to_string());
    }
    const HEEDS_STATUS: bool = HEEDS;
    fn status(&mut self, status: Status) {
        self.write(format!("{status:?}"));
    }
    fn conclude(&mut self, outcome: Outcome, _: Option<Pushback>) {
        self.write(outcome.to_string());
    }
}

struct Policy<G>(Log<true>, Log<false>, PhantomData<fn() -> G>);

impl Gatekeeper for Policy<Log<true>> {
    type Permit = Log<true>;
    type Turn = ();
}
impl<Req> Admit<Req> for Policy<Log<true>> {
    fn admit(&self, _: &mut (), _: &Req) -> Result<Log<true>, Rejection> {
        Ok(self.0.clone())
    }
}
/// Two in one: each is told what either asks for.
impl Gatekeeper for Policy<(Log<false>, Log<true>)> {
    type Permit = (Log<false>, Log<true>);
    type Turn = ();
}
impl<Req> Admit<Req> for Policy<(Log<false>, Log<true>)> {
    fn admit(&self, _: &mut (), _: &Req) -> Result<(Log<false>, Log<true>), Rejection> {
        Ok((self.1.clone(), self.0.clone()))
    }
}
impl Gatekeeper for Policy<Log<false>> {
    type Permit = Log<false>;
    type Turn = ();
}
impl<Req> Admit<Req> for Policy<Log<false>> {
    fn admit(&self, _: &mut (), _: &Req) -> Result<Log<false>, Rejection> {
        Ok(self.1.clone())
    }
}

type Answer = Result<Response<UnsyncBoxBody<Bytes, BoxError>>, Error<std::io::Error>>;

/// What permits of the kind `$permit` are told of a call with this answer: those that heed, and those that do not.
macro_rules! told {
    ($permit:ty, $protocol:expr, $req:expr, $answer:expr) => {{
        let (log, deaf) = (Log::default(), Log::default());
        let policy = Policy::<$permit>(log.clone(), deaf.clone(), PhantomData);
        let layer = GateLayer::<Policy<$permit>>::new(policy).protocol($protocol);
        let answer = std::cell::Cell::new(Some($answer));
        let service = layer.layer(service_fn(|_: Request<()>| ready::<Answer>(answer.take().unwrap())));
        if let Ok(response) = service.oneshot($req).await {
            let _ = response.into_body().collect().await;
        }
        (log.0.lock().unwrap().join(" "), deaf.0.lock().unwrap().join(" "))
    }};
}

fn plain() -> Request<()> {
    Request::new(())
}

fn grpc() -> Request<()> {
    Request::post("/").header("content-type", "application/grpc").body(()).unwrap()
}

fn body(status: u16, body: impl http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static) -> Answer {
    Ok(Response::builder().status(status).body(body.map_err(Into::into).boxed_unsync()).unwrap())
}

fn spoken(frames: Option<&'static str>) -> Answer {
    let mut trailers = HeaderMap::new();
    if let Some(code) = frames {
        trailers.insert("grpc-status", HeaderValue::from_static(code));
    }
    let mut answer = body(200, Full::from("x").with_trailers(ready(frames.map(|_| Ok(trailers)))))?;
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(answer)
}

fn refusal() -> Rejection {
    Rejection::new(Reason::AtCapacity, "bulkhead")
}

fn refused(bytes: &'static str) -> Answer {
    let mut answer = body(503, Full::from(bytes))?;
    answer.extensions_mut().insert(refusal());
    Ok(answer)
}

#[tokio::test]
async fn a_refusal_is_told_whether_it_is_an_error_or_a_response() {
    let told = told!(Log<true>, HttpServer::new(), plain(), refused("no"));
    assert_eq!(told.0, "at_capacity Http(503) ignored");
    let told = told!(Log<true>, HttpGateway::new("gw"), plain(), refused(""));
    assert_eq!(told.0, "at_capacity Http(503) ignored");
    for answer in [refused("no"), Err(refusal().into())] {
        let status = if answer.is_ok() { " Http(503)" } else { "" };
        let told = told!(Log<true>, HttpClient::new(), plain(), answer);
        assert_eq!(told.0, format!("at_capacity{status} ignored"));
    }
    assert_eq!(told!(Log<true>, Opaque::new(), plain(), Err(refusal().into())).0, "at_capacity ignored");
}

#[tokio::test]
async fn a_body_that_a_layer_further_in_cut_is_told_as_its_refusal() {
    let cut = || {
        let frames = [Ok(Frame::data(Bytes::from("x"))), Err(Rejection::new(Reason::DeadlinePassed, "deadline"))];
        http_body_util::StreamBody::new(stream_of(frames))
    };
    let told = told!(Log<true>, HttpServer::new(), plain(), body(200, cut()));
    assert_eq!(told.0, "Http(200) deadline_passed failure");
}

/// The frames, one after the other.
fn stream_of<T: Unpin>(frames: impl IntoIterator<Item = T>) -> Frames<std::vec::IntoIter<T>> {
    Frames(frames.into_iter().collect::<Vec<_>>().into_iter())
}
struct Frames<I>(I);
impl<I: Iterator + Unpin> futures_core::Stream for Frames<I> {
    type Item = I::Item;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

#[tokio::test]
async fn the_grpc_code_is_told_when_it_is_known() {
    for (answer, told) in [
        (spoken(Some("0")), "Http(200) Grpc(0) success"),
        (spoken(Some("14")), "Http(200) Grpc(14) failure"),
        (spoken(None), "Http(200) Grpc(13) failure"),
        (body(204, Full::default()), "Http(204) success"),
    ] {
        assert_eq!(told!(Log<true>, HttpServer::new(), grpc(), answer).0, told);
    }
    assert_eq!(told!(Log<true>, HttpServer::new(), plain(), spoken(Some("14"))).0, "Http(200) success", "no gRPC");
}

#[tokio::test]
async fn who_does_not_ask_is_told_nothing_and_a_pair_is_told_if_one_asks() {
    let told = told!(Log<false>, HttpServer::new(), plain(), refused("no"));
    assert_eq!(told.1, "ignored");
    let told = told!((Log<false>, Log<true>), HttpServer::new(), plain(), refused("no"));
    assert_eq!(told.0, "at_capacity Http(503) ignored");
}
