//! Calls over real sockets: clients that go through the gateway, and a small one that asks every endpoint in turn.

use super::{script::Stage, upstreams::BODY};
use buttress::{Priority, http::X_DEGRADED};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};

/// How long a client waits for a whole answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How long the unprotected one waits, to tell what is slow from what hangs.
const LONGER: Duration = Duration::from_secs(3);

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// 200, with the whole body, within the client's patience.
    Good,
    /// 200, and marked as another answer than the one that was asked for.
    Degraded,
    /// All of that, but too late.
    Late,
    /// Refused by the gateway itself: the breakers of all endpoints are open, bulkheads are full.
    Refused,
    /// An error's status.
    Failed,
    /// Too much, come back later: from an upstream.
    Overloaded,
    /// No connection.
    Unreachable,
    /// A body, or a connection, that broke off.
    Cut,
    /// No answer for as long as anybody waits.
    Hung,
}

/// One call that ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) latency: Duration,
    /// A POST: nobody may send it twice.
    pub(crate) once: bool,
    pub(crate) end: End,
}

/// What a source of calls has seen.
#[derive(Default)]
pub(crate) struct Seen {
    calls: Mutex<Vec<Call>>,
    /// When each of them began.
    begun: Mutex<Vec<Instant>>,
    open: AtomicUsize,
}

impl Seen {
    /// The calls that ended since this was last asked.
    pub(crate) fn take(&self) -> Vec<Call> {
        mem::take(&mut self.calls.lock().expect("never poisoned"))
    }

    /// When the calls began that began since this was last asked.
    pub(crate) fn take_begun(&self) -> Vec<Instant> {
        mem::take(&mut self.begun.lock().expect("never poisoned"))
    }

    /// Calls without an answer yet.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    fn begins(&self, began: Instant) {
        self.begun.lock().expect("never poisoned").push(began);
        self.open.fetch_add(1, Relaxed);
    }

    fn ended(&self, call: Call) {
        self.calls.lock().expect("never poisoned").push(call);
        self.open.fetch_sub(1, Relaxed);
    }
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Reads mostly, and writes: GET, PUT, and POST, which is never repeated.
    Client,
    /// Only GET, on a new connection every time.
    Unprotected,
    /// Only GET, and says how important it is.
    Of(Priority),
}

/// Calls `uris` in turn, at seeded moments, `rate` times a second, whatever becomes of earlier calls.
pub(crate) struct Source {
    caller: Caller,
    http: Client<HttpConnector, Full<Bytes>>,
    seen: Arc<Seen>,
    rng: fastrand::Rng,
}

impl Source {
    pub(crate) fn new(caller: Caller, seed: u64, seen: Arc<Seen>) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).retry_canceled_requests(false);
        if caller == Caller::Unprotected {
            builder.pool_max_idle_per_host(0);
        }
        Self { caller, http: builder.build_http(), seen, rng: fastrand::Rng::with_seed(seed) }
    }

    /// Calls from one share of the stage to another.
    pub(crate) async fn send(mut self, uris: Vec<Uri>, rate: f64, (from, to): (f64, f64), stage: Stage) {
        let mut next = stage.at(from);
        for uri in uris.iter().cycle() {
            next += Duration::from_secs_f64((0.5 + self.rng.f64()) / rate);
            if next >= stage.at(to) {
                break;
            }
            sleep_until(next).await;
            self.call(uri.clone());
        }
    }

    /// So many calls at once, every quarter of a second.
    pub(crate) async fn burst(mut self, uri: Uri, calls: usize, (from, to): (f64, f64), stage: Stage) {
        let mut next = stage.at(from);
        while next < stage.at(to) {
            sleep_until(next).await;
            next += Duration::from_millis(250);
            for _ in 0..calls {
                self.call(uri.clone());
            }
        }
    }

    fn call(&mut self, uri: Uri) {
        let method = match self.rng.u32(0..100) {
            _ if self.caller != Caller::Client || uri.path().ends_with("/report") => Method::GET,
            0..80 => Method::GET,
            80..92 => Method::PUT,
            _ => Method::POST,
        };
        let once = method == Method::POST;
        let body = if method == Method::GET { Full::default() } else { Full::from(vec![b'.'; 200]) };
        let mut req = Request::builder().method(method).uri(uri);
        if let Caller::Of(priority) = self.caller {
            req = req.header("x-priority", priority.as_str());
        }
        let req = req.body(body).expect("it is complete");
        let (http, seen) = (self.http.clone(), self.seen.clone());
        let patience = if self.caller == Caller::Unprotected { LONGER } else { PATIENCE };
        let began = Instant::now();
        seen.begins(began);
        tokio::spawn(async move {
            let end = timeout(patience, whole(http.request(req))).await.unwrap_or(End::Hung);
            let latency = began.elapsed();
            let end = if end == End::Good && latency > PATIENCE { End::Late } else { end };
            seen.ended(Call { began, latency, once, end });
        });
    }
}

async fn whole(answer: impl Future<Output = Result<Response<Incoming>, Error>>) -> End {
    let res = match answer.await {
        Ok(res) => res,
        Err(error) if error.is_connect() => return End::Unreachable,
        Err(_) => return End::Cut,
    };
    let (head, body) = res.into_parts();
    let Ok(body) = body.collect().await else { return End::Cut };
    match head.status {
        StatusCode::OK if head.headers.contains_key(X_DEGRADED) => End::Degraded,
        StatusCode::OK if body.to_bytes().len() == BODY => End::Good,
        StatusCode::OK => End::Cut,
        StatusCode::SERVICE_UNAVAILABLE if head.headers.contains_key("proxy-status") => End::Refused,
        StatusCode::SERVICE_UNAVAILABLE if head.headers.contains_key(header::RETRY_AFTER) => End::Overloaded,
        _ => End::Failed,
    }
}
