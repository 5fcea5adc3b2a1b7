//! Who gets in.

use super::{Machine, until_probe};
use crate::{
    Cause,
    state::{CLOSED, HALF_OPEN, OPEN, RAMPING, Word},
    ticket::Ticket,
};
use buttress_core::{Clock, Mode, Reason, Rejection, sync::Ordering::Relaxed};
use std::time::Duration;

impl Machine {
    /// What a closed circuit decides: two loads and no clock. `None`: ask [`admit`](Self::admit).
    #[inline]
    pub(crate) fn admit_plainly(&self) -> Option<Word> {
        let word = self.word();
        (word.kind() == CLOSED && self.mode.is_auto()).then_some(word)
    }

    /// How long until the next probe, if the circuit is open and nobody says otherwise. `None`: look more closely.
    #[inline]
    pub(crate) fn plainly_open_for(&self, clock: &impl Clock) -> Option<Duration> {
        let word = self.word();
        if word.kind() == OPEN && self.mode.is_auto() { until_probe(word, self.nanos(clock)) } else { None }
    }

    /// Decides.
    pub(crate) fn admit(&self, stripe: usize, clock: &impl Clock) -> Result<Ticket, Rejection> {
        match self.admit_plainly() {
            Some(word) => Ok(Ticket::closed(word)),
            None => self.admit_or_not(stripe, clock),
        }
    }

    #[inline(never)]
    fn admit_or_not(&self, stripe: usize, clock: &impl Clock) -> Result<Ticket, Rejection> {
        let mode = self.mode.get();
        match mode {
            Mode::Disabled => return Ok(Ticket::free()),
            Mode::ForcedOpen => return Err(self.refuse(stripe, None)),
            _ => {}
        }
        let now = self.nanos(clock);
        match self.decide(now) {
            Ok(ticket) => Ok(ticket),
            Err(wait) if mode == Mode::Auto || self.mode.enforces() => Err(self.refuse(stripe, Some(wait))),
            Err(_) => Ok(self.let_through()),
        }
    }

    /// The state machine's own decision; `Err`: how long until it is worth coming back.
    fn decide(&self, now: u64) -> Result<Ticket, Duration> {
        loop {
            let word = self.word();
            match word.kind() {
                CLOSED => return Ok(Ticket::closed(word)),
                OPEN => {
                    if let Some(wait) = until_probe(word, now) {
                        return Err(wait);
                    }
                    self.turn(word, word.then(HALF_OPEN, 0), Cause::OpenTimeOver, now);
                }
                RAMPING => match self.admit_share(word, now) {
                    Ok(ticket) => return Ok(ticket),
                    Err(Some(wait)) => return Err(wait),
                    Err(None) => {}
                },
                _ => {
                    if self.expire_probes(word, now) {
                        continue;
                    }
                    let Some(next) = word.with_probe(self.params.probes()) else {
                        if self.signal.until() <= self.origin.at(now) {
                            self.sync_signal(now);
                        }
                        return Err(self.probes.wait(word.generation(), now, self.params.probe_deadline()));
                    };
                    if self.swap(word, next) {
                        let (slot, mark) = self.probes.take(word.generation(), now);
                        self.sync_signal(now);
                        return Ok(Ticket::probe(word, slot, mark, now));
                    }
                }
            }
        }
    }

    /// Whether a call would be refused now, and how long it is worth waiting. Takes nothing.
    pub(crate) fn shut(&self, now: u64) -> Option<Duration> {
        loop {
            let word = self.word();
            match word.kind() {
                // Which call of a ramp passes is drawn when it is made.
                CLOSED | RAMPING => return None,
                OPEN => return until_probe(word, now),
                _ if self.expire_probes(word, now) => {}
                _ if word.with_probe(self.params.probes()).is_some() => return None,
                _ => return Some(self.probes.wait(word.generation(), now, self.params.probe_deadline())),
            }
        }
    }

    #[inline]
    pub(crate) fn refuse(&self, stripe: usize, wait: Option<Duration>) -> Rejection {
        self.refused[stripe].0.fetch_add(1, Relaxed);
        let rejection = Rejection::new(Reason::BreakerOpen, "breaker");
        wait.map_or(rejection, |wait| rejection.retry_after(wait))
    }

    pub(crate) fn let_through(&self) -> Ticket {
        self.let_through.fetch_add(1, Relaxed);
        Ticket::free()
    }

    pub(crate) fn refused_total(&self) -> u64 {
        self.refused.iter().map(|padded| padded.0.load(Relaxed)).sum()
    }

    pub(crate) fn let_through_total(&self) -> u64 {
        self.let_through.load(Relaxed)
    }
}
