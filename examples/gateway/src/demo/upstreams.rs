//! Upstreams on real sockets that misbehave on a script.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// What an upstream does to its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Fine,
    /// Answers 500 to everything.
    Fails,
    /// Answers 503 to everything.
    Unavailable,
    /// Answers, but takes long: a bulkhead fills.
    Slow,
    /// Accepts calls and never answers.
    Hangs,
    /// Nobody listens.
    Refuses,
}

/// From this share of the demo on, an upstream behaves so.
pub(crate) struct Scene {
    pub(crate) from: f64,
    pub(crate) behaviour: Behaviour,
    pub(crate) caption: &'static str,
}

const fn scene(from: f64, behaviour: Behaviour, caption: &'static str) -> Scene {
    Scene { from, behaviour, caption }
}

pub(crate) const SCRIPT_A: &[Scene] = &[
    scene(0.0, Behaviour::Fine, "all upstreams are fine"),
    scene(0.10, Behaviour::Fails, "A answers 500 to everything: its breaker opens, and A is left in peace"),
    scene(0.24, Behaviour::Fine, "A is fine again: probes find out, the breaker closes"),
];

pub(crate) const SCRIPT_B: &[Scene] = &[
    scene(0.0, Behaviour::Fine, ""),
    scene(0.47, Behaviour::Slow, "B gets slow: its bulkhead keeps it to a few calls at a time"),
    scene(0.58, Behaviour::Hangs, "B hangs: the deadline cuts calls off, then the breaker opens"),
    scene(0.70, Behaviour::Refuses, "B refuses connections: the breaker stays open"),
    scene(0.80, Behaviour::Fine, "B is fine again"),
];

/// One of C's endpoints.
pub(crate) const SCRIPT_C1: &[Scene] = &[
    scene(0.0, Behaviour::Fine, ""),
    scene(0.27, Behaviour::Unavailable, "one of C's three endpoints answers 503: retries go to the others"),
    scene(0.36, Behaviour::Unavailable, "all of C answers 503: a budget pays for few retries, the rest is denied"),
    scene(0.44, Behaviour::Fine, "C is fine again"),
];

/// The other two.
pub(crate) const SCRIPT_C: &[Scene] =
    &[scene(0.0, Behaviour::Fine, ""), scene(0.36, Behaviour::Unavailable, ""), scene(0.44, Behaviour::Fine, "")];

/// When the demo began and how long it goes on.
#[derive(Clone, Copy)]
pub(crate) struct Stage {
    pub(crate) start: Instant,
    pub(crate) length: Duration,
}

impl Stage {
    pub(crate) fn at(&self, share: f64) -> Instant {
        self.start + self.length.mul_f64(share)
    }

    pub(crate) fn share(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.start).as_secs_f64() / self.length.as_secs_f64()
    }
}

/// An upstream and its script.
pub(crate) struct Upstream {
    script: &'static [Scene],
    address: SocketAddr,
    rng: Mutex<fastrand::Rng>,
}

impl Upstream {
    /// Takes a port of its own on loopback; [`play`](Self::play) serves it.
    pub(crate) async fn bind(script: &'static [Scene], seed: u64) -> io::Result<(Arc<Self>, TcpListener)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok((Arc::new(Self { script, address, rng: Mutex::new(fastrand::Rng::with_seed(seed)) }), listener))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the script; never returns but with an error.
    pub(crate) async fn play(self: Arc<Self>, listener: TcpListener, stage: Stage) -> io::Result<()> {
        let mut listener = Some(listener);
        let mut connections = JoinSet::new();
        for (i, scene) in self.script.iter().enumerate() {
            let end = self.script.get(i + 1).map_or(stage.at(f64::from(u16::MAX)), |next| stage.at(next.from));
            if scene.behaviour == Behaviour::Refuses {
                listener = None;
                connections.shutdown().await;
                sleep_until(end).await;
                continue;
            }
            let open = match listener.take() {
                Some(open) => open,
                None => TcpListener::bind(self.address).await?,
            };
            let open = listener.insert(open);
            loop {
                let (stream, _) = tokio::select! {
                    accepted = open.accept() => accepted?,
                    () = sleep_until(end) => break,
                };
                let this = self.clone();
                let service = service_fn(move |req| this.clone().answer(req, stage));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        }
        Ok(())
    }

    async fn answer(self: Arc<Self>, _: Request<Incoming>, stage: Stage) -> Result<Response<Full<Bytes>>, Infallible> {
        let share = stage.share(Instant::now());
        let behaviour = self.script.iter().rfind(|scene| scene.from <= share).map_or(Behaviour::Fine, |s| s.behaviour);
        let millis = |from, to| Duration::from_millis(self.rng.lock().expect("never poisoned").u64(from..=to));
        let mut res = Response::new(Full::from("hello"));
        match behaviour {
            Behaviour::Fine => sleep(millis(1, 4)).await,
            Behaviour::Fails => *res.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            Behaviour::Unavailable => *res.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
            Behaviour::Slow => sleep(millis(140, 200)).await,
            Behaviour::Hangs | Behaviour::Refuses => std::future::pending().await,
        }
        Ok(res)
    }
}
