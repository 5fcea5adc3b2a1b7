//! The phases of a call: it waits, its latency ends, its outcome is known or it is given up.

use super::{Calls, Machine};
use crate::{
    state::{CLOSED, RAMPING, Word},
    ticket::{Kind, Phase, Ticket},
};
use buttress_core::{Clock, Outcome, Pushback, sync::Ordering::Relaxed, window::TimeWindow};

impl Machine {
    /// The call takes time: from now on it is watched.
    pub(crate) fn pending(&self, ticket: &mut Ticket, stripe: usize, clock: &impl Clock) {
        // After a head somebody may wait again, for the first message of a gRPC stream; and after a pause.
        if ticket.is_in(Phase::Waiting) || !matches!(ticket.kind(), Kind::Closed | Kind::Answered) {
            return;
        }
        let now = self.nanos(clock);
        ticket.began = now;
        if ticket.kind() == Kind::Answered {
            // It has no place among the probes any more; its age matters to its drop.
            ticket.enter(Phase::Waiting);
            return;
        }
        self.look(now);
        let word = self.word();
        if !word.measures() || word.generation() != ticket.generation() {
            // Its results will be ignored; only its age may matter to its drop.
            ticket.set_free();
            return;
        }
        ticket.enter(Phase::Waiting);
        ticket.hung = self.hung.enter(stripe, now);
        let (slow_after, hang_after) = (self.params.slow_after(), self.params.hang_after());
        if slow_after != u64::MAX && slow_after != hang_after {
            ticket.slow_epoch = self.slow.enter(stripe, now);
        }
    }

    /// The call waits for its own client. What it does then says nothing of the service, and its place, if it is a probe, is for
    /// one that does.
    pub(crate) fn pause(&self, ticket: &mut Ticket, stripe: usize, clock: &impl Clock) {
        self.answered(ticket, stripe, clock);
    }

    /// The answer has come, and its body goes on. A probe's place is for those who wait for an answer: a long stream, or a
    /// client that reads slowly, must not keep others from probing.
    #[inline]
    pub(crate) fn answered(&self, ticket: &mut Ticket, stripe: usize, clock: &impl Clock) {
        self.head(ticket, stripe, clock);
        if let Kind::Probe(slot) = ticket.kind() {
            self.probe_answered(ticket, slot, self.nanos(clock));
        }
    }

    /// The call's latency is over.
    #[inline]
    pub(crate) fn head(&self, ticket: &mut Ticket, stripe: usize, clock: &impl Clock) {
        if ticket.is_in(Phase::Waiting) {
            self.end_latency(ticket, stripe, self.nanos(clock));
        } else {
            ticket.enter(Phase::Past);
        }
    }

    fn end_latency(&self, ticket: &mut Ticket, stripe: usize, now: u64) {
        ticket.enter(Phase::Past);
        if now.saturating_sub(ticket.began) >= self.params.slow_after() {
            ticket.set_slow();
        }
        if ticket.kind() == Kind::Closed {
            self.hung.leave(stripe, ticket.hung);
            if !self.hung.is_reported(ticket.hung) {
                // It has not been counted as one that hangs, and will not be.
                ticket.hung = 0;
            }
            if ticket.slow_epoch != 0 {
                self.slow.leave(stripe, ticket.slow_epoch);
                ticket.slow_epoch = 0;
            }
            if let Calls::Time(window) = &self.window {
                window.advance(now);
            }
        }
    }

    /// The call's outcome is known.
    #[inline]
    pub(crate) fn conclude(
        &self,
        ticket: &mut Ticket,
        stripe: usize,
        outcome: Outcome,
        pushback: Option<Pushback>,
        clock: &impl Clock,
    ) {
        self.head(ticket, stripe, clock);
        if ticket.kind() == Kind::Closed && outcome == Outcome::Success && !ticket.is_slow() {
            self.succeed(ticket, stripe, clock);
        } else {
            self.conclude_otherwise(ticket, stripe, outcome, pushback, clock);
        }
    }

    #[inline]
    fn succeed(&self, ticket: &Ticket, stripe: usize, clock: &impl Clock) {
        let word = self.word();
        if word.kind() != CLOSED || word.generation() != ticket.generation() {
            return self.succeed_otherwise(ticket, word, clock);
        }
        let streak = self.streak.load(Relaxed);
        if streak as u32 != 0 {
            self.end_streak(ticket.generation(), streak);
        }
        match &self.window {
            Calls::Time(window) => {
                if window.success(stripe, ticket.first()) {
                    self.read_clock(window, clock);
                }
            }
            Calls::Count(window) => window.record(ticket.generation(), false, false),
        }
    }

    /// Not closed any more, or never: only a ramp has a use for it.
    #[cold]
    fn succeed_otherwise(&self, ticket: &Ticket, word: Word, clock: &impl Clock) {
        if word.kind() == RAMPING && word.generation() == ticket.generation() {
            self.count_in_ramp(ticket.generation(), true, None, self.nanos(clock));
        }
    }

    #[cold]
    fn read_clock(&self, window: &TimeWindow, clock: &impl Clock) {
        let now = self.nanos(clock);
        window.advance(now);
        self.look(now);
    }

    #[inline(never)]
    fn conclude_otherwise(
        &self,
        ticket: &mut Ticket,
        stripe: usize,
        outcome: Outcome,
        pushback: Option<Pushback>,
        clock: &impl Clock,
    ) {
        let good = match outcome {
            Outcome::Success => Some(true),
            Outcome::Failure => Some(false),
            Outcome::Overload if self.params.overload_as_failure() => Some(false),
            _ => None,
        };
        match ticket.kind() {
            Kind::Closed => {
                if let Some(good) = good {
                    self.record(ticket, stripe, good, pushback, self.nanos(clock));
                }
            }
            Kind::Probe(slot) => {
                let good = good.map(|good| good && !(ticket.is_slow() && self.params.judges_slowness()));
                self.settle_probe(ticket.generation(), slot, ticket.hung, good, pushback, self.nanos(clock));
            }
            Kind::Answered => {
                let good = good.map(|good| good && !(ticket.is_slow() && self.params.judges_slowness()));
                if let Some(good) = good {
                    let count = |word: Word| word.with_result(good);
                    self.decide_by(ticket.generation(), count, pushback, self.nanos(clock));
                }
            }
            Kind::Free => {}
        }
    }

    /// The call was given up.
    pub(crate) fn abandon(&self, ticket: &mut Ticket, stripe: usize, outcome: Outcome, clock: &impl Clock) {
        let mut hung = false;
        if ticket.is_in(Phase::Waiting) {
            let now = self.nanos(clock);
            hung = now.saturating_sub(ticket.began) >= self.params.hang_after();
            self.end_latency(ticket, stripe, now);
            if hung {
                ticket.set_slow();
            }
        }
        let outcome = if hung { Outcome::Failure } else { outcome };
        self.conclude_otherwise(ticket, stripe, outcome, None, clock);
    }
}
