use buttress_core::sync::{AtomicU64, Ordering::Relaxed};
use std::{array, time::Duration};

/// Slots per ring: a power of two above [`AGE`].
const SLOTS: u64 = 16;
/// How many epochs make the threshold.
const AGE: u64 = 8;
// A slot: [ epoch 40 | calls in flight 24 ].
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
// The floor: [ era 24 | epoch 40 ]; older calls: [ era 24 | count 40, two's complement ].
const BODY_BITS: u32 = 40;
const BODY_MASK: u64 = (1 << BODY_BITS) - 1;
const ERA_MASK: u64 = (1 << 24) - 1;
// Geometry: [ offset 38 | epoch length in 100 us 26 ].
const UNIT_BITS: u32 = 26;
const UNIT_MASK: u64 = (1 << UNIT_BITS) - 1;
const UNIT_NANOS: u64 = 100_000;

/// How many calls have been in flight for longer than a threshold, in constant memory: calls are counted by the epoch (an
/// eighth of the threshold) in which they began; those too old for the ring are counted together.
///
/// Calls that began at or before the *floor* do not count: they belong to an earlier generation. A new floor begins an
/// era, and the count of older calls carries its era, so nothing is swept.
pub(crate) struct InFlight {
    geometry: AtomicU64,
    floor: AtomicU64,
    /// Calls that began up to this epoch have been reported as old by [`newly_old`](Self::newly_old).
    reported: AtomicU64,
    stripes: Box<[Stripe]>,
}

#[repr(align(128))]
struct Stripe {
    slots: [AtomicU64; SLOTS as usize],
    older: AtomicU64,
}

impl InFlight {
    pub(crate) fn new(threshold: Duration, stripes: usize) -> Self {
        Self {
            // Epochs begin at 1, above the first floor.
            geometry: AtomicU64::new(1 << UNIT_BITS | unit(threshold)),
            floor: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            stripes: (0..stripes)
                .map(|_| Stripe { slots: array::from_fn(|_| AtomicU64::new(0)), older: AtomicU64::new(0) })
                .collect(),
        }
    }

    /// The epoch of a moment, in nanoseconds since the origin.
    #[inline]
    pub(crate) fn epoch(&self, now: u64) -> u64 {
        let geometry = self.geometry.load(Relaxed);
        now / ((geometry & UNIT_MASK) * UNIT_NANOS) + (geometry >> UNIT_BITS)
    }

    /// A call begins. Returns its epoch, which is what it [leaves](Self::leave) with.
    #[inline]
    pub(crate) fn enter(&self, stripe: usize, now: u64) -> u64 {
        let floor = self.floor.load(Relaxed);
        let epoch = self.epoch(now).max((floor & BODY_MASK) + 1);
        let stripe = &self.stripes[stripe];
        let slot = &stripe.slots[(epoch % SLOTS) as usize];
        let mut seen = slot.load(Relaxed);
        loop {
            let theirs = seen >> COUNT_BITS;
            if theirs > epoch {
                stripe.add_older(floor, 1);
                return epoch;
            }
            let next = if theirs == epoch { seen + 1 } else { epoch << COUNT_BITS | 1 };
            match slot.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => {
                    if theirs != epoch && theirs > floor & BODY_MASK {
                        stripe.add_older(floor, (seen & COUNT_MASK) as i64);
                    }
                    return epoch;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// The call that began in `epoch` is over.
    #[inline]
    pub(crate) fn leave(&self, stripe: usize, epoch: u64) {
        let stripe = &self.stripes[stripe];
        let slot = &stripe.slots[(epoch % SLOTS) as usize];
        let mut seen = slot.load(Relaxed);
        while seen >> COUNT_BITS == epoch && seen & COUNT_MASK > 0 {
            match slot.compare_exchange_weak(seen, seen - 1, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
        let floor = self.floor.load(Relaxed);
        if epoch > floor & BODY_MASK {
            stripe.add_older(floor, -1);
        }
    }

    /// How many calls have been in flight for the threshold or longer (seen late by an eighth
    /// at most; by a quarter if they began just after the circuit closed).
    pub(crate) fn old(&self, now: u64) -> u64 {
        let (floor, present) = (self.floor.load(Relaxed), self.epoch(now));
        self.sum(floor, |began| began + AGE < present)
    }

    /// How many are in flight.
    pub(crate) fn all(&self) -> u64 {
        self.sum(self.floor.load(Relaxed), |_| true)
    }

    /// How many have become old since the last time anybody asked. Each call is reported once at most; whoever enters asks
    /// first, so none leaves the ring unreported.
    pub(crate) fn newly_old(&self, now: u64) -> u64 {
        let horizon = self.epoch(now).saturating_sub(AGE + 1);
        let reported = self.reported.fetch_max(horizon, Relaxed);
        if reported >= horizon {
            return 0;
        }
        let floor = self.floor.load(Relaxed) & BODY_MASK;
        self.stripes.iter().map(|s| s.in_slots(|e| e > floor && e > reported && e <= horizon)).sum()
    }

    /// Whether the call that began in `epoch` has been reported as old.
    pub(crate) fn is_reported(&self, epoch: u64) -> bool {
        epoch <= self.reported.load(Relaxed)
    }

    /// Calls that have begun so far do not count any more.
    pub(crate) fn forget(&self, now: u64) {
        self.raise_floor(self.epoch(now));
    }

    /// The same soon after it: those of the epoch that was begun ahead of time then do not count either.
    pub(crate) fn forget_again(&self, now: u64) {
        let ahead = (self.floor.load(Relaxed) & BODY_MASK) + 1;
        self.raise_floor(self.epoch(now).max(ahead));
    }

    /// Changes the threshold. Calls in flight are not watched any more; their ends count as ever.
    pub(crate) fn set_threshold(&self, threshold: Duration, now: u64) {
        let (old, unit) = (self.geometry.load(Relaxed), unit(threshold));
        if old & UNIT_MASK == unit {
            return;
        }
        let last = self.epoch(now) + SLOTS;
        self.raise_floor(last);
        self.geometry.store(last.saturating_sub(now / (unit * UNIT_NANOS)) << UNIT_BITS | unit, Relaxed);
    }

    fn raise_floor(&self, epoch: u64) {
        let mut seen = self.floor.load(Relaxed);
        loop {
            let era = ((seen >> BODY_BITS) + 1) & ERA_MASK;
            let next = era << BODY_BITS | epoch.max(seen & BODY_MASK);
            match self.floor.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn sum(&self, floor: u64, counts: impl Fn(u64) -> bool) -> u64 {
        let slots = self.stripes.iter().map(|s| s.in_slots(|e| e > floor & BODY_MASK && counts(e))).sum::<u64>() as i64;
        let older = self.stripes.iter().map(|s| s.older(floor)).sum::<i64>();
        (slots + older).max(0) as u64
    }
}

impl Stripe {
    fn in_slots(&self, counts: impl Fn(u64) -> bool) -> u64 {
        let slots = self.slots.iter().map(|slot| slot.load(Relaxed));
        slots.filter(|slot| counts(slot >> COUNT_BITS)).map(|slot| slot & COUNT_MASK).sum()
    }

    fn older(&self, floor: u64) -> i64 {
        let word = self.older.load(Relaxed);
        if word >> BODY_BITS == floor >> BODY_BITS { (word << 24) as i64 >> 24 } else { 0 }
    }

    #[cold]
    fn add_older(&self, floor: u64, calls: i64) {
        let era = floor >> BODY_BITS;
        let mut seen = self.older.load(Relaxed);
        loop {
            let theirs = seen >> BODY_BITS;
            if theirs != era && era.wrapping_sub(theirs) & ERA_MASK > ERA_MASK / 2 {
                return;
            }
            let count = if theirs == era { seen & BODY_MASK } else { 0 };
            let next = era << BODY_BITS | (count.wrapping_add(calls as u64) & BODY_MASK);
            match self.older.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

fn unit(threshold: Duration) -> u64 {
    let units = threshold.as_nanos().div_ceil(u128::from(AGE * UNIT_NANOS)).max(1);
    u64::try_from(units).unwrap_or(UNIT_MASK).min(UNIT_MASK)
}
