//! Upgraded connections: bytes both ways, until one side closes or both have been silent for too long.

use buttress::http::Tunnel;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    time::{MissedTickBehavior, interval},
};

/// What a client asked to switch to; the pool takes a 101 for no answer otherwise.
#[derive(Clone)]
pub(crate) struct Asked(pub(crate) HeaderValue);

/// Whether `res` switches to what was asked for.
pub(crate) fn is_accepted<B>(res: &Response<B>, asked: &Asked) -> bool {
    let accepted = res.headers().get(header::UPGRADE).map(HeaderValue::as_bytes);
    res.status() == StatusCode::SWITCHING_PROTOCOLS
        && accepted.is_some_and(|protocol| protocol.eq_ignore_ascii_case(asked.0.as_bytes()))
}

/// Carries bytes between the two, once both have switched. `held` is what the connection holds until then.
pub(crate) async fn carry(
    client: OnUpgrade,
    upstream: OnUpgrade,
    permits: Option<Tunnel>,
    held: impl Send,
    idle: Duration,
) {
    let both = async { tokio::try_join!(client, upstream) };
    // A client that goes away before it has its 101 never switches.
    let Ok(Ok((client, upstream))) = tokio::time::timeout(idle, both).await else { return };
    let active = Arc::new(AtomicBool::new(false));
    let (mut client, mut upstream) = (Watched::new(client, &active), Watched::new(upstream, &active));
    let silent = async {
        let mut checks = interval(idle);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        checks.tick().await;
        loop {
            checks.tick().await;
            if !active.swap(false, Relaxed) {
                return;
            }
        }
    };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut upstream) => {}
        () = silent => tracing::debug!(?idle, "a tunnel was silent for too long"),
    }
    drop((permits, held));
}

/// Notes whether bytes moved.
struct Watched {
    io: TokioIo<Upgraded>,
    active: Arc<AtomicBool>,
}

impl Watched {
    fn new(io: Upgraded, active: &Arc<AtomicBool>) -> Self {
        Self { io: TokioIo::new(io), active: active.clone() }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.active.store(true, Relaxed);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if written.is_ready() {
            self.active.store(true, Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
