//! Clients in a closed loop, and just enough HTTP/1 for them.

use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

/// The bytes of an answer's body.
pub const BODY: usize = 1024;
const CONNECTIONS: usize = 64;
/// An answer that takes longer than this is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections to a contestant, kept from the warm-up to the end.
pub struct Clients(Vec<Reader>);

impl Clients {
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            clients.push(Reader::new(stream));
        }
        Ok(Self(clients))
    }

    /// Requests one after the other on every connection; how long each took.
    ///
    /// # Errors
    ///
    /// An answer is wrong, late, or not there.
    pub async fn run(&mut self, length: Duration) -> io::Result<Vec<Duration>> {
        let end = Instant::now() + length;
        let mut running = JoinSet::new();
        for mut client in self.0.drain(..) {
            running.spawn(async move {
                let mut took = Vec::new();
                let mut now = Instant::now();
                while now < end {
                    timeout(PATIENCE, client.ask()).await??;
                    let then = std::mem::replace(&mut now, Instant::now());
                    took.push(now - then);
                }
                Ok::<_, io::Error>((client, took))
            });
        }
        let mut all = Vec::new();
        while let Some(ended) = running.join_next().await {
            let (client, took) = ended.map_err(io::Error::other)??;
            self.0.push(client);
            all.extend(took);
        }
        Ok(all)
    }
}

/// One side of a connection.
pub struct Reader {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Reader {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::with_capacity(8192) }
    }

    /// Reads until a head is there; its length, with the blank line.
    pub async fn head(&mut self) -> io::Result<usize> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                return Ok(at + 4);
            }
            self.more().await?;
        }
    }

    /// Forgets what was read.
    pub fn clear(&mut self) {
        self.buffer.clear();
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// One request, and its answer to the last byte.
    async fn ask(&mut self) -> io::Result<()> {
        const REQUEST: &[u8] =
            b"GET /orders/1234?expand=lines HTTP/1.1\r\nhost: shop.example\r\nuser-agent: gateway-cost\r\n\
            accept: application/json\r\naccept-encoding: gzip\r\n\r\n";
        self.stream.write_all(REQUEST).await?;
        let head = self.head().await?;
        if !self.buffer.starts_with(b"HTTP/1.1 200 ") {
            return Err(wrong(&self.buffer[..head]));
        }
        let declared = self.buffer[..head].windows(LENGTH.len()).any(|bytes| bytes.eq_ignore_ascii_case(LENGTH));
        if !declared {
            return Err(wrong(&self.buffer[..head]));
        }
        while self.buffer.len() < head + BODY {
            self.more().await?;
        }
        if self.buffer.len() > head + BODY {
            return Err(wrong(&self.buffer));
        }
        self.clear();
        Ok(())
    }
}

/// `BODY` bytes.
const LENGTH: &[u8] = b"\r\ncontent-length: 1024\r\n";

fn wrong(answer: &[u8]) -> io::Error {
    io::Error::other(format!("not the upstream's answer: {}", String::from_utf8_lossy(answer).trim()))
}
