//! Calls over real sockets: clients that go through the gateway, and a few that ask the upstreams directly.

use super::upstreams::Stage;
use bytes::Bytes;
use http::{Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
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

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ok,
    /// A quick no: 503 with `Retry-After`, from the gateway itself.
    Refused,
    /// Anything else that is not an answer: 500, 502, 504.
    Failed,
    /// No connection.
    Unreachable,
    /// A connection that broke off.
    Broken,
    /// No answer for as long as a probe waits.
    Hung,
}

/// One call that ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) latency: Duration,
    pub(crate) end: End,
}

/// What a source of calls has seen.
#[derive(Default)]
pub(crate) struct Seen {
    calls: Mutex<Vec<Call>>,
    open: AtomicUsize,
}

impl Seen {
    /// The calls that ended since this was last asked.
    pub(crate) fn take(&self) -> Vec<Call> {
        mem::take(&mut self.calls.lock().expect("never poisoned"))
    }

    /// Calls without an answer yet.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    fn ended(&self, began: Instant, end: End) {
        let latency = began.elapsed();
        self.calls.lock().expect("never poisoned").push(Call { began, latency, end });
        self.open.fetch_sub(1, Relaxed);
    }
}

type Http = Client<HttpConnector, Empty<Bytes>>;

/// Calls `uris` in turn, `rate` times a second, at seeded moments, whatever becomes of earlier calls, until the stage closes.
/// `patience`: how long a call is waited for; `None`: for ever.
pub(crate) fn send(uris: Vec<Uri>, rate: f64, patience: Option<Duration>, seed: u64, stage: Stage) -> Arc<Seen> {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new());
    if patience.is_some() {
        // A probe is to see whether a connection can be made.
        builder.pool_max_idle_per_host(0);
    }
    let client: Http = builder.build_http();
    let seen = Arc::<Seen>::default();
    let (mut rng, source) = (fastrand::Rng::with_seed(seed), seen.clone());
    tokio::spawn(async move {
        let mut next = stage.start;
        for uri in uris.iter().cycle() {
            if next >= stage.start + stage.length {
                break;
            }
            sleep_until(next).await;
            next += Duration::from_secs_f64((0.5 + rng.f64()) / rate);
            tokio::spawn(call(client.clone(), uri.clone(), patience, source.clone()));
        }
    });
    seen
}

async fn call(client: Http, uri: Uri, patience: Option<Duration>, seen: Arc<Seen>) {
    seen.open.fetch_add(1, Relaxed);
    let began = Instant::now();
    let whole = async {
        let res = client.get(uri).await;
        let end = classify(&res);
        let Ok(res) = res else { return end };
        if res.into_body().collect().await.is_ok() { end } else { End::Broken }
    };
    let end = match patience {
        Some(patience) => timeout(patience, whole).await.unwrap_or(End::Hung),
        None => whole.await,
    };
    seen.ended(began, end);
}

fn classify(res: &Result<Response<Incoming>, Error>) -> End {
    match res {
        Ok(res) if res.status().is_success() => End::Ok,
        Ok(res) if res.status() == StatusCode::SERVICE_UNAVAILABLE && res.headers().contains_key("proxy-status") => {
            End::Refused
        }
        Ok(_) => End::Failed,
        Err(error) if error.is_connect() => End::Unreachable,
        Err(_) => End::Broken,
    }
}
