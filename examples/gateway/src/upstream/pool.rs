//! Connections to one HTTP/1 endpoint, kept from request to request.
//!
//! hyper-util's client is made for any host: it looks its pool up by scheme and authority, clones itself into every request's
//! future, and gives connections back in tasks of their own. For one endpoint a list of idle connections does, and a request
//! takes about half of the time.

#[cfg(test)]
mod tests;

use super::{Sent, connector::Connector};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, uri};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt};

/// Sends each request over a connection of its own: the idle one that was used last, or a new one.
pub(crate) struct Connections {
    connector: Connector,
    /// Where to.
    uri: Uri,
    /// How long an idle connection is kept.
    keep: Duration,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Those that were used last stand last.
    connections: Vec<Connection>,
    /// A task closes those that are old.
    is_swept: bool,
}

struct Connection {
    sender: SendRequest<Sent>,
    idle_since: Instant,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection was made.
    Connect(Box<dyn StdError + Send + Sync>),
    /// The connection was gone before the request was written.
    Unsent(hyper::Error),
    /// It broke under the request.
    Broken(hyper::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect(_) => "cannot connect",
            Self::Unsent(_) => "the connection was closed before the request was sent",
            Self::Broken(_) => "the connection broke",
        })
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connect(error) => Some(&**error),
            Self::Unsent(error) | Self::Broken(error) => Some(error),
        }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        // hyper cancels a request only where it was queued for a connection that then took no more.
        if error.is_canceled() { Self::Unsent(error) } else { Self::Broken(error) }
    }
}

impl Connections {
    pub(crate) fn new(
        connector: Connector,
        scheme: &uri::Scheme,
        authority: &uri::Authority,
        keep: Duration,
    ) -> Arc<Self> {
        let uri = Uri::builder().scheme(scheme.clone()).authority(authority.clone()).path_and_query("/").build();
        let uri = uri.expect("a scheme, an authority and a path are a URI");
        Arc::new(Self { connector, uri, keep, idle: Mutex::default() })
    }

    /// Sends `req`, whose target is a path.
    pub(crate) fn send(self: &Arc<Self>, req: Request<Sent>) -> Sending {
        if let Some(mut sender) = self.take() {
            let response = Box::pin(sender.send_request(req));
            return Sending(State::Waiting { response, sender: Some(sender), home: self.clone() });
        }
        let this = self.clone();
        let connected = Box::pin(async move {
            let mut sender = this.connect().await?;
            let response = Box::pin(sender.send_request(req)) as Waiting;
            Ok((response, sender))
        });
        Sending(State::Connecting { connected, home: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<SendRequest<Sent>> {
        let mut idle = self.lock();
        let connections = &mut idle.connections;
        let mut at = connections.len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let Connection { sender, idle_since } = &connections[at];
            if sender.is_closed() {
                connections.remove(at);
            } else if idle_since.elapsed() >= self.keep {
                // So are those before it.
                return None;
            } else if sender.is_ready() {
                // Else its last response was read a moment ago, and it will be.
                return Some(connections.remove(at).sender);
            }
        }
        None
    }

    fn give_back(self: Arc<Self>, sender: SendRequest<Sent>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.lock();
        idle.connections.push(Connection { sender, idle_since: Instant::now() });
        if !std::mem::replace(&mut idle.is_swept, true) {
            let (connections, keep) = (Arc::downgrade(&self), self.keep);
            tokio::spawn(async move {
                loop {
                    sleep(keep).await;
                    let Some(connections) = connections.upgrade() else { return };
                    if !connections.sweep() {
                        return;
                    }
                }
            });
        }
    }

    /// Closes what has been idle for too long. Whether there may be more to close.
    fn sweep(&self) -> bool {
        let mut idle = self.lock();
        let keeps =
            |connection: &Connection| !connection.sender.is_closed() && connection.idle_since.elapsed() < self.keep;
        let (kept, old) = idle.connections.drain(..).partition::<Vec<_>, _>(keeps);
        idle.connections = kept;
        idle.is_swept = !idle.connections.is_empty();
        let goes_on = idle.is_swept;
        drop(idle);
        drop(old);
        goes_on
    }

    async fn connect(&self) -> Result<SendRequest<Sent>, Failure> {
        let mut connector = self.connector.clone();
        let connected = async { connector.ready().await?.call(self.uri.clone()).await };
        let io = connected.await.map_err(Failure::Connect)?;
        let (sender, connection) = handshake(io).await.map_err(|error| Failure::Connect(Box::new(error)))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(error = &error as &dyn StdError, "an upstream connection broke");
            }
        });
        Ok(sender)
    }
}

type Waiting = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;
type Connecting = Pin<Box<dyn Future<Output = Result<(Waiting, SendRequest<Sent>), Failure>> + Send>>;

/// The future of [`Connections::send`].
pub(crate) struct Sending(State);

enum State {
    Connecting { connected: Connecting, home: Arc<Connections> },
    Waiting { response: Waiting, sender: Option<SendRequest<Sent>>, home: Arc<Connections> },
}

impl Future for Sending {
    type Output = Result<Response<Received>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                State::Connecting { connected, home } => {
                    let (response, sender) = ready!(connected.as_mut().poll(cx))?;
                    let home = home.clone();
                    self.0 = State::Waiting { response, sender: Some(sender), home };
                }
                State::Waiting { response, sender, home } => {
                    let res = ready!(response.as_mut().poll(cx))?;
                    // A connection that has become a tunnel is nobody else's.
                    let sender = sender.take().filter(|_| res.status() != StatusCode::SWITCHING_PROTOCOLS);
                    let back = sender.map(|sender| (sender, home.clone()));
                    return Poll::Ready(Ok(res.map(|body| Received::new(body, back))));
                }
            }
        }
    }
}

/// A response body. When it has come to its end, its connection is idle; one that is dropped before closes it.
pub(crate) struct Received {
    body: Incoming,
    back: Option<(SendRequest<Sent>, Arc<Connections>)>,
}

impl Received {
    pub(crate) fn new(body: Incoming, back: Option<(SendRequest<Sent>, Arc<Connections>)>) -> Self {
        let mut received = Self { body, back };
        received.look_for_end();
        received
    }

    fn look_for_end(&mut self) {
        if self.body.is_end_stream()
            && let Some((sender, home)) = self.back.take()
        {
            home.give_back(sender);
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => self.look_for_end(),
            Some(Err(_)) => self.back = None,
            None => {
                if let Some((sender, home)) = self.back.take() {
                    home.give_back(sender);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
