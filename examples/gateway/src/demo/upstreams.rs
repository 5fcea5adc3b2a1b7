//! Endpoints on real sockets that play their roles.

use super::script::{Fault, Role, Stage};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, Sleep, sleep, sleep_until},
};

/// Bytes of an answer.
pub(crate) const BODY: usize = 4096;
/// Calls that an endpoint works on at once.
const WORKERS: usize = 32;
/// Calls that wait for the one worker that an overloaded endpoint has left.
const QUEUE: usize = 3;

/// An endpoint.
pub(crate) struct Upstream {
    role: &'static Role,
    address: SocketAddr,
    rng: Mutex<fastrand::Rng>,
    workers: Semaphore,
    /// The workers of an overloaded endpoint.
    scarce: Semaphore,
    waiting: AtomicUsize,
}

impl Upstream {
    /// Takes a port of its own on loopback; [`play`](Self::play) serves it.
    pub(crate) async fn bind(role: &'static Role, seed: u64) -> io::Result<(Arc<Self>, TcpListener)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let upstream = Self {
            role,
            address: listener.local_addr()?,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            workers: Semaphore::new(WORKERS),
            scarce: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
        };
        Ok((Arc::new(upstream), listener))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Plays the role; returns an error, or never.
    pub(crate) async fn play(self: Arc<Self>, mut listener: TcpListener, stage: Stage) -> io::Result<()> {
        let mut connections = JoinSet::new();
        let mut share = 0.0;
        loop {
            let end = self.role.next_change(share);
            let over = async {
                match end {
                    Some(end) => sleep_until(stage.at(end)).await,
                    None => pending().await,
                }
            };
            if self.role.fault(share) == Some(Fault::Refuses) {
                drop(listener);
                // The port stays ours, and nobody listens.
                let socket = TcpSocket::new_v4()?;
                socket.set_reuseaddr(true)?;
                socket.bind(self.address)?;
                connections.shutdown().await;
                over.await;
                listener = socket.listen(1024)?;
            } else {
                tokio::select! {
                    never = self.clone().accept(&listener, &mut connections, stage) => never?,
                    () = over => {}
                }
            }
            share = end.unwrap_or(share);
        }
    }

    async fn accept(
        self: Arc<Self>,
        listener: &TcpListener,
        connections: &mut JoinSet<Result<(), hyper::Error>>,
        stage: Stage,
    ) -> io::Result<()> {
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                Some(_) = connections.join_next() => continue,
            };
            stream.set_nodelay(true)?;
            let this = self.clone();
            let service = service_fn(move |req| this.clone().answer(req, stage));
            let server = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            connections.spawn(server);
        }
    }

    async fn answer(self: Arc<Self>, req: Request<Incoming>, stage: Stage) -> Result<Response<Answer>, Infallible> {
        let work = match req.uri().path().ends_with("/report") {
            true => self.millis(60, 100),
            false => self.millis(1, 4),
        };
        let _ = req.into_body().collect().await;
        let fault = self.role.fault(stage.share(Instant::now()));
        Ok(match fault {
            Some(Fault::Errors) if self.role.cluster == "a-next" => failure(StatusCode::INTERNAL_SERVER_ERROR),
            Some(Fault::Errors) => failure(StatusCode::SERVICE_UNAVAILABLE),
            Some(Fault::Refuses | Fault::Hangs) => pending().await,
            Some(Fault::Overload) => self.overloaded().await,
            Some(Fault::Cuts) => success(Answer::cut()),
            Some(Fault::Slow) => {
                sleep(self.millis(2200, 2500)).await;
                success(Answer::whole())
            }
            None => {
                let _worker = self.workers.acquire().await;
                sleep(work).await;
                success(Answer::whole())
            }
        })
    }

    async fn overloaded(&self) -> Response<Answer> {
        let Some(_place) = Place::take(&self.waiting) else {
            let mut res = failure(StatusCode::SERVICE_UNAVAILABLE);
            res.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return res;
        };
        let _worker = self.scarce.acquire().await;
        sleep(self.millis(700, 900)).await;
        success(Answer::whole())
    }

    fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.lock().expect("never poisoned").u64(from..=to))
    }
}

/// A place in the queue of an overloaded endpoint, or with its worker; given back also when the caller leaves.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize) -> Option<Self> {
        let taken = count.fetch_update(Relaxed, Relaxed, |n| (n <= QUEUE).then_some(n + 1));
        taken.is_ok().then(|| Self(count))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// An answer with its whole body.
pub(crate) fn whole_answer() -> Response<Answer> {
    success(Answer::whole())
}

fn success(body: Answer) -> Response<Answer> {
    let mut res = Response::new(body);
    res.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(BODY));
    res
}

fn failure(status: StatusCode) -> Response<Answer> {
    let mut res = Response::new(Answer { data: None, ends: None });
    *res.status_mut() = status;
    res.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    res
}

static TEXT: [u8; BODY] = [b'.'; BODY];

/// A body that is sent as a whole, or half of it.
pub(crate) struct Answer {
    data: Option<Bytes>,
    /// It breaks off when this is over: long enough for the first half to be on its way.
    ends: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    fn whole() -> Self {
        Self { data: Some(Bytes::from_static(&TEXT)), ends: None }
    }

    fn cut() -> Self {
        let ends = Some(Box::pin(sleep(Duration::from_millis(5))));
        Self { data: Some(Bytes::from_static(&TEXT[..BODY / 2])), ends }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &mut self.ends {
            None => Poll::Ready(None),
            Some(ends) => {
                ready!(ends.as_mut().poll(cx));
                Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.ends.is_none()
    }
}
