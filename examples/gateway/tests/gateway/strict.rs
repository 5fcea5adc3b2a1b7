//! HTTP/1 read by the letter of RFC 9112, and an upstream that takes nothing else.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

type Fields = Vec<(String, String)>;

/// A request or a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// The words of the first line.
    pub(crate) start: Vec<String>,
    /// Names in lower case.
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

impl Message {
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.fields.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn status(&self) -> &str {
        &self.start[1]
    }

    pub(crate) fn target(&self) -> &str {
        &self.start[1]
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What the bytes begin with.
pub(crate) enum Read {
    Whole(Message, usize),
    Partial,
    Wrong(String),
}

/// How much is taken for a message.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reader {
    /// What RFC 9112 lets a server forgive: lines that end in LF alone, empty lines before a request, one length said twice, a
    /// length beside chunks.
    pub(crate) forgives: bool,
    /// The peer has closed: a response may end there.
    pub(crate) closed: bool,
    /// The response to a HEAD request.
    pub(crate) bodiless: bool,
}

fn wrong<T>(text: impl Into<String>) -> Result<T, Option<String>> {
    Err(Some(text.into()))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Bytes that are read from the front; an error of `None`: more are needed.
struct Bytes<'a> {
    bytes: &'a [u8],
    at: usize,
    forgives: bool,
}

impl<'a> Bytes<'a> {
    fn line(&mut self) -> Result<String, Option<String>> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|b| *b == b'\n').ok_or(None)?;
        self.at += end + 1;
        let line = &rest[..end];
        let line = match line.strip_suffix(b"\r") {
            Some(line) => line,
            None if self.forgives => line,
            None => return wrong("a line that ends in LF alone"),
        };
        if line.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
            return wrong("a control character");
        }
        Ok(line.iter().map(|b| char::from(*b)).collect())
    }

    fn fields(&mut self) -> Result<Fields, Option<String>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            match line.split_once(':') {
                Some((name, value)) if is_token(name) => {
                    fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
                }
                _ => return wrong(format!("not a field: {line:?}")),
            }
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Option<String>> {
        let taken = self.bytes[self.at..].get(..n).ok_or(None)?;
        self.at += n;
        Ok(taken)
    }

    fn chunks(&mut self) -> Result<(Vec<u8>, Fields), Option<String>> {
        let mut body = Vec::new();
        loop {
            let forgives = std::mem::replace(&mut self.forgives, false);
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim_end_matches([' ', '\t']);
            if size.is_empty() || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
                return wrong(format!("not a chunk: {line:?}"));
            }
            let Ok(size) = usize::from_str_radix(size, 16) else { return wrong("a chunk too large") };
            if size == 0 {
                self.forgives = forgives;
                return Ok((body, self.fields()?));
            }
            body.extend(self.take(size)?);
            if self.take(2)? != b"\r\n" {
                return wrong("no CRLF after a chunk");
            }
            self.forgives = forgives;
        }
    }
}

impl Reader {
    pub(crate) fn request(self, bytes: &[u8]) -> Read {
        self.read(bytes, true)
    }

    pub(crate) fn response(self, bytes: &[u8]) -> Read {
        self.read(bytes, false)
    }

    fn read(self, bytes: &[u8], request: bool) -> Read {
        let mut bytes = Bytes { bytes, at: 0, forgives: self.forgives };
        match self.message(&mut bytes, request) {
            Ok(message) => Read::Whole(message, bytes.at),
            Err(None) => Read::Partial,
            Err(Some(why)) => Read::Wrong(why),
        }
    }

    fn message(self, bytes: &mut Bytes<'_>, request: bool) -> Result<Message, Option<String>> {
        let mut line = bytes.line()?;
        while self.forgives && line.is_empty() {
            line = bytes.line()?;
        }
        let start: Vec<_> = line.splitn(3, ' ').map(str::to_owned).collect();
        let fine = match (&start[..], request) {
            ([method, target, version], true) => {
                is_token(method) && !target.is_empty() && matches!(version.as_str(), "HTTP/1.1" | "HTTP/1.0")
            }
            ([version, status, ..], false) => {
                version.starts_with("HTTP/1.") && status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit())
            }
            _ => false,
        };
        if !fine {
            return wrong(format!("not a first line: {line:?}"));
        }
        let mut message = Message { start, fields: bytes.fields()?, ..Message::default() };
        let codings: Vec<_> = message.all("transfer-encoding").map(str::to_owned).collect();
        let mut lengths: Vec<_> = message.all("content-length").map(str::to_owned).collect();
        if self.forgives {
            lengths.dedup();
            if !codings.is_empty() {
                lengths.clear();
            }
        }
        let none = !request && (self.bodiless || ["204", "304"].contains(&message.status()));
        match (&codings[..], &lengths[..]) {
            _ if none => {}
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => {
                (message.body, message.trailers) = bytes.chunks()?;
            }
            ([], [length]) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
                match length.parse() {
                    Ok(length) => message.body = bytes.take(length)?.to_vec(),
                    Err(_) => return wrong("a length too large"),
                }
            }
            ([], []) if request => {}
            ([], []) if self.closed => message.body = bytes.take(bytes.bytes.len() - bytes.at)?.to_vec(),
            ([], []) => return Err(None),
            _ => return wrong(format!("framed by {codings:?} and {lengths:?}")),
        }
        Ok(message)
    }
}

/// What has arrived at an upstream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) whole: Vec<Message>,
    /// Requests that broke off.
    pub(crate) partial: Vec<String>,
    /// What is no HTTP.
    pub(crate) wrong: Vec<String>,
}

/// An upstream that reads strictly.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Upstream {
    /// Answers each whole request with what `answer` makes of it; nothing: it closes.
    pub(crate) async fn start(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (upstream, answer) = (this.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (upstream, answer) = (upstream.clone(), answer.clone());
                tokio::spawn(async move { upstream.serve(stream, &*answer).await });
            }
        });
        this
    }

    /// `200` with `ok` as its body.
    pub(crate) async fn fine() -> Self {
        Self::start(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()).await
    }

    async fn serve(&self, mut stream: TcpStream, answer: &(dyn Fn(&Message) -> Vec<u8> + Send + Sync)) {
        let (mut pending, mut chunk) = (Vec::new(), [0; 16 << 10]);
        while let Ok(n @ 1..) = stream.read(&mut chunk).await {
            pending.extend(&chunk[..n]);
            loop {
                match Reader::default().request(&pending) {
                    Read::Partial => break,
                    Read::Wrong(why) => {
                        let text = format!("{why}: {}", String::from_utf8_lossy(&pending));
                        return self.seen.lock().unwrap().wrong.push(text);
                    }
                    Read::Whole(message, length) => {
                        pending.drain(..length);
                        let answer = answer(&message);
                        self.seen.lock().unwrap().whole.push(message);
                        if answer.is_empty() || stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
        if !pending.is_empty() {
            self.seen.lock().unwrap().partial.push(String::from_utf8_lossy(&pending).into_owned());
        }
    }

    /// What has arrived since the last time.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// A client's connection, read strictly.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// What is not read as an answer yet.
    pub(crate) pending: Vec<u8>,
    pub(crate) closed: bool,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, pending: Vec::new(), closed: false }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A peer that has seen enough may close before it has read all.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads some more; `false`: nothing came.
    pub(crate) async fn more(&mut self, patience: Duration) -> bool {
        let mut chunk = [0; 16 << 10];
        match timeout(patience, self.stream.read(&mut chunk)).await {
            Err(_) => false,
            Ok(Ok(n @ 1..)) => {
                self.pending.extend(&chunk[..n]);
                true
            }
            Ok(_) => {
                self.closed = true;
                false
            }
        }
    }

    /// The next final answer, if one comes whole.
    pub(crate) async fn answer(&mut self, bodiless: bool) -> Result<Message, String> {
        loop {
            match (Reader { closed: self.closed, bodiless, ..Reader::default() }).response(&self.pending) {
                Read::Whole(message, length) => {
                    self.pending.drain(..length);
                    return Ok(message);
                }
                Read::Wrong(why) => return Err(format!("{why}: {}", String::from_utf8_lossy(&self.pending))),
                Read::Partial => {
                    if self.pending.starts_with(b"HTTP/1.1 100 Continue\r\n\r\n") {
                        self.pending.drain(..25);
                        continue;
                    }
                    if self.closed || !self.more(Duration::from_secs(10)).await {
                        return match self.closed && self.pending.is_empty() {
                            true => Err(String::new()),
                            false => Err(format!("cut: {}", String::from_utf8_lossy(&self.pending))),
                        };
                    }
                }
            }
        }
    }

    /// Whether the peer closes soon, without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        while !self.closed && self.more(Duration::from_secs(3)).await {}
        self.closed
    }
}
