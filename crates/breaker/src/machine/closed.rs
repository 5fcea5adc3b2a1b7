//! How a closed circuit decides to open: rates, failures in a row, calls in flight that grow old.

use super::{Calls, Machine};
use crate::{
    Cause,
    state::{CLOSED, HALF_OPEN, RAMPING, Word},
    ticket::Ticket,
};
use buttress_core::{Pushback, sync::Ordering::Relaxed, window::Counts};

impl Machine {
    /// Failures in a row, in the generation of `word`.
    pub(crate) fn consecutive(&self, word: Word) -> u32 {
        let streak = self.streak.load(Relaxed);
        if (streak >> 32) as u32 == word.generation() { streak as u32 } else { 0 }
    }

    /// A failure, or a slow success.
    pub(super) fn record(&self, ticket: &Ticket, stripe: usize, good: bool, pushback: Option<Pushback>, now: u64) {
        let word = self.word();
        if !word.measures() || word.generation() != ticket.generation() {
            return;
        }
        if word.kind() == RAMPING {
            let good = good && !(ticket.is_slow() && self.params.judges_slowness());
            return self.count_in_ramp(ticket.generation(), good, pushback, now);
        }
        match &self.window {
            Calls::Time(window) => {
                let epoch = window.advance(now);
                if good {
                    window.success(stripe, ticket.first());
                } else {
                    window.failure(stripe, ticket.first(), epoch);
                }
                if ticket.is_slow() {
                    window.slow(stripe, ticket.first(), epoch);
                }
            }
            Calls::Count(window) => window.record(ticket.generation(), !good, ticket.is_slow()),
        }
        if good {
            self.end_streak(ticket.generation(), self.streak.load(Relaxed));
        } else if ticket.hung == 0 {
            self.lengthen_streak(ticket.generation(), 1);
        }
        self.look(now);
        self.judge(word, pushback, now);
    }

    /// Looks for calls that hang. Once per tick: whoever has the clock in hand.
    pub(super) fn look(&self, now: u64) {
        let watch = if self.watches_slow() { &self.slow } else { &self.hung };
        let tick = watch.epoch(now);
        if self.looked.load(Relaxed) != tick {
            self.look_now(tick, now);
        }
    }

    #[inline(never)]
    fn look_now(&self, tick: u64, now: u64) {
        self.looked.store(tick, Relaxed);
        let word = self.word();
        if word.kind() == RAMPING {
            return self.judge_ramp(word, now);
        }
        if word.kind() != CLOSED {
            return;
        }
        let hung = self.hung.newly_old(now);
        if hung > 0 {
            self.lengthen_streak(word.generation(), hung);
        }
        if hung > 0 || self.hung.old(now) > 0 || self.watches_slow() && self.slow.old(now) > 0 {
            self.judge(word, None, now);
        }
    }

    /// Looks at once, whatever the tick: for who wants to know.
    pub(crate) fn examine(&self, now: u64) {
        self.look_now(self.looked.load(Relaxed), now);
        let word = self.word();
        if word.kind() == HALF_OPEN {
            self.expire_probes(word, now);
        }
    }

    fn watches_slow(&self) -> bool {
        let slow_after = self.params.slow_after();
        slow_after != u64::MAX && slow_after != self.params.hang_after()
    }

    /// Calls in flight that hang, and that are slow.
    pub(crate) fn late(&self, now: u64) -> (u64, u64) {
        let hung = self.hung.old(now);
        let slow = match self.params.slow_after() {
            u64::MAX => 0,
            after if after == self.params.hang_after() => hung,
            _ => self.slow.old(now),
        };
        (hung, slow)
    }

    pub(crate) fn counts(&self, word: Word, now: u64) -> Counts {
        match &self.window {
            Calls::Time(window) if word.kind() == CLOSED => window.counts(word.payload(), now),
            Calls::Count(window) if word.kind() == CLOSED => window.counts(word.generation()),
            _ => Counts::default(),
        }
    }

    fn judge(&self, word: Word, pushback: Option<Pushback>, now: u64) {
        let cause = if u64::from(self.consecutive(word)) >= self.params.consecutive() {
            Cause::Consecutive
        } else {
            let (counts, (hung, slow)) = (self.counts(word, now), self.late(now));
            if self.params.fails_too_often(counts.failures + hung, counts.total + hung) {
                Cause::FailureRate
            } else if self.params.slow_too_often(counts.slow + slow, counts.total + slow) {
                Cause::SlowRate
            } else {
                return;
            }
        };
        self.open(word, cause, pushback, now);
    }

    #[cold]
    pub(super) fn end_streak(&self, generation: u32, mut seen: u64) {
        while (seen >> 32) as u32 == generation && seen as u32 != 0 {
            match self.streak.compare_exchange_weak(seen, u64::from(generation) << 32, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn lengthen_streak(&self, generation: u32, by: u64) {
        let mut seen = self.streak.load(Relaxed);
        loop {
            let theirs = (seen >> 32) as u32;
            let length = match generation.wrapping_sub(theirs) & 0xff_ffff {
                0 => seen & u64::from(u32::MAX),
                ahead if ahead < 1 << 23 => 0,
                _ => return,
            };
            let next = u64::from(generation) << 32 | (length + by).min(u64::from(u32::MAX));
            match self.streak.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}
