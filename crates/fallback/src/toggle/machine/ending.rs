//! What the end of a call says.

use super::{Machine, Ticket};
use crate::toggle::{
    Back,
    state::{SwitchedBy, ToggleState, Word},
};
use buttress_core::{
    Clock, Outcome,
    sync::{Ordering::Relaxed, lock},
};

/// What is known of a call that ends.
#[derive(Clone, Copy, Debug)]
pub(in crate::toggle) struct Told {
    pub(in crate::toggle) stripe: usize,
    /// It was not ready at once, so that its end may read the clock.
    pub(in crate::toggle) waited: bool,
}

impl Machine {
    /// The call's answer has come, its end has not: another probe may go.
    pub(in crate::toggle) fn answered(&self, ticket: Ticket) {
        let Ticket::Probe(generation) = ticket else { return };
        self.of_probe(generation, |word| word.without_probe(word.good()));
    }

    /// Changes the word while it is of this probe's generation; `false`: it is not any more.
    fn of_probe(&self, generation: u32, next: impl Fn(Word) -> Word) -> bool {
        let mut word = self.word();
        while word.generation() == generation && word.state() == ToggleState::Probing {
            match self.swap(word, next(word)) {
                Ok(()) => return true,
                Err(seen) => word = seen,
            }
        }
        false
    }

    /// A call ends. `holds`: a probe has its place still.
    pub(in crate::toggle) fn conclude(
        &self,
        ticket: Ticket,
        holds: bool,
        outcome: Outcome,
        call: Told,
        clock: &impl Clock,
    ) {
        match ticket {
            Ticket::Free => {}
            Ticket::Counted(generation) => self.count(generation, outcome, call, clock),
            Ticket::Probe(generation) => self.probed(generation, holds, outcome, clock),
        }
    }

    #[inline]
    fn count(&self, generation: u32, outcome: Outcome, call: Told, clock: &impl Clock) {
        let word = self.word();
        if word.generation() != generation {
            return;
        }
        match outcome {
            Outcome::Success if self.rated.load(Relaxed) => {
                let advance = || self.window.advance(self.origin.nanos(clock.now()));
                if call.waited {
                    advance();
                }
                let asks = self.window.success(call.stripe, self.begun.load(Relaxed));
                if asks && !call.waited {
                    advance();
                }
            }
            Outcome::Failure => self.failed(word, call, clock),
            _ => {}
        }
    }

    #[cold]
    fn failed(&self, mut word: Word, call: Told, clock: &impl Clock) {
        let now = self.origin.nanos(clock.now());
        let (first, rate, min_calls) = {
            let config = lock(&self.config);
            (config.first_failure, config.failure_rate, u64::from(config.min_calls))
        };
        let begun = self.begun.load(Relaxed);
        let by = match rate {
            _ if first => SwitchedBy::FirstFailure,
            None => return,
            Some(rate) => {
                self.window.failure(call.stripe, begun, self.window.advance(now));
                let counts = self.window.counts(begun, now);
                if counts.total < min_calls || (counts.failures as f64) < rate * counts.total as f64 {
                    return;
                }
                SwitchedBy::FailureRate
            }
        };
        let generation = word.generation();
        // A ramp that has just come to its end is the same generation.
        while word.generation() == generation && !self.switch_off(word, by, now / 1_000_000) {
            word = self.word();
        }
    }

    fn probed(&self, generation: u32, holds: bool, outcome: Outcome, clock: &impl Clock) {
        let wanted = match self.back() {
            Back::Probe { successes, .. } => successes,
            _ => 1,
        };
        let mut word = self.word();
        while word.generation() == generation && word.state() == ToggleState::Probing {
            let done = match outcome {
                Outcome::Success if word.good() + 1 >= wanted => {
                    let now = self.millis(clock);
                    self.forget(now);
                    self.turn(word, word.then(ToggleState::On, 0), SwitchedBy::Probe, now)
                }
                Outcome::Failure | Outcome::Overload => {
                    let now = self.millis(clock);
                    self.switch_off(word, SwitchedBy::Probe, now)
                }
                Outcome::Success => self.swap(word, word.with_good(holds)).is_ok(),
                _ if holds => self.swap(word, word.without_probe(word.good())).is_ok(),
                _ => return,
            };
            if done {
                return;
            }
            word = self.word();
        }
    }
}
