//! An origin that says what a test has it say, behind a stale store whose clocks a test moves.
#![allow(dead_code, reason = "every test file uses a part of it")]

use buttress_core::BoxError;
use buttress_fallback::{Stale, StaleConfig, StaleLayer, StaleService};
use buttress_sim::{AnyBody, any};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use std::{
    collections::VecDeque,
    future::Ready,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tower::{Layer, Service, ServiceExt};

pub(crate) type Answer = Result<Response<AnyBody>, BoxError>;

/// Gives the answers that are queued, then fails with 500.
#[derive(Clone, Default)]
pub(crate) struct Origin(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    seen: Vec<Request<()>>,
}

impl Origin {
    pub(crate) fn says(&self, answer: Answer) -> &Self {
        self.0.lock().unwrap().answers.push_back(answer);
        self
    }

    /// What was to be said and was not.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap().answers.clear();
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.lock().unwrap().seen.len()
    }

    /// The head of the last request.
    pub(crate) fn last(&self) -> Request<()> {
        let state = self.0.lock().unwrap();
        let last = state.seen.last().expect("a request");
        let mut copy = Request::new(());
        *copy.method_mut() = last.method().clone();
        *copy.uri_mut() = last.uri().clone();
        *copy.headers_mut() = last.headers().clone();
        *copy.extensions_mut() = last.extensions().clone();
        copy
    }
}

impl Service<Request<AnyBody>> for Origin {
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Request<AnyBody>) -> Ready<Answer> {
        let mut state = self.0.lock().unwrap();
        state.seen.push(req.map(|_| ()));
        let failed = || Ok(response(500, &[], "broken"));
        std::future::ready(state.answers.pop_front().unwrap_or_else(failed))
    }
}

pub(crate) type Pairs<'a> = &'a [(&'a str, &'a str)];

pub(crate) fn headers(pairs: Pairs<'_>) -> HeaderMap {
    let one = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(one).collect()
}

pub(crate) fn response(status: u16, pairs: Pairs<'_>, body: &str) -> Response<AnyBody> {
    let mut res = Response::new(any(Full::from(Bytes::from(body.to_owned()))));
    *res.status_mut() = status.try_into().unwrap();
    // Several lines of one field stay several.
    res.headers_mut().extend(headers(pairs));
    res
}

pub(crate) fn request(method: &str, uri: &str, pairs: Pairs<'_>) -> Request<AnyBody> {
    let mut req = Request::new(AnyBody::default());
    *req.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
    *req.uri_mut() = uri.parse().unwrap();
    req.headers_mut().extend(headers(pairs));
    req
}

/// Sun, 06 Nov 1994 08:49:37 GMT.
pub(crate) fn begin() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
}

pub(crate) fn http_date(after: i64) -> String {
    let at = if after < 0 {
        begin() - Duration::from_secs(after.unsigned_abs())
    } else {
        begin() + Duration::from_secs(after.unsigned_abs())
    };
    httpdate::fmt_http_date(at)
}

/// A store whose time of day is [`begin`] now, and follows tokio's clock.
pub(crate) fn stale(config: StaleConfig) -> Stale {
    let start = tokio::time::Instant::now();
    config.build().unwrap().wall_clock(move || begin() + (tokio::time::Instant::now() - start))
}

pub(crate) struct World {
    pub(crate) origin: Origin,
    pub(crate) stale: Arc<Stale>,
    pub(crate) service: StaleService<Origin>,
}

pub(crate) fn world(config: StaleConfig) -> World {
    let origin = Origin::default();
    let layer = StaleLayer::new(stale(config));
    World { stale: layer.handle(), service: layer.layer(origin.clone()), origin }
}

/// What a client gets.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) degraded: Option<String>,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl World {
    /// Sends a request, and reads the answer to its end.
    pub(crate) async fn send(&self, req: Request<AnyBody>) -> Got {
        self.try_send(req).await.unwrap()
    }

    pub(crate) async fn try_send(&self, req: Request<AnyBody>) -> Result<Got, BoxError> {
        got(self.service.clone().oneshot(req).await?).await
    }

    pub(crate) async fn get(&self, uri: &str, pairs: Pairs<'_>) -> Got {
        self.send(request("GET", uri, pairs)).await
    }

    /// The origin answers, and the answer is on its way through the store.
    pub(crate) async fn store(&self, uri: &str, asked: Pairs<'_>, said: Pairs<'_>, body: &str) -> Got {
        self.origin.says(Ok(response(200, said, body)));
        self.get(uri, asked).await
    }
}

pub(crate) async fn got<B>(res: Response<B>) -> Result<Got, BoxError>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let degraded = buttress_core::Degraded::of(&res).map(|degraded| degraded.to_string());
    let (head, body) = res.into_parts();
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    Ok(Got { status: head.status.as_u16(), headers: head.headers, body, degraded })
}

/// Advances both clocks.
pub(crate) async fn after(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}
