//! Peers that are known to the byte: one HTTP/1 or HTTP/2 connection, one request.
#![allow(dead_code, reason = "each test program takes its part")]

use buttress_core::{BoxError, http::ReplayBody};
use bytes::Bytes;
use http_body::Body;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A client that makes no attempts of its own.
pub(crate) fn client<B>(http2: bool) -> Client<HttpConnector, ReplayBody<B>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .retry_canceled_requests(false)
        .timer(TokioTimer::new())
        .build(HttpConnector::new())
}

/// Reads one HTTP/1 request as it came, answers with `status` and closes.
pub(crate) async fn http1(listener: &TcpListener, status: &str) -> String {
    let (mut peer, _) = listener.accept().await.unwrap();
    let mut read = Vec::new();
    while !is_whole(&read) {
        assert!(peer.read_buf(&mut read).await.unwrap() > 0, "cut: {:?}", String::from_utf8_lossy(&read));
    }
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    peer.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(read).unwrap()
}

fn is_whole(read: &[u8]) -> bool {
    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let (head, body) = (String::from_utf8_lossy(&read[..end]), &read[end + 4..]);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    match length {
        Some(length) => body.len() >= length,
        // The last chunk, and what trailers there are.
        None if head.contains("transfer-encoding: chunked") => {
            let last = &body[body.len().saturating_sub(100)..];
            last.ends_with(b"\r\n\r\n")
                && (body.starts_with(b"0\r\n") || last.windows(5).any(|five| five == b"\r\n0\r\n"))
        }
        None => true,
    }
}

/// A frame of HTTP/2: type, flags, stream, payload.
pub(crate) type Frame = (u8, u8, u32, Vec<u8>);

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;

pub(crate) struct Http2(TcpStream);

impl Http2 {
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        peer.read_exact(&mut preface).await.unwrap();
        let mut peer = Self(peer);
        peer.send(SETTINGS, 0, 0, &[]).await;
        peer
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    async fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).await?;
        Ok((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Reads until a request is whole: what came of it.
    pub(crate) async fn request(&mut self) -> Vec<Frame> {
        let mut request = Vec::new();
        loop {
            let frame = self.read().await.unwrap();
            if frame.0 == SETTINGS && frame.1 == 0 {
                self.send(SETTINGS, 1, 0, &[]).await;
            }
            if frame.0 <= HEADERS {
                let end = frame.1 & END_STREAM != 0;
                request.push(frame);
                if end {
                    return request;
                }
            }
        }
    }

    /// Reads and forgets until the other side closes.
    pub(crate) async fn drain(&mut self) {
        while self.read().await.is_ok() {}
    }
}
