//! Permits under a limit that may change while calls run, and a line of those who wait for one: the mechanism of every
//! concurrency limit. Words that threads change with one CAS, and a line of waiters behind a short lock.
//!
//! A stripe is one word, `[ share 31 | attention 1 | in flight 32 ]`. The shares of all stripes add up to the limit, and
//! `in flight <= share` always holds, so the limit does: whatever moves permits (a steal, a resize) moves shares.
//!
//! Attention is on, in every stripe, while somebody waits or a lower limit has not been reached yet. Nobody takes a permit
//! past it, so a newcomer overtakes no waiter, and whoever gives room back under it must settle. It is
//! raised under the lock *before* the line looks for room; so room that came earlier is found by the line, and room that
//! comes later is brought to it. That is why no wake-up is lost.
//!
//! Who waits in which order is the policy's own: its [`Line`]. Nothing here reads a clock; a line that needs the time is given
//! it, by whoever settles.

#[cfg(all(test, buttress_loom))]
mod loom_tests;
#[cfg(all(test, not(buttress_loom)))]
mod tests;
#[cfg(test)]
mod waiting;

use crate::sync::{
    Arc, AtomicU64, Mutex,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    lock,
};
use std::{
    fmt, mem,
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

/// The greatest limit: 2 147 483 647.
pub const MAX_LIMIT: u32 = u32::MAX >> 1;

/// Those who wait, and who of them comes next. Its methods are called under a lock: they wake nobody ([`Told`] does).
pub trait Line: Send {
    /// How one that waits is found again.
    type Id: Copy + Send;
    /// Why one that waits is turned away.
    type Refusal: Copy + Send;
    /// What it needs to know of the time: an `Instant`, or nothing.
    type Now: Copy;

    /// The seat of the next to be let in. Those who cannot be let in any more are turned away on the way to it: `None` only if
    /// nobody waits then.
    fn peek(&mut self, now: Self::Now, told: &mut Told) -> Option<&Seat<Self::Refusal>>;

    /// Takes the one out that [`peek`](Self::peek) has just shown.
    fn pop(&mut self) -> Option<Arc<Seat<Self::Refusal>>>;

    /// Takes one out that does not want to wait any more; false if it is not there.
    fn remove(&mut self, id: Self::Id, now: Self::Now) -> bool;

    /// How many wait.
    fn len(&self) -> usize;

    /// Whether nobody waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A number of permits, striped over cache lines. `S` is what a policy counts by stripe, on the same line.
pub struct Permits<L: Line, S = ()> {
    stripes: Box<[Stripe<S>]>,
    gate: Mutex<Gate<L>>,
}

#[repr(align(128))]
struct Stripe<S> {
    word: AtomicU64,
    own: S,
}

/// The line, and what a lower limit still has to collect.
struct Gate<L> {
    limit: u32,
    /// Shares to destroy as soon as they are free: the shares add up to `limit + debt`.
    debt: u32,
    /// Whether attention is on.
    raised: bool,
    line: L,
}

/// What was said to one that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<R> {
    /// It has a permit, of its home stripe.
    Permit,
    /// Leave to go on without one.
    Pass,
    /// It was turned away.
    Refused(R),
}

/// What [one that waits](Place) and the line have in common: where it is told, and woken.
pub struct Seat<R> {
    home: usize,
    state: Mutex<State<R>>,
}

enum State<R> {
    Waiting(Option<Waker>),
    Told(Verdict<R>),
}

/// Those to wake when the lock is free again.
#[derive(Default)]
pub struct Told(Vec<Waker>);

/// A place in the line. It must be [left](Permits::leave), or end with a verdict.
pub struct Place<L: Line> {
    id: L::Id,
    seat: Arc<Seat<L::Refusal>>,
}

/// What became of one that was ready to wait.
pub enum Joined<L: Line> {
    /// There was room.
    Now,
    /// It waits.
    Later(Place<L>),
}

enum Attempt {
    Took,
    NoRoom,
    Attention,
}

impl<L: Line, S: Default> Permits<L, S> {
    /// `limit` permits (at most [`MAX_LIMIT`]) over `stripes` stripes.
    pub fn new(limit: u32, stripes: usize, line: L) -> Self {
        let stripes = stripes.max(1);
        let made: Box<[_]> = (0..stripes).map(|_| Stripe { word: AtomicU64::new(0), own: S::default() }).collect();
        add_shares(&made, limit.min(MAX_LIMIT));
        Self { stripes: made, gate: Mutex::new(Gate { limit: limit.min(MAX_LIMIT), debt: 0, raised: false, line }) }
    }
}

/// Spreads `more` shares over the stripes.
fn add_shares<S>(stripes: &[Stripe<S>], more: u32) {
    let n = stripes.len() as u32;
    for (i, stripe) in (0..n).zip(stripes) {
        stripe.word.fetch_add(share(more / n + u32::from(i < more % n)), Release);
    }
}

impl<L: Line, S> Permits<L, S> {
    /// Takes a permit that belongs to the stripe `home`, unless there is none, or others wait for it. `now` is asked for only
    /// where somebody waits.
    #[inline]
    pub fn try_acquire(&self, home: usize, now: impl FnOnce() -> L::Now) -> bool {
        match self.stripes[home].take() {
            Attempt::Took => true,
            Attempt::NoRoom if self.stripes.len() == 1 => false,
            missed => self.search(home, missed, now),
        }
    }

    /// Takes a permit of the stripe `home` where that needs no lock: for those who [`join`](Self::join) otherwise. While somebody waits
    /// it takes none, and there may be room all the same.
    #[inline]
    pub fn try_now(&self, home: usize, now: impl FnOnce() -> L::Now) -> bool {
        match self.stripes[home].take() {
            Attempt::Took => true,
            Attempt::NoRoom if self.stripes.len() > 1 => self.sweep(home, now),
            _ => false,
        }
    }

    /// Gives a permit of the stripe `home` back.
    #[inline]
    pub fn release(&self, home: usize, now: impl FnOnce() -> L::Now) {
        if self.stripes[home].word.fetch_sub(1, Release) & ATTENTION != 0 {
            self.settle(now());
        }
    }

    /// What the policy counts in the stripe `home`.
    #[inline]
    pub fn stripe(&self, home: usize) -> &S {
        &self.stripes[home].own
    }

    /// What the policy counts, stripe by stripe.
    pub fn stripes(&self) -> impl Iterator<Item = &S> {
        self.stripes.iter().map(|stripe| &stripe.own)
    }

    /// Calls in flight whose home is the stripe `home`.
    #[inline]
    pub fn in_flight_of(&self, home: usize) -> u32 {
        in_flight(self.stripes[home].word.load(Relaxed))
    }

    #[cold]
    fn search(&self, home: usize, missed: Attempt, now: impl FnOnce() -> L::Now) -> bool {
        let swept = match missed {
            Attempt::NoRoom => self.steal(home),
            attention => Ok(attention),
        };
        match swept {
            Ok(Attempt::Took) => true,
            Ok(Attempt::NoRoom) => false,
            Ok(Attempt::Attention) => {
                let now = now();
                self.change(|gate, told| {
                    gate.settle(&self.stripes, now, told);
                    !gate.raised && self.take_or_steal(home)
                })
            }
            Err(Unsettled) => {
                self.settle(now());
                true
            }
        }
    }

    #[cold]
    fn sweep(&self, home: usize, now: impl FnOnce() -> L::Now) -> bool {
        match self.steal(home) {
            Ok(swept) => matches!(swept, Attempt::Took),
            Err(Unsettled) => {
                self.settle(now());
                true
            }
        }
    }

    /// Under the lock, with attention off: nobody can come to wait.
    fn take_or_steal(&self, home: usize) -> bool {
        matches!(self.stripes[home].take(), Attempt::Took) || matches!(self.steal(home), Ok(Attempt::Took))
    }

    /// Moves half of the free permits of the first other stripe that has some to `home`, and takes one.
    fn steal(&self, home: usize) -> Result<Attempt, Unsettled> {
        for i in 1..self.stripes.len() {
            let victim = &self.stripes[(home + i) % self.stripes.len()].word;
            let mut word = victim.load(Relaxed);
            while free(word) > 0 {
                if word & ATTENTION != 0 {
                    return Ok(Attempt::Attention);
                }
                let loot = free(word).div_ceil(2);
                match victim.compare_exchange_weak(word, word - share(loot), Acquire, Relaxed) {
                    // Waiters may have come while the permits were between the stripes. (Not so under the lock.)
                    Ok(_) if self.stripes[home].word.fetch_add(share(loot) + 1, AcqRel) & ATTENTION != 0 => {
                        return Err(Unsettled);
                    }
                    Ok(_) => return Ok(Attempt::Took),
                    Err(seen) => word = seen,
                }
            }
        }
        Ok(Attempt::NoRoom)
    }

    /// Takes a permit, or a place in the line if `push` finds one. What `push` says is said to who asked. It is given what makes
    /// the seat, so that none is made for one that is refused.
    ///
    /// # Errors
    ///
    /// Those of `push`: there is no room to wait either.
    pub fn join<E>(
        &self,
        home: usize,
        now: L::Now,
        push: impl FnOnce(&mut L, &mut dyn FnMut() -> Arc<Seat<L::Refusal>>, &mut Told) -> Result<L::Id, E>,
    ) -> Result<Joined<L>, E> {
        self.change(|gate, told| {
            gate.settle(&self.stripes, now, told);
            if !gate.raised && self.take_or_steal(home) {
                return Ok(Joined::Now);
            }
            let mut made = None;
            let mut seat =
                || made.get_or_insert_with(|| Arc::new(Seat { home, state: Mutex::new(State::Waiting(None)) })).clone();
            let id = push(&mut gate.line, &mut seat, told)?;
            let seat = seat();
            gate.raise(&self.stripes);
            gate.settle(&self.stripes, now, told);
            match seat.verdict() {
                Some(Verdict::Permit) => Ok(Joined::Now),
                _ => Ok(Joined::Later(Place { id, seat })),
            }
        })
    }

    /// Leaves the line, unless there is a verdict: then this is it, and a permit is the caller's to give back.
    pub fn leave(&self, place: &Place<L>, now: impl FnOnce() -> L::Now) -> Option<Verdict<L::Refusal>> {
        if let Some(verdict) = place.seat.verdict() {
            return Some(verdict);
        }
        let now = now();
        let left = self.change(|gate, told| {
            let left = gate.line.remove(place.id, now);
            gate.settle(&self.stripes, now, told);
            left
        });
        if left { None } else { place.seat.verdict() }
    }

    /// Changes the limit to what `limit` says (at most [`MAX_LIMIT`]), which is asked under the lock: who reads it from a word that
    /// others write as well ends with what was written last. A lower limit is reached as calls end; a higher one lets waiters
    /// in at once.
    pub fn set_limit(&self, limit: impl FnOnce() -> u32, now: L::Now) {
        self.change(|gate, told| {
            let limit = limit().min(MAX_LIMIT);
            let old = mem::replace(&mut gate.limit, limit);
            if limit < old {
                gate.debt += old - limit;
                gate.raise(&self.stripes);
            } else {
                let paid = gate.debt.min(limit - old);
                gate.debt -= paid;
                add_shares(&self.stripes, limit - old - paid);
            }
            gate.settle(&self.stripes, now, told);
        });
    }

    /// Lets everyone who waits go on without a permit. `counted` is called for each before it knows.
    pub fn pass_all(&self, now: L::Now, counted: impl Fn()) {
        self.change(|gate, told| {
            while gate.line.peek(now, told).is_some()
                && let Some(seat) = gate.line.pop()
            {
                counted();
                told.say(&seat, Verdict::Pass);
            }
            gate.settle(&self.stripes, now, told);
        });
    }

    /// Looks at the line, or changes its rules, under its lock. Who is taken out of it must be [told](Told).
    pub fn with_line<T>(&self, look: impl FnOnce(&mut L, &mut Told) -> T) -> T {
        self.change(|gate, told| look(&mut gate.line, told))
    }

    /// The limit.
    pub fn limit(&self) -> u32 {
        lock(&self.gate).limit
    }

    /// How many wait.
    pub fn queued(&self) -> u32 {
        lock(&self.gate).line.len() as u32
    }

    /// How many permits are taken.
    pub fn in_flight(&self) -> u32 {
        self.stripes.iter().map(|stripe| in_flight(stripe.word.load(Relaxed))).sum()
    }

    /// For tests: panics unless everything is as it was in the beginning.
    #[doc(hidden)]
    pub fn assert_at_rest(&self, limit: u32) {
        let gate = lock(&self.gate);
        assert_eq!((gate.limit, gate.debt, gate.raised, gate.line.len()), (limit, 0, false, 0));
        let words = self.stripes.iter().map(|stripe| stripe.word.load(Acquire));
        assert!(words.clone().all(|word| word & ATTENTION == 0 && in_flight(word) == 0));
        assert_eq!(words.map(free).sum::<u32>(), limit);
    }

    #[cold]
    fn settle(&self, now: L::Now) {
        self.change(|gate, told| gate.settle(&self.stripes, now, told));
    }

    /// Changes the gate under its lock; wakes after it.
    fn change<T>(&self, change: impl FnOnce(&mut Gate<L>, &mut Told) -> T) -> T {
        let mut told = Told::default();
        let result = change(&mut lock(&self.gate), &mut told);
        told.0.into_iter().for_each(Waker::wake);
        result
    }
}

/// A permit was taken, and others that came with it may be somebody's who waits.
struct Unsettled;

impl<S> Stripe<S> {
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

impl<L: Line> Gate<L> {
    /// From here on, whoever gives room back settles.
    fn raise<S>(&mut self, stripes: &[Stripe<S>]) {
        if !self.raised {
            self.raised = true;
            for stripe in stripes {
                stripe.word.fetch_or(ATTENTION, AcqRel);
            }
        }
    }

    /// Pays the debt with what is free, then lets waiters in, then lowers attention if nobody needs it.
    fn settle<S>(&mut self, stripes: &[Stripe<S>], now: L::Now, told: &mut Told) {
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
                let Some(next) = self.line.peek(now, told) else { break };
                // A permit of another stripe moves to the waiter's own.
                let home = next.home;
                let taken = if home == i { word + 1 } else { word - share(1) };
                match stripe.word.compare_exchange_weak(word, taken, Acquire, Relaxed) {
                    Ok(_) => {
                        if home != i {
                            stripes[home].word.fetch_add(share(1) + 1, AcqRel);
                        }
                        if let Some(next) = self.line.pop() {
                            told.say(&next, Verdict::Permit);
                        }
                        word = taken;
                    }
                    Err(seen) => word = seen,
                }
            }
        }
        if self.debt == 0 && self.line.is_empty() {
            self.raised = false;
            for stripe in stripes {
                stripe.word.fetch_and(!ATTENTION, AcqRel);
            }
        }
    }
}

impl<R: Copy> Seat<R> {
    fn verdict(&self) -> Option<Verdict<R>> {
        match &*lock(&self.state) {
            State::Told(verdict) => Some(*verdict),
            State::Waiting(_) => None,
        }
    }
}

impl Told {
    /// Turns one away that was taken out of the line.
    pub fn refuse<R>(&mut self, seat: &Seat<R>, why: R) {
        self.say(seat, Verdict::Refused(why));
    }

    fn say<R>(&mut self, seat: &Seat<R>, verdict: Verdict<R>) {
        let before = mem::replace(&mut *lock(&seat.state), State::Told(verdict));
        if let State::Waiting(Some(waker)) = before {
            self.0.push(waker);
        }
    }
}

impl<L: Line> Place<L> {
    /// The verdict, if there is one; otherwise the task is woken when there is.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<Verdict<L::Refusal>> {
        match &*lock(&self.seat.state) {
            State::Told(verdict) => return Poll::Ready(*verdict),
            State::Waiting(Some(known)) if known.will_wake(cx.waker()) => return Poll::Pending,
            State::Waiting(_) => {}
        }
        // Wakers are an executor's code, and may be the last of their task: none is cloned or dropped under the lock.
        let waker = cx.waker().clone();
        let mut state = lock(&self.seat.state);
        let (polled, unused) = match &mut *state {
            State::Told(verdict) => (Poll::Ready(*verdict), Some(waker)),
            State::Waiting(known) => (Poll::Pending, known.replace(waker)),
        };
        drop(state);
        drop(unused);
        polled
    }

    /// How the line knows it.
    pub fn id(&self) -> L::Id {
        self.id
    }
}

impl<R> fmt::Debug for Seat<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("home", &self.home).finish_non_exhaustive()
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Told").field(&self.0.len()).finish()
    }
}

impl<L: Line> fmt::Debug for Place<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl<L: Line> fmt::Debug for Joined<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now => "Now",
            Self::Later(_) => "Later",
        })
    }
}

impl<L: Line, S> fmt::Debug for Permits<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permits").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}
