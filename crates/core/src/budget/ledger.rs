//! The tokens of a budget: integers in atomics, time as a number. Nothing is checked in one step and taken in another.
//!
//! # When a deposit was made
//!
//! Deposits fade, so their time matters, and most are made without a look at the clock. They are only counted, a word per stripe, and
//! booked with the time by every 32nd of a stripe, or by a withdrawal. What is booked is booked at its full worth, as if made at that
//! moment. The alternative, to spread it over the time since the last booking, pays nothing after a quiet night: the calls of
//! the last seconds would be spread over all of it. The error is on one side, and small:
//!
//! * Each deposit is booked once and for no more than it is worth, so retries never exceed the ratio of the first attempts.
//! * What is booked late is at most 32 deposits of a stripe. With F their worth, no balance is more than F per stripe above
//!   the one of a clock that is read every time: by induction, when x windows pass between two bookings, what was too much fades
//!   to at most F e^-x, and the new ones, of that time, add at most F (1 - e^-x).

use crate::sync::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// One token, in the unit that everything is counted in: every ratio of six digits is exact.
pub(super) const TOKEN: u64 = 1_000_000;
/// No cap on concurrent ones.
pub(super) const UNCAPPED: u32 = u32::MAX;
/// So many deposits of one stripe are booked at once.
pub(super) const BOOK_AT: u64 = if cfg!(buttress_loom) { 2 } else { 32 };
/// The balance is kept as of a tick of 2^24 ns (17 ms), so that both fit into one word.
const TICK_BITS: u32 = 24;

/// What calls read and an update writes.
pub(super) struct Terms {
    /// What one deposit brings.
    pub(super) deposit: AtomicU64,
    pub(super) capacity: AtomicU64,
    /// Over how many nanoseconds deposits fade.
    pub(super) window: AtomicU64,
    /// Nanoseconds between two tokens of the floor; 0: there is no floor.
    pub(super) floor_interval: AtomicU64,
    pub(super) max_concurrent: AtomicU32,
}

pub(super) struct Ledger {
    pub(super) terms: Terms,
    /// How many deposits were not booked yet, a word per stripe.
    fresh: Box<[Fresh]>,
    books: Books,
}

#[repr(align(128))]
struct Fresh(AtomicU64);

/// The words of the cold path.
#[repr(align(128))]
struct Books {
    /// `[ tick 32 | balance 32 ]`: the balance as of a tick. Ticks wrap after 2 years.
    account: AtomicU64,
    /// When the floor's tokens so far are paid for (the theoretical arrival time of a GCRA, ITU-T I.371).
    floor: AtomicU64,
    in_flight: AtomicU32,
    /// How many deposits were booked.
    booked: AtomicU64,
}

impl Ledger {
    pub(super) fn new(terms: Terms, stripes: usize) -> Self {
        let fresh = (0..stripes.max(1).next_power_of_two()).map(|_| Fresh(AtomicU64::new(0))).collect();
        let books = Books {
            account: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            booked: AtomicU64::new(0),
        };
        Self { terms, fresh, books }
    }

    /// The hot path: one addition to a word of this stripe. `nanos` is asked for by few.
    #[inline]
    pub(super) fn deposit(&self, stripe: usize, nanos: impl FnOnce() -> u64) {
        let stripe = &self.fresh[stripe & (self.fresh.len() - 1)];
        let before = stripe.0.fetch_add(1, Relaxed);
        if before % BOOK_AT == BOOK_AT - 1 {
            self.book(stripe, nanos());
        }
    }

    #[cold]
    fn book(&self, stripe: &Fresh, nanos: u64) {
        let fresh = self.collect(std::slice::from_ref(stripe));
        self.settle(nanos, fresh, |balance| balance);
    }

    /// How many deposits there were.
    pub(super) fn deposits(&self) -> u64 {
        self.books.booked.load(Relaxed) + self.waiting()
    }

    /// How many deposits were not booked yet.
    fn waiting(&self) -> u64 {
        self.fresh.iter().map(|stripe| stripe.0.load(Relaxed)).sum()
    }

    /// Changes what a deposit brings. Those that were made bring what they were made for.
    pub(super) fn set_deposit(&self, amount: u64, nanos: u64) {
        let fresh = self.collect(&self.fresh);
        self.settle(nanos, fresh, |balance| balance);
        self.terms.deposit.store(amount, Relaxed);
    }

    /// Takes a token as of `nanos`, from the deposits or else from the floor.
    pub(super) fn take(&self, nanos: u64) -> bool {
        self.take_deposited(nanos) || self.take_floor(nanos)
    }

    /// What could be withdrawn at `nanos`, the floor apart. Changes nothing.
    pub(super) fn balance(&self, nanos: u64) -> u64 {
        let fresh = self.waiting().saturating_mul(self.terms.deposit.load(Relaxed));
        self.settled(self.books.account.load(Relaxed), fresh, tick(nanos)).1
    }

    /// Tokens of all deposits of `stripes` that were not booked yet, moved into this caller's hand.
    fn collect(&self, stripes: &[Fresh]) -> u64 {
        let mut count = 0;
        for stripe in stripes {
            // A stripe without deposits is only read: other threads may be writing beside it.
            if stripe.0.load(Relaxed) != 0 {
                count += stripe.0.swap(0, Relaxed);
            }
        }
        if count > 0 {
            self.books.booked.fetch_add(count, Relaxed);
        }
        count.saturating_mul(self.terms.deposit.load(Relaxed))
    }

    /// What it does not take stays in the account.
    fn take_deposited(&self, nanos: u64) -> bool {
        let fresh = self.collect(&self.fresh);
        let mut taken = false;
        self.settle(nanos, fresh, |balance| {
            taken = balance >= TOKEN;
            if taken { balance - TOKEN } else { balance }
        });
        taken
    }

    /// The one step in which deposits are booked, faded and taken from: `take` says what is left of a balance.
    fn settle(&self, nanos: u64, fresh: u64, mut take: impl FnMut(u64) -> u64) {
        let mut account = self.books.account.load(Relaxed);
        loop {
            let (tick, balance) = self.settled(account, fresh, tick(nanos));
            let next = u64::from(tick) << 32 | take(balance);
            if next == account {
                return;
            }
            match self.books.account.compare_exchange_weak(account, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => account = seen,
            }
        }
    }

    /// The account at `now`: what was there fades as e^-x does, what comes now is whole.
    fn settled(&self, account: u64, fresh: u64, now: u32) -> (u32, u64) {
        let (then, balance) = ((account >> 32) as u32, account & u64::from(u32::MAX));
        let elapsed = now.wrapping_sub(then);
        // Somebody with a later clock was here first: no time has passed.
        let (now, elapsed) = if elapsed > u32::MAX / 2 { (then, 0) } else { (now, elapsed) };
        let left = if elapsed == 0 || balance == 0 {
            balance
        } else {
            let x = (u64::from(elapsed) << TICK_BITS) as f64 / self.terms.window.load(Relaxed).max(1) as f64;
            (balance as f64 * (-x).exp()) as u64
        };
        (now, left.saturating_add(fresh).min(self.terms.capacity.load(Relaxed)))
    }

    fn take_floor(&self, nanos: u64) -> bool {
        let interval = self.terms.floor_interval.load(Relaxed);
        if interval == 0 {
            return false;
        }
        // A second's worth may be taken at once, and at least one.
        let tolerance = 1_000_000_000_u64.saturating_sub(interval);
        let grant = |paid: u64| {
            let due = paid.max(nanos);
            (due - nanos <= tolerance).then(|| due.saturating_add(interval))
        };
        self.books.floor.fetch_update(Relaxed, Relaxed, grant).is_ok()
    }

    /// A place among the concurrent ones.
    pub(super) fn enter(&self) -> bool {
        let max = self.terms.max_concurrent.load(Relaxed);
        let one_more = |now: u32| (now < max).then(|| now + 1);
        self.books.in_flight.fetch_update(AcqRel, Acquire, one_more).is_ok()
    }

    /// A place, cap or no cap.
    pub(super) fn enter_anyway(&self) {
        self.books.in_flight.fetch_add(1, AcqRel);
    }

    /// Gives it back.
    pub(super) fn leave(&self) {
        self.books.in_flight.fetch_sub(1, Release);
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.books.in_flight.load(Acquire)
    }
}

/// The lower 32 bits: ticks wrap, and are compared so.
fn tick(nanos: u64) -> u32 {
    (nanos >> TICK_BITS) as u32
}
