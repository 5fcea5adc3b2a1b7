//! What the tests of this crate share: a service that gives the answers of a list and notes what it was asked.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use buttress_core::{
    BoxError, BudgetConfig, Context, Deadline, Priority,
    http::{HttpClient, ReplayBody},
};
use buttress_retry::{Backoff, ResendLayer, Retry, RetryBody, RetryConfig};
use buttress_sim::{AnyBody, Frames, Script, any};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

/// At once.
pub const NOW: Duration = Duration::ZERO;
pub const MS: Duration = Duration::from_millis(1);
pub const SEC: Duration = Duration::from_secs(1);

/// One attempt, as the inner service saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Since the first one.
    pub at: Duration,
    pub method: Method,
    pub headers: HeaderMap,
    pub attempt: u32,
    pub priority: Priority,
    pub body: Bytes,
}

pub type Answer = Box<dyn FnOnce(&Request<ReplayBody<AnyBody>>) -> Result<Response<AnyBody>, BoxError> + Send>;

/// Takes attempts and answers by the list.
#[derive(Clone, Default)]
pub struct Rig {
    pub seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// Whether attempts' bodies are read before they are answered.
    leaves_body: bool,
}

pub type Inner = Script<Request<ReplayBody<AnyBody>>, Response<AnyBody>>;

impl Rig {
    pub fn new<A: IntoIterator<Item = Answer>>(answers: A) -> Self {
        let answers = answers.into_iter().collect();
        Self { answers: Arc::new(Mutex::new(answers)), ..Self::default() }
    }

    pub fn leaving_bodies(mut self) -> Self {
        self.leaves_body = true;
        self
    }

    pub fn script(&self) -> Inner {
        let (seen, answers, leaves_body) = (self.seen.clone(), self.answers.clone(), self.leaves_body);
        let start = Instant::now();
        Script::new(move |req: Request<ReplayBody<AnyBody>>| {
            let (seen, answers) = (seen.clone(), answers.clone());
            async move {
                let at = start.elapsed();
                let context = Context::of(req.extensions()).cloned().unwrap_or_default();
                let answer = answers.lock().unwrap().pop_front();
                let answer = answer.map_or_else(|| panic!("one attempt too many"), |answer| answer(&req));
                let (head, body) = req.into_parts();
                let body = if leaves_body { Bytes::new() } else { body.collect().await?.to_bytes() };
                seen.lock().unwrap().push(Seen {
                    at,
                    method: head.method,
                    headers: head.headers,
                    attempt: context.attempt,
                    priority: context.priority,
                    body,
                });
                answer
            }
        })
    }

    pub fn attempts(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The times of the attempts.
    pub fn times(&self) -> Vec<Duration> {
        self.seen.lock().unwrap().iter().map(|seen| seen.at).collect()
    }
}

/// Back-offs of 100 ms, three attempts, tokens for everything.
pub fn config() -> RetryConfig {
    let budget = BudgetConfig::new(2.0).min_per_sec(1000.0);
    RetryConfig::default().budget(budget).backoff(Backoff::constant(100 * MS)).seed(1)
}

pub type Result_ = Result<Response<RetryBody<AnyBody>>, BoxError>;

/// One call of a client through the layer.
pub async fn call(config: RetryConfig, rig: &Rig, req: Request<AnyBody>) -> (Result_, Arc<Retry>) {
    let layer = ResendLayer::<HttpClient>::new(config.build().unwrap());
    let handle = layer.handle();
    (layer.layer(rig.script()).oneshot(req).await, handle)
}

pub fn status(code: u16) -> Answer {
    with(code, &[])
}

/// A response with these headers and a short body.
pub fn with(code: u16, headers: &[(&'static str, &'static str)]) -> Answer {
    let headers = headers.to_vec();
    Box::new(move |_| {
        let res =
            headers.into_iter().fold(Response::builder().status(code), |res, (name, value)| res.header(name, value));
        Ok(res.body(Frames::new().data(format!("said {code}")).into()).unwrap())
    })
}

pub fn error(error: impl Into<BoxError>) -> Answer {
    let error = error.into();
    Box::new(move |_| Err(error))
}

pub fn answer(res: Response<AnyBody>) -> Answer {
    Box::new(move |_| Ok(res))
}

pub fn request(method: Method) -> Request<AnyBody> {
    let body = if method == Method::GET { AnyBody::default() } else { any(Frames::new().data("ask")) };
    Request::builder().method(method).uri("/").body(body).unwrap()
}

pub fn get() -> Request<AnyBody> {
    request(Method::GET)
}

pub fn post() -> Request<AnyBody> {
    request(Method::POST)
}

pub fn within(mut req: Request<AnyBody>, left: Duration) -> Request<AnyBody> {
    Context::of_mut(req.extensions_mut()).deadline = Some(Deadline::new((Instant::now() + left).into_std()));
    req
}

pub async fn text(res: Result_) -> String {
    String::from_utf8(res.unwrap().into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
