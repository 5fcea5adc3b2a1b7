//! The accept loop: HTTP/1 and HTTP/2 on one port, a cap on connections, and an end in good order.

use crate::{chain::ResponseBody, config::Config, proxy::Gateway};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time,
};

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

/// Serves until [`Phase::Stopping`], and then until every connection has ended or `drain_max` is over. Returns how many
/// connections had to be aborted.
pub(crate) async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    config: &Config,
    phases: watch::Receiver<Phase>,
) -> usize {
    let builder = Arc::new(builder(config.limits.header_timeout));
    let permits = Arc::new(Semaphore::new(config.limits.connections));
    let mut connections = JoinSet::new();
    let mut stopping = pin!({
        let mut phases = phases.clone();
        async move { reached(&mut phases, Phase::Stopping).await }
    });
    loop {
        let accepted = async {
            let permit = permits.clone().acquire_owned().await.expect("never closed");
            (listener.accept().await, permit)
        };
        tokio::select! {
            biased;
            () = &mut stopping => break,
            Some(_) = connections.join_next() => {}
            (accepted, permit) = accepted => match accepted {
                Ok((stream, peer)) => {
                    let connection = Connection {
                        gateway: gateway.clone(),
                        peer,
                        phases: phases.clone(),
                        seen: Mutex::default(),
                        first: Notify::new(),
                    };
                    let (builder, patience) = (builder.clone(), config.limits.header_timeout);
                    connections.spawn(async move {
                        Arc::new(connection).run(stream, &builder, patience).await;
                        drop(permit);
                    });
                }
                // Out of file descriptors, most likely: those that end give some back.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = time::timeout(config.drain.max.saturating_sub(config.drain.min), all).await;
    // What is left is aborted with its set.
    connections.len()
}

fn builder(header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
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
    peer: SocketAddr,
    phases: watch::Receiver<Phase>,
    /// The version of the first request.
    seen: Mutex<Option<Version>>,
    first: Notify,
}

impl Connection {
    async fn run(self: Arc<Self>, stream: TcpStream, builder: &auto::Builder<TokioExecutor>, patience: Duration) {
        let _ = stream.set_nodelay(true);
        let this = self.clone();
        let service = service_fn(move |req| this.clone().answer(req));
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));

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
            begun = fresh => if !begun { return },
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

    async fn answer(self: Arc<Self>, req: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
        let version = req.version();
        if self.seen.lock().expect("never poisoned").replace(version).is_none() {
            self.first.notify_one();
        }
        let mut res = self.gateway.serve(req, self.peer).await;
        // After a 408 there would be the rest of a body to wait for.
        let last = res.status() == StatusCode::REQUEST_TIMEOUT || *self.phases.borrow() > Phase::Running;
        if version != Version::HTTP_2 && last {
            res.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(res)
    }
}
