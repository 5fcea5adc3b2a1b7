use crate::{policy::Deadlines, wire::Wire};
use buttress_core::ConfigError;
use http::HeaderName;
use std::time::Duration;

/// What a [`DeadlineLayer`](crate::DeadlineLayer) bounds. Nothing is bounded by default but what a layer further out wrote
/// into the [`Context`](buttress_core::Context).
///
/// ```
/// use buttress_deadline::{DeadlineConfig, DeadlineLayer, Headers};
/// use std::time::Duration;
///
/// let deadlines = DeadlineConfig::new(Duration::from_secs(2)).read(Headers::new()).idle(Duration::from_secs(30)).build()?;
/// let layer = DeadlineLayer::new(deadlines);
///
/// let error = DeadlineConfig::new(Duration::ZERO).build().unwrap_err();
/// assert_eq!(error.to_string(), "`total` is 0s, allowed: more than 0");
/// # Ok::<_, buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct DeadlineConfig {
    /// The whole call, to the end of its body, retries included. Layers further in see it in the context.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub total: Option<Duration>,
    /// One attempt, to the end of its body, and never longer than what is left of the whole call. Layers further in do not
    /// see it.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub per_try: Option<Duration>,
    /// How long a response body may make no progress: no frame comes, or nobody takes one.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub idle: Option<Duration>,
    /// How long a response body may take from the head on, for routes that stream and have no `total`.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub absolute: Option<Duration>,
    /// The headers in which a client says how long it waits. `None`: nobody is asked. They can only lower a deadline.
    pub read: Option<Headers>,
    /// The headers in which what is left goes on to the next server. `None`: they are left as they are.
    pub emit: Option<Headers>,
    /// Whether `total`, and what a client says, is written into the context for layers further in. The first write into a
    /// request's extensions allocates; without it a call reads no clock before it is known to take time.
    pub propagate: bool,
}

impl Default for DeadlineConfig {
    fn default() -> Self {
        Self { total: None, per_try: None, idle: None, absolute: None, read: None, emit: None, propagate: true }
    }
}

impl DeadlineConfig {
    /// A deadline for the whole call.
    pub fn new(total: Duration) -> Self {
        Self { total: Some(total), ..Self::default() }
    }

    buttress_core::setters! {
        /// See [`total`](Self#structfield.total).
        total: impl Into<Option<Duration>> => total.into();
        /// See [`per_try`](Self#structfield.per_try).
        per_try: impl Into<Option<Duration>> => per_try.into();
        /// See [`idle`](Self#structfield.idle).
        idle: impl Into<Option<Duration>> => idle.into();
        /// See [`absolute`](Self#structfield.absolute).
        absolute: impl Into<Option<Duration>> => absolute.into();
        /// See [`read`](Self#structfield.read).
        read: impl Into<Option<Headers>> => read.into();
        /// See [`emit`](Self#structfield.emit).
        emit: impl Into<Option<Headers>> => emit.into();
        /// See [`propagate`](Self#structfield.propagate).
        propagate: bool => propagate;
    }

    /// The deadlines, with counts of their own.
    ///
    /// # Errors
    ///
    /// A time of zero, a `per_try` that is not shorter than `total`, a header name that is none, or one that belongs to a
    /// connection or to gRPC.
    pub fn build(self) -> Result<Deadlines, ConfigError> {
        let (read, emit) = self.check()?;
        Ok(Deadlines::of(self, read, emit))
    }

    pub(crate) fn check(&self) -> Result<(Option<Wire>, Option<Wire>), ConfigError> {
        for (field, value) in
            [("total", self.total), ("per_try", self.per_try), ("idle", self.idle), ("absolute", self.absolute)]
        {
            if value.is_some_and(|value| value.is_zero()) {
                return Err(ConfigError::duration(field, Duration::ZERO, "more than 0"));
            }
        }
        if let (Some(total), Some(per_try)) = (self.total, self.per_try)
            && per_try >= total
        {
            let total = buttress_core::config::format_duration(total);
            return Err(ConfigError::duration("per_try", per_try, format!("less than `total`, {total}")));
        }
        let wire = |headers: &Option<Headers>, field| {
            headers.as_ref().map(|headers| headers.check().map_err(|error| error.within(field))).transpose()
        };
        Ok((wire(&self.read, "read")?, wire(&self.emit, "emit")?))
    }
}

/// The headers that carry a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Headers {
    /// `grpc-timeout`, on gRPC requests.
    pub grpc_timeout: bool,
    /// A header of whole milliseconds: `x-request-timeout-ms`, `x-envoy-expected-rq-timeout-ms`.
    pub header: Option<String>,
}

impl Default for Headers {
    fn default() -> Self {
        Self { grpc_timeout: true, header: None }
    }
}

impl Headers {
    /// `grpc-timeout` alone.
    pub fn new() -> Self {
        Self::default()
    }

    buttress_core::setters! {
        /// See [`grpc_timeout`](Self#structfield.grpc_timeout).
        grpc_timeout: bool => grpc_timeout;
        /// See [`header`](Self#structfield.header).
        header: impl Into<String> => Some(header.into());
    }

    fn check(&self) -> Result<Wire, ConfigError> {
        let millis = self.header.as_deref().map(millis_header).transpose()?;
        if !self.grpc_timeout && millis.is_none() {
            return Err(ConfigError::new("grpc_timeout", false, "true, or a `header` beside it"));
        }
        Ok(Wire { grpc_timeout: self.grpc_timeout, millis })
    }
}

/// Headers that belong to one connection (RFC 9110, 7.6.1), to the message's framing or to somebody else.
const NOT_OURS: [&str; 16] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
    "content-length",
    "content-type",
    "host",
    "authorization",
    "cookie",
    "expect",
    "grpc-timeout",
];

fn millis_header(text: &str) -> Result<HeaderName, ConfigError> {
    let wrong = || {
        let allowed = "a header name of its own, such as \"x-request-timeout-ms\": no pseudo-header, none of a connection or of gRPC";
        ConfigError::new("header", format!("{text:?}"), allowed)
    };
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| wrong())?;
    if NOT_OURS.contains(&name.as_str()) { Err(wrong()) } else { Ok(name) }
}
