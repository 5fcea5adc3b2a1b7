use crate::{Shed, ShedLayer, algorithm::Algorithm, layer::ShedLayerBy, line::Rules};
use buttress_core::{ConfigError, QueueLayer, Release, config::format_duration};
use std::{borrow::Cow, time::Duration};

/// What a [`Shed`] is made from, and what [`Shed::update`] changes while it runs.
///
/// ```
/// use buttress_shed::{Algorithm, QueueConfig, ShedConfig};
/// use std::time::Duration;
///
/// let shed = ShedConfig::default()
///     .limit(Algorithm::Fixed(64))
///     .queue(QueueConfig::default().max(200).burst_wait(Duration::from_millis(100)))
///     .build()?;
/// # let _: buttress_shed::Shed = shed;
///
/// let error = ShedConfig::default().queue(QueueConfig::default().burst_share(1.5)).build().unwrap_err();
/// assert_eq!(error.to_string(), "`queue.burst_share` is 1.5, allowed: more than 0 and at most 1");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
///
/// In a file (feature `serde`); what is left out has its default:
///
/// ```
/// # #[cfg(feature = "serde")] {
/// let config: buttress_shed::ShedConfig = toml::from_str(r#"
///     release = "head"            # or "body_end"
///
///     [limit.adaptive]            # or `limit = "adaptive"`; or a number, `limit = 64`, the same as `limit.fixed = 64`
///     min = 8
///     max = 500
///
///     [queue]
///     max = 200
///     burst_wait = "100ms"
/// "#)?;
/// assert!(config.build().is_ok());
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ShedConfig {
    /// How many calls may be in flight at once, or how that is found out. Default: it is found out, [`Algorithm::Adaptive`].
    pub limit: Algorithm,
    /// Who waits for room, and how long.
    pub queue: QueueConfig,
    /// When a call gives its permit back. Default: [`Release::Head`], as the limit is on calls whose answer is still to come: that is
    /// the time it measures, and open streams would fill it. How many bodies may be open is for a bulkhead inside.
    pub release: Release,
    /// Over how many cache lines the permits are spread: 0 (the default) is one per core, at most 8; else 1 to 64, rounded up
    /// to a power of two. Fixed once built. Take 1 for one of many small ones (a key's).
    pub stripes: u32,
    /// Where the jitter of `Retry-After` and the draws of [`Mode::Enforcing`](buttress_core::Mode::Enforcing) come from. Fixed
    /// once built. Default `None`: differs from instance to instance.
    pub seed: Option<u64>,
    /// The name in log events and labels, whatever a builder or a registry calls the layer. Default: `"shed"`.
    pub name: Cow<'static, str>,
}

/// Who waits for room, and how long.
///
/// A short *burst* is served in order of arrival. A queue that has not been empty for `burst_wait` is a *standing* one, which
/// is overload: the newest is served first, and each class waits for its own short time, until nobody was shed for as long
/// as that (Maurer, "Fail at Scale", ACM Queue 13(8), 2015).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct QueueConfig {
    /// How many calls may wait; 0: a call that finds no room is refused at once. Default: 1000.
    pub max: u32,
    /// In a burst, how long a call without a deadline waits. Default: 250 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub burst_wait: Duration,
    /// In a burst, how much of the time that is left to its deadline a call may spend waiting: more than 0, at most 1. Default: 0.6.
    pub burst_share: f64,
    /// While the queue stands, how long a critical call waits. Default: 100 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub critical_wait: Duration,
    /// While the queue stands, how long a normal call waits. Default: 300 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub normal_wait: Duration,
    /// While the queue stands, how long a sheddable call waits: no longer than the others. Default: 5 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub sheddable_wait: Duration,
    /// While the queue stands, the longest that a call of the lowest class that asks for room waits, whatever its class: it
    /// bears the overload, and there is always a newer call that can be served in time. Those above it fit, if they may
    /// wait a little. Default: 120 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub lowest_wait: Duration,
    /// The share of the room that goes to the lowest class that waits, whoever else does: 0 to 0.5. Default: 0.005.
    pub reserve: f64,
    /// How many tenants are told apart in each class, 1 to 1024; more share. Default: 256.
    pub tenants: u32,
}

impl Default for ShedConfig {
    fn default() -> Self {
        Self {
            limit: Algorithm::default(),
            queue: QueueConfig::default(),
            release: Release::Head,
            stripes: 0,
            seed: None,
            name: Cow::Borrowed("shed"),
        }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            max: 1000,
            burst_wait: Duration::from_millis(250),
            burst_share: 0.6,
            critical_wait: Duration::from_millis(100),
            normal_wait: Duration::from_millis(300),
            sheddable_wait: Duration::from_millis(5),
            lowest_wait: Duration::from_millis(120),
            reserve: 0.005,
            tenants: 256,
        }
    }
}

impl QueueConfig {
    buttress_core::setters! {
        /// Sets [`max`](Self#structfield.max).
        max: u32 => max;
        /// Sets [`burst_wait`](Self#structfield.burst_wait).
        burst_wait: Duration => burst_wait;
        /// Sets [`burst_share`](Self#structfield.burst_share).
        burst_share: f64 => burst_share;
        /// Sets [`critical_wait`](Self#structfield.critical_wait).
        critical_wait: Duration => critical_wait;
        /// Sets [`normal_wait`](Self#structfield.normal_wait).
        normal_wait: Duration => normal_wait;
        /// Sets [`sheddable_wait`](Self#structfield.sheddable_wait).
        sheddable_wait: Duration => sheddable_wait;
        /// Sets [`lowest_wait`](Self#structfield.lowest_wait).
        lowest_wait: Duration => lowest_wait;
        /// Sets [`reserve`](Self#structfield.reserve).
        reserve: f64 => reserve;
        /// Sets [`tenants`](Self#structfield.tenants).
        tenants: u32 => tenants;
    }

    /// No queue: a call that finds no room is refused at once.
    pub fn none() -> Self {
        Self::default().max(0)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.max > 1_000_000 {
            return Err(ConfigError::new("max", self.max, "0 to 1000000"));
        }
        if !(self.burst_share > 0.0 && self.burst_share <= 1.0) {
            return Err(ConfigError::new("burst_share", self.burst_share, "more than 0 and at most 1"));
        }
        if !(0.0..=0.5).contains(&self.reserve) {
            return Err(ConfigError::new("reserve", self.reserve, "0 to 0.5"));
        }
        if !(1..=1024).contains(&self.tenants) {
            return Err(ConfigError::new("tenants", self.tenants, "1 to 1024"));
        }
        for (field, wait) in [
            ("burst_wait", self.burst_wait),
            ("critical_wait", self.critical_wait),
            ("normal_wait", self.normal_wait),
            ("sheddable_wait", self.sheddable_wait),
            ("lowest_wait", self.lowest_wait),
        ] {
            if wait < Duration::from_millis(1) || wait > Duration::from_secs(3600) {
                return Err(ConfigError::duration(field, wait, "1ms to 1h"));
            }
        }
        // A normal call may wait longer than a critical one: it has to, or none of its class fits. The least important never.
        let (sheddable, default) = (self.sheddable_wait, Self::default());
        for (field, wait, unset) in [
            ("critical_wait", self.critical_wait, default.critical_wait),
            ("normal_wait", self.normal_wait, default.normal_wait),
        ] {
            if wait >= sheddable {
                continue;
            }
            // Of the two the one that was set is to blame.
            return Err(if wait == unset && sheddable != default.sheddable_wait {
                let most = format!("{} (`{field}`) or less", format_duration(wait));
                ConfigError::duration("sheddable_wait", sheddable, most)
            } else {
                let least = format!("{} (`sheddable_wait`) or more", format_duration(sheddable));
                ConfigError::duration(field, wait, least)
            });
        }
        Ok(())
    }

    pub(crate) fn rules(&self) -> Rules {
        let nanos = |wait: Duration| wait.as_nanos() as u64;
        Rules {
            max: self.max,
            burst_share: self.burst_share,
            standing_wait: [self.sheddable_wait, self.normal_wait, self.critical_wait].map(nanos),
            lowest_wait: nanos(self.lowest_wait),
            burst_wait: nanos(self.burst_wait),
            reserve: self.reserve,
            tenants: self.tenants,
        }
    }
}

impl ShedConfig {
    buttress_core::setters! {
        /// Sets [`limit`](Self#structfield.limit).
        limit: Algorithm => limit;
        /// Sets [`queue`](Self#structfield.queue).
        queue: QueueConfig => queue;
        /// Sets [`release`](Self#structfield.release).
        release: Release => release;
        /// Sets [`stripes`](Self#structfield.stripes).
        stripes: u32 => stripes;
        /// Sets [`seed`](Self#structfield.seed).
        seed: u64 => Some(seed);
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The shedder.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Shed, ConfigError> {
        Shed::new(self)
    }

    /// The layer; what a call asks for is in its request's context.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn layer(self) -> Result<ShedLayer, ConfigError> {
        self.build().map(QueueLayer::new)
    }

    /// The layer; `describe` says what a call asks for, and what it leaves out the request's context does.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn layer_by<Req, F>(self, describe: F) -> Result<ShedLayerBy<F>, ConfigError>
    where
        F: Fn(&Req) -> crate::Ask + Send + Sync + 'static,
    {
        self.build().map(|shed| QueueLayer::new(shed.by(describe)))
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.limit.validate()?;
        self.queue.validate().map_err(|error| error.within("queue"))?;
        if self.stripes > 64 {
            return Err(ConfigError::new("stripes", self.stripes, "0 (automatic) to 64"));
        }
        Ok(())
    }
}
