use super::grpc;
use crate::{ChainError, Outcome, Rejection, Verdict};
use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use std::{fmt::Write, time::Duration};

/// What is known of a request when its refusal is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// A gRPC request: its refusal is a trailers-only response.
    pub grpc: bool,
    /// A HEAD request.
    pub head: bool,
    /// A CONNECT request.
    pub connect: bool,
    /// The client accepts JSON.
    pub json: bool,
    /// The client made the deadline shorter than ours.
    pub short: bool,
}

/// What becomes of a refusal, and what an error says: the only difference between servers and clients.
#[diagnostic::on_unimplemented(
    message = "this HTTP protocol cannot refuse with the error `{Err}`",
    note = "server: use `HttpServer` (`.http_server()`): a refusal is a response and the error type does not matter",
    note = "client: `.lift_errors()` on the innermost service gives `Error<{Err}>`, or implement `From<Rejection>` and `ChainError`"
)]
pub trait Refuse<Err>: Clone + Send + 'static {
    /// Refuses.
    ///
    /// # Errors
    ///
    /// The refusal as an error, where the protocol speaks so.
    fn refuse(&self, rejection: Rejection, ask: Ask) -> Result<Response<Bytes>, Err>;

    /// What an error says.
    fn judge(&self, error: &Err) -> Verdict;
}

/// Refusals become the responses of an origin server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reply;

impl<Err> Refuse<Err> for Reply {
    fn refuse(&self, rejection: Rejection, ask: Ask) -> Result<Response<Bytes>, Err> {
        Ok(render(rejection, ask, rejection.reason.status()))
    }
    fn judge(&self, _: &Err) -> Verdict {
        Verdict::new(Outcome::Failure, None)
    }
}

/// Refusals become the responses of an intermediary.
#[derive(Clone, Copy, Debug)]
pub struct Gateway {
    pub(super) name: &'static str,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { name: "gateway" }
    }
}

impl<Err> Refuse<Err> for Gateway {
    fn refuse(&self, rejection: Rejection, ask: Ask) -> Result<Response<Bytes>, Err> {
        let mut res = render(rejection, ask, rejection.reason.gateway_status());
        let status = format!("{}; error={}", self.name, rejection.reason.proxy_error());
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(status)) {
            res.headers_mut().insert(HeaderName::from_static("proxy-status"), value);
        }
        Ok(res)
    }
    fn judge(&self, _: &Err) -> Verdict {
        Verdict::new(Outcome::Failure, None)
    }
}

/// Refusals become the responses that a closure writes.
#[derive(Clone, Copy, Debug)]
pub struct Render<F>(pub(super) F);

impl<Err, F: Fn(&Rejection, Ask) -> Response<Bytes> + Clone + Send + 'static> Refuse<Err> for Render<F> {
    fn refuse(&self, rejection: Rejection, ask: Ask) -> Result<Response<Bytes>, Err> {
        let mut res = (self.0)(&rejection, ask);
        res.extensions_mut().insert(rejection);
        Ok(res)
    }
    fn judge(&self, _: &Err) -> Verdict {
        Verdict::new(Outcome::Failure, None)
    }
}

/// Refusals become errors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fail;

impl<Err: ChainError> Refuse<Err> for Fail {
    fn refuse(&self, rejection: Rejection, _: Ask) -> Result<Response<Bytes>, Err> {
        Err(rejection.into())
    }
    fn judge(&self, error: &Err) -> Verdict {
        match error.rejection() {
            Some(rejection) => Verdict::refused(rejection),
            None => Verdict::new(error.cause().map_or(Outcome::Failure, super::error_outcome), None),
        }
    }
}

/// Whether `Accept` names JSON. A client that accepts anything gets the short text.
pub(super) fn accepts_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| match value.as_bytes() {
        // What nearly all programs say; browsers say more.
        b"*/*" => false,
        b"application/json" => true,
        ranges => names_json(ranges),
    })
}

fn names_json(ranges: &[u8]) -> bool {
    ranges.split(|byte| *byte == b',').any(|range| {
        let kind = range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        [&b"application/json"[..], b"application/problem+json", b"application/*"]
            .iter()
            .any(|json| kind.eq_ignore_ascii_case(json))
    })
}

fn render(rejection: Rejection, ask: Ask, status: u16) -> Response<Bytes> {
    let mut res = Response::new(Bytes::new());
    let reason = rejection.reason;
    if ask.grpc {
        res.headers_mut().insert(header::CONTENT_TYPE, const { HeaderValue::from_static("application/grpc") });
        grpc_status(rejection, res.headers_mut());
    } else {
        *res.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        if ask.json {
            let problem_json = const { HeaderValue::from_static("application/problem+json") };
            res.headers_mut().insert(header::CONTENT_TYPE, problem_json);
            *res.body_mut() = problem(rejection, status).into();
        } else {
            let text = const { HeaderValue::from_static("text/plain; charset=utf-8") };
            res.headers_mut().insert(header::CONTENT_TYPE, text);
            *res.body_mut() = Bytes::from_static(reason.title().as_bytes());
        }
        if let Some(delay) = rejection.retry_after {
            let seconds = retry_after(delay, fastrand::f64());
            res.headers_mut().insert(header::RETRY_AFTER, whole(seconds));
        }
    }
    res.extensions_mut().insert(rejection);
    res
}

/// Delta-seconds: rounded up, at least 1, and up to a fifth more, so that refused clients do not come back in step.
fn retry_after(delay: Duration, jitter: f64) -> u64 {
    let spread = delay.as_secs_f64() * (1.0 + 0.2 * jitter);
    (spread.ceil() as u64).max(1)
}

/// A number as a header. Those that occur, up to 99, allocate nothing.
fn whole(number: u64) -> HeaderValue {
    /// "00" to "99".
    static PAIRS: [u8; 200] = {
        let mut pairs = [0; 200];
        let mut n = 0;
        while n < 100 {
            pairs[2 * n] = b'0' + (n / 10) as u8;
            pairs[2 * n + 1] = b'0' + (n % 10) as u8;
            n += 1;
        }
        pairs
    };
    let n = number as usize;
    let digits = match number {
        0..10 => &PAIRS[2 * n + 1..2 * n + 2],
        10..100 => &PAIRS[2 * n..2 * n + 2],
        _ => return many_digits(number),
    };
    HeaderValue::from_static(std::str::from_utf8(digits).unwrap_or_default())
}

/// One allocation, where `HeaderValue::from` makes two.
#[cold]
fn many_digits(number: u64) -> HeaderValue {
    let mut digits = [0; 20];
    let (mut left, mut at) = (number, digits.len());
    while left > 0 {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    HeaderValue::from_bytes(&digits[at..]).unwrap_or_else(|_| HeaderValue::from(number))
}

/// A problem document (RFC 9457). Every member is ours, so nothing needs escaping. Which layer refused is for logs, which have the
/// [`Rejection`]: a stranger is told the reason alone, as in a short text and in `grpc-message`.
fn problem(rejection: Rejection, status: u16) -> String {
    let mut text = String::with_capacity(160);
    let (title, reason) = (rejection.reason.title(), rejection.reason.as_str());
    let _ = write!(
        text,
        r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":"{title}","reason":"{reason}"}}"#
    );
    text
}

/// Writes what gRPC says of a refusal: into the head of a trailers-only response, or into trailers.
pub(super) fn grpc_status(rejection: Rejection, headers: &mut HeaderMap) {
    headers.insert(grpc::STATUS, whole(u64::from(rejection.reason.grpc())));
    // Titles are ASCII without `%`: nothing to percent-encode.
    headers.insert("grpc-message", HeaderValue::from_static(rejection.reason.title()));
    if let Some(delay) = rejection.retry_after {
        let millis = delay.as_secs_f64() * 1000.0 * (1.0 + 0.2 * fastrand::f64());
        headers.insert("grpc-retry-pushback-ms", HeaderValue::from((millis.ceil() as u64).max(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn retry_after_is_at_least_a_second_and_at_most_a_fifth_more() {
        assert_eq!(retry_after(Duration::ZERO, 0.0), 1);
        assert_eq!(retry_after(Duration::from_millis(1001), 0.0), 2);
        assert_eq!(retry_after(Duration::from_secs(100), 1.0), 120);
    }

    #[test]
    fn a_number_is_written_as_it_is() {
        for number in (0..=101).chain([999, u64::MAX]) {
            assert_eq!(whole(number), number.to_string().as_str());
        }
    }

    #[test]
    fn json_is_for_those_who_ask_for_it() {
        let accepts = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            accepts_json(&headers)
        };
        assert!(accepts("application/json") && accepts("text/html, Application/JSON;q=0.9"));
        assert!(!accepts("*/*") && !accepts("text/html") && !accepts_json(&HeaderMap::new()));
    }

    #[test]
    fn every_reason_is_a_problem_document_and_a_grpc_message_as_it_is() {
        for reason in Reason::ALL {
            let rejection = Rejection::new(reason, "breaker").retry_after(Duration::from_millis(1500));
            let text = problem(rejection, 503);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["reason"], reason.as_str());
            assert_eq!(json["status"], 503);
            assert_eq!((&json["title"], &json["detail"]), (&reason.title().into(), &reason.title().into()));
            assert!(!text.contains("breaker") || reason == Reason::BreakerOpen, "no layer is named: {text}");
            assert!(reason.title().bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'%' && b != b'"'));
        }
    }
}
