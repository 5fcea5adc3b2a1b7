//! Gateways are replaced under load, one after the other, as an operator would.

use crate::{
    process::{Gateway, one},
    raw::Upstream,
};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// Asks the gateways that it was told of whether they are ready, and connects to those that are, in turn.
#[derive(Default)]
struct Balancer {
    known: Mutex<Vec<(SocketAddr, SocketAddr)>>,
    ready: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
}

impl Balancer {
    fn add(&self, gateway: &Gateway) {
        self.known.lock().unwrap().push((gateway.address, gateway.admin));
    }

    /// One round of questions.
    async fn look(&self) {
        let known = self.known.lock().unwrap().clone();
        let mut ready = Vec::new();
        for (address, admin) in known {
            if is_ready(admin).await.unwrap_or(false) {
                ready.push(address);
            }
        }
        *self.ready.lock().unwrap() = ready;
    }

    async fn look_always(self: Arc<Self>) {
        loop {
            self.look().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn connect(&self) -> TokioIo<TcpStream> {
        let address = {
            let ready = self.ready.lock().unwrap();
            ready[self.turn.fetch_add(1, SeqCst) % ready.len()]
        };
        TokioIo::new(TcpStream::connect(address).await.expect("who was ready a moment ago takes connections"))
    }
}

/// An error: it has ended.
async fn is_ready(admin: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(admin).await?;
    let asked = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

/// What became of the calls.
#[derive(Default)]
struct Tally {
    good: AtomicUsize,
    bad: Mutex<Vec<String>>,
    /// How often a client was sent away.
    moves: AtomicUsize,
    /// Calls that a gateway has not looked at, and said so.
    untouched: AtomicUsize,
    stop: AtomicBool,
}

impl Tally {
    async fn count(&self, answer: Result<Response<Incoming>, hyper::Error>) {
        let whole = async {
            let res = answer.map_err(|error| format!("{error:?}"))?;
            let status = res.status();
            let body = res.into_body().collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
            if status == 200 && body == "ok" { Ok(()) } else { Err(format!("{status} {body:?}")) }
        };
        match whole.await {
            Ok(()) => drop(self.good.fetch_add(1, SeqCst)),
            Err(why) => self.bad.lock().unwrap().push(why),
        }
    }
}

fn request(address: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://{address}/")).header(header::HOST, address).body(Empty::new()).unwrap()
}

/// Keeps its connection until it is told to go.
async fn http_1_client(balancer: Arc<Balancer>, tally: Arc<Tally>) {
    while !tally.stop.load(SeqCst) {
        let (mut sender, connection) = http1::handshake(balancer.connect().await).await.unwrap();
        tokio::spawn(connection);
        while !tally.stop.load(SeqCst) {
            let answer = sender.send_request(request("a")).await;
            let goes_on = answer
                .as_ref()
                .is_ok_and(|res| res.headers().get(header::CONNECTION).is_none_or(|said| said != "close"));
            tally.count(answer).await;
            if !goes_on {
                tally.moves.fetch_add(1, SeqCst);
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Several calls at a time on one connection. After a GOAWAY it opens another, and what the gateway says that it has not
/// looked at is sent again there (RFC 9113, 6.8).
async fn http_2_client(balancer: Arc<Balancer>, tally: Arc<Tally>) {
    while !tally.stop.load(SeqCst) {
        let (sender, connection) =
            http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), balancer.connect().await).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut calls = JoinSet::new();
        for _ in 0..4 {
            let (mut sender, tally) = (sender.clone(), tally.clone());
            calls.spawn(async move {
                while !tally.stop.load(SeqCst) && sender.ready().await.is_ok() {
                    match sender.send_request(request("a")).await {
                        Err(error) if error.is_canceled() || is_untouched(&error) => {
                            tally.untouched.fetch_add(1, SeqCst);
                            return;
                        }
                        answer => tally.count(answer).await,
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        drop(sender);
        calls.join_all().await;
        tally.moves.fetch_add(1, SeqCst);
        connection.abort();
    }
}

/// Whether the server says that nothing has become of a request.
fn is_untouched(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.reason() == Some(h2::Reason::REFUSED_STREAM)
            || cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_are_replaced_under_load_without_a_failed_request() {
    let upstream = Upstream::fine().await;
    let start = || Gateway::start_with("[drain]\nmin = \"1s\"\nmax = \"20s\"", &one(upstream.address, "", ""));
    let (balancer, tally) = (Arc::<Balancer>::default(), Arc::<Tally>::default());
    let mut serving = vec![start(), start()];
    serving.iter().for_each(|gateway| balancer.add(gateway));
    balancer.look().await;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        clients.spawn(http_1_client(balancer.clone(), tally.clone()));
    }
    for _ in 0..2 {
        clients.spawn(http_2_client(balancer.clone(), tally.clone()));
    }
    let looking = tokio::spawn(balancer.clone().look_always());
    for _ in 0..2 {
        let new = start();
        balancer.add(&new);
        serving.push(new);
        let mut old = serving.remove(0);
        old.terminate();
        assert_eq!(old.end().await.code(), Some(0));
    }
    looking.abort();
    tally.stop.store(true, SeqCst);
    clients.join_all().await;
    let (good, bad) = (tally.good.load(SeqCst), tally.bad.lock().unwrap().clone());
    let (moves, untouched) = (tally.moves.load(SeqCst), tally.untouched.load(SeqCst));
    eprintln!("{good} good, {} bad, {moves} connections sent away, {untouched} calls with them", bad.len());
    assert!(bad.is_empty(), "{} of {good}: {:?}", bad.len(), &bad[..bad.len().min(20)]);
    assert!(moves >= 10 && good > 1000, "{moves} {good}");
}
