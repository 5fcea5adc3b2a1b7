use crate::Bulkhead;
use buttress_core::{ConfigError, Release, permits::MAX_LIMIT};
use std::{borrow::Cow, time::Duration};

/// What a [`Bulkhead`] is made from, and what [`Bulkhead::update`] changes while it runs.
///
/// ```
/// use buttress_bulkhead::{BulkheadConfig, QueueOrder};
/// use std::time::Duration;
///
/// let bulkhead = BulkheadConfig::new(64)
///     .max_queue(256)
///     .max_wait(Duration::from_millis(200))
///     .order(QueueOrder::Lifo)
///     .build()?;
/// # let _: buttress_bulkhead::Bulkhead = bulkhead;
///
/// let error = BulkheadConfig::new(64).max_queue(8).max_wait(Duration::ZERO).build().unwrap_err();
/// assert_eq!(error.to_string(), "`max_wait` is 0s, allowed: more than 0 where there is a queue");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BulkheadConfig {
    /// How many calls may be in flight at once: 0 (every call is refused) to [`MAX_LIMIT`](crate::MAX_LIMIT). Default: 64.
    pub limit: u32,
    /// How many calls may wait for a permit: 0 (the default: a call without a permit is refused at once) to [`MAX_LIMIT`](crate::MAX_LIMIT).
    /// When it is full, the newcomer is refused, whatever the order. Only a [`QueuedBulkheadLayer`](crate::QueuedBulkheadLayer),
    /// [`Bulkhead::acquire`] and [`Bulkhead::call`] wait; a [`BulkheadLayer`](crate::BulkheadLayer) refuses at once.
    pub max_queue: u32,
    /// How long a call may wait, measured from its arrival. Default: 100 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub max_wait: Duration,
    /// Who of the waiting calls comes next. Default: [`QueueOrder::Fifo`].
    pub order: QueueOrder,
    /// When a call gives its permit back. Default: [`Release::BodyEnd`].
    pub release: Release,
    /// What happens when there is no permit: refuse (the default), or push back. Fixed once built.
    pub admission: AdmissionMode,
    /// Over how many cache lines the limit is spread: 0 (the default) decides by the number of cores, and only spreads a
    /// limit of at least 8 per stripe; else 1 to 64, rounded up to a power of two. Fixed once built.
    ///
    /// With one stripe a call is refused only if the limit was reached at that very moment; with more, a refusal may also
    /// overlook a permit that comes back while it looks. The limit itself holds exactly either way.
    pub stripes: u32,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"bulkhead"`.
    pub name: Cow<'static, str>,
}

/// Who of the waiting calls comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum QueueOrder {
    /// First in, first out: fair.
    #[default]
    Fifo,
    /// Last in, first out: under lasting overload, those who wait for long have given up anyway, and the newest can still be
    /// served in time ([Maurer 2015](https://queue.acm.org/detail.cfm?id=2839461)).
    Lifo,
}

/// What a layer does with a caller when there is no permit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum AdmissionMode {
    /// `call` answers with a refusal (or waits, with a queue).
    #[default]
    Reject,
    /// `poll_ready` waits until there is a permit and reserves it, as tower's `ConcurrencyLimit` does. For services that are
    /// driven by one caller who stops when told to (a worker that takes jobs, a `Buffer`). Not for servers that clone a
    /// service per request: nothing bounds how many clones wait, and a clone that was polled ready and then kept idle keeps
    /// a permit with it.
    BackPressure,
}

impl Default for BulkheadConfig {
    fn default() -> Self {
        Self {
            limit: 64,
            max_queue: 0,
            max_wait: Duration::from_millis(100),
            order: QueueOrder::Fifo,
            release: Release::BodyEnd,
            admission: AdmissionMode::Reject,
            stripes: 0,
            name: Cow::Borrowed("bulkhead"),
        }
    }
}

/// The defaults with this limit.
impl From<u32> for BulkheadConfig {
    fn from(limit: u32) -> Self {
        Self::new(limit)
    }
}

impl BulkheadConfig {
    /// The defaults with this limit.
    pub fn new(limit: u32) -> Self {
        Self { limit, ..Self::default() }
    }

    buttress_core::setters! {
        /// Sets [`limit`](Self#structfield.limit).
        limit: u32 => limit;
        /// Sets [`max_queue`](Self#structfield.max_queue).
        max_queue: u32 => max_queue;
        /// Sets [`max_wait`](Self#structfield.max_wait).
        max_wait: Duration => max_wait;
        /// Sets [`order`](Self#structfield.order).
        order: QueueOrder => order;
        /// Sets [`release`](Self#structfield.release).
        release: Release => release;
        /// Sets [`admission`](Self#structfield.admission).
        admission: AdmissionMode => admission;
        /// Sets [`stripes`](Self#structfield.stripes).
        stripes: u32 => stripes;
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The bulkhead.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Bulkhead, ConfigError> {
        self.validate()?;
        Ok(Bulkhead::with(self))
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let up_to_max = "0 to 2147483647";
        if self.limit > MAX_LIMIT {
            return Err(ConfigError::new("limit", self.limit, up_to_max));
        }
        if self.max_queue > MAX_LIMIT {
            return Err(ConfigError::new("max_queue", self.max_queue, up_to_max));
        }
        if self.max_queue > 0 && self.max_wait.is_zero() {
            return Err(ConfigError::duration("max_wait", self.max_wait, "more than 0 where there is a queue"));
        }
        if self.max_queue > 0 && self.admission == AdmissionMode::BackPressure {
            let allowed = "0 with back-pressure, where callers wait before they call";
            return Err(ConfigError::new("max_queue", self.max_queue, allowed));
        }
        if self.stripes > 64 {
            return Err(ConfigError::new("stripes", self.stripes, "0 (automatic) to 64"));
        }
        Ok(())
    }
}
