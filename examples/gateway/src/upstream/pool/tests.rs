use super::*;
use buttress_sim::eventually;
use http_body_util::BodyExt;
use hyper_util::client::legacy::connect::HttpConnector;
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const KEEP: Duration = Duration::from_secs(20);
const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
const NONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nbody";
const LAST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";

/// What an endpoint has seen of connections.
#[derive(Default)]
struct Seen {
    opened: AtomicUsize,
    closed: AtomicUsize,
}

impl Seen {
    fn opened(&self) -> usize {
        self.opened.load(SeqCst)
    }
    fn closed(&self) -> usize {
        self.closed.load(SeqCst)
    }
}

/// An endpoint that says `answer` to every request, and what it sees.
async fn endpoint(answer: &'static str) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::<Seen>::default());
    let sees = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sees = sees.clone();
            sees.opened.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                say(answer, stream).await;
                sees.closed.fetch_add(1, SeqCst);
            });
        }
    });
    (address, seen)
}

async fn say(answer: &str, mut stream: TcpStream) {
    let mut head = Vec::new();
    while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let said = stream.write_all(answer.as_bytes()).await;
            if said.is_err() || answer == LAST {
                return;
            }
        }
    }
}

fn connections(address: SocketAddr, keep: Duration) -> Arc<Connections> {
    let connector = Connector::new(crate::tls::connector(None, HttpConnector::new(), false).unwrap(), KEEP);
    Connections::new(connector, &uri::Scheme::HTTP, &address.to_string().parse().unwrap(), keep)
}

fn get() -> Request<Sent> {
    Request::get("/").header("host", "a").body(Sent(None)).unwrap()
}

impl Connections {
    /// How many idle connections could take a request.
    fn ready(&self) -> usize {
        self.lock().connections.iter().filter(|connection| connection.sender.is_ready()).count()
    }
}

#[tokio::test]
async fn a_connection_is_used_again_when_its_response_has_come_to_its_end() {
    for answer in [WHOLE, CHUNKED, NONE] {
        let (address, seen) = endpoint(answer).await;
        let connections = connections(address, KEEP);
        for _ in 0..3 {
            let res = connections.send(get()).await.unwrap();
            res.into_body().collect().await.unwrap();
            eventually("the connection is idle", || connections.ready() == 1).await;
        }
        assert_eq!((seen.opened(), seen.closed()), (1, 0), "{answer}");
    }
}

#[tokio::test]
async fn requests_at_the_same_time_have_connections_of_their_own() {
    let (address, seen) = endpoint(WHOLE).await;
    let connections = connections(address, KEEP);
    let (one, two) = tokio::join!(connections.send(get()), connections.send(get()));
    assert_eq!(seen.opened(), 2);
    for res in [one, two] {
        assert_eq!(res.unwrap().into_body().collect().await.unwrap().to_bytes(), "body");
    }
    eventually("both are idle", || connections.ready() == 2).await;
}

#[tokio::test]
async fn a_connection_whose_response_is_dropped_halfway_is_closed() {
    let (address, seen) = endpoint(HALF).await;
    let connections = connections(address, KEEP);
    drop(connections.send(get()).await.unwrap());
    eventually("it is closed", || seen.closed() == 1).await;
    assert_eq!(connections.lock().connections.len(), 0);
}

#[tokio::test]
async fn a_connection_whose_request_is_given_up_is_closed() {
    let (address, seen) = endpoint("").await;
    let connections = connections(address, KEEP);
    let sending = tokio::spawn(connections.send(get()));
    eventually("it is there", || seen.opened() == 1).await;
    sending.abort();
    eventually("it is closed", || seen.closed() == 1).await;
}

#[tokio::test]
async fn a_connection_that_its_endpoint_has_closed_is_not_used() {
    let (address, seen) = endpoint(LAST).await;
    let connections = connections(address, KEEP);
    for opened in 1..=3 {
        let res = connections.send(get()).await.unwrap();
        res.into_body().collect().await.unwrap();
        eventually("it is closed", || seen.closed() == opened).await;
        assert_eq!((seen.opened(), connections.ready()), (opened, 0));
    }
}

// Two threads and many turns: here the answer is seen while hyper has not let go of the connection yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_became_a_tunnel_is_nobody_elses() {
    let (address, seen) = endpoint(SWITCHED).await;
    let connections = connections(address, KEEP);
    for opened in 1..=500 {
        let res = connections.send(get()).await.unwrap();
        assert_eq!((res.status().as_u16(), seen.opened()), (101, opened));
        assert_eq!(connections.lock().connections.len(), 0);
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_over() {
    let (address, seen) = endpoint(WHOLE).await;
    let connections = connections(address, Duration::from_millis(50));
    connections.send(get()).await.unwrap().into_body().collect().await.unwrap();
    eventually("it is closed", || seen.closed() == 1).await;
    eventually("nobody sweeps an empty pool", || !connections.lock().is_swept).await;
    connections.send(get()).await.unwrap().into_body().collect().await.unwrap();
    eventually("the next one as well", || seen.closed() == 2).await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = connections(address, KEEP).send(get()).await.err();
    assert!(matches!(failure, Some(Failure::Connect(_))), "{failure:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_request_is_broken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 16]).await;
    });
    let failure = connections(address, KEEP).send(get()).await.err();
    assert!(matches!(failure, Some(Failure::Broken(_))), "{failure:?}");
}
