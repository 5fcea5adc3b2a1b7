//! Bytes on sockets: what hyper would never send, and what really arrived.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// An upstream that records every byte and answers each whole request with the same bytes.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Upstream {
    pub(crate) async fn answering(answer: &'static str) -> Self {
        Self::answering_in_turn(&[answer]).await
    }

    /// The first request gets the first answer, and so on; then it begins anew.
    pub(crate) async fn answering_in_turn(answers: &[&'static str]) -> Self {
        let answers: Arc<Mutex<VecDeque<&'static str>>> = Arc::new(Mutex::new(answers.iter().copied().collect()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<u8>>>::default();
        let record = received.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answers.clone(), record.clone()));
            }
        });
        Self { address, received }
    }

    /// `200` with `ok` as its body.
    pub(crate) async fn fine() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
    }

    /// All that has arrived, on all connections.
    pub(crate) fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap()).into_owned()
    }
}

async fn serve(mut stream: TcpStream, answers: Arc<Mutex<VecDeque<&str>>>, record: Arc<Mutex<Vec<u8>>>) {
    let (mut pending, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        record.lock().unwrap().extend(&chunk[..n]);
        pending.extend(&chunk[..n]);
        if is_whole(&String::from_utf8_lossy(&pending)) {
            pending.clear();
            let answer = {
                let mut answers = answers.lock().unwrap();
                answers.rotate_left(1);
                answers.back().copied().unwrap_or_default()
            };
            if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Whether a request and its body are there.
pub(crate) fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return body.starts_with("0\r\n") || body.contains("\r\n0\r\n");
    }
    let length = head.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    body.len() >= length
}

/// Sends `bytes` and reads until the peer closes.
pub(crate) async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A peer that has seen enough may close before it has read all.
    let _ = stream.write_all(bytes.as_ref()).await;
    rest(&mut stream).await
}

/// Reads until the peer closes.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the peer closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until `text` is there.
pub(crate) async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = String::new();
    let mut chunk = [0; 4096];
    while !seen.contains(text) {
        let n = timeout(Duration::from_secs(10), stream.read(&mut chunk)).await.expect("it comes").unwrap();
        assert!(n > 0, "closed before {text:?}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
    seen
}
