//! What the tests of this crate share: a policy that notes what it is told, and bodies that follow a script.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use buttress_core::{
    Admit, BoxError, GateLayer, Gatekeeper, Outcome, Pushback, Rejection, Settle,
    http::{HttpServer, Table},
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Sleep;

pub const MS: Duration = Duration::from_millis(1);

/// Admits everything and notes every outcome; `None`: abandoned.
#[derive(Clone, Default)]
pub struct Meter(Arc<Notes>);

#[derive(Default)]
pub struct Notes {
    pub outcomes: Mutex<Vec<Option<Outcome>>>,
    pub held: AtomicUsize,
}

impl Meter {
    pub fn layer(&self) -> GateLayer<Meter> {
        GateLayer::new(self.clone())
    }
    pub fn server(&self) -> GateLayer<Meter, HttpServer<Table>> {
        self.layer().protocol(HttpServer::new())
    }
    pub fn outcomes(&self) -> Vec<Option<Outcome>> {
        self.0.outcomes.lock().unwrap().clone()
    }
    pub fn held(&self) -> usize {
        self.0.held.load(SeqCst)
    }
}

pub struct Held(Arc<Notes>, Option<Outcome>);

impl Settle for Held {
    fn conclude(&mut self, outcome: Outcome, _: Option<Pushback>) {
        self.1 = Some(outcome);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, SeqCst);
        self.0.outcomes.lock().unwrap().push(self.1);
    }
}

impl Gatekeeper for Meter {
    type Permit = Held;
    type Turn = ();
}

impl<Req> Admit<Req> for Meter {
    fn admit(&self, _: &mut (), _: &Req) -> Result<Held, Rejection> {
        self.0.held.fetch_add(1, SeqCst);
        Ok(Held(self.0.clone(), None))
    }
}

/// What a scripted body does next.
pub enum Step {
    Data(&'static str),
    Trailers(&'static str),
    Wait(Duration),
    Hang,
    Fail,
}

/// A body that follows its script.
pub struct Script {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    exact: Option<u64>,
}

pub fn script(steps: impl IntoIterator<Item = Step>) -> Script {
    Script { steps: steps.into_iter().collect(), sleep: None, exact: None }
}

impl Script {
    pub fn declaring(mut self, bytes: u64) -> Self {
        self.exact = Some(bytes);
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                std::task::ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            return Poll::Ready(match self.steps.pop_front() {
                None => None,
                Some(Step::Data(text)) => Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))),
                Some(Step::Trailers(status)) => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", status.parse().unwrap());
                    Some(Ok(Frame::trailers(trailers)))
                }
                Some(Step::Wait(span)) => {
                    self.sleep = Some(Box::pin(tokio::time::sleep(span)));
                    continue;
                }
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
                Some(Step::Fail) => Some(Err("broken".into())),
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.sleep.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub fn get() -> Request<()> {
    Request::new(())
}

pub fn grpc(timeout: &str) -> Request<()> {
    let req = Request::post("/").header("content-type", "application/grpc");
    let req = if timeout.is_empty() { req } else { req.header("grpc-timeout", timeout) };
    req.body(()).unwrap()
}

/// Polls once, as a task would that nobody wakes.
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

pub async fn next<B: Body + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

pub fn text<T>(frame: Option<Result<Frame<Bytes>, T>>) -> String {
    let Some(Ok(frame)) = frame else { panic!("no frame") };
    String::from_utf8(frame.into_data().expect("data").to_vec()).unwrap()
}

pub fn ok<B>(body: B) -> Response<B> {
    Response::new(body)
}
