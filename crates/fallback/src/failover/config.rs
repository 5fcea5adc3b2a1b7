use super::FailoverTiers;
use crate::{Trigger, Triggers};
use buttress_core::{Budget, ConfigError};
use std::{borrow::Cow, collections::HashSet, sync::Arc, time::Duration};

/// When a [`FailoverLayer`](super::FailoverLayer) asks the next tier, and when it comes back.
///
/// ```
/// use buttress_fallback::{FailoverConfig, FailoverLayer, TierConfig};
///
/// # let (near, far) = ((), ());
/// let layer: FailoverLayer<_> = FailoverConfig::default()
///     .fail_after(3)
///     .backup("near", near)
///     .tier(TierConfig::new("far").max_concurrent(50), far)
///     .build()?;
///
/// let error = FailoverConfig::default().backup("near", ()).backup("near", ()).build().unwrap_err();
/// assert_eq!(error.to_string(), "`tiers[2].name` is near, allowed: a name that no other tier has");
/// # let _ = layer;
/// # Ok::<_, buttress_fallback::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct FailoverConfig {
    /// Which results send a call to the next tier. Default: refused and failure. With overload ("too much": 429, 503 with `Retry-After`, gRPC
    /// `RESOURCE_EXHAUSTED`) that one call goes on as well; it never counts for [`fail_after`](Self::fail_after), as it may be one client's.
    pub on: Triggers,
    /// Which share of the time that is left before the deadline a tier may take before the next one is asked: 0.1 to 0.9. The last
    /// tier has all the rest. Default: 0.5.
    pub share: f64,
    /// How long all tiers together may take, for requests that bring no earlier deadline of their own: up to 1 h. `None` (the default): as
    /// long as the request's deadline says; without one a tier that hangs is waited for.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub timeout: Option<Duration>,
    /// After so many bad results of the primary in a row calls go to the first backup at once: 1 to 1000. An overload is none, nor what a
    /// limit inside of the tier refused (at capacity, shed, waited too long), and neither ends a row. Default: 5.
    pub fail_after: u32,
    /// While they do, one call in so much time goes to the primary first: 1 ms to 1 h. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub probe_every: Duration,
    /// After so many good ones of those in a row all calls go to the primary again: 1 to 1000. Default: 3.
    pub return_after: u32,
    /// The most bytes of a request body that are kept for the next tier: 0 to 64 MiB. A larger body goes to the first tier all the
    /// same, and then to no other. Default: 64 KiB.
    pub max_body: usize,
    /// Whether any request may go to the next tier though an earlier one may have processed it: HTTP requests of any method (but for
    /// those with an `Idempotency-Key` that go to one tier), opaque requests of any kind. Only where processing it twice does no harm. Default: no.
    pub any_request: bool,
    /// The name of the service inside, among the tiers. Default: `"primary"`.
    pub primary: Cow<'static, str>,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"failover"`.
    pub name: Cow<'static, str>,
}

/// One backup.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct TierConfig {
    /// Its name in events, metrics and [`prefer`](super::Failover::prefer).
    pub name: Cow<'static, str>,
    /// Its share of the time that is left when it is asked: 0.1 to 0.9. `None` (the default): [`FailoverConfig::share`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub share: Option<f64>,
    /// How many calls it may have in flight, to the ends of their bodies: 1 or more. What is more goes to the tier after it. `None` (the
    /// default): any number.
    #[cfg_attr(feature = "serde", serde(default))]
    pub max_concurrent: Option<u32>,
}

impl TierConfig {
    /// A tier of this name that takes any number of calls.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), share: None, max_concurrent: None }
    }

    buttress_core::setters! {
        /// Sets [`share`](Self#structfield.share).
        share: impl Into<Option<f64>> => share.into();
        /// Sets [`max_concurrent`](Self#structfield.max_concurrent).
        max_concurrent: impl Into<Option<u32>> => max_concurrent.into();
    }
}

impl Default for FailoverConfig {
    fn default() -> Self {
        Self {
            on: [Trigger::Refused, Trigger::Failure].into_iter().collect(),
            share: 0.5,
            timeout: None,
            fail_after: 5,
            probe_every: Duration::from_secs(1),
            return_after: 3,
            max_body: 64 * 1024,
            any_request: false,
            primary: Cow::Borrowed("primary"),
            name: Cow::Borrowed("failover"),
        }
    }
}

/// The primary included.
pub(super) const MOST_TIERS: usize = 9;
const MOST_BODY: usize = 64 * 1024 * 1024;
const HOUR: Duration = Duration::from_secs(3600);

impl FailoverConfig {
    buttress_core::setters! {
        /// Sets [`on`](Self#structfield.on).
        on: impl IntoIterator<Item = Trigger> => on.into_iter().collect();
        /// Sets [`share`](Self#structfield.share).
        share: f64 => share;
        /// Sets [`timeout`](Self#structfield.timeout).
        timeout: impl Into<Option<Duration>> => timeout.into();
        /// Sets [`fail_after`](Self#structfield.fail_after).
        fail_after: u32 => fail_after;
        /// Sets [`probe_every`](Self#structfield.probe_every).
        probe_every: Duration => probe_every;
        /// Sets [`return_after`](Self#structfield.return_after).
        return_after: u32 => return_after;
        /// Sets [`max_body`](Self#structfield.max_body).
        max_body: usize => max_body;
        /// Sets [`any_request`](Self#structfield.any_request).
        any_request: bool => any_request;
        /// Sets [`primary`](Self#structfield.primary).
        primary: impl Into<Cow<'static, str>> => primary.into();
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// With `service` as the first backup.
    pub fn backup<C>(self, name: impl Into<Cow<'static, str>>, service: C) -> FailoverTiers<C> {
        self.tier(TierConfig::new(name), service)
    }

    /// With `service` as the first backup, as `tier` says.
    pub fn tier<C>(self, tier: TierConfig, service: C) -> FailoverTiers<C> {
        self.tiers([(tier, service)])
    }

    /// With these backups, in order.
    pub fn tiers<C>(self, tiers: impl IntoIterator<Item = (TierConfig, C)>) -> FailoverTiers<C> {
        let (tiers, services) = tiers.into_iter().unzip();
        FailoverTiers { config: self, tiers, services, budget: None }
    }

    /// Whether a layer with these backups can be built.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self, tiers: &[TierConfig]) -> Result<(), ConfigError> {
        if self.on == Triggers::NONE {
            return Err(ConfigError::new("on", "empty", "at least one of refused, failure, overload"));
        }
        validate_share("share".into(), self.share)?;
        if self.timeout.is_some_and(|timeout| timeout.is_zero() || timeout > HOUR) {
            return Err(ConfigError::duration("timeout", self.timeout.unwrap_or_default(), "more than 0s, up to 1h"));
        }
        for (field, value) in [("fail_after", self.fail_after), ("return_after", self.return_after)] {
            if !(1..=1000).contains(&value) {
                return Err(ConfigError::new(field, value, "1 to 1000"));
            }
        }
        if !(Duration::from_millis(1)..=HOUR).contains(&self.probe_every) {
            return Err(ConfigError::duration("probe_every", self.probe_every, "1ms to 1h"));
        }
        if self.max_body > MOST_BODY {
            return Err(ConfigError::new("max_body", self.max_body, "0 to 67108864 bytes"));
        }
        if !(1..MOST_TIERS).contains(&tiers.len()) {
            return Err(ConfigError::new("tiers", tiers.len(), "1 to 8 backups"));
        }
        let mut names = HashSet::from([&*self.primary]);
        for (i, tier) in tiers.iter().enumerate() {
            // Backups count from 1, as in everything that is seen of them.
            let field = |name| format!("tiers[{}].{name}", i + 1);
            if tier.name.is_empty() {
                return Err(ConfigError::new(field("name"), "empty", "a name"));
            }
            if !names.insert(&tier.name) {
                return Err(ConfigError::new(field("name"), &tier.name, "a name that no other tier has"));
            }
            if let Some(share) = tier.share {
                validate_share(field("share"), share)?;
            }
            if tier.max_concurrent == Some(0) {
                return Err(ConfigError::new(field("max_concurrent"), 0, "1 or more, or nothing: no cap"));
            }
        }
        Ok(())
    }
}

fn validate_share(field: String, share: f64) -> Result<(), ConfigError> {
    // A range that NaN is not in.
    if (0.1..=0.9).contains(&share) {
        return Ok(());
    }
    Err(ConfigError::new(field, share, "0.1 to 0.9"))
}

impl<C> FailoverTiers<C> {
    /// With `service` as the next backup.
    #[must_use]
    pub fn backup(self, name: impl Into<Cow<'static, str>>, service: C) -> Self {
        self.tier(TierConfig::new(name), service)
    }

    /// With `service` as the next backup, as `tier` says.
    #[must_use]
    pub fn tier(mut self, tier: TierConfig, service: C) -> Self {
        self.tiers.push(tier);
        self.services.push(service);
        self
    }

    /// Calls to backups are paid from `budget`: every call deposits, every call to a backup takes a token, also while the layer is failed over. So backups
    /// get no more than the budget's share of the calls, and what is more stays with the primary, however bad it is.
    #[must_use]
    pub fn budget(mut self, budget: Arc<Budget>) -> Self {
        self.budget = Some(budget);
        self
    }
}
