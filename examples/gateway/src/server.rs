//! The public listeners: connections, their limits, and an end in good order.

use crate::{
    clients::{Clients, Turn},
    config::{Config, Limits},
    proxy::Gateway,
    taken::Taken,
    trust::Arrival,
};
use buttress::{BoxError, Handle, Value};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use http_body_util::Either;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// All is well.
    Running,
    /// Not ready any more; still accepting, and telling clients to go elsewhere.
    Draining,
    /// No new connections; what is in flight ends.
    Stopping,
}

/// An address that is listened on.
pub(crate) struct Listening {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
}

/// Serves until [`Phase::Stopping`], and then until every connection has ended or `drain.max` is over. Returns how many
/// connections had to be aborted.
pub(crate) async fn serve(
    listeners: Vec<Listening>,
    gateway: Arc<Gateway>,
    config: &Config,
    phases: watch::Receiver<Phase>,
) -> usize {
    let stats = Arc::new(Stats::new(gateway.tunnels().clone()));
    gateway.controls().registry.add("server", stats.clone());
    let server = Arc::new(Server {
        stats,
        builder: builder(&config.limits),
        places: Arc::new(Semaphore::new(config.limits.connections)),
        clients: Arc::default(),
        limits: config.limits.clone(),
        gateway: gateway.clone(),
        phases,
    });
    let _measured = gateway.controls().pressure.watch();
    let mut accepting = JoinSet::new();
    for listening in listeners {
        accepting.spawn(server.clone().accept(listening));
    }
    let mut connections = Vec::new();
    while let Some(accepted) = accepting.join_next().await {
        connections.push(accepted.expect("accepting does not panic"));
    }
    gateway.tunnels().close();
    let all = async {
        for connections in &mut connections {
            while connections.join_next().await.is_some() {}
        }
        gateway.tunnels().wait().await;
    };
    let _ = time::timeout(config.drain.max.saturating_sub(config.drain.min), all).await;
    // What is left is aborted with its set, or with the process.
    connections.iter().map(JoinSet::len).sum::<usize>() + gateway.tunnels().len()
}

struct Server {
    gateway: Arc<Gateway>,
    stats: Arc<Stats>,
    builder: auto::Builder<TokioExecutor>,
    limits: Limits,
    places: Arc<Semaphore>,
    clients: Arc<Clients>,
    phases: watch::Receiver<Phase>,
}

impl Server {
    /// Accepts connections until the server stops; those that go on.
    async fn accept(self: Arc<Self>, Listening { listener, tls }: Listening) -> JoinSet<()> {
        let mut connections = JoinSet::new();
        let mut phases = self.phases.clone();
        let mut stopping = pin!(reached(&mut phases, Phase::Stopping));
        loop {
            let accepted = async {
                let place = self.places.clone().acquire_owned().await.expect("never closed");
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                biased;
                () = &mut stopping => break,
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                // Out of file descriptors, most likely: those that end give some back.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(turn) = self.turn(peer.ip()) else {
                self.stats.refused.fetch_add(1, Relaxed);
                tracing::debug!(%peer, "closed: too many connections of one client");
                continue;
            };
            self.stats.accepted.fetch_add(1, Relaxed);
            self.stats.open.fetch_add(1, Relaxed);
            let slot = Slot::new(Held { stats: self.stats.clone(), _place: place, _turn: turn });
            let arrival = Arrival::new(peer, tls.is_some());
            connections.spawn(self.clone().handle(stream, tls.clone(), arrival, slot));
        }
        connections
    }

    /// A place among the connections of one client; `None`: it has them all.
    fn turn(&self, client: IpAddr) -> Option<Turn> {
        let Some(most) = self.limits.connections_per_client else { return Some(Turn::default()) };
        if self.gateway.trust().trusts(client) {
            return Some(Turn::default());
        }
        Clients::enter(&self.clients, client, most)
    }

    async fn handle(self: Arc<Self>, stream: TcpStream, tls: Option<TlsAcceptor>, arrival: Arrival, slot: Slot) {
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        // hyper times the heads; nothing times a client that does not read.
        stream.set_write_timeout(Some(self.limits.write_timeout));
        let (stream, peer) = (Box::pin(stream), arrival.peer);
        let connection = Connection {
            gateway: self.gateway.clone(),
            arrival,
            slot,
            phases: self.phases.clone(),
            seen: Mutex::default(),
            first: Notify::new(),
            write_timeout: self.limits.write_timeout,
        };
        let connection = Arc::new(connection);
        let patience = self.limits.header_timeout;
        match tls {
            None => connection.run(stream, &self.builder, patience).await,
            Some(tls) => match time::timeout(patience, tls.accept(stream)).await {
                Ok(Ok(stream)) => connection.run(stream, &self.builder, patience).await,
                Ok(Err(error)) => {
                    self.stats.no_tls.fetch_add(1, Relaxed);
                    tracing::debug!(%peer, %error, "no TLS");
                }
                Err(_) => {
                    self.stats.no_tls.fetch_add(1, Relaxed);
                    tracing::debug!(%peer, "no TLS in time");
                }
            },
        }
    }
}

/// What a connection holds until it, and the tunnel that it may become, is closed.
pub(crate) type Slot = Arc<Held>;

pub(crate) struct Held {
    stats: Arc<Stats>,
    _place: OwnedSemaphorePermit,
    _turn: Turn,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stats.open.fetch_sub(1, Relaxed);
    }
}

/// What the listeners count.
struct Stats {
    open: AtomicU64,
    accepted: AtomicU64,
    /// For one client had too many.
    refused: AtomicU64,
    no_tls: AtomicU64,
    tunnels: TaskTracker,
}

impl Stats {
    fn new(tunnels: TaskTracker) -> Self {
        let zero = AtomicU64::default;
        Self { open: zero(), accepted: zero(), refused: zero(), no_tls: zero(), tunnels }
    }
}

impl Handle for Stats {
    fn kind(&self) -> &'static str {
        "server"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        show("connections", Value::Gauge(self.open.load(Relaxed)));
        show("tunnels", Value::Gauge(self.tunnels.len() as u64));
        show("accepted_total", Value::Count(self.accepted.load(Relaxed)));
        show("refused_total", Value::Count(self.refused.load(Relaxed)));
        show("tls_failed_total", Value::Count(self.no_tls.load(Relaxed)));
    }
}

/// The most that hyper takes of a head, and then says 431 by itself.
const HARD_HEAD: usize = 400 << 10;

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head = usize::try_from(limits.header_bytes.0).unwrap_or(HARD_HEAD);
    // Twice as much as is allowed, so that what is too much can be answered with its reason.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size((2 * head).max(HARD_HEAD))
        .max_headers(2 * limits.headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(2 * head).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

async fn reached(phases: &mut watch::Receiver<Phase>, phase: Phase) {
    // Without a sender the phase never changes again.
    if phases.wait_for(|now| *now >= phase).await.is_err() {
        std::future::pending().await
    }
}

struct Connection {
    gateway: Arc<Gateway>,
    arrival: Arrival,
    slot: Slot,
    phases: watch::Receiver<Phase>,
    /// The version of the first request.
    seen: Mutex<Option<Version>>,
    first: Notify,
    write_timeout: Duration,
}

impl Connection {
    async fn run<S>(self: Arc<Self>, stream: S, builder: &auto::Builder<TokioExecutor>, patience: Duration)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let this = self.clone();
        let service = service_fn(move |req| this.clone().answer(req));
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));

        // hyper's own header time-out begins with the first byte that tells HTTP/1 from HTTP/2; this one is for clients
        // that do not even send that.
        let mut phases = self.phases.clone();
        let fresh = async {
            let silent = time::sleep(patience);
            let stopped = async {
                reached(&mut phases, Phase::Stopping).await;
                time::sleep(patience.min(Duration::from_secs(1))).await;
            };
            tokio::select! {
                () = self.first.notified() => true,
                () = silent => false,
                () = stopped => false,
            }
        };
        tokio::select! {
            _ = connection.as_mut() => return,
            begun = fresh => if !begun {
                // An HTTP/2 client that has no request yet is told, and comes back when it has one.
                connection.as_mut().graceful_shutdown();
                let _ = time::timeout(Duration::from_secs(1), connection).await;
                return;
            },
        }
        // GOAWAY tells an HTTP/2 client at once and loses nothing. HTTP/1 clients learn it from `Connection: close`;
        // those that stay idle are closed when the listener is.
        let version = *self.seen.lock().expect("never poisoned");
        let phase = if version == Some(Version::HTTP_2) { Phase::Draining } else { Phase::Stopping };
        tokio::select! {
            _ = connection.as_mut() => return,
            () = reached(&mut phases, phase) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    async fn answer(
        self: Arc<Self>,
        req: Request<Incoming>,
    ) -> Result<Response<impl Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static + use<>>, Infallible> {
        let version = req.version();
        if self.seen.lock().expect("never poisoned").replace(version).is_none() {
            self.first.notify_one();
        }
        let mut res = self.gateway.serve(req, &self.arrival, &self.slot).await;
        // After a 408 there would be the rest of a body to wait for, after a 413 too much of one.
        let last = matches!(res.status(), StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE)
            || *self.phases.borrow() > Phase::Running;
        let last = last && res.status() != StatusCode::SWITCHING_PROTOCOLS;
        if version != Version::HTTP_2 && last {
            res.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(res.map(|body| match version {
            Version::HTTP_2 if !body.is_end_stream() => Either::Right(Taken::new(body, self.write_timeout)),
            _ => Either::Left(body),
        }))
    }
}
