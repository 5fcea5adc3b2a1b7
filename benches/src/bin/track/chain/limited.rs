//! A [`Limit`] as a gate: so many calls at once, refused beyond that, nobody waits.

use buttress_core::{
    Admit, Clock, Gatekeeper, Outcome, Pushback, Reason, Rejection, Settle, TokioClock, abandoned, sync::lock,
};
use buttress_shed::limit::{Limit, Window};
use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

pub struct Limited(Arc<Mutex<State>>);

struct State {
    limit: Box<dyn Limit>,
    in_flight: u32,
    seen: Window,
}

impl Limited {
    pub fn new(limit: impl Limit) -> Self {
        let now = TokioClock.now();
        let state = State { limit: Box::new(limit), in_flight: 0, seen: Window::empty(now, now) };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl Gatekeeper for Limited {
    type Permit = Held;
    type Turn = ();
}

impl<Req> Admit<Req> for Limited {
    fn admit(&self, _: &mut (), _: &Req) -> Result<Held, Rejection> {
        let mut state = lock(&self.0);
        if state.in_flight >= state.limit.limit() {
            state.seen.limited = true;
            return Err(Rejection::new(Reason::Shed, "limit"));
        }
        state.in_flight += 1;
        Ok(Held { state: self.0.clone(), since: TokioClock.now(), outcome: None })
    }
}

/// A call that was let in.
pub struct Held {
    state: Arc<Mutex<State>>,
    since: Instant,
    outcome: Option<Outcome>,
}

impl Settle for Held {
    fn conclude(&mut self, outcome: Outcome, _: Option<Pushback>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let now = TokioClock.now();
        let mut state = lock(&self.state);
        let State { limit, in_flight, seen } = &mut *state;
        let took = now - self.since;
        seen.completed += 1;
        seen.in_flight = seen.in_flight.max(*in_flight);
        seen.overloads += u32::from(self.outcome == Some(Outcome::Overload));
        // A failure says nothing of the load.
        if matches!(self.outcome, Some(Outcome::Success) | None) {
            seen.shortest = if seen.samples == 0 { took } else { seen.shortest.min(took) };
            seen.samples += 1;
            seen.total += took;
        }
        if self.outcome.is_none() {
            seen.censored += 1;
            seen.timed_out += u32::from(abandoned() == Outcome::Failure);
        }
        *in_flight -= 1;
        if limit.span().is_over(seen.samples, now - seen.start, now) {
            seen.end = now;
            limit.observe(seen);
            *seen = Window::empty(now, now);
        }
    }
}
