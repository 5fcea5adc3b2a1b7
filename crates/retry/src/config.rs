use crate::{Backoff, Retry};
use buttress_core::{Budget, BudgetConfig, ConfigError};
use std::{borrow::Cow, sync::Arc, time::Duration};

/// What a [`RetryLayer`](crate::RetryLayer) sends again, how often and when.
///
/// ```
/// use buttress_core::BudgetConfig;
/// use buttress_retry::{Backoff, RetryConfig, RetryLayer};
/// use std::time::Duration;
///
/// let retry = RetryConfig::default()
///     .max_attempts(4)
///     .budget(BudgetConfig::new(0.2))
///     .backoff(Backoff::full_jitter(Duration::from_millis(20), Duration::from_millis(500)))
///     .build()?;
/// let layer: RetryLayer = RetryLayer::new(retry);
///
/// let error = RetryConfig::default().max_attempts(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "`max_attempts` is 0, allowed: 1 (no retries) to 15");
/// # Ok::<_, buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RetryConfig {
    /// How often a request is sent at most, the first time included: 1 (no retries) to 15. Default: 3.
    pub max_attempts: u32,
    /// What pays for retries.
    pub budget: BudgetConfig,
    /// How long to wait before a further attempt.
    pub backoff: Backoff,
    /// The longest `Retry-After`, or pushback, that is waited for; who asks for more gets no retry. Up to 1 h. Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub max_retry_after: Duration,
    /// How much time a further attempt must have left before the deadline to be worth making: up to 1 h. Set it to about what an answer
    /// takes. Default: 1 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub min_attempt: Duration,
    /// The most bytes of a request body that are kept to be sent again: 0 to 64 MiB. A larger body goes through all the same; only
    /// its retries are given up. Default: 64 KiB.
    pub max_body: usize,
    /// Whether a POST or PATCH with an `Idempotency-Key` header counts as idempotent: only where the server honours it
    /// (draft-ietf-httpapi-idempotency-key-header). An empty or blank one is none. Default: no.
    pub idempotency_key: bool,
    /// The HTTP statuses that are retried: 408, 429, 500 to 599. Default: 502, 503, 504. A 429 or 503 that says when to come back
    /// (`Retry-After`) is retried in any case.
    pub statuses: Vec<u16>,
    /// The gRPC codes that are retried, whatever the method does: 2 (`UNKNOWN`), 4 (`DEADLINE_EXCEEDED`), 8
    /// (`RESOURCE_EXHAUSTED`), 13 (`INTERNAL`), 14 (`UNAVAILABLE`), 15 (`DATA_LOSS`). Default: 14. A `RESOURCE_EXHAUSTED` with a pushback is
    /// retried in any case.
    pub grpc_codes: Vec<u8>,
    /// Whether a gRPC response is held back until its first message is there, so that a status that comes without any message can be
    /// retried though response headers came first. For unary calls: a stream's head is late by as much. A call whose request is not
    /// fully sent when the head comes is not held back: its client may wait for the head before it goes on. Default: no.
    pub grpc_peek: bool,
    /// What the back-offs follow from; `None` (the default): another one every time.
    pub seed: Option<u64>,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"retry"`.
    pub name: Cow<'static, str>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            budget: BudgetConfig::default(),
            backoff: Backoff::default(),
            max_retry_after: Duration::from_secs(30),
            min_attempt: Duration::from_millis(1),
            max_body: 64 * 1024,
            idempotency_key: false,
            statuses: vec![502, 503, 504],
            grpc_codes: vec![14],
            grpc_peek: false,
            seed: None,
            name: Cow::Borrowed("retry"),
        }
    }
}

const MOST_ATTEMPTS: u32 = 15;
const MOST_BODY: usize = 64 * 1024 * 1024;
const HOUR: Duration = Duration::from_secs(3600);

/// The codes that may be retried at all: the others say that the server has understood, and will say the same again.
const GRPC_CODES: [u8; 6] = [2, 4, 8, 13, 14, 15];

impl RetryConfig {
    /// The defaults with so many attempts.
    pub fn new(max_attempts: u32) -> Self {
        Self { max_attempts, ..Self::default() }
    }

    buttress_core::setters! {
        /// Sets [`max_attempts`](Self#structfield.max_attempts).
        max_attempts: u32 => max_attempts;
        /// Sets [`budget`](Self#structfield.budget).
        budget: BudgetConfig => budget;
        /// Sets [`backoff`](Self#structfield.backoff).
        backoff: Backoff => backoff;
        /// Sets [`max_retry_after`](Self#structfield.max_retry_after).
        max_retry_after: Duration => max_retry_after;
        /// Sets [`min_attempt`](Self#structfield.min_attempt).
        min_attempt: Duration => min_attempt;
        /// Sets [`max_body`](Self#structfield.max_body).
        max_body: usize => max_body;
        /// Sets [`idempotency_key`](Self#structfield.idempotency_key).
        idempotency_key: bool => idempotency_key;
        /// Sets [`statuses`](Self#structfield.statuses).
        statuses: impl IntoIterator<Item = u16> => statuses.into_iter().collect();
        /// Sets [`grpc_codes`](Self#structfield.grpc_codes).
        grpc_codes: impl IntoIterator<Item = u8> => grpc_codes.into_iter().collect();
        /// Sets [`grpc_peek`](Self#structfield.grpc_peek).
        grpc_peek: bool => grpc_peek;
        /// Sets [`seed`](Self#structfield.seed).
        seed: impl Into<Option<u64>> => seed.into();
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The policy, with a budget of its own.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Retry, ConfigError> {
        self.validate()?;
        let budget = Arc::new(self.budget.clone().build()?);
        Ok(Retry::with(self, budget))
    }

    /// The policy, paid from a budget that others share: other layers, hedges. [`budget`](Self#structfield.budget) becomes
    /// what that one says.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build_sharing(mut self, budget: Arc<Budget>) -> Result<Retry, ConfigError> {
        self.budget = budget.config();
        self.validate()?;
        Ok(Retry::with(self, budget))
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=MOST_ATTEMPTS).contains(&self.max_attempts) {
            return Err(ConfigError::new("max_attempts", self.max_attempts, "1 (no retries) to 15"));
        }
        self.budget.validate().map_err(|error| error.within("budget"))?;
        self.backoff.check()?;
        for (field, value) in [("max_retry_after", self.max_retry_after), ("min_attempt", self.min_attempt)] {
            if value > HOUR {
                return Err(ConfigError::duration(field, value, "0s to 1h"));
            }
        }
        if self.max_body > MOST_BODY {
            return Err(ConfigError::new("max_body", self.max_body, "0 to 67108864 bytes"));
        }
        if let Some(status) = self.statuses.iter().find(|status| !matches!(status, 408 | 429 | 500..=599)) {
            return Err(ConfigError::new("statuses", status, "408, 429, 500 to 599"));
        }
        if let Some(code) = self.grpc_codes.iter().find(|code| !GRPC_CODES.contains(code)) {
            return Err(ConfigError::new("grpc_codes", code, "2, 4, 8, 13, 14, 15"));
        }
        Ok(())
    }
}
