//! What stands behind the contestants. It is as cheap as can be, so that it is never what a contestant waits for.

use crate::load::{BODY, Reader};
use std::{io, net::SocketAddr};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

/// Endpoints that answer every request without a body by 1 KiB, for as long as the runtime runs.
pub async fn spawn(endpoints: u8) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for _ in 0..endpoints {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    }
    Ok(addresses)
}

async fn answer(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let head = format!(
        "HTTP/1.1 200 OK\r\ndate: Mon, 03 Mar 2025 08:00:00 GMT\r\nserver: upstream\r\ncontent-type: application/json\r\n\
         cache-control: no-cache\r\ncontent-length: {BODY}\r\n\r\n"
    );
    let answer = [head.as_bytes(), &[b'x'; BODY]].concat();
    let mut reader = Reader::new(stream);
    loop {
        reader.head().await?;
        reader.clear();
        reader.stream.write_all(&answer).await?;
    }
}
