use super::{RateLimit, RateLimitConfig, gcra::Rate};
use buttress_core::{
    Admit, Clock, ConfigError, Fresh, GateLayer, Gatekeeper, Handle, Keyed, KeyedConfig, KeyedEntry, Mode, ModeCell,
    Rejection, TokioClock, Value,
    sync::{AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{fmt, hash::Hash, sync::Arc};

/// The layer of a [`KeyedRateLimit`]: a bucket per host, tenant or client. See the example in the [module's docs](super#per-host-tenant-client).
pub type KeyedRateLimitLayer<K, F> = GateLayer<KeyedRateLimit<K, F>>;

/// One [`RateLimit`] per key (host, tenant, client), in a bounded [table](Keyed): made by
/// [`RateLimitConfig::keyed`].
///
/// It is its own handle, for all keys together, those that come up later included: [`snapshot`](Self::snapshot),
/// [`update`](Self::update), [`set_mode`](Handle::set_mode) with the modes of a [`RateLimit`].
///
/// ```
/// use buttress_core::{Handle, KeyedConfig, Mode};
/// use buttress_shed::rate::RateLimitConfig;
///
/// let limits = RateLimitConfig::per_second(1).keyed(KeyedConfig::new(100), |tenant: &u64| *tenant)?;
/// assert!(limits.check(&7).is_ok() && limits.check(&8).is_ok());
/// assert!(limits.check(&7).is_err());
///
/// limits.set_mode(Mode::OBSERVE_ONLY)?;
/// assert!(limits.check(&7).is_ok());
/// assert_eq!(limits.snapshot().over_limit_total, 1);
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
///
/// One key can be told something else: [`entry`](Self::entry) is its `RateLimit`, with an `update` and modes of its own. That is remembered: the entry
/// stays, whatever comes, until it is told what all others are.
pub struct KeyedRateLimit<K, F> {
    table: Keyed<K, RateLimit, F>,
    template: Arc<Mutex<Template>>,
    /// That of the template: who has another adopts it.
    edition: AtomicU64,
    mode: ModeCell,
    refused_total: AtomicU64,
    over_limit_total: AtomicU64,
}

/// What a key's limit is made from.
#[derive(Clone)]
struct Template {
    config: RateLimitConfig,
    rate: Rate,
    edition: u64,
}

impl Template {
    fn make(&self) -> RateLimit {
        RateLimit::of_edition(self.edition, self.config.clone(), self.rate, TokioClock.now())
    }
}

/// What a table of rate limits shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeyedRateLimitSnapshot {
    /// Calls that were refused, of all keys that ever were.
    pub refused_total: u64,
    /// Calls that were too many and that a mode let pass.
    pub over_limit_total: u64,
    /// The keys held.
    pub keys: usize,
    /// The most that can be held.
    pub capacity: u32,
    /// Keys that were forgotten.
    pub evicted_total: u64,
    /// Calls whose keys found no room, and shared a bucket.
    pub overflow_total: u64,
    /// What an operator told it to do.
    pub mode: Mode,
}

impl RateLimitConfig {
    /// A table of rate limits: one with this config for each key that comes up.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), or the first field of `table` that is out of its range.
    pub fn keyed<K, F, Req>(self, table: KeyedConfig, key: F) -> Result<KeyedRateLimit<K, F>, ConfigError>
    where
        K: Clone + Eq + Hash,
        F: Fn(&Req) -> K,
    {
        let template = Arc::new(Mutex::new(Template { rate: self.rate()?, config: self, edition: 0 }));
        let made_from = template.clone();
        Ok(KeyedRateLimit::with(table.build(key, move |_: &K| lock(&made_from).make())?, template))
    }
}

impl<K, F> KeyedRateLimit<K, F>
where
    K: Clone + Eq + Hash,
{
    fn with(table: Keyed<K, RateLimit, F>, template: Arc<Mutex<Template>>) -> Self {
        let edition = AtomicU64::new(lock(&template).edition);
        let (refused_total, over_limit_total) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { table, template, edition, mode: ModeCell::new(0), refused_total, over_limit_total }
    }

    /// Takes a permit of the key that `req` belongs to.
    ///
    /// # Errors
    ///
    /// [`Reason::RateLimited`](buttress_core::Reason::RateLimited): there is none, and when there will be one.
    #[inline]
    pub fn check<Req>(&self, req: &Req) -> Result<(), Rejection>
    where
        F: Fn(&Req) -> K,
    {
        self.limit_of(req).check()
    }

    /// The limit that `req` belongs to, looked up once, for who needs it again after the [`check`](LimitOf::check).
    #[inline]
    pub fn limit_of<Req>(&self, req: &Req) -> LimitOf<'_, K, F>
    where
        F: Fn(&Req) -> K,
    {
        let is_asked = !matches!(self.mode.get(), Mode::Disabled | Mode::ForcedOpen);
        LimitOf { all: self, limit: is_asked.then(|| self.current(self.table.entry_of(req))) }
    }

    /// The limit of `key`, made if it was not there. Held, it stays.
    pub fn entry(&self, key: &K) -> Arc<KeyedEntry<RateLimit>> {
        self.current(self.table.entry(key))
    }

    /// Shows every key with its limit, in no order.
    pub fn for_each(&self, show: impl FnMut(&K, &RateLimit)) {
        self.table.for_each(show);
    }

    /// The present readings.
    pub fn snapshot(&self) -> KeyedRateLimitSnapshot {
        let table = self.table.snapshot();
        KeyedRateLimitSnapshot {
            refused_total: self.refused_total.load(Relaxed),
            over_limit_total: self.over_limit_total.load(Relaxed),
            keys: table.keys,
            capacity: table.capacity,
            evicted_total: table.evicted_total,
            overflow_total: table.overflow_total,
            mode: self.mode.get(),
        }
    }

    /// The present config.
    pub fn config(&self) -> RateLimitConfig {
        lock(&self.template).config.clone()
    }

    /// Changes the rate and the burst of every key, now and to come, while calls come. As many permits as were taken stay taken. A key that was
    /// told something else keeps that.
    ///
    /// # Errors
    ///
    /// A field out of its range. Nothing is changed then.
    pub fn update(&self, config: RateLimitConfig) -> Result<(), ConfigError> {
        let rate = config.rate()?;
        super::limit::tell(&config, rate);
        let template = {
            let mut template = lock(&self.template);
            *template = Template { config, rate, edition: template.edition + 1 };
            self.edition.store(template.edition, Relaxed);
            template.clone()
        };
        let adopt = |limit: &RateLimit| limit.adopt(template.edition, &template.config, rate);
        self.table.for_each(|_, limit| adopt(limit));
        self.table.overflow().iter().for_each(|limit| adopt(limit));
        Ok(())
    }

    /// An entry that was made while an update went through the table has to catch up.
    #[inline]
    fn current(&self, entry: Arc<KeyedEntry<RateLimit>>) -> Arc<KeyedEntry<RateLimit>> {
        if entry.edition() != self.edition.load(Relaxed) {
            self.catch_up(&entry);
        }
        entry
    }

    #[cold]
    fn catch_up(&self, limit: &RateLimit) {
        let template = lock(&self.template).clone();
        limit.adopt(template.edition, &template.config, template.rate);
    }
}

/// The limit of one request's key: [`KeyedRateLimit::limit_of`]. Held, it keeps its place in the table.
pub struct LimitOf<'a, K, F> {
    all: &'a KeyedRateLimit<K, F>,
    /// `None`: an operator lets everybody pass, or nobody.
    limit: Option<Arc<KeyedEntry<RateLimit>>>,
}

impl<K, F> LimitOf<'_, K, F> {
    /// Takes a permit.
    ///
    /// # Errors
    ///
    /// [`Reason::RateLimited`](buttress_core::Reason::RateLimited): there is none, and when there will be one.
    #[inline]
    pub fn check(&self) -> Result<(), Rejection> {
        let verdict = match &self.limit {
            Some(limit) => limit.check_under(&self.all.mode, &TokioClock),
            None if self.all.mode.get() == Mode::ForcedOpen => Err(super::limit::CLOSED),
            None => return Ok(()),
        };
        match verdict {
            Ok(true) => return Ok(()),
            Ok(false) => self.all.over_limit_total.fetch_add(1, Relaxed),
            Err(_) => self.all.refused_total.fetch_add(1, Relaxed),
        };
        verdict.map(drop)
    }

    /// The limit itself; `None` while an operator lets all calls pass, or none.
    pub fn entry(&self) -> Option<&Arc<KeyedEntry<RateLimit>>> {
        self.limit.as_ref()
    }
}

impl<K, F> Gatekeeper for KeyedRateLimit<K, F>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    F: Send + Sync + 'static,
{
    type Permit = ();
    type Turn = ();
}

impl<K, F, Req> Admit<Req> for KeyedRateLimit<K, F>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    F: Fn(&Req) -> K + Send + Sync + 'static,
{
    #[inline]
    fn admit(&self, _: &mut (), req: &Req) -> Result<(), Rejection> {
        self.check(req)
    }
}

impl<K, F> Fresh for KeyedRateLimit<K, F>
where
    K: Clone + Eq + Hash,
    F: Clone,
{
    fn fresh(&self) -> Self {
        let template = Arc::new(Mutex::new(lock(&self.template).clone()));
        let made_from = template.clone();
        Self::with(self.table.fresh_with(move |_: &K| lock(&made_from).make()), template)
    }
}

impl<K, F> Handle for KeyedRateLimit<K, F>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    F: Send + Sync + 'static,
{
    fn kind(&self) -> &'static str {
        "rate_limit"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        show("refused_total", Value::Count(self.refused_total.load(Relaxed)));
        show("over_limit_total", Value::Count(self.over_limit_total.load(Relaxed)));
        self.table.visit(show);
    }

    fn mode(&self) -> Mode {
        self.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.mode.set(mode)?;
        super::limit::tell_mode(&self.config(), mode);
        Ok(())
    }
}

impl<K, F> fmt::Debug for KeyedRateLimit<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimit").field("table", &self.table).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl<K, F> fmt::Debug for LimitOf<'_, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitOf").field("limit", &self.limit).finish_non_exhaustive()
    }
}
