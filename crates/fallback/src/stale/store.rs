use super::{
    entry::Stored,
    request::{Asked, Key},
};
use buttress_core::{
    Clock, Origin,
    sync::{AtomicU64, Ordering::SeqCst, fence},
};
use moka::{ops::compute::Op, policy::EvictionPolicy, sync::Cache};
use std::{collections::hash_map::RandomState, hash::BuildHasher, sync::Arc, time::Instant};

/// What is stored of one resource: an answer for each way of asking, the newest first.
type Variants = Arc<[Arc<Stored>]>;

/// So many answers are kept of one resource.
const MOST_VARIANTS: usize = 8;

/// Places for the times of changes.
const PLACES: usize = 1024;

/// Answers within a budget of bytes; the one that was not used for the longest time goes first.
pub(super) struct Store {
    cache: Cache<Key, Variants>,
    /// How many bytes one resource may hold.
    most: u64,
    origin: Origin,
    hasher: RandomState,
    /// When a resource was last changed, in nanoseconds: an answer to an earlier request may be of before. Several share a
    /// place, so one may be taken for another, and an answer not stored.
    changed: Box<[AtomicU64]>,
}

impl Store {
    pub(super) fn new(max_bytes: u64, clock: &impl Clock) -> Self {
        let cache = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &Key, variants: &Variants| u32::try_from(weight(key, variants)).unwrap_or(u32::MAX))
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self {
            cache,
            most: max_bytes / 2,
            origin: Origin::new(clock.now()),
            hasher: RandomState::new(),
            changed: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The answer to such a request.
    pub(super) fn get(&self, asked: &Asked) -> Option<Arc<Stored>> {
        self.cache.get(&asked.key)?.iter().find(|stored| stored.is_for(asked)).cloned()
    }

    /// `false`: the resource was changed since the request came, or a later answer is there.
    pub(super) fn insert(&self, key: Key, stored: Stored) -> bool {
        if self.is_changed_since(&key, stored.head.begun) {
            return false;
        }
        let stored = Arc::new(stored);
        let mut is_newest = true;
        self.cache.entry(key.clone()).and_compute_with(|entry| {
            let before = entry.map(|entry| entry.into_value());
            let before: &[Arc<Stored>] = before.as_deref().unwrap_or_default();
            is_newest = !before.iter().any(|old| old.is_same_variant(&stored) && old.head.begun > stored.head.begun);
            if !is_newest {
                return Op::Nop;
            }
            let others = before.iter().filter(|old| !old.is_same_variant(&stored));
            // Half of the budget at most, or all would be too large to be kept.
            let mut left = self.most.saturating_sub(stored.weight() as u64);
            let others = others.take(MOST_VARIANTS - 1).take_while(|old| {
                let fits = old.weight() as u64 <= left;
                left = left.saturating_sub(old.weight() as u64);
                fits
            });
            Op::Put(std::iter::once(&stored).chain(others).cloned().collect())
        });
        // Who changes the resource says so first and removes then: one of the two sees the other.
        fence(SeqCst);
        let is_kept = is_newest && !self.is_changed_since(&key, stored.head.begun);
        if is_newest && !is_kept {
            self.cache.invalidate(&key);
        }
        // So that the budget holds now, and not when somebody comes by.
        self.cache.run_pending_tasks();
        is_kept
    }

    fn is_changed_since(&self, key: &Key, begun: Instant) -> bool {
        self.place(key).load(SeqCst) > self.origin.nanos(begun)
    }

    fn change(&self, place: &AtomicU64, now: Instant) {
        // The next nanosecond: what began in this one may be of before.
        place.fetch_max(self.origin.nanos(now) + 1, SeqCst);
        fence(SeqCst);
    }

    /// Whether something was there.
    pub(super) fn remove(&self, key: &Key, now: Instant) -> bool {
        self.change(self.place(key), now);
        self.cache.remove(key).is_some()
    }

    pub(super) fn clear(&self, now: Instant) {
        self.changed.iter().for_each(|place| self.change(place, now));
        self.cache.invalidate_all();
        self.cache.run_pending_tasks();
    }

    /// Resources and bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.cache.run_pending_tasks();
        (self.cache.entry_count(), self.cache.weighted_size())
    }

    fn place(&self, key: &Key) -> &AtomicU64 {
        &self.changed[self.hasher.hash_one(key) as usize % PLACES]
    }
}

/// What an entry of the table holds beside its answers.
const ENTRY: usize = 256;

fn weight(key: &Key, variants: &Variants) -> usize {
    ENTRY + key.len() + variants.iter().map(|stored| stored.weight() + size_of::<usize>()).sum::<usize>()
}
