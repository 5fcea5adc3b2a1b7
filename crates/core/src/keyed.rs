use crate::{
    Admission, Admit, Clock, ConfigError, Context, Enqueue, Fresh, Gatekeeper, Handle, Origin, Rejection, TokioClock,
    Value,
};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, UnitWeighter, sync::Cache};
use std::{
    fmt,
    hash::Hash,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A policy that can be forgotten without anybody noticing: nothing in flight, nothing learnt, nothing overridden.
pub trait Resting {
    /// Whether a fresh one would behave the same from here on.
    fn is_resting(&self) -> bool;
}

/// How many keys [`Keyed`] holds, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct KeyedConfig {
    /// The most keys held at once: 1 to 16 777 216. Default: 1024.
    pub capacity: u32,
    /// A resting entry that was not used for this long may leave. Default: 10 minutes.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))]
    pub idle: Duration,
}

impl Default for KeyedConfig {
    fn default() -> Self {
        Self { capacity: 1024, idle: Duration::from_secs(600) }
    }
}

impl KeyedConfig {
    /// The defaults with this capacity.
    pub fn new(capacity: u32) -> Self {
        Self { capacity, ..Self::default() }
    }

    crate::setters! {
        /// Sets [`capacity`](Self#structfield.capacity).
        capacity: u32 => capacity;
        /// Sets [`idle`](Self#structfield.idle).
        idle: Duration => idle;
    }

    /// The table, empty: `key` says which entry a request belongs to, `make` makes the policy of a key that comes up.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build<K, A, F, Req>(
        self,
        key: F,
        make: impl Fn(&K) -> A + Send + Sync + 'static,
    ) -> Result<Keyed<K, A, F>, ConfigError>
    where
        K: Clone + Eq + Hash,
        A: Resting,
        F: Fn(&Req) -> K,
    {
        if !(1..=1 << 24).contains(&self.capacity) {
            return Err(ConfigError::new("capacity", self.capacity, "1 to 16777216"));
        }
        if self.idle.is_zero() {
            return Err(ConfigError::duration("idle", self.idle, "more than 0"));
        }
        Ok(Keyed::with(self, key, Arc::new(make)))
    }
}

/// One policy per key (host, route, tenant), in a bounded table.
///
/// ```
/// # use buttress_core::{Admit, GateLayer, Gatekeeper, Keyed, KeyedConfig, Rejection, Resting};
/// # struct Limit(u32);
/// # impl Resting for Limit { fn is_resting(&self) -> bool { true } }
/// # impl Gatekeeper for Limit { type Permit = (); type Turn = (); }
/// # impl<Req> Admit<Req> for Limit { fn admit(&self, _: &mut (), _: &Req) -> Result<(), Rejection> { Ok(()) } }
/// struct Job { tenant: u64 }
/// let per_tenant = KeyedConfig::new(10_000).build(|job: &Job| job.tenant, |_tenant| Limit(8))?;
/// let layer = GateLayer::<Keyed<_, _, _>>::new(per_tenant);
/// let handle = layer.handle();
/// handle.for_each(|tenant, limit| println!("{tenant}: {}", limit.0));
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
///
/// * The table never holds more than `capacity` keys. When it is full, an entry that is [`Resting`] makes room for a new key.
/// * An entry that is not resting (calls in flight, a breaker that is open, an `update` or a mode of its own), or that somebody holds, is
///   pinned: it stays, whatever comes. So tell no table of many keys something key by key.
/// * When every entry in reach is pinned, a new key shares one *overflow* entry with all such keys, made for the first of
///   them. That is counted: a capacity that overflows is too small.
/// * An entry idle for `idle` leaves at the next new key, or at [`sweep`](Self::sweep); nothing runs in the background. A call
///   reads no clock and, for a key that is known, allocates nothing beyond what `key` does: prefer keys that are cheap to
///   clone (`u64`, `Arc<str>`, `http::HeaderValue`, `http::uri::Authority`).
/// * A layer around it decides in `call`, as only a request has a key: a policy's `poll_ready` is not asked.
///
/// The key function sees what a client sent. A client that invents keys only costs you resting entries, as long as its calls
/// end; it can still pin entries with calls that do not end, so limit those outside (a plain bulkhead, a deadline).
pub struct Keyed<K, A, F> {
    table: Table<K, A>,
    key: F,
    make: Arc<dyn Fn(&K) -> A + Send + Sync>,
    config: KeyedConfig,
    evicted: Arc<AtomicU64>,
    overflow: OnceLock<Arc<KeyedEntry<A>>>,
    overflow_total: AtomicU64,
    origin: Origin,
    /// Nanoseconds since the origin.
    swept: AtomicU64,
}

type Table<K, A> = Cache<K, Arc<KeyedEntry<A>>, UnitWeighter, DefaultHashBuilder, Pins>;

/// The policy of one key: it dereferences to it. Held, it stays in its table.
#[derive(Debug)]
pub struct KeyedEntry<A> {
    policy: A,
    /// Set by calls, taken back by sweeps: so a call reads no clock.
    used: AtomicBool,
    /// When a sweep last saw it used, in nanoseconds since the origin.
    seen: AtomicU64,
}

impl<A> std::ops::Deref for KeyedEntry<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.policy
    }
}

impl<A: Resting> KeyedEntry<A> {
    /// Somebody may be about to use it, or would miss what it knows.
    fn is_pinned(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || !self.policy.is_resting()
    }
}

#[derive(Clone, Default)]
struct Pins {
    evicted: Arc<AtomicU64>,
}

impl<K, A: Resting> Lifecycle<K, Arc<KeyedEntry<A>>> for Pins {
    /// What was evicted, so that it is dropped outside the table's lock.
    type RequestState = Option<(K, Arc<KeyedEntry<A>>)>;

    fn is_pinned(&self, _: &K, entry: &Arc<KeyedEntry<A>>) -> bool {
        entry.is_pinned()
    }

    fn begin_request(&self) -> Self::RequestState {
        None
    }

    fn on_evict(&self, state: &mut Self::RequestState, key: K, entry: Arc<KeyedEntry<A>>) {
        self.evicted.fetch_add(1, Relaxed);
        *state = Some((key, entry));
    }
}

/// What a table of policies shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeyedSnapshot {
    /// The keys held.
    pub keys: usize,
    /// The most that can be held.
    pub capacity: u32,
    /// Entries that left, idle or to make room.
    pub evicted_total: u64,
    /// Calls that went to the overflow entry.
    pub overflow_total: u64,
}

impl<K, A, F> Keyed<K, A, F>
where
    K: Clone + Eq + Hash,
    A: Resting,
{
    fn with(config: KeyedConfig, key: F, make: Arc<dyn Fn(&K) -> A + Send + Sync>) -> Self {
        let (items, weight) = (config.capacity as usize, u64::from(config.capacity));
        // Both capacities are given, which is all the builder can miss.
        let pins = Pins::default();
        let evicted = pins.evicted.clone();
        let table = match OptionsBuilder::new().estimated_items_capacity(items).weight_capacity(weight).build() {
            Ok(options) => Cache::with_options(options, UnitWeighter, DefaultHashBuilder::default(), pins),
            Err(_) => Cache::with(items, weight, UnitWeighter, DefaultHashBuilder::default(), pins),
        };
        let origin = Origin::new(TokioClock.now());
        let (overflow, overflow_total, swept) = (OnceLock::new(), AtomicU64::new(0), AtomicU64::new(0));
        Self { table, key, make, config, evicted, overflow, overflow_total, origin, swept }
    }

    /// The policy of `key`, made if it was not there. Held, it keeps its entry pinned.
    pub fn entry(&self, key: &K) -> Arc<KeyedEntry<A>> {
        if let Some(entry) = self.table.get(key) {
            if !entry.used.load(Relaxed) {
                entry.used.store(true, Relaxed);
            }
            return entry;
        }
        self.insert(key, TokioClock.now())
    }

    /// The policy that a request goes to. Held, it keeps its entry pinned.
    pub fn entry_of<Req>(&self, req: &Req) -> Arc<KeyedEntry<A>>
    where
        F: Fn(&Req) -> K,
    {
        self.entry(&(self.key)(req))
    }

    /// The policy of `key` if it is there. Does not count as use; held, it keeps its entry pinned.
    pub fn get(&self, key: &K) -> Option<Arc<KeyedEntry<A>>> {
        self.table.peek(key)
    }

    /// Shows every key with its policy, in no order, without the overflow entry ([`overflow`](Self::overflow)).
    pub fn for_each(&self, mut show: impl FnMut(&K, &A)) {
        for (key, entry) in self.table.iter() {
            show(&key, &entry.policy);
        }
    }

    /// The entry that keys share for which there was no room, if that ever happened.
    pub fn overflow(&self) -> Option<Arc<KeyedEntry<A>>> {
        self.overflow.get().cloned()
    }

    /// The present readings.
    pub fn snapshot(&self) -> KeyedSnapshot {
        KeyedSnapshot {
            keys: self.table.len(),
            capacity: self.config.capacity,
            evicted_total: self.evicted.load(Relaxed),
            overflow_total: self.overflow_total.load(Relaxed),
        }
    }

    /// Lets entries go that rest and were idle for `idle` at `now`.
    pub fn sweep(&self, now: Instant) {
        let now = self.origin.nanos(now);
        self.swept.store(now, Relaxed);
        let idle = u64::try_from(self.config.idle.as_nanos()).unwrap_or(u64::MAX);
        self.table.retain(|_, entry| {
            if entry.used.swap(false, Relaxed) || entry.is_pinned() {
                entry.seen.store(now, Relaxed);
                return true;
            }
            let stays = now.saturating_sub(entry.seen.load(Relaxed)) < idle;
            if !stays {
                self.evicted.fetch_add(1, Relaxed);
            }
            stays
        });
    }

    #[cold]
    fn insert(&self, key: &K, now: Instant) -> Arc<KeyedEntry<A>> {
        let nanos = self.origin.nanos(now);
        let idle = u64::try_from(self.config.idle.as_nanos()).unwrap_or(u64::MAX);
        if nanos.saturating_sub(self.swept.load(Relaxed)) >= idle / 2 {
            self.sweep(now);
        }
        let made = self.table.get_or_insert_with(key, || {
            let (used, seen) = (AtomicBool::new(false), AtomicU64::new(nanos));
            Ok::<_, std::convert::Infallible>(Arc::new(KeyedEntry { policy: (self.make)(key), used, seen }))
        });
        let entry = match made {
            Ok(entry) => entry,
            Err(never) => match never {},
        };
        // A table whose entries are pinned grows: what came too much goes again.
        if self.table.len() > self.config.capacity as usize {
            self.table.remove_if(key, |present| Arc::ptr_eq(present, &entry));
            self.overflow_total.fetch_add(1, Relaxed);
            return self.overflow.get_or_init(|| entry).clone();
        }
        entry
    }
}

impl<K, A, F> Gatekeeper for Keyed<K, A, F>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    A: Gatekeeper + Resting,
    F: Send + Sync + 'static,
{
    type Permit = A::Permit;
    type Turn = ();

    const HEEDS_CONTEXT: bool = A::HEEDS_CONTEXT;
}

impl<K, A, F, Req> Admit<Req> for Keyed<K, A, F>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    A: Admit<Req> + Resting,
    F: Fn(&Req) -> K + Send + Sync + 'static,
{
    fn admit(&self, _: &mut (), req: &Req) -> Result<A::Permit, Rejection> {
        self.entry(&(self.key)(req)).admit(&mut A::Turn::default(), req)
    }

    fn admit_in(&self, _: &mut (), req: &Req, context: Option<&Context>) -> Result<A::Permit, Rejection> {
        self.entry(&(self.key)(req)).admit_in(&mut A::Turn::default(), req, context)
    }
}

impl<K, A, F, Req> Enqueue<Req> for Keyed<K, A, F>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    A: Enqueue<Req> + Resting,
    F: Fn(&Req) -> K + Send + Sync + 'static,
{
    type Queued = A::Queued;

    fn enqueue(&self, _: &mut (), req: &Req) -> Result<Admission<A::Permit, A::Queued>, Rejection> {
        self.entry(&(self.key)(req)).enqueue(&mut A::Turn::default(), req)
    }

    fn enqueue_in(
        &self,
        _: &mut (),
        req: &Req,
        context: Option<&Context>,
    ) -> Result<Admission<A::Permit, A::Queued>, Rejection> {
        self.entry(&(self.key)(req)).enqueue_in(&mut A::Turn::default(), req, context)
    }
}

impl<K, A, F> Fresh for Keyed<K, A, F>
where
    K: Clone + Eq + Hash,
    A: Resting,
    F: Clone,
{
    fn fresh(&self) -> Self {
        Self::with(self.config.clone(), self.key.clone(), self.make.clone())
    }
}

impl<K, A, F> Keyed<K, A, F>
where
    K: Clone + Eq + Hash,
    A: Resting,
    F: Clone,
{
    /// An empty table like this one, in which `make` makes the policies.
    pub fn fresh_with(&self, make: impl Fn(&K) -> A + Send + Sync + 'static) -> Self {
        Self::with(self.config.clone(), self.key.clone(), Arc::new(make))
    }
}

/// The readings of the table; those of an entry are read by [`Keyed::for_each`].
impl<K, A, F> Handle for Keyed<K, A, F>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    A: Resting + Send + Sync + 'static,
    F: Send + Sync + 'static,
{
    fn kind(&self) -> &'static str {
        "keyed"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let snapshot = self.snapshot();
        show("keys", Value::Gauge(snapshot.keys as u64));
        show("capacity", Value::Gauge(snapshot.capacity.into()));
        show("evicted_total", Value::Count(snapshot.evicted_total));
        show("overflow_total", Value::Count(snapshot.overflow_total));
    }
}

impl<K, A, F> fmt::Debug for Keyed<K, A, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;
    use crate::{GateLayer, Outcome, Pushback, Reason, Settle};
    use std::sync::atomic::AtomicU32;

    /// Admits `limit` calls at once.
    struct Limit {
        limit: u32,
        in_flight: Arc<AtomicU32>,
    }

    struct Taken(Arc<AtomicU32>);

    impl Settle for Taken {
        fn conclude(&mut self, _: Outcome, _: Option<Pushback>) {}
    }

    impl Drop for Taken {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }

    impl Resting for Limit {
        fn is_resting(&self) -> bool {
            self.in_flight.load(Relaxed) == 0
        }
    }

    impl Gatekeeper for Limit {
        type Permit = Taken;
        type Turn = ();
    }

    impl<Req> Admit<Req> for Limit {
        fn admit(&self, _: &mut (), _: &Req) -> Result<Taken, Rejection> {
            let permit = Taken(self.in_flight.clone());
            if self.in_flight.fetch_add(1, Relaxed) < self.limit {
                return Ok(permit);
            }
            Err(Rejection::new(Reason::AtCapacity, "limit"))
        }
    }

    fn limit(limit: u32) -> Limit {
        Limit { limit, in_flight: Arc::default() }
    }

    fn table(config: KeyedConfig) -> Keyed<u32, Limit, fn(&u32) -> u32> {
        config.build(copy as fn(&u32) -> u32, |_: &u32| limit(2)).unwrap()
    }

    fn copy(req: &u32) -> u32 {
        *req
    }

    #[test]
    fn each_key_has_a_policy_of_its_own_and_every_clone_shares_them() {
        let layer = GateLayer::<Keyed<_, _, _>>::new(table(KeyedConfig::new(100)));
        let (a, b) = (layer.handle(), layer.clone().handle());
        let _one = a.admit(&mut (), &1).unwrap();
        let _two = b.admit(&mut (), &1).unwrap();
        assert!(a.admit(&mut (), &1).is_err());
        assert!(a.admit(&mut (), &2).is_ok());
        let mut seen = Vec::new();
        a.for_each(|key, policy| seen.push((*key, policy.in_flight.load(Relaxed))));
        seen.sort();
        assert_eq!(seen, [(1, 2), (2, 0)]);
    }

    #[test]
    fn ten_thousand_keys_stay_bounded() {
        let keyed = table(KeyedConfig::new(100));
        for key in 0..10_000 {
            drop(keyed.admit(&mut (), &key).unwrap());
            assert!(keyed.snapshot().keys <= 100);
        }
        let snapshot = keyed.snapshot();
        assert!(snapshot.keys >= 50, "{snapshot:?}");
        assert_eq!((snapshot.evicted_total, snapshot.overflow_total), (10_000 - snapshot.keys as u64, 0));
    }

    #[test]
    fn an_entry_with_a_call_in_flight_survives_any_number_of_new_keys() {
        let keyed = table(KeyedConfig::new(10));
        let permit = keyed.admit(&mut (), &7).unwrap();
        let held = keyed.entry(&8);
        for key in 100..1_000 {
            drop(keyed.admit(&mut (), &key).unwrap());
        }
        assert_eq!(keyed.get(&7).unwrap().in_flight.load(Relaxed), 1);
        assert!(Arc::ptr_eq(&held, &keyed.get(&8).unwrap()));
        drop((permit, held));
        let later = |hours: u64| TokioClock.now() + Duration::from_secs(3_600 * hours);
        keyed.sweep(later(1));
        keyed.sweep(later(2));
        assert!(keyed.get(&7).is_none() && keyed.get(&8).is_none(), "nothing holds them any more");
    }

    #[test]
    fn a_table_full_of_pinned_entries_shares_one_overflow_entry_and_counts_it() {
        let keyed = table(KeyedConfig::new(10));
        let mut pinned: Vec<_> = (0..10).map(|key| keyed.admit(&mut (), &key).unwrap()).collect();
        assert!(keyed.overflow().is_none());
        let _one = keyed.admit(&mut (), &100).unwrap();
        let _two = keyed.admit(&mut (), &101).unwrap();
        assert!(keyed.admit(&mut (), &102).is_err(), "100 and 101 took what the overflow entry has");
        assert_eq!(keyed.overflow().unwrap().in_flight.load(Relaxed), 2);
        assert_eq!((keyed.snapshot().keys, keyed.snapshot().overflow_total), (10, 3));
        assert!((0..10).all(|key| keyed.get(&key).is_some()));
        pinned.pop();
        assert!(keyed.admit(&mut (), &102).is_ok(), "there is room again");
        assert_eq!(keyed.snapshot().overflow_total, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_entry_leaves_and_a_used_or_pinned_one_stays() {
        let keyed = table(KeyedConfig::new(100).idle(Duration::from_secs(60)));
        let pinned = keyed.admit(&mut (), &1).unwrap();
        drop(keyed.admit(&mut (), &2).unwrap());
        drop(keyed.admit(&mut (), &3).unwrap());
        for second in 0..4 {
            tokio::time::advance(Duration::from_secs(31)).await;
            drop(keyed.admit(&mut (), &2).unwrap());
            drop(keyed.admit(&mut (), &(100 + second)).unwrap());
        }
        assert!(keyed.get(&1).is_some() && keyed.get(&2).is_some());
        assert!(keyed.get(&3).is_none());
        drop(pinned);
        keyed.sweep(TokioClock.now() + Duration::from_secs(30));
        assert!(keyed.get(&2).is_some());
        keyed.sweep(TokioClock.now() + Duration::from_secs(1_000));
        assert_eq!((keyed.snapshot().keys, keyed.get(&1).is_none()), (0, true));
    }

    #[test]
    fn a_config_out_of_range_says_what_is_allowed() {
        let build = |config: KeyedConfig| config.build(copy, |_: &u32| limit(1)).map(drop).unwrap_err().to_string();
        assert_eq!(build(KeyedConfig::new(0)), "`capacity` is 0, allowed: 1 to 16777216");
        assert_eq!(build(KeyedConfig::new(1).idle(Duration::ZERO)), "`idle` is 0s, allowed: more than 0");
    }
}
