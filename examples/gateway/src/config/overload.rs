//! What is refused because it is too much: rate limits, and the pressure that the process itself is under.

use super::{Layer, check::number, document::Document, layers::layer, texts::one};
use buttress::{
    KeyedConfig, PressureGateConfig, RateLimitConfig,
    core::config::{duration, format_duration},
    shed::pressure::{PressureConfig, Scaled},
};
use http::HeaderName;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How many requests pass on a route.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RateLimit {
    /// So many in each `period`, on an average.
    pub(crate) permits: u32,
    #[serde(with = "duration")]
    pub(crate) period: Duration,
    /// So many at once after a quiet time. Not set: as many as `permits`.
    pub(crate) burst: Option<u32>,
    /// Who has a limit of his own.
    pub(crate) by: RateKey,
    /// How many of them are told apart at once; those beyond share one limit.
    pub(crate) capacity: u32,
    /// Whether answers say what is left (`RateLimit`, `RateLimit-Policy`): to strangers, too.
    pub(crate) headers: bool,
}

/// Who has a limit of his own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RateKey {
    /// An address, or a network of IPv6: the client's, where a trusted proxy says whose it is.
    #[default]
    Client,
    /// Nobody: the route has one limit.
    Route,
    /// A tenant, by the value of this header; where it is missing, the client.
    #[serde(with = "one")]
    Header(HeaderName),
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            permits: 100,
            period: Duration::from_secs(1),
            burst: None,
            by: RateKey::Client,
            capacity: 100_000,
            headers: false,
        }
    }
}

impl RateLimit {
    /// The config of the crate's limit, of each that has one.
    pub(crate) fn config(&self, scope: &str) -> RateLimitConfig {
        let config = RateLimitConfig::new(self.permits, self.period).name(scope.to_owned());
        self.burst.into_iter().fold(config, RateLimitConfig::burst)
    }

    /// The config of their table.
    pub(crate) fn table(&self) -> KeyedConfig {
        KeyedConfig::new(self.capacity)
    }
}

/// The pressure that this process is under, and whether requests are refused for it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pressure {
    /// What is done at the shares of pressure below.
    pub(crate) mode: Gating,
    /// What makes pressure: the highest of all counts.
    pub(crate) sources: Vec<Source>,
    /// How often they are looked at.
    #[serde(with = "duration")]
    pub(crate) every: Duration,
    /// A lag of the event loop of this much is all the pressure there can be.
    #[serde(with = "duration")]
    pub(crate) lag: Duration,
    /// From which pressure on the first sheddable requests are refused, and from which all.
    pub(crate) sheddable: Option<Scaled>,
    pub(crate) normal: Option<Scaled>,
    pub(crate) critical: Option<Scaled>,
    /// When who was refused should come back, at the earliest.
    #[serde(with = "duration")]
    pub(crate) retry_after: Duration,
}

/// What a limit does about what is too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gating {
    /// Refuses it.
    Auto,
    /// Counts it, and lets it pass.
    #[default]
    ObserveOnly,
    /// Nothing.
    Disabled,
}

impl Gating {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ObserveOnly => "observe_only",
            Self::Disabled => "disabled",
        }
    }
}

impl Source {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Lag => "lag",
        }
    }
}

/// What makes pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The CPU time that its cgroup has used, of what it may use.
    Cpu,
    /// The memory of its cgroup, of what it may have.
    Memory,
    /// How late its timers fire.
    Lag,
}

impl Default for Pressure {
    fn default() -> Self {
        let PressureGateConfig { sheddable, normal, critical, retry_after, .. } = PressureGateConfig::default();
        Self {
            mode: Gating::default(),
            sources: vec![Source::Memory, Source::Lag],
            every: PressureConfig::default().every,
            lag: Duration::from_millis(500),
            sheddable,
            normal,
            critical,
            retry_after,
        }
    }
}

impl Pressure {
    /// The config of the gate that refuses.
    pub(crate) fn gate(&self) -> PressureGateConfig {
        PressureGateConfig::default()
            .sheddable(self.sheddable)
            .normal(self.normal)
            .critical(self.critical)
            .retry_after(self.retry_after)
    }
}

/// Says what is wrong with the rate limit of the route, or of a policy for routes, at `path`.
pub(super) fn rate_limit(document: &mut Document<'_>, path: &[&str], limit: &RateLimit) {
    let all = Layer::on(limit.clone());
    layer(document, path, "rate_limit", &all, |limit| limit.config("").build().map(drop));
    let path: Vec<_> = path.iter().copied().chain(["rate_limit"]).collect();
    number(document, &[&path[..], &["capacity"]].concat(), limit.capacity, 1..=1 << 24);
}

/// Says what is wrong with the pressure.
pub(super) fn pressure(document: &mut Document<'_>, config: &Pressure) {
    layer(document, &[], "pressure", &Layer::on(config.clone()), |config| {
        let sources = PressureConfig::default().every(config.every).build()?;
        config.gate().build(&sources).map(drop)
    });
    if config.lag < Duration::from_millis(5) {
        document.wrong(&["pressure", "lag"], format_duration(config.lag), "5ms or more");
    }
    if config.sources.is_empty() && config.mode != Gating::Disabled {
        let allowed = "one or more of \"memory\", \"lag\", \"cpu\"; or `mode = \"disabled\"`";
        document.wrong(&["pressure", "sources"], "an empty list", allowed);
    }
}
