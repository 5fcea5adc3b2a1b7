use buttress_core::{
    ConfigError, Reason,
    config::{format_duration, parse_duration},
};
use std::{fmt, str::FromStr, time::Duration};

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Harm {
    /// It goes on after a delay, drawn evenly between the two.
    Latency {
        /// The shortest.
        min: Duration,
        /// The longest. More than 0, at least `min`, at most 1 h.
        max: Duration,
    },
    /// It fails at once, with a [`Rejection`](buttress_core::Rejection) whose layer is `"chaos"`.
    Refuse {
        /// The reason it gives, and imitates: status, code, outcome and whether it may be retried follow from it.
        /// [`Reason::Injected`] imitates none.
        reason: Reason,
        /// When it says that coming back is worth it.
        retry_after: Option<Duration>,
    },
    /// It is answered with this HTTP status, as if by the service. Only HTTP has statuses; a gRPC request gets one, too, as from
    /// a proxy in between.
    Status {
        /// 400 to 599.
        status: u16,
        /// The `Retry-After` header, in seconds, rounded up.
        retry_after: Option<Duration>,
    },
    /// It is never answered.
    Hang,
    /// The response body ends with an error after so many bytes, unless it has no more than that (gRPC: with the status
    /// `DATA_LOSS`). Only HTTP has bodies.
    Cut {
        /// How many are let through.
        after: u64,
    },
}

impl Harm {
    /// The name in texts, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Refuse { .. } => "refuse",
            Self::Status { .. } => "status",
            Self::Hang => "hang",
            Self::Cut { .. } => "cut",
        }
    }

    /// Whether only HTTP calls can suffer it.
    pub const fn needs_http(self) -> bool {
        matches!(self, Self::Status { .. } | Self::Cut { .. })
    }
}

/// A harm, to which share of calls, and for how long.
///
/// As text, for command lines and files, it is its harm and what else is to be said, in any order:
///
/// | text | the harm |
/// |---|---|
/// | `latency=200ms`, `latency=200ms..500ms` | a delay before the call goes on |
/// | `refuse` | a refusal with the reason `injected` |
/// | `reason=connect_refused`, any [label](Reason::as_str) | a refusal that imitates this one |
/// | `status=503` | an HTTP response |
/// | `hang` | no answer |
/// | `cut=1024` | a response body that fails after so many bytes |
/// | with `percent=20` | the share of calls, 0 to 100. Default: 100 |
/// | with `for=30s` | after this long it ends by itself. Default: never |
/// | with `retry_after=2s` | of a refusal or a status |
///
/// ```
/// use buttress_chaos::Fault;
/// use std::time::Duration;
///
/// let fault: Fault = "status=503 percent=2.5 for=30s".parse()?;
/// assert_eq!(fault, Fault::status(503).percent(2.5).lasting(Duration::from_secs(30)));
/// assert_eq!(fault.to_string(), "status=503 percent=2.5 for=30s");
///
/// let error = "hang percent=120".parse::<Fault>().unwrap_err();
/// assert_eq!(error.to_string(), "`percent` is 120, allowed: 0 to 100");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Fault {
    /// What is done.
    pub harm: Harm,
    /// To how many of a hundred calls: 0 to 100, fractions allowed.
    pub percent: f64,
    /// How long it goes on from its injection, at most 7 days; `None`: until it is cleared.
    pub lasts: Option<Duration>,
}

const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

impl Fault {
    /// This harm to every call, until it is cleared.
    pub const fn new(harm: Harm) -> Self {
        Self { harm, percent: 100.0, lasts: None }
    }

    /// Every call is delayed by this.
    pub const fn latency(delay: Duration) -> Self {
        Self::latency_between(delay, delay)
    }

    /// Every call is delayed by something between the two.
    pub const fn latency_between(min: Duration, max: Duration) -> Self {
        Self::new(Harm::Latency { min, max })
    }

    /// Every call is refused, with [`Reason::Injected`].
    pub const fn refuse() -> Self {
        Self::imitate(Reason::Injected)
    }

    /// Every call is refused, as if for this reason.
    pub const fn imitate(reason: Reason) -> Self {
        Self::new(Harm::Refuse { reason, retry_after: None })
    }

    /// Every call is answered with this HTTP status.
    pub const fn status(status: u16) -> Self {
        Self::new(Harm::Status { status, retry_after: None })
    }

    /// No call is answered.
    pub const fn hang() -> Self {
        Self::new(Harm::Hang)
    }

    /// Every response body fails after so many bytes.
    pub const fn cut(after: u64) -> Self {
        Self::new(Harm::Cut { after })
    }

    /// Sets [`percent`](Self#structfield.percent).
    #[must_use]
    pub const fn percent(mut self, percent: f64) -> Self {
        self.percent = percent;
        self
    }

    /// Sets [`lasts`](Self#structfield.lasts).
    #[must_use]
    pub const fn lasting(mut self, lasts: Duration) -> Self {
        self.lasts = Some(lasts);
        self
    }

    /// It is worth coming back after `delay`: of a refusal or a status; other harms say nothing, and stay as they are.
    #[must_use]
    pub const fn retry_after(mut self, delay: Duration) -> Self {
        if let Harm::Refuse { retry_after, .. } | Harm::Status { retry_after, .. } = &mut self.harm {
            *retry_after = Some(delay);
        }
        self
    }

    /// Whether its values are in their ranges.
    ///
    /// # Errors
    ///
    /// The first that is not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self.harm {
            Harm::Latency { min, max } if max.is_zero() || max > HOUR || min > max => {
                let allowed = "a delay, or two as in \"200ms..500ms\": more than 0, at most 1h";
                return Err(ConfigError::new("latency", Span(min, max), allowed));
            }
            Harm::Status { status, .. } if !(400..600).contains(&status) => {
                return Err(ConfigError::new("status", status, "400 to 599"));
            }
            Harm::Refuse { retry_after: Some(after), .. } | Harm::Status { retry_after: Some(after), .. }
                if after.is_zero() || after > HOUR =>
            {
                return Err(ConfigError::duration("retry_after", after, "more than 0, at most 1h"));
            }
            _ => {}
        }
        if !(0.0..=100.0).contains(&self.percent) {
            return Err(ConfigError::new("percent", self.percent, "0 to 100"));
        }
        match self.lasts {
            Some(lasts) if lasts.is_zero() || lasts > WEEK => {
                Err(ConfigError::duration("for", lasts, "more than 0, at most 7 days"))
            }
            _ => Ok(()),
        }
    }
}

/// The delays of a latency.
struct Span(Duration, Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_duration(self.0))?;
        if self.0 != self.1 {
            write!(f, "..{}", format_duration(self.1))?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retry_after = match self.harm {
            Harm::Refuse { retry_after, .. } | Harm::Status { retry_after, .. } => retry_after,
            _ => None,
        };
        match self.harm {
            Harm::Latency { min, max } => write!(f, "latency={}", Span(min, max))?,
            Harm::Refuse { reason: Reason::Injected, .. } => f.write_str("refuse")?,
            Harm::Refuse { reason, .. } => write!(f, "reason={reason}")?,
            Harm::Status { status, .. } => write!(f, "status={status}")?,
            Harm::Hang => f.write_str("hang")?,
            Harm::Cut { after } => write!(f, "cut={after}")?,
        }
        write!(f, " percent={}", self.percent)?;
        if let Some(delay) = retry_after {
            write!(f, " retry_after={}", format_duration(delay))?;
        }
        match self.lasts {
            Some(lasts) => write!(f, " for={}", format_duration(lasts)),
            None => Ok(()),
        }
    }
}

impl FromStr for Fault {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut parts = Parts::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
            parts.take(key, value)?;
        }
        parts.fault(text)
    }
}

/// What was read of a fault's text so far.
#[derive(Default)]
struct Parts {
    harm: Option<Harm>,
    percent: Option<f64>,
    lasts: Option<Duration>,
    retry_after: Option<Duration>,
}

const HARMS: &str = "one of latency=200ms..500ms, refuse, reason=connect_refused, status=503, hang, cut=1024";

impl Parts {
    fn take(&mut self, key: &str, value: Option<&str>) -> Result<(), ConfigError> {
        match (key, value) {
            ("latency", Some(value)) => {
                let (min, max) = value.split_once("..").unwrap_or((value, value));
                let harm = Harm::Latency { min: duration(key, min)?, max: duration(key, max)? };
                self.harm(key, value, harm)
            }
            ("reason", Some(value)) => {
                let reason = reason(value)?;
                self.harm(key, value, Harm::Refuse { reason, retry_after: None })
            }
            ("status", Some(value)) => {
                let status = number(key, value, "400 to 599")?;
                self.harm(key, value, Harm::Status { status, retry_after: None })
            }
            ("cut", Some(value)) => {
                let after = number(key, value, "a number of bytes")?;
                self.harm(key, value, Harm::Cut { after })
            }
            ("refuse", None) => self.harm(key, key, Harm::Refuse { reason: Reason::Injected, retry_after: None }),
            ("hang", None) => self.harm(key, key, Harm::Hang),
            ("percent", Some(value)) => once(&mut self.percent, key, value, number(key, value, "0 to 100")?),
            ("for", Some(value)) => once(&mut self.lasts, key, value, duration(key, value)?),
            ("retry_after", Some(value)) => once(&mut self.retry_after, key, value, duration(key, value)?),
            ("refuse" | "hang", Some(value)) => Err(ConfigError::new(key.to_owned(), value, "no value")),
            ("latency" | "reason" | "status" | "cut" | "percent" | "for" | "retry_after", None) => {
                Err(ConfigError::new(key.to_owned(), "without a value", format!("a value, as in \"{key}=..\"")))
            }
            _ => {
                let allowed = format!("{HARMS}; with percent=20, for=30s, retry_after=2s");
                Err(ConfigError::new("fault", format!("{key:?}"), allowed))
            }
        }
    }

    fn harm(&mut self, key: &str, value: &str, harm: Harm) -> Result<(), ConfigError> {
        match self.harm {
            None => self.harm = Some(harm),
            Some(before) => {
                let allowed = format!("one harm to a fault, and it has {}", before.as_str());
                return Err(ConfigError::new(key.to_owned(), value, allowed));
            }
        }
        Ok(())
    }

    fn fault(self, text: &str) -> Result<Fault, ConfigError> {
        let harm = self.harm.ok_or_else(|| ConfigError::new("fault", format!("{text:?}"), HARMS))?;
        let mut fault = Fault { harm, percent: self.percent.unwrap_or(100.0), lasts: self.lasts };
        if let Some(delay) = self.retry_after {
            if !matches!(harm, Harm::Refuse { .. } | Harm::Status { .. }) {
                return Err(ConfigError::duration("retry_after", delay, "only with refuse, reason or status"));
            }
            fault = fault.retry_after(delay);
        }
        fault.validate()?;
        Ok(fault)
    }
}

fn once<T>(place: &mut Option<T>, key: &str, value: &str, read: T) -> Result<(), ConfigError> {
    match place.replace(read) {
        None => Ok(()),
        Some(_) => Err(ConfigError::new(key.to_owned(), value, "once")),
    }
}

fn number<T: FromStr>(key: &str, value: &str, allowed: &'static str) -> Result<T, ConfigError> {
    value.parse().map_err(|_| ConfigError::new(key.to_owned(), format!("{value:?}"), allowed))
}

fn duration(key: &str, value: &str) -> Result<Duration, ConfigError> {
    let allowed = "a number and a unit (ns, us, ms, s, m, h), as in \"250ms\"";
    parse_duration(value).map_err(|_| ConfigError::new(key.to_owned(), format!("{value:?}"), allowed))
}

fn reason(value: &str) -> Result<Reason, ConfigError> {
    Reason::ALL.into_iter().find(|reason| reason.as_str() == value).ok_or_else(|| {
        let labels = Reason::ALL.map(Reason::as_str).join(", ");
        ConfigError::new("reason", format!("{value:?}"), labels)
    })
}

/// Its text.
#[cfg(feature = "serde")]
impl serde::Serialize for Fault {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From its text.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Fault {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
