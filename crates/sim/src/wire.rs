//! A real hyper server and client over loopback.
//!
//! hyper drops a body without asking it again once it knows that the body is over; no `collect()` shows what a layer makes
//! of that.

use crate::{AnyBody, any};
use buttress_core::BoxError;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, Uri};
use hyper::{client, server};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
};
use tower::util::{BoxCloneService, MapRequest};
use tower_service::Service;

/// The HTTP version of a connection; both without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 with prior knowledge.
    H2,
}

impl Version {
    /// Both.
    pub const ALL: [Version; 2] = [Self::H1, Self::H2];
}

/// A service of this crate's HTTP types, whatever is inside.
pub type HttpService = BoxCloneService<Request<AnyBody>, Response<AnyBody>, BoxError>;

/// A hyper server, until it is dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    version: Version,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Serves `service` on a port of its own; every connection gets a clone.
    ///
    /// # Errors
    ///
    /// There is no port.
    pub async fn start(version: Version, service: HttpService) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(version, stream, service.clone()));
            }
        });
        Ok(Self { addr, version, _tasks: tasks })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A client with one connection to it.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub async fn connect(&self) -> Result<Client, BoxError> {
        let io = TokioIo::new(TcpStream::connect(self.addr).await?);
        let sender = match self.version {
            Version::H1 => {
                let (sender, connection) = client::conn::http1::handshake(io).await?;
                tokio::spawn(connection);
                Sender::H1(Arc::new(Mutex::new(sender)))
            }
            Version::H2 => {
                let (sender, connection) = client::conn::http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Sender::H2(sender)
            }
        };
        Ok(Client { addr: self.addr, sender })
    }
}

/// How a connection ends is the client's business: it sees it, too.
fn connection(version: Version, stream: TcpStream, service: HttpService) -> BoxFuture<'static, ()> {
    let unboxed: fn(Request<hyper::body::Incoming>) -> Request<AnyBody> = |req| req.map(any);
    let service = TowerToHyperService::new(MapRequest::new(service, unboxed));
    let io = TokioIo::new(stream);
    match version {
        Version::H1 => Box::pin(server::conn::http1::Builder::new().serve_connection(io, service).map(drop)),
        Version::H2 => {
            Box::pin(server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).map(drop))
        }
    }
}

/// A hyper client with one connection. Its clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    addr: SocketAddr,
    sender: Sender,
}

#[derive(Clone, Debug)]
enum Sender {
    H1(Arc<Mutex<client::conn::http1::SendRequest<AnyBody>>>),
    H2(client::conn::http2::SendRequest<AnyBody>),
}

impl Client {
    /// Sends `req`; its URI may be a path alone.
    ///
    /// # Errors
    ///
    /// hyper's.
    pub async fn send(&self, mut req: Request<AnyBody>) -> Result<Response<AnyBody>, BoxError> {
        let path = req.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        let res = match &self.sender {
            Sender::H1(sender) => {
                req.headers_mut().insert("host", self.addr.to_string().parse()?);
                *req.uri_mut() = path.parse()?;
                let mut sender = sender.lock().await;
                sender.ready().await?;
                let response = sender.send_request(req);
                drop(sender);
                response.await?
            }
            Sender::H2(sender) => {
                *req.uri_mut() = Uri::try_from(format!("http://{}{path}", self.addr))?;
                let mut sender = sender.clone();
                sender.ready().await?;
                sender.send_request(req).await?
            }
        };
        Ok(res.map(any))
    }
}

impl Service<Request<AnyBody>> for Client {
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<AnyBody>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Request<AnyBody>) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.send(req).await })
    }
}
