//! How a half-open circuit decides: each probe is settled once, by its end or by its deadline.

use super::Machine;
use crate::{
    Cause,
    state::{HALF_OPEN, Word},
    ticket::Ticket,
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
            self.recover(word, now);
            return true;
        }
        if !changed && rules.opens(tally) {
            self.open(word, Cause::ProbesBad, None, now);
            return true;
        }
        changed
    }

    /// True: it had its place still, and has given it back.
    pub(super) fn settle_probe(
        &self,
        generation: u32,
        slot: u8,
        mark: u64,
        good: Option<bool>,
        pushback: Option<Pushback>,
        now: u64,
    ) -> bool {
        let was_there = self.probes.give_back(slot, mark);
        if was_there {
            self.decide_by(generation, |word| word.without_probe(good), pushback, now);
        }
        was_there
    }

    /// A probe that was late has been counted as bad, and its outcome counts no more.
    #[inline(never)]
    pub(super) fn probe_answered(&self, ticket: &mut Ticket, slot: u8, now: u64) {
        if self.settle_probe(ticket.generation(), slot, ticket.hung, None, None, now) {
            ticket.set_answered();
        } else {
            ticket.set_free();
        }
    }

    /// Changes the tally of a half-open circuit of `generation`, and turns if that decides.
    pub(super) fn decide_by(
        &self,
        generation: u32,
        change: impl Fn(Word) -> Word,
        pushback: Option<Pushback>,
        now: u64,
    ) {
        loop {
            let word = self.word();
            if word.kind() != HALF_OPEN || word.generation() != generation {
                return;
            }
            let next = change(word);
            let (rules, tally) = (self.params.probes(), next.tally());
            let done = if rules.closes(tally) {
                self.recover(word, now)
            } else if rules.opens(tally) {
                self.open(word, Cause::ProbesBad, pushback, now)
            } else {
                self.swap(word, next) && {
                    self.sync_signal(now);
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
