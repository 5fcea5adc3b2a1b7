use super::{
    entry::Stored,
    request::{Asked, Key},
};
use buttress_core::{
    Clock, Origin,
    sync::{AtomicU64, Ordering::Relaxed},
};
use moka::{ops::compute::Op, policy::EvictionPolicy, sync::Cache};
use std::{collections::hash_map::RandomState, hash::BuildHasher, sync::Arc, time::Instant};

/// What is stored of one resource: an answer for each way of asking, the newest first.
type Variants = Arc<[Arc<Stored>]>;

/// So many answers are kept of one resource.
const MOST_VARIANTS: usize = 8;

/// Answers within a budget of bytes; the one that was not used for the longest time goes first.
pub(super) struct Store {
    cache: Cache<Key, Variants>,
    origin: Origin,
    hasher: RandomState,
    /// When a resource was last changed, in nanoseconds: an answer to an earlier request may be of before. Several share a
    /// place, so one may be taken for another, and an answer not stored.
    changed: [AtomicU64; 256],
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
            origin: Origin::new(clock.now()),
            hasher: RandomState::new(),
            changed: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The answer to such a request.
    pub(super) fn get(&self, asked: &Asked) -> Option<Arc<Stored>> {
        self.cache.get(&asked.key)?.iter().find(|stored| stored.is_for(asked)).cloned()
    }

    /// `false`: the resource was changed since the request came, or a later answer is there.
    pub(super) fn insert(&self, key: Key, stored: Stored) -> bool {
        if self.place(&key).load(Relaxed) > self.origin.nanos(stored.begun) {
            return false;
        }
        let stored = Arc::new(stored);
        let mut is_newest = true;
        self.cache.entry(key).and_compute_with(|entry| {
            let before = entry.map(|entry| entry.into_value());
            let before = before.iter().flat_map(|variants| variants.iter());
            let others = before.filter(|old| {
                let is_same = old.is_same_variant(&stored);
                is_newest &= !(is_same && old.begun > stored.begun);
                !is_same
            });
            let all: Vec<_> = std::iter::once(&stored).chain(others).take(MOST_VARIANTS).cloned().collect();
            if is_newest { Op::Put(all.into()) } else { Op::Nop }
        });
        // So that the budget holds now, and not when somebody comes by.
        self.cache.run_pending_tasks();
        is_newest
    }

    /// Whether something was there.
    pub(super) fn remove(&self, key: &Key, now: Instant) -> bool {
        self.place(key).fetch_max(self.origin.nanos(now).max(1), Relaxed);
        self.cache.remove(key).is_some()
    }

    pub(super) fn clear(&self, now: Instant) {
        self.changed.iter().for_each(|place| {
            place.fetch_max(self.origin.nanos(now).max(1), Relaxed);
        });
        self.cache.invalidate_all();
        self.cache.run_pending_tasks();
    }

    /// Resources and bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.cache.run_pending_tasks();
        (self.cache.entry_count(), self.cache.weighted_size())
    }

    fn place(&self, key: &Key) -> &AtomicU64 {
        &self.changed[self.hasher.hash_one(key) as usize % self.changed.len()]
    }
}

/// What an entry of the table holds beside its answers.
const ENTRY: usize = 256;

fn weight(key: &Key, variants: &Variants) -> usize {
    ENTRY + key.len() + variants.iter().map(|stored| stored.weight() + size_of::<usize>()).sum::<usize>()
}
