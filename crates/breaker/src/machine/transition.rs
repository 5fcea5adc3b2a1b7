//! Changes of state: one CAS each, which expects the very word the decision was made on.

use super::{Calls, Machine};
use crate::{
    Cause, State, Transition,
    state::{CLOSED, HALF_OPEN, OPEN, RAMPING, Word},
};
use buttress_core::{
    Mode, Pushback, Signal,
    sync::{
        Ordering::{AcqRel, Relaxed},
        lock,
    },
};
use std::time::Duration;

impl Machine {
    pub(super) fn open(&self, word: Word, cause: Cause, pushback: Option<Pushback>, now: u64) -> bool {
        let healthy =
            word.kind() == CLOSED && now.saturating_sub(self.closed_at.load(Relaxed)) >= self.params.max_open();
        let times = if healthy { 0 } else { self.streak_of_openings.load(Relaxed) };
        let max = self.params.max_open();
        let full = self.params.open_for().saturating_mul(1 << times.min(40)).min(max);
        let jittered = full / 2 + self.jitter.draw() % (full / 2 + 1);
        let asked = match pushback.map(Pushback::delay) {
            Some(Some(delay)) => u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX),
            Some(None) => u64::MAX,
            None => 0,
        };
        let until = now.saturating_add(jittered.max(asked).min(max)).div_ceil(1_000_000);
        let opened = self.turn(word, word.then(OPEN, until), cause, now);
        if opened {
            self.streak_of_openings.store(times + 1, Relaxed);
            self.opened.fetch_add(1, Relaxed);
        }
        opened
    }

    pub(super) fn close(&self, word: Word, cause: Cause, now: u64) -> bool {
        let first = match &self.window {
            Calls::Time(window) => window.next_epoch(now),
            Calls::Count(_) => 0,
        };
        // Before the circuit closes: whoever finds it closed must not find calls of an earlier generation hanging.
        if word.kind() == RAMPING {
            self.hung.forget_again(now);
            self.slow.forget_again(now);
        } else {
            self.hung.forget(now);
            self.slow.forget(now);
        }
        self.closed_at.store(now, Relaxed);
        self.turn(word, word.then(CLOSED, first), cause, now)
    }

    /// Closes, whatever the state, and forgets everything.
    pub(crate) fn reset(&self, now: u64) {
        while !self.close(self.word(), Cause::Reset, now) {}
        self.streak_of_openings.store(0, Relaxed);
    }

    pub(super) fn swap(&self, word: Word, next: Word) -> bool {
        self.state.compare_exchange(word.0, next.0, AcqRel, Relaxed).is_ok()
    }

    pub(super) fn turn(&self, from: Word, to: Word, cause: Cause, now: u64) -> bool {
        let won = self.swap(from, to);
        if won {
            self.announce(from, to, cause, now);
        }
        won
    }

    #[cold]
    fn announce(&self, from: Word, to: Word, cause: Cause, now: u64) {
        self.sync_signal(now);
        self.wakers.wake_all();
        let transition = Transition {
            from: State::of(from),
            to: State::of(to),
            generation: to.generation(),
            cause,
            open_for: (to.kind() == OPEN).then(|| until_probe(to, now).unwrap_or_default()),
        };
        let name = lock(&self.config).name.clone();
        transition.trace(&name);
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            listener(&transition);
        }
    }

    /// Makes the signal say whether calls are refused, and until when. Whoever writes looks again, so the last word is right.
    ///
    /// A half-open circuit refuses most calls, so it is raised there, too: with a moment that has come while there is a place for
    /// a probe, and else the first at which one may be free, if no probe ends before. So does a ramping one, to whom calls come
    /// that nobody holds back: with the moment from which one passes for certain, and the share that it refuses as the pressure.
    pub(crate) fn sync_signal(&self, now: u64) {
        loop {
            let (word, mode, due) = (self.word(), self.mode.get(), self.share.due());
            let refuses = match mode {
                Mode::ForcedOpen => true,
                // A share of the calls passes, and whoever heeds the signal would keep that away as well.
                Mode::Disabled | Mode::Enforcing(..100) => false,
                _ => word.kind() != CLOSED,
            };
            if refuses {
                // Forced open, nobody knows until when.
                let until = match word.kind() {
                    _ if mode == Mode::ForcedOpen => None,
                    HALF_OPEN => Some(self.next_place(word, now)),
                    RAMPING => Some(due),
                    _ => Some(word.payload().saturating_mul(1_000_000)),
                };
                self.signal.raise(Signal::OPEN, until.map(|until| self.origin.at(until)));
            } else {
                self.signal.clear(Signal::OPEN);
            }
            let refused = if refuses && word.kind() == RAMPING { 1.0 - self.ramp_share(word) } else { 0.0 };
            self.signal.set_pressure(refused as f32);
            // A read that writes is of the very last word: what is raised here comes before what its next writer raises.
            let last = Word(self.state.fetch_or(0, AcqRel));
            let is_due_then = word.kind() != RAMPING || self.share.last_due() == due;
            if is_due_then && (last, self.mode.get()) == (word, mode) {
                return;
            }
        }
    }

    /// When a half-open circuit has a place for another probe.
    fn next_place(&self, word: Word, now: u64) -> u64 {
        if word.with_probe(self.params.probes()).is_some() {
            return now;
        }
        let wait = self.probes.wait(word.generation(), now, self.params.probe_deadline());
        now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// How long an open circuit stays open; `None`: a probe may go.
pub(crate) fn until_probe(word: Word, now: u64) -> Option<Duration> {
    let left = word.payload().saturating_mul(1_000_000).saturating_sub(now);
    (left > 0).then(|| Duration::from_nanos(left))
}
