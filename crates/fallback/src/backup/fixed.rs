use super::{Backup, Instead};
use buttress_core::{Cause, ConfigError, http::is_grpc};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use std::{
    fmt,
    future::{Ready, ready},
    path::Path,
    sync::Arc,
};

/// The same answer for everybody: a page, a text, a file that was read at the start. Clones share it.
///
/// HEAD gets its head, with the length of the body. A gRPC request gets nothing, as an HTTP page is no answer to it: what was there goes on.
/// `Content-Length` and `Date` are the server's business.
///
/// ```
/// use buttress_fallback::backup::StaticResponse;
///
/// let none = StaticResponse::new(200, "application/json", r#"{"recommendations":[]}"#)?;
/// let sorry = StaticResponse::new(503, "text/plain; charset=utf-8", "back soon")?.header("retry-after", "120")?;
/// # let _ = (none, sorry);
///
/// let error = StaticResponse::file("/no/such/page.html").unwrap_err();
/// assert!(error.to_string().starts_with("`file` is /no/such/page.html: "));
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct StaticResponse(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl StaticResponse {
    /// An answer with this status and body.
    ///
    /// # Errors
    ///
    /// A status that is not 200 to 599, a status without a body (204, 205, 304) with one, a content type that is no header.
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Result<Self, ConfigError> {
        let parts = Parts { status: StatusCode::OK, headers: HeaderMap::new(), body: body.into() };
        Self(Arc::new(parts)).content_type(content_type)?.status(status)
    }

    /// An answer with status 200 whose body is what the file at `path` holds now, and whose type is that of its extension.
    ///
    /// # Errors
    ///
    /// A file that is not there, or cannot be read: the field `file`, its path, and why.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let read = std::fs::read(path).map_err(|error| {
            ConfigError::new(
                "file",
                format_args!("{}: {error}", path.display()),
                "a file that can be read at the start",
            )
        });
        let body = Bytes::from(read?);
        let kind = mime_guess::from_path(path).first_or_octet_stream();
        // Only what is UTF-8 is called so.
        let is_text = kind.type_() == mime_guess::mime::TEXT && std::str::from_utf8(&body).is_ok();
        let content_type = if is_text { format!("{kind}; charset=utf-8") } else { kind.to_string() };
        Self::new(200, &content_type, body)
    }

    /// Answers with this status instead.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn status(mut self, status: u16) -> Result<Self, ConfigError> {
        let wrong = |allowed: &'static str| ConfigError::new("status", status, allowed);
        let code = StatusCode::from_u16(status).ok().filter(|_| (200..600).contains(&status));
        let code = code.ok_or_else(|| wrong("200 to 599"))?;
        if matches!(status, 204 | 205 | 304) && !self.0.body.is_empty() {
            return Err(wrong("one that may have a body"));
        }
        Arc::make_mut(&mut self.0).status = code;
        Ok(self)
    }

    /// Says that it is of this type instead.
    ///
    /// # Errors
    ///
    /// A text that is no header.
    pub fn content_type(self, content_type: &str) -> Result<Self, ConfigError> {
        self.with_header("content_type", header::CONTENT_TYPE, content_type)
    }

    /// Adds a header, in place of one of the same name.
    ///
    /// # Errors
    ///
    /// A name or a value that is none; a header that the server writes by itself (`content-length`, `transfer-encoding`, `connection`).
    pub fn header(self, name: &str, value: &str) -> Result<Self, ConfigError> {
        let allowed = "the name of a header, other than those that the server writes";
        let parsed = HeaderName::try_from(name)
            .ok()
            .filter(|name| ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name));
        let parsed = parsed.ok_or_else(|| ConfigError::new("header", name, allowed))?;
        self.with_header("header", parsed, value)
    }

    fn with_header(mut self, field: &'static str, name: HeaderName, value: &str) -> Result<Self, ConfigError> {
        let value = HeaderValue::try_from(value)
            .map_err(|_| ConfigError::new(field, format_args!("{value:?}"), "the value of a header"))?;
        Arc::make_mut(&mut self.0).headers.insert(name, value);
        Ok(self)
    }

    fn response(&self, head: bool) -> Response<Bytes> {
        let Parts { status, headers, body } = &*self.0;
        let mut res = Response::new(if head { Bytes::new() } else { body.clone() });
        *res.status_mut() = *status;
        *res.headers_mut() = headers.clone();
        if head {
            res.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
        }
        res
    }
}

/// What a [`StaticResponse`] keeps of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerFixed {
    /// It gets all.
    Whole,
    /// It gets the head.
    Head,
    /// It is gRPC, and gets nothing.
    Nothing,
}

impl<B, Res> Backup<Request<B>, Res, Response<Bytes>> for StaticResponse {
    type Kept = AnswerFixed;
    type Future = Ready<Option<Instead<Res, Response<Bytes>>>>;

    #[inline]
    fn keep(&self, req: &Request<B>) -> AnswerFixed {
        match *req.method() {
            Method::HEAD => AnswerFixed::Head,
            Method::POST if is_grpc(req.headers()) => AnswerFixed::Nothing,
            _ => AnswerFixed::Whole,
        }
    }

    fn answer(&self, kept: AnswerFixed, _: Cause) -> Self::Future {
        let res = (kept != AnswerFixed::Nothing).then(|| self.response(kept == AnswerFixed::Head));
        ready(res.map(Instead::Own))
    }
}

impl fmt::Debug for StaticResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticResponse")
            .field("status", &self.0.status)
            .field("headers", &self.0.headers)
            .field("bytes", &self.0.body.len())
            .finish()
    }
}
