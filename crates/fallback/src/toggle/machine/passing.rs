//! Who passes.

use super::{Machine, Ticket};
use crate::levels::LevelGuard;
use crate::toggle::{
    Back,
    state::{Switch, SwitchedBy, ToggleState, Word},
};
use buttress_core::{Clock, sync::Ordering::Relaxed};

impl Machine {
    /// Whether the next call passes, as far as that can be said without letting one pass. Where it does not, nobody else looks: what switches
    /// off does so here.
    #[inline]
    pub(in crate::toggle) fn may_pass(&self, clock: &impl Clock) -> bool {
        match self.switch() {
            Switch::On => return true,
            Switch::Off => return false,
            Switch::Auto => {}
        }
        // A level that is reached is looked at, or nobody would find that it is better; else that is the call's business.
        if self.level.as_ref().is_some_and(LevelGuard::was_reached) && self.is_levelled_off(clock) {
            return false;
        }
        let word = self.word();
        word.state() == ToggleState::On && !self.is_signalled(clock) || self.may_pass_slowly(word, clock)
    }

    #[cold]
    fn may_pass_slowly(&self, word: Word, clock: &impl Clock) -> bool {
        let now = self.millis(clock);
        match (word.state(), self.is_signalled(clock)) {
            (ToggleState::On | ToggleState::Ramping, true) => {
                self.switch_off(word, SwitchedBy::Signal, now);
                false
            }
            (ToggleState::On | ToggleState::Ramping, false) => true,
            (ToggleState::Off, is_signalled) => !is_signalled && word.moment() <= now,
            (ToggleState::Probing, is_signalled) => self.has_place(word, now) && !is_signalled,
        }
    }

    /// Whether a probe may go. One that takes too long has failed.
    fn has_place(&self, word: Word, now: u64) -> bool {
        let Some(takes) = word.probe_takes(now) else { return true };
        let limit = match self.back() {
            Back::Probe { after, .. } => after.as_millis() as u64,
            _ => 0,
        };
        if takes >= limit {
            self.switch_off(word, SwitchedBy::Probe, now);
        }
        false
    }

    /// Lets a call pass, or does not. `None`: it is off.
    #[inline]
    pub(in crate::toggle) fn admit(&self, clock: &impl Clock) -> Option<Ticket> {
        match self.switch() {
            Switch::On => return Some(Ticket::Free),
            Switch::Off => return self.turn_away(),
            Switch::Auto => {}
        }
        if self.is_levelled_off(clock) {
            return self.turn_away();
        }
        let word = self.word();
        if word.state() == ToggleState::On && !self.is_signalled(clock) {
            return Some(self.counted(word));
        }
        self.admit_slowly(word, true, clock)
    }

    #[inline]
    fn counted(&self, word: Word) -> Ticket {
        if self.counts.load(Relaxed) { Ticket::Counted(word.generation()) } else { Ticket::Free }
    }

    /// A call finds it off.
    pub(in crate::toggle) fn turn_away(&self) -> Option<Ticket> {
        self.totals.turned_away.fetch_add(1, Relaxed);
        None
    }

    /// Whether the feature is on for somebody who reports nothing.
    #[inline]
    pub(in crate::toggle) fn is_on(&self, clock: &impl Clock) -> bool {
        match self.switch() {
            Switch::On => return true,
            Switch::Off => return false,
            Switch::Auto => {}
        }
        if self.is_levelled_off(clock) {
            return false;
        }
        let word = self.word();
        word.state() == ToggleState::On && !self.is_signalled(clock) || self.admit_slowly(word, false, clock).is_some()
    }

    /// `reports`: whether the outcome will be told, so that it may be a probe.
    #[cold]
    fn admit_slowly(&self, mut word: Word, reports: bool, clock: &impl Clock) -> Option<Ticket> {
        let now = self.millis(clock);
        loop {
            let is_signalled = self.is_signalled(clock);
            let ticket = match word.state() {
                ToggleState::On | ToggleState::Ramping if is_signalled => {
                    self.switch_off(word, SwitchedBy::Signal, now);
                    None
                }
                ToggleState::On => Some(self.counted(word)),
                ToggleState::Ramping => match self.ramp(word, now) {
                    Some(ticket) => ticket,
                    None => {
                        word = self.word();
                        continue;
                    }
                },
                ToggleState::Off if is_signalled || now < word.moment() => None,
                ToggleState::Off => {
                    self.begin_return(word, now);
                    word = self.word();
                    continue;
                }
                ToggleState::Probing if !self.has_place(word, now) || is_signalled || !reports => None,
                ToggleState::Probing => match self.swap(word, word.with_probe(now)) {
                    Ok(()) => {
                        self.totals.probes.fetch_add(1, Relaxed);
                        return Some(Ticket::Probe(word.generation()));
                    }
                    Err(seen) => {
                        word = seen;
                        continue;
                    }
                },
            };
            return if ticket.is_none() && reports { self.turn_away() } else { ticket };
        }
    }

    /// A call on the ramp. `None`: its end is reached.
    fn ramp(&self, word: Word, now: u64) -> Option<Option<Ticket>> {
        let risen = now.saturating_sub(word.moment());
        let over = match self.back() {
            Back::Ramp { over, .. } => over.as_millis() as u64,
            // The way back was changed meanwhile.
            _ => 0,
        };
        if risen >= over {
            self.turn(word, word.becomes(ToggleState::On), SwitchedBy::Time, now);
            return None;
        }
        Some((self.draw.unit() < risen as f64 / over as f64).then(|| self.counted(word)))
    }
}
