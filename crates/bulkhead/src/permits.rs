//! The permits themselves: words that threads change with one CAS, and a line of waiters behind a short lock.
//!
//! A stripe is one word, `[ share 31 | attention 1 | in flight 32 ]`. The shares of all stripes add up to the limit, and
//! `in flight <= share` always holds, so the limit does: whatever moves permits (a steal, a resize) moves shares.
//!
//! Attention is on, in every stripe, while somebody waits or a lower limit has not been reached yet. Nobody takes a permit
//! past it, so a newcomer overtakes no waiter, and whoever gives room back under it must [`settle`](Line::settle). It is
//! raised under the lock *before* the line looks for room; so room that came earlier is found by the line, and room that
//! comes later is brought to it. That is why no wake-up is lost.

use crate::QueueOrder;
use buttress_core::sync::{
    Arc, AtomicU32, AtomicU64, Mutex,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    lock,
};
use std::{
    collections::BTreeMap,
    task::{Context, Poll, Waker},
};

const ATTENTION: u64 = 1 << 32;
const SHARE: u32 = 33;

const fn share(n: u32) -> u64 {
    (n as u64) << SHARE
}

const fn in_flight(word: u64) -> u32 {
    word as u32
}

const fn free(word: u64) -> u32 {
    (word >> SHARE) as u32 - in_flight(word)
}

/// A fixed number of permits.
pub(crate) struct Permits {
    stripes: Box<[Stripe]>,
    line: Mutex<Line>,
}

#[repr(align(128))]
struct Stripe {
    word: AtomicU64,
    refused: AtomicU64,
}

/// Those who wait, and what a lower limit still has to collect.
struct Line {
    limit: u32,
    /// Shares to destroy as soon as they are free: the shares add up to `limit + debt`.
    debt: u32,
    /// Whether attention is on.
    raised: bool,
    order: QueueOrder,
    next: u64,
    waiting: BTreeMap<u64, Waiter>,
}

struct Waiter {
    seat: Arc<Seat>,
    waker: Option<Waker>,
}

struct Seat {
    home: usize,
    grant: AtomicU32,
}

const NOTHING: u32 = 0;
const PERMIT: u32 = 1;
const PASS: u32 = 2;

/// What a waiter was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// A permit of its home stripe.
    Permit,
    /// Leave to go on without one.
    Pass,
}

impl Seat {
    fn grant(&self) -> Option<Grant> {
        match self.grant.load(Acquire) {
            NOTHING => None,
            PERMIT => Some(Grant::Permit),
            _ => Some(Grant::Pass),
        }
    }
}

/// A place in the line; it must be [left](Permits::leave) or end with a grant.
pub(crate) struct Place {
    number: u64,
    seat: Arc<Seat>,
    /// The waker that the line has, so that a needless poll takes no lock.
    waker: Option<Waker>,
}

pub(crate) enum Joined {
    Now,
    Later(Place),
    Full,
}

enum Attempt {
    Took,
    NoRoom,
    Attention,
}

impl Permits {
    /// `limit` permits over `stripes` stripes.
    pub(crate) fn new(limit: u32, stripes: usize, order: QueueOrder) -> Self {
        let stripes = (0..stripes).map(|_| Stripe { word: AtomicU64::new(0), refused: AtomicU64::new(0) }).collect();
        let line = Line { limit: 0, debt: 0, raised: false, order, next: 0, waiting: BTreeMap::new() };
        let permits = Self { stripes, line: Mutex::new(line) };
        permits.set_limit(limit);
        permits
    }

    /// Takes a permit that belongs to the stripe `home`, unless there is none, or others wait for it.
    #[inline]
    pub(crate) fn try_acquire(&self, home: usize) -> bool {
        match self.stripes[home].take() {
            Attempt::Took => true,
            Attempt::NoRoom if self.stripes.len() == 1 => false,
            missed => self.search(home, missed),
        }
    }

    /// Gives a permit of the stripe `home` back.
    #[inline]
    pub(crate) fn release(&self, home: usize) {
        if self.stripes[home].word.fetch_sub(1, Release) & ATTENTION != 0 {
            self.settle();
        }
    }

    #[cold]
    fn search(&self, home: usize, missed: Attempt) -> bool {
        let swept = match missed {
            Attempt::NoRoom => self.steal(home),
            attention => attention,
        };
        match swept {
            Attempt::Took => true,
            Attempt::NoRoom => false,
            Attempt::Attention => self.change(|line, stripes, wakers| {
                line.settle(stripes, wakers);
                !line.raised && self.take_or_steal(home)
            }),
        }
    }

    fn take_or_steal(&self, home: usize) -> bool {
        matches!(self.stripes[home].take(), Attempt::Took) || matches!(self.steal(home), Attempt::Took)
    }

    /// Moves half of the free permits of the first other stripe that has some to `home`, and takes one.
    fn steal(&self, home: usize) -> Attempt {
        for i in 1..self.stripes.len() {
            let victim = &self.stripes[(home + i) % self.stripes.len()].word;
            let mut word = victim.load(Relaxed);
            while free(word) > 0 {
                if word & ATTENTION != 0 {
                    return Attempt::Attention;
                }
                let loot = free(word).div_ceil(2);
                match victim.compare_exchange_weak(word, word - share(loot), Acquire, Relaxed) {
                    // Waiters may have come while the permits were between the stripes. (Not so under the lock.)
                    Ok(_) if self.stripes[home].word.fetch_add(share(loot) + 1, AcqRel) & ATTENTION != 0 => {
                        self.settle();
                        return Attempt::Took;
                    }
                    Ok(_) => return Attempt::Took,
                    Err(seen) => word = seen,
                }
            }
        }
        Attempt::NoRoom
    }

    /// Takes a permit, or a place in a line that is not longer than `max_queue`.
    pub(crate) fn join(&self, home: usize, max_queue: u32) -> Joined {
        self.change(|line, stripes, wakers| {
            line.settle(stripes, wakers);
            if !line.raised && self.take_or_steal(home) {
                return Joined::Now;
            }
            if line.waiting.len() >= max_queue as usize {
                return Joined::Full;
            }
            let number = line.next;
            line.next += 1;
            let seat = Arc::new(Seat { home, grant: AtomicU32::new(NOTHING) });
            line.waiting.insert(number, Waiter { seat: seat.clone(), waker: None });
            line.raise(stripes);
            line.settle(stripes, wakers);
            match seat.grant() {
                Some(_) => Joined::Now,
                None => Joined::Later(Place { number, seat, waker: None }),
            }
        })
    }

    /// Whether it is this place's turn; otherwise the task is woken when it is.
    pub(crate) fn poll(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Grant> {
        if let Some(grant) = place.seat.grant() {
            return Poll::Ready(grant);
        }
        if place.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let mine = cx.waker().clone();
        match lock(&self.line).waiting.get_mut(&place.number) {
            Some(waiter) => waiter.waker = Some(mine.clone()),
            None => return place.seat.grant().map_or(Poll::Pending, Poll::Ready),
        }
        place.waker = Some(mine);
        Poll::Pending
    }

    /// Leaves the line, unless the turn has come: then this is what was granted.
    pub(crate) fn leave(&self, place: &Place) -> Option<Grant> {
        if let Some(grant) = place.seat.grant() {
            return Some(grant);
        }
        let left = self.change(|line, stripes, wakers| {
            let left = line.waiting.remove(&place.number);
            line.settle(stripes, wakers);
            left
        });
        if left.is_some() { None } else { place.seat.grant() }
    }

    /// Changes the limit. A lower one is reached as calls end; a higher one lets waiters in at once.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.change(|line, stripes, wakers| {
            let old = std::mem::replace(&mut line.limit, limit);
            if limit < old {
                line.debt += old - limit;
                line.raise(stripes);
            } else {
                let paid = line.debt.min(limit - old);
                line.debt -= paid;
                let (more, n) = (limit - old - paid, stripes.len() as u32);
                for (i, stripe) in (0..n).zip(stripes) {
                    stripe.word.fetch_add(share(more / n + u32::from(i < more % n)), Release);
                }
            }
            line.settle(stripes, wakers);
        });
    }

    /// Changes who comes next.
    pub(crate) fn set_order(&self, order: QueueOrder) {
        lock(&self.line).order = order;
    }

    /// Lets everyone who waits go on without a permit. `counted` is called for each before it knows.
    pub(crate) fn pass_all(&self, counted: impl Fn()) {
        self.change(|line, stripes, wakers| {
            while let Some((_, waiter)) = line.waiting.pop_first() {
                counted();
                waiter.grant(PASS, wakers);
            }
            line.settle(stripes, wakers);
        });
    }

    pub(crate) fn limit(&self) -> u32 {
        lock(&self.line).limit
    }

    pub(crate) fn queued(&self) -> u32 {
        lock(&self.line).waiting.len() as u32
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.stripes.iter().map(|stripe| in_flight(stripe.word.load(Relaxed))).sum()
    }

    /// Everything is as it was in the beginning.
    #[cfg(test)]
    pub(crate) fn assert_at_rest(&self, limit: u32) {
        let line = lock(&self.line);
        assert_eq!((line.limit, line.debt, line.raised, line.waiting.len()), (limit, 0, false, 0));
        let words = self.stripes.iter().map(|stripe| stripe.word.load(Acquire));
        assert!(words.clone().all(|word| word & ATTENTION == 0 && in_flight(word) == 0));
        assert_eq!(words.map(free).sum::<u32>(), limit);
    }

    /// Counts a refusal where it costs other threads nothing.
    pub(crate) fn count_refusal(&self, home: usize) {
        self.stripes[home].refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn refused(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.refused.load(Relaxed)).sum()
    }

    #[cold]
    fn settle(&self) {
        self.change(|line, stripes, wakers| line.settle(stripes, wakers));
    }

    /// Changes the line under its lock; wakes after it.
    fn change<T>(&self, change: impl FnOnce(&mut Line, &[Stripe], &mut Vec<Waker>) -> T) -> T {
        let mut wakers = Vec::new();
        let result = change(&mut lock(&self.line), &self.stripes, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

impl Stripe {
    #[inline]
    fn take(&self) -> Attempt {
        let mut word = self.word.load(Relaxed);
        loop {
            if word & ATTENTION != 0 {
                return Attempt::Attention;
            }
            if free(word) == 0 {
                return Attempt::NoRoom;
            }
            match self.word.compare_exchange_weak(word, word + 1, Acquire, Relaxed) {
                Ok(_) => return Attempt::Took,
                Err(seen) => word = seen,
            }
        }
    }
}

impl Line {
    /// From here on, whoever gives room back settles.
    fn raise(&mut self, stripes: &[Stripe]) {
        if !self.raised {
            self.raised = true;
            for stripe in stripes {
                stripe.word.fetch_or(ATTENTION, AcqRel);
            }
        }
    }

    /// Pays the debt with what is free, then lets waiters in, then lowers attention if nobody needs it.
    fn settle(&mut self, stripes: &[Stripe], wakers: &mut Vec<Waker>) {
        if !self.raised {
            return;
        }
        for (i, stripe) in stripes.iter().enumerate() {
            let mut word = stripe.word.load(Relaxed);
            while free(word) > 0 {
                if self.debt > 0 {
                    let paid = free(word).min(self.debt);
                    match stripe.word.compare_exchange_weak(word, word - share(paid), Acquire, Relaxed) {
                        Ok(_) => {
                            self.debt -= paid;
                            word -= share(paid);
                        }
                        Err(seen) => word = seen,
                    }
                    continue;
                }
                let Some(next) = self.first() else { break };
                // A permit of another stripe moves to the waiter's own.
                let home = next.get().seat.home;
                let taken = if home == i { word + 1 } else { word - share(1) };
                match stripe.word.compare_exchange_weak(word, taken, Acquire, Relaxed) {
                    Ok(_) => {
                        if home != i {
                            stripes[home].word.fetch_add(share(1) + 1, AcqRel);
                        }
                        next.remove().grant(PERMIT, wakers);
                        word = taken;
                    }
                    Err(seen) => word = seen,
                }
            }
        }
        if self.debt == 0 && self.waiting.is_empty() {
            self.raised = false;
            for stripe in stripes {
                stripe.word.fetch_and(!ATTENTION, AcqRel);
            }
        }
    }

    fn first(&mut self) -> Option<std::collections::btree_map::OccupiedEntry<'_, u64, Waiter>> {
        match self.order {
            QueueOrder::Fifo => self.waiting.first_entry(),
            QueueOrder::Lifo => self.waiting.last_entry(),
        }
    }
}

impl Waiter {
    fn grant(self, what: u32, wakers: &mut Vec<Waker>) {
        self.seat.grant.store(what, Release);
        wakers.extend(self.waker);
    }
}
