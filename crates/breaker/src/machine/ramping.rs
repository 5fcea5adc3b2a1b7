//! How a circuit closes by degrees: the share that passes, and the ticks that double it.

use super::Machine;
use crate::{
    Cause,
    state::{RAMPING, Word},
    ticket::Ticket,
};
use buttress_core::{Pushback, sync::lock};
use std::time::Duration;

impl Machine {
    /// The probes were good: it closes, by degrees if there is a ramp.
    pub(super) fn recover(&self, word: Word, now: u64) -> bool {
        if self.params.ramp().is_none() {
            return self.close(word, Cause::ProbesGood, now);
        }
        // Before the ramp begins, as before it closes.
        self.hung.forget(now);
        self.slow.forget(now);
        self.share.begin(now);
        self.turn(word, word.ramp(now), Cause::ProbesGood, now)
    }

    /// The share of calls that passes, in a ramp.
    pub(crate) fn ramp_share(&self, word: Word) -> f64 {
        self.params.ramp().map_or(1.0, |ramp| ramp.share(word))
    }

    /// A call asks in a ramp. `Err(None)`: the state has changed.
    pub(super) fn admit_share(&self, word: Word, now: u64) -> Result<Ticket, Option<Duration>> {
        // Who has the clock in hand looks: calls that hang are bad ones, also if no result ever comes.
        self.look(now);
        let Some(ramp) = self.params.ramp() else {
            // There is none any more.
            self.close(word, Cause::RampGood, now);
            return Err(None);
        };
        if self.word().generation() != word.generation() {
            return Err(None);
        }
        self.share.admit(ramp.share(word), now, ramp.quiet(word))?;
        self.sync_signal(now);
        Ok(Ticket::closed(word))
    }

    /// A result in a ramp.
    #[inline(never)]
    pub(super) fn count_in_ramp(&self, generation: u32, good: bool, pushback: Option<Pushback>, now: u64) {
        loop {
            let word = self.word();
            if word.kind() != RAMPING || word.generation() != generation {
                return;
            }
            if self.go_on(word, word.with_ramped(good), pushback, now) {
                return;
            }
        }
    }

    /// Looks whether the tick is at its end: time has passed, or calls hang.
    pub(super) fn judge_ramp(&self, word: Word, now: u64) {
        self.go_on(word, word, None, now);
    }

    /// From `word` to `next`, and to what follows from it. False: somebody else was faster.
    fn go_on(&self, word: Word, next: Word, pushback: Option<Pushback>, now: u64) -> bool {
        let (hung, slow) = self.late(now);
        let late = if self.params.judges_slowness() { slow.max(hung) } else { hung };
        let Some(ramp) = self.params.ramp() else { return self.close(word, Cause::RampGood, now) };
        match ramp.verdict(next, late, now) {
            None => next == word || self.swap(word, next),
            Some(false) => self.open(word, Cause::RampBad, pushback, now),
            Some(true) if ramp.share(next.next_step(now)) >= 1.0 => self.close(word, Cause::RampGood, now),
            Some(true) => {
                let next = next.next_step(now);
                let won = self.swap(word, next);
                if won {
                    self.sync_signal(now);
                    let name = lock(&self.config).name.clone();
                    crate::snapshot::trace_share(&name, ramp.share(next));
                }
                won
            }
        }
    }
}

/// The rules of a ramp.
#[derive(Clone, Copy)]
pub(crate) struct Ramp {
    /// Of the first tick.
    pub(crate) share: f64,
    pub(crate) calls: u64,
    /// In nanoseconds.
    pub(crate) tick: u64,
    /// So large a share of bad ones is too large.
    pub(crate) too_bad: f64,
}

/// What ended by time alone is not called bad on less.
const FEW: u64 = 3;

impl Ramp {
    fn share(self, word: Word) -> f64 {
        self.share * (1u64 << word.step()) as f64
    }

    /// One passes for certain after so many nanoseconds without any.
    fn quiet(self, word: Word) -> u64 {
        ((self.tick / 5) >> word.step()).max(1)
    }

    /// Whether the tick was good; `None`: it is not over. `late` calls in flight are bad ones.
    fn verdict(self, word: Word, late: u64, now: u64) -> Option<bool> {
        let (good, bad) = word.ramped();
        let (bad, total) = (bad + late, good + bad + late);
        if bad as f64 >= (self.too_bad * self.calls as f64).max(1.0) {
            return Some(false);
        }
        let elapsed = word.since_step(now);
        let is_over = total >= self.calls
            || elapsed >= self.tick / 4 && total * 4 >= self.calls && total > 0
            || elapsed >= self.tick && total > 0;
        let is_good = (bad as f64) < self.too_bad * total as f64;
        (is_over && (is_good || total >= FEW.min(self.calls))).then_some(is_good)
    }
}
