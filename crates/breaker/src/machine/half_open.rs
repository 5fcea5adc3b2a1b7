//! How a half-open circuit decides: each probe is settled once, by its end or by its deadline.

use super::Machine;
use crate::{
    Cause,
    state::{HALF_OPEN, Word},
};
use buttress_core::Pushback;

impl Machine {
    /// Takes the places of probes that are past their deadline, and decides what is decided: the rules may have changed since
    /// the last probe ended. True: something changed.
    pub(super) fn expire_probes(&self, word: Word, now: u64) -> bool {
        let deadline = self.params.probe_deadline();
        let mut changed = false;
        while let Some((slot, mark)) = self.probes.expired(word.generation(), now, deadline) {
            self.settle_probe(word.generation(), slot, mark, Some(false), None, now);
            changed = true;
        }
        let (rules, tally) = (self.params.probes(), word.tally());
        if !changed && rules.closes(tally) {
            self.close(word, Cause::ProbesGood, now);
            return true;
        }
        if !changed && rules.opens(tally) {
            self.open(word, Cause::ProbesBad, None, now);
            return true;
        }
        changed
    }

    pub(super) fn settle_probe(
        &self,
        generation: u32,
        slot: u8,
        mark: u64,
        good: Option<bool>,
        pushback: Option<Pushback>,
        now: u64,
    ) {
        if !self.probes.give_back(slot, mark) {
            return;
        }
        loop {
            let word = self.word();
            if word.kind() != HALF_OPEN || word.generation() != generation {
                return;
            }
            let next = word.without_probe(good);
            let (rules, tally) = (self.params.probes(), next.tally());
            let done = if rules.closes(tally) {
                self.close(word, Cause::ProbesGood, now)
            } else if rules.opens(tally) {
                self.open(word, Cause::ProbesBad, pushback, now)
            } else {
                self.swap(word, next) && {
                    if self.params.back_pressure() {
                        self.wakers.wake_all();
                    }
                    true
                }
            };
            if done {
                return;
            }
        }
    }
}
