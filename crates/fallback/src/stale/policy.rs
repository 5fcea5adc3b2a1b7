use super::{
    NotStored, StaleConfig,
    entry::{Now, Stored, StoredHead},
    request::{Asked, Key, authority_of, key_of, path},
    rules::{self, Use},
    snapshot::Counts,
    store::Store,
};
use crate::coalesce::Flights;
use buttress_core::{
    Budget, Cause, Clock, ConfigError, Degraded, DegradedBy, Fresh, Mode, ModeCell, TokioClock,
    http::X_DEGRADED,
    sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering::Relaxed, lock},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Uri, header};
use std::{
    fmt::{self, Write},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// The target of events, as the facade names the crate.
pub(super) const TARGET: &str = "buttress::fallback";
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// No `max`.
const NONE: u64 = u64::MAX;

/// The last good answers: the handle of [`StaleLayer`](crate::StaleLayer).
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | keeps and gives |
/// | `Disabled` | every request and answer passes; nothing is kept, and nothing that is kept becomes invalid |
/// | `Enforcing(p)` | gives `p` percent of what it would give, and counts the others as `observed`; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
/// | `ForcedOpen` | there is no such mode: it refuses nothing |
pub struct Stale {
    pub(super) mode: ModeCell,
    pub(super) store: Store,
    /// What pays for what is asked in the background; and whether those that go on deposit here.
    budget: Arc<Budget>,
    deposits: bool,
    /// What is asked in the background.
    pub(super) revalidations: Flights<Key>,
    wall: Box<dyn Fn() -> SystemTime + Send + Sync>,
    max: AtomicU64,
    max_body: AtomicUsize,
    /// Bytes of answers that are being copied, and how many that may be.
    pub(super) recording: AtomicU64,
    max_bytes: u64,
    cache: AtomicBool,
    cache_name: Box<str>,
    pub(super) counts: Counts,
    /// As it was last given; only `update`, `config` and events take the lock.
    config: Mutex<StaleConfig>,
}

/// A stored answer that may be given now.
pub(super) struct Found {
    pub(super) stored: Arc<Stored>,
    pub(super) with: Use,
}

impl Stale {
    pub(super) fn with(config: StaleConfig, budget: Option<Arc<Budget>>) -> Self {
        let deposits = budget.is_none();
        Self {
            mode: ModeCell::new(0),
            store: Store::new(config.max_bytes, &TokioClock),
            budget: budget.unwrap_or_default(),
            deposits,
            revalidations: Flights::new(Arc::default()),
            wall: Box::new(SystemTime::now),
            max: AtomicU64::new(nanos(config.max)),
            max_body: AtomicUsize::new(config.max_body),
            recording: AtomicU64::new(0),
            max_bytes: config.max_bytes,
            cache: AtomicBool::new(config.cache),
            cache_name: config.cache_name.as_ref().into(),
            counts: Counts::default(),
            config: Mutex::new(config),
        }
    }

    /// Reads the time of day from `wall`: it is what `Date` and `Expires` are compared with. For tests and simulations.
    #[must_use]
    pub fn wall_clock(mut self, wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.wall = Box::new(wall);
        self
    }

    /// The config as it was last given.
    pub fn config(&self) -> StaleConfig {
        lock(&self.config).clone()
    }

    /// Changes what later answers and failures follow; what is stored stays.
    ///
    /// # Errors
    ///
    /// A config that [`build`](StaleConfig::build) refuses, another `max_bytes` or another `cache_name`: they are fixed when the layer is
    /// made. Nothing is changed then.
    pub fn update(&self, config: StaleConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let mut kept = lock(&self.config);
        let fixed = |old: &dyn fmt::Display| format!("{old}: it cannot change while the layer runs");
        if config.max_bytes != kept.max_bytes {
            return Err(ConfigError::new("max_bytes", config.max_bytes, fixed(&kept.max_bytes)));
        }
        if config.cache_name != kept.cache_name {
            return Err(ConfigError::new("cache_name", &config.cache_name, fixed(&kept.cache_name)));
        }
        self.max.store(nanos(config.max), Relaxed);
        self.max_body.store(config.max_body, Relaxed);
        self.cache.store(config.cache, Relaxed);
        *kept = config;
        Ok(())
    }

    /// Throws away what is stored of a resource, whatever its scheme and its variants. `uri` is as clients ask for it: with its
    /// authority (`Host`), or without one if they name none. Answers that are under way are not stored, either. `false`: nothing was there.
    pub fn purge(&self, uri: &Uri) -> bool {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        self.invalidate(authority.as_bytes(), path(uri))
    }

    /// Throws everything away.
    pub fn clear(&self) {
        self.store.clear(TokioClock.now());
        tracing::info!(target: TARGET, stale = &*self.config().name, "the stale store was cleared");
    }

    fn invalidate(&self, authority: &[u8], path: &[u8]) -> bool {
        let was_there = self.store.remove(&key_of(authority, path), TokioClock.now());
        self.counts.invalidated.fetch_add(was_there.into(), Relaxed);
        was_there
    }

    /// An unsafe method had success: what is stored of the resource, and of what the answer names of the same origin, counts no
    /// longer (RFC 9111, 4.4).
    pub(super) fn changed(&self, uri: &Uri, key: &Key, headers: &HeaderMap) {
        let authority = authority_of(key);
        self.invalidate(authority, path(uri));
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let Some(named) = headers.get(name).and_then(|value| value.to_str().ok()) else { continue };
            if let Some(named) = resolve(uri, named)
                && named.authority().is_none_or(|named| named.as_str().as_bytes().eq_ignore_ascii_case(authority))
            {
                self.invalidate(authority, path(&named));
            }
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.mode.get() != Mode::Disabled
    }

    pub(super) fn is_cache(&self) -> bool {
        self.cache.load(Relaxed)
    }

    pub(super) fn max_body(&self) -> usize {
        self.max_body.load(Relaxed)
    }

    fn max(&self) -> Option<Duration> {
        Some(self.max.load(Relaxed)).filter(|max| *max != NONE).map(Duration::from_nanos)
    }

    fn now(&self) -> Now {
        Now { at: TokioClock.now(), wall: (self.wall)() }
    }

    /// A request that may pay for others. `spared`: it does not go on, so nobody further in deposits for it.
    pub(super) fn deposit(&self, spared: bool) {
        if spared || self.deposits {
            self.budget.deposit(&TokioClock);
        }
    }

    /// What is stored for a request, if it may be given. `failed`: the service was asked, and failed.
    pub(super) fn find(&self, asked: &Asked, failed: bool) -> Option<Found> {
        if asked.is_for_origin() {
            return None;
        }
        let stored = self.store.get(asked)?;
        if asked.is_personal() && !stored.head.terms.public {
            return None;
        }
        let age = stored.age(TokioClock.now());
        let with = stored.head.terms.usable(age, &asked.said, failed, self.max())?;
        Some(Found { stored, with })
    }

    /// The answer that `found` is; `None`: an operator has it so that it is not given. `cause` is what it stands in place of; `None`: of
    /// nothing, the service need not be asked.
    pub(super) fn give(&self, asked: &Asked, found: &Found, cause: Option<Cause>) -> Option<Response<Bytes>> {
        if !self.mode.enforces() {
            self.counts.observed.fetch_add(1, Relaxed);
            return None;
        }
        let Found { stored, with } = found;
        let age = stored.age(TokioClock.now());
        let mut res = stored.answer(asked, age);
        let detail = match (with, cause) {
            (Use::Stale, Some(_)) => "; detail=stale-if-error",
            (Use::Stale, None) => "; detail=stale-while-revalidate",
            (Use::Fresh, Some(_)) => "; detail=fresh-on-error",
            (Use::Fresh, None) => "",
        };
        let ttl = i128::from(stored.head.terms.lifetime.as_secs()) - i128::from(age.as_secs());
        self.say(res.headers_mut(), format_args!("hit; ttl={ttl}{detail}"));
        let counts = &self.counts;
        let total = if *with == Use::Stale { &counts.served_stale } else { &counts.served_fresh };
        total.fetch_add(1, Relaxed);
        counts.spared.fetch_add(cause.is_none().into(), Relaxed);
        if let Some(cause) = cause.or((*with == Use::Stale).then_some(Cause::Spared)) {
            Degraded::new(DegradedBy::Stale, cause).mark(&mut res);
            if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
                let name = self.config().name;
                tracing::debug!(target: TARGET, stale = &*name, cause = cause.as_str(), ?age, "a stored answer was given");
            }
        }
        Some(res)
    }

    /// Writes `Cache-Status` (RFC 9211).
    pub(super) fn say(&self, headers: &mut HeaderMap, what: fmt::Arguments<'_>) {
        let mut text = String::with_capacity(64);
        let _ = write!(text, "{}; {what}", self.cache_name);
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(CACHE_STATUS, value);
        }
    }

    /// A failure for which there is nothing.
    pub(super) fn missed(&self) {
        self.counts.missed.fetch_add(1, Relaxed);
    }

    /// What the head of an answer to a GET becomes in the store, if it may be stored.
    pub(super) fn head<R>(&self, asked: &Asked, res: &Response<R>) -> Result<StoredHead, NotStored> {
        rules::storable(asked, res)?;
        StoredHead::of(asked, res.status(), res.headers(), self.now(), self.max())
    }

    pub(super) fn keep(&self, key: Key, stored: Stored) {
        if self.store.insert(key, stored) {
            self.counts.stored.fetch_add(1, Relaxed);
        } else {
            self.not_stored(NotStored::Outdated);
        }
    }

    pub(super) fn not_stored(&self, why: NotStored) {
        self.counts.not_stored[why as usize].fetch_add(1, Relaxed);
    }

    /// Takes room for a copy. What is not stored yet is bounded as what is.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let fits = |now: u64| now.checked_add(bytes as u64).filter(|sum| *sum <= self.max_bytes);
        self.recording.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    pub(super) fn release(&self, bytes: usize) {
        self.recording.fetch_sub(bytes as u64, Relaxed);
    }

    /// A 304 came for a request: the stored answer that it speaks of is as good as new (RFC 9111, 4.3.4).
    pub(super) fn freshen(&self, asked: &Asked, headers: &HeaderMap) {
        if headers.contains_key(X_DEGRADED) {
            return;
        }
        let Some(stored) = self.store.get(asked).filter(|stored| stored.is_meant_by(headers)) else { return };
        if headers.contains_key(header::SET_COOKIE) {
            // A session that is renewed by the way: this one is for its client, what is stored stays for all.
            self.not_stored(NotStored::SetCookie);
            return;
        }
        let headers = stored.refreshed(headers);
        if let Err(why) = rules::by_answer(&headers) {
            // It is for nobody else any more.
            self.not_stored(why);
            self.store.remove(&asked.key, TokioClock.now());
            return;
        }
        let fresh = rules::by_request(asked, &headers)
            .and_then(|()| StoredHead::of(asked, stored.head.status, &headers, self.now(), self.max()));
        let kept = fresh.and_then(|fresh| {
            let is_kept = self.store.insert(asked.key.clone(), fresh.with(stored.body.clone()));
            if is_kept { Ok(()) } else { Err(NotStored::Outdated) }
        });
        match kept {
            Ok(()) => _ = self.counts.freshened.fetch_add(1, Relaxed),
            Err(why) => self.not_stored(why),
        }
    }

    /// Leave to ask in the background.
    pub(super) fn pay(&self) -> Option<buttress_core::Token> {
        let token = self.budget.withdraw(&TokioClock).ok();
        let total = if token.is_some() { &self.counts.revalidations } else { &self.counts.unpaid };
        total.fetch_add(1, Relaxed);
        token
    }
}

fn nanos(max: Option<Duration>) -> u64 {
    max.map_or(NONE, |max| u64::try_from(max.as_nanos()).unwrap_or(NONE - 1))
}

/// What a reference means, seen from `base` (RFC 3986, 5.2), as far as it needs no dots resolved.
fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    if let Some(rest) = reference.strip_prefix("//") {
        return format!("http://{rest}").parse().ok();
    }
    if reference.starts_with('/') || reference.contains("://") {
        return reference.parse().ok();
    }
    let (dir, _) = base.path().rsplit_once('/')?;
    format!("{dir}/{reference}").parse().ok()
}

impl Default for Stale {
    fn default() -> Self {
        Self::with(StaleConfig::default(), None)
    }
}

/// With a store of its own, and a budget of its own.
impl Fresh for Stale {
    fn fresh(&self) -> Self {
        Self::with(self.config(), None)
    }
}

impl fmt::Debug for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stale").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
