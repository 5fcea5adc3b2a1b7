//! A server that misbehaves as each request asks it to, and writes down what it got.
//!
//! A request names itself (`x-request-id`, a number) and its fates (`x-fates`: what becomes of it each time it arrives; after the
//! last, it is served). Its body is `x-length` bytes of its number.

mod http1;
mod http2;

use http::HeaderMap;
use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};
use tokio::net::TcpListener;

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// 200 with a body.
    Served,
    /// Processed, and the connection (the stream) is reset before any response.
    Reset,
    /// Processed, and the response ends in the middle of its body.
    Truncated,
    /// 503 with a `Retry-After`.
    Busy,
    /// 503.
    Failed,
    /// HTTP/2 REFUSED_STREAM: not processed.
    Refused,
    /// Served on a connection that takes no more: `Connection: close`, a graceful GOAWAY.
    LastServed,
    /// The whole connection goes away at once.
    Gone,
}

impl Fate {
    const ALL: [(Self, &str); 8] = [
        (Self::Served, "served"),
        (Self::Reset, "reset"),
        (Self::Truncated, "truncated"),
        (Self::Busy, "busy"),
        (Self::Failed, "failed"),
        (Self::Refused, "refused"),
        (Self::LastServed, "last-served"),
        (Self::Gone, "gone"),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(fate, _)| *fate)
    }
}

/// What arrived, by the number of the request.
pub(crate) struct Ledger {
    lines: Vec<Line>,
    fates: [AtomicU64; 8],
    connections: AtomicU64,
    /// Bodies that were not what their heads said.
    corrupt: AtomicU64,
}

#[derive(Default)]
struct Line {
    received: AtomicU32,
    processed: AtomicU32,
}

/// A request that has arrived.
struct Arrival {
    id: usize,
    length: usize,
    fate: Fate,
}

impl Ledger {
    /// For requests numbered below `requests`.
    pub(crate) fn new(requests: usize) -> Arc<Self> {
        Arc::new(Self {
            lines: (0..requests).map(|_| Line::default()).collect(),
            fates: Default::default(),
            connections: AtomicU64::new(0),
            corrupt: AtomicU64::new(0),
        })
    }

    /// How often a request arrived, and how often it was processed.
    pub(crate) fn line(&self, id: usize) -> (u32, u32) {
        (self.lines[id].received.load(Relaxed), self.lines[id].processed.load(Relaxed))
    }

    pub(crate) fn corrupt(&self) -> u64 {
        self.corrupt.load(Relaxed)
    }

    fn arrive(&self, headers: &HeaderMap) -> Arrival {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let id: usize = text("x-request-id").parse().expect("every request has a number");
        let times = self.lines[id].received.fetch_add(1, Relaxed);
        let fate = text("x-fates").split(',').nth(times as usize).and_then(Fate::parse).unwrap_or(Fate::Served);
        if fate != Fate::Refused {
            self.lines[id].processed.fetch_add(1, Relaxed);
        }
        self.fates[fate as usize].fetch_add(1, Relaxed);
        Arrival { id, length: text("x-length").parse().unwrap_or(0), fate }
    }

    fn check(&self, arrival: &Arrival, body: &[u8]) {
        if body.len() != arrival.length || body.iter().any(|&byte| byte != arrival.id as u8) {
            self.corrupt.fetch_add(1, Relaxed);
        }
    }

    /// Serves HTTP/1 or HTTP/2 until the test ends.
    pub(crate) async fn serve(self: &Arc<Self>, http2: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let ledger = self.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                ledger.connections.fetch_add(1, Relaxed);
                let ledger = ledger.clone();
                // A connection that breaks is what this server is for.
                tokio::spawn(async move {
                    let _ = match http2 {
                        true => http2::serve(connection, ledger).await.map_err(|_| ()),
                        false => http1::serve(connection, &ledger).await.map_err(|_| ()),
                    };
                });
            }
        });
        address
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |count: fn(&Line) -> &AtomicU32| {
            self.lines.iter().map(|line| u64::from(count(line).load(Relaxed))).sum::<u64>()
        };
        let (received, processed) = (sum(|line| &line.received), sum(|line| &line.processed));
        write!(f, "{} requests over {} connections: ", self.lines.len(), self.connections.load(Relaxed))?;
        write!(f, "received {received}, processed {processed}, corrupt {};", self.corrupt())?;
        for (fate, name) in Fate::ALL {
            write!(f, " {name} {}", self.fates[fate as usize].load(Relaxed))?;
        }
        for times in 1..10 {
            let lines = self.lines.iter().filter(|line| line.received.load(Relaxed) == times).count();
            if lines > 0 {
                write!(f, "; {lines} arrived {times}x")?;
            }
        }
        Ok(())
    }
}
