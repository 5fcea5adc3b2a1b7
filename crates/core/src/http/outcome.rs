use super::grpc;
use crate::{BoxError, Outcome, Pushback, Rejection, error::chain};
use ::http::{HeaderMap, StatusCode, header};
use std::{
    error::Error as StdError,
    fmt,
    time::{Duration, SystemTime},
};

/// A response head, or gRPC trailers, as a [`Classify`] sees them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Head<'a> {
    /// Whether the request was gRPC: then `headers` hold `grpc-status`, unless the response ended without one.
    pub grpc: bool,
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers, or the trailers.
    pub headers: &'a HeaderMap,
}

/// The outcome table. A closure `Fn(&Head, Outcome) -> Outcome` is one: it gets what the table says and may say otherwise.
pub trait Classify: Clone + Send + Sync + 'static {
    /// The outcome of a head that is no refusal of ours.
    fn outcome(&self, head: &Head<'_>, by_table: Outcome) -> Outcome;
}

/// The table as it stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Table;

impl Classify for Table {
    #[inline]
    fn outcome(&self, _: &Head<'_>, by_table: Outcome) -> Outcome {
        by_table
    }
}

impl<F: Fn(&Head<'_>, Outcome) -> Outcome + Clone + Send + Sync + 'static> Classify for F {
    #[inline]
    fn outcome(&self, head: &Head<'_>, by_table: Outcome) -> Outcome {
        self(head, by_table)
    }
}

/// The outcome of an HTTP status. `short`: the client had made the deadline shorter than ours.
pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, short: bool) -> (Outcome, Option<Pushback>) {
    let pushback = || headers.get(header::RETRY_AFTER).and_then(|v| parse_retry_after(v.as_bytes(), SystemTime::now()));
    match status.as_u16() {
        429 => (Outcome::Overload, pushback()),
        503 => match headers.contains_key(header::RETRY_AFTER) {
            true => (Outcome::Overload, pushback()),
            false => (Outcome::Failure, None),
        },
        408 => (Outcome::Ignored, None),
        504 if short => (Outcome::Ignored, None),
        500.. => (Outcome::Failure, None),
        _ => (Outcome::Success, None),
    }
}

/// The outcome of a gRPC status, in trailers or in a trailers-only head. An answer without one is judged by its HTTP status,
/// as [gRPC maps it](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md); 429 stays an overload.
pub(super) fn of_grpc(status: StatusCode, headers: &HeaderMap, short: bool) -> (Outcome, Option<Pushback>) {
    if status == StatusCode::TOO_MANY_REQUESTS && !headers.contains_key(grpc::STATUS) {
        return of_http(status, headers, short);
    }
    // A gRPC answer that ends without a status is broken.
    let code = grpc::code(status, headers).unwrap_or(grpc::INTERNAL);
    let pushback = headers.get("grpc-retry-pushback-ms").map(|value| parse_grpc_pushback(value.as_bytes()));
    let outcome = match code {
        grpc::RESOURCE_EXHAUSTED => Outcome::Overload,
        grpc::CANCELLED => Outcome::Ignored,
        grpc::DEADLINE_EXCEEDED if short => Outcome::Ignored,
        grpc::DEADLINE_EXCEEDED | grpc::UNKNOWN | grpc::INTERNAL | grpc::UNAVAILABLE | grpc::DATA_LOSS => {
            Outcome::Failure
        }
        grpc::OK..=grpc::UNAUTHENTICATED => Outcome::Success,
        // A code that gRPC does not know.
        _ => Outcome::Failure,
    };
    (outcome, pushback)
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds, or a date, which counts from `now`. `None` where it is neither.
pub fn parse_retry_after(value: &[u8], now: SystemTime) -> Option<Pushback> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a very long time.
        return Some(Pushback::after(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(Pushback::after(date.duration_since(now).unwrap_or_default()))
}

/// Reads `grpc-retry-pushback-ms` ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback)):
/// digits are the milliseconds to wait before the next attempt; a negative number says that there is to be none, and so does
/// whatever is no number.
///
/// ```
/// # use buttress_core::{Pushback, http::parse_grpc_pushback};
/// # use std::time::Duration;
/// assert_eq!(parse_grpc_pushback(b"250"), Pushback::after(Duration::from_millis(250)));
/// assert_eq!(parse_grpc_pushback(b"-1"), Pushback::NEVER);
/// assert_eq!(parse_grpc_pushback(b"soon"), Pushback::NEVER);
/// ```
pub fn parse_grpc_pushback(value: &[u8]) -> Pushback {
    // `parse` would take a plus.
    let digits = Some(value).filter(|value| value.iter().all(u8::is_ascii_digit));
    let millis = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    millis.map_or(Pushback::NEVER, |millis| Pushback::after(Duration::from_millis(millis)))
}

/// Marks an error of a *request* body: the client went away, was too slow, sent too much. It never accuses the service that
/// was to read it. Wrap the body's errors in it where the body comes from somebody else (a proxy).
#[derive(Debug)]
pub struct RequestBodyError(Mark);

/// The mark is a source of its own, so that it is seen behind any box.
#[derive(Debug)]
pub(super) struct Mark(BoxError);

impl RequestBodyError {
    /// Marks `error`.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(Mark(error.into()))
    }
}

impl fmt::Display for RequestBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body failed")
    }
}

impl StdError for RequestBodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Mark {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// What an error says about health, read from its sources: a refusal of ours, a marked request body, an HTTP/2 reset
/// (feature `h2`); anything else is a failure.
pub fn error_outcome(error: &(dyn StdError + 'static)) -> Outcome {
    for cause in chain(error) {
        if let Some(rejection) = Rejection::of(cause) {
            return rejection.reason.outcome();
        }
        if cause.is::<RequestBodyError>() || cause.is::<Mark>() {
            return Outcome::Ignored;
        }
        #[cfg(feature = "h2")]
        if let Some(outcome) = cause.downcast_ref::<h2::Error>().and_then(|error| match error.reason()? {
            h2::Reason::CANCEL => Some(Outcome::Ignored),
            h2::Reason::ENHANCE_YOUR_CALM => Some(Outcome::Overload),
            _ => None,
        }) {
            return outcome;
        }
    }
    Outcome::Failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (::http::HeaderName::from_static(k), ::http::HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn the_http_rows() {
        use Outcome::*;
        for (status, want) in [
            (200, Success),
            (304, Success),
            (404, Success),
            (499, Success),
            (408, Ignored),
            (429, Overload),
            (500, Failure),
            (501, Failure),
            (502, Failure),
            (503, Failure),
            (504, Failure),
            (599, Failure),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(of_http(status, &HeaderMap::new(), false).0, want, "{status}");
        }
        let after = of_http(StatusCode::SERVICE_UNAVAILABLE, &headers(&[("retry-after", "7")]), false);
        assert_eq!(after, (Overload, Some(Pushback::after(Duration::from_secs(7)))));
        assert_eq!(
            of_http(StatusCode::GATEWAY_TIMEOUT, &HeaderMap::new(), true).0,
            Ignored,
            "the client's own short deadline"
        );
    }

    #[test]
    fn the_grpc_rows() {
        use Outcome::*;
        let want = [
            Success, Ignored, Failure, Success, Failure, Success, Success, Success, Overload, Success, Success,
            Success, Success, Failure, Failure, Failure, Success,
        ];
        for (code, want) in want.into_iter().enumerate() {
            let code: &'static str = Box::leak(code.to_string().into_boxed_str());
            assert_eq!(of_grpc(StatusCode::OK, &headers(&[("grpc-status", code)]), false).0, want, "{code}");
        }
        for garbage in ["", "-1", "17", "256", "x"] {
            assert_eq!(of_grpc(StatusCode::OK, &headers(&[("grpc-status", garbage)]), false).0, Failure, "{garbage:?}");
        }
        assert_eq!(of_grpc(StatusCode::OK, &headers(&[("grpc-status", "4")]), true).0, Ignored);
        for (status, want) in [
            (200, Failure),
            (400, Failure),
            (401, Success),
            (403, Success),
            (404, Success),
            (429, Overload),
            (503, Failure),
            (302, Failure),
        ] {
            assert_eq!(of_grpc(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), false).0, want, "{status}");
        }
    }

    #[test]
    fn grpc_pushback_is_a_wait_or_never() {
        let pushback = |text| {
            of_grpc(StatusCode::OK, &headers(&[("grpc-status", "14"), ("grpc-retry-pushback-ms", text)]), false).1
        };
        assert_eq!(pushback("250"), Some(Pushback::after(Duration::from_millis(250))));
        assert_eq!(pushback("0"), Some(Pushback::after(Duration::ZERO)));
        for never in ["-1", "-0", "+5", "soon", "", " 5", "1.5", "99999999999999999999999"] {
            assert_eq!(pushback(never), Some(Pushback::NEVER), "{never:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |text: &str| parse_retry_after(text.as_bytes(), now).and_then(Pushback::delay);
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO), "a date that has passed");
        assert!(read("99999999999999999999999").unwrap() > Duration::from_secs(86_400));
        for garbage in ["", "-5", "1.5", "soon", "+3"] {
            assert_eq!(read(garbage), None, "{garbage:?}");
        }
    }

    #[cfg(feature = "h2")]
    #[test]
    fn http2_resets_say_what_they_mean() {
        let reset = |reason: h2::Reason| error_outcome(&std::io::Error::other(h2::Error::from(reason)));
        assert_eq!(reset(h2::Reason::CANCEL), Outcome::Ignored);
        assert_eq!(reset(h2::Reason::ENHANCE_YOUR_CALM), Outcome::Overload);
        assert_eq!(reset(h2::Reason::INTERNAL_ERROR), Outcome::Failure);
    }

    #[test]
    fn errors_are_judged_by_their_sources() {
        use crate::{Reason, Rejection};
        assert_eq!(error_outcome(&std::io::Error::other("reset")), Outcome::Failure);
        assert_eq!(error_outcome(&std::io::Error::other(RequestBodyError::new("gone"))), Outcome::Ignored);
        assert_eq!(
            error_outcome(&std::io::Error::other(Rejection::new(Reason::AtCapacity, "bulkhead"))),
            Outcome::Ignored
        );
        assert_eq!(error_outcome(&Rejection::new(Reason::DeadlinePassed, "deadline")), Outcome::Failure);
    }
}
