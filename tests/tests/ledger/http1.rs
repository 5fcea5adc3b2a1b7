use super::{Arrival, Fate, Ledger};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::io;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
};

/// By hand, so that a connection can be reset where it hurts.
pub(super) async fn serve(connection: TcpStream, ledger: &Ledger) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut connection = BufStream::new(connection);
    while let Some(headers) = head(&mut connection).await? {
        let arrival = ledger.arrive(&headers);
        // Every other reset comes before the body was read.
        if arrival.fate == Fate::Reset && arrival.id.is_multiple_of(2) {
            return reset(connection);
        }
        ledger.check(&arrival, &body(&mut connection, &headers).await?);
        match arrival.fate {
            Fate::Reset | Fate::Gone | Fate::Refused => return reset(connection),
            Fate::Truncated => {
                let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot all";
                connection.write_all(cut).await?;
                connection.flush().await?;
                return connection.shutdown().await;
            }
            Fate::LastServed => {
                connection.write_all(served(&arrival, "connection: close\r\n").as_bytes()).await?;
                connection.flush().await?;
                return connection.shutdown().await;
            }
            Fate::Busy => connection.write_all(BUSY).await?,
            Fate::Failed => connection.write_all(FAILED).await?,
            Fate::Served => connection.write_all(served(&arrival, "").as_bytes()).await?,
        }
        connection.flush().await?;
    }
    Ok(())
}

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 4\r\n\r\nbusy";
const FAILED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 6\r\n\r\nfailed";

fn served(arrival: &Arrival, header: &str) -> String {
    let id = arrival.id.to_string();
    format!("HTTP/1.1 200 OK\r\n{header}content-length: {}\r\n\r\n{id}", id.len())
}

fn reset(connection: BufStream<TcpStream>) -> io::Result<()> {
    connection.into_inner().set_zero_linger()
}

async fn head(connection: &mut BufStream<TcpStream>) -> io::Result<Option<HeaderMap>> {
    let mut headers = HeaderMap::new();
    let mut line = String::new();
    // The request line.
    if connection.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        let Some((name, value)) = line.split_once(':') else { return Ok(Some(headers)) };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        headers.insert(name, HeaderValue::from_str(value.trim()).map_err(io::Error::other)?);
    }
}

async fn body(connection: &mut BufStream<TcpStream>, headers: &HeaderMap) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length") {
        body.resize(length.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(0), 0);
        connection.read_exact(&mut body).await?;
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let mut line = String::new();
            connection.read_line(&mut line).await?;
            let length = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + length + 2, 0);
            connection.read_exact(&mut body[start..]).await?;
            body.truncate(start + length);
            if length == 0 {
                break;
            }
        }
    }
    Ok(body)
}
