use crate::{load::Sample, node::Node};
use buttress_core::{Clock, Outcome, Pushback, Reason, Rejection, Settle, TokioClock, abandoned};
use std::{fmt, sync::Arc, time::Duration};

/// A call to an endpoint: it counts as in flight until this is dropped.
///
/// Its latency runs from the moment it is first asked and not ready ([`Settle::pending`]) to the response head
/// ([`Settle::head`]); where that never comes, to its conclusion or its drop; without the time in which it is
/// [paused](Settle::pause). A call that is ready when it is first asked takes
/// no time and reads no clock. One that is dropped without a conclusion and before the head took at least as long as it did.
pub struct BalancePermit {
    node: Arc<Node>,
    /// When it was picked, or a moment before.
    began: u64,
    /// The same; or since when somebody waits.
    since: u64,
    /// How long somebody waited before.
    waited: u64,
    phase: Phase,
    /// Nothing is left to be said about it.
    concluded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has waited.
    Begun,
    /// Somebody waits.
    Waiting,
    /// The endpoint waits for the caller's own client.
    Paused,
    /// The head came while somebody waited.
    Headed,
    /// The head was there at once.
    HeadedAtOnce,
}

impl BalancePermit {
    #[inline]
    pub(crate) fn new(node: Arc<Node>, now: u64, measured: bool) -> Self {
        node.load.enter();
        Self { node, began: now, since: now, waited: 0, phase: Phase::Begun, concluded: !measured }
    }

    /// The name of the endpoint.
    pub fn endpoint(&self) -> &str {
        &self.node.name
    }

    /// Its number in [`Tried`](buttress_core::Tried).
    pub fn id(&self) -> u32 {
        self.node.id
    }

    #[inline]
    fn nanos(&self, clock: &impl Clock) -> u64 {
        let now = self.node.tuning.origin.nanos(clock.now());
        self.node.tuning.saw(now);
        now
    }

    #[inline]
    pub(crate) fn pending_at(&mut self, clock: &impl Clock) {
        match self.phase {
            Phase::Begun | Phase::Paused | Phase::Headed | Phase::HeadedAtOnce => {
                self.since = self.nanos(clock);
                self.phase = Phase::Waiting;
            }
            Phase::Waiting => {}
        }
    }

    pub(crate) fn pause_at(&mut self, clock: &impl Clock) {
        match self.phase {
            Phase::Begun => self.phase = Phase::Paused,
            Phase::Waiting => {
                self.stop(clock);
                self.phase = Phase::Paused;
            }
            Phase::Paused | Phase::Headed | Phase::HeadedAtOnce => {}
        }
    }

    /// Nobody waits for the endpoint any more.
    #[inline]
    fn stop(&mut self, clock: &impl Clock) {
        let now = self.nanos(clock);
        self.waited += now.saturating_sub(self.since);
    }

    #[inline]
    pub(crate) fn head_at(&mut self, clock: &impl Clock) {
        match self.phase {
            Phase::Begun => self.phase = Phase::HeadedAtOnce,
            Phase::Waiting => {
                self.stop(clock);
                self.phase = Phase::Headed;
            }
            Phase::Paused => self.phase = Phase::Headed,
            Phase::Headed | Phase::HeadedAtOnce => {}
        }
    }

    #[inline]
    pub(crate) fn conclude_at(&mut self, outcome: Outcome, pushback: Option<Pushback>, clock: &impl Clock) {
        if self.concluded {
            return;
        }
        self.concluded = true;
        match outcome {
            Outcome::Success => self.sample(Sample::Success, clock),
            Outcome::Failure => self.sample(Sample::Failure, clock),
            Outcome::Overload => self.overload(pushback, clock),
            // A client's fault: nothing about the endpoint.
            _ => {}
        }
    }

    #[inline]
    fn sample(&mut self, sample: Sample, clock: &impl Clock) {
        // A success that nobody waited for is over when it begins.
        let now = match self.phase {
            Phase::Begun | Phase::HeadedAtOnce if sample == Sample::Success => self.since,
            _ => self.nanos(clock),
        };
        if self.phase == Phase::Waiting {
            self.waited += now.saturating_sub(self.since);
        }
        self.node.load.sample(now, self.began, self.waited, sample, &self.node.tuning);
    }

    /// It answered, and that fast says nothing: only that it was this slow does.
    #[cold]
    fn overload(&mut self, pushback: Option<Pushback>, clock: &impl Clock) {
        let pushback = pushback.map(|pushback| pushback.delay().map_or(u64::MAX, nanos));
        self.node.load.overloaded(self.nanos(clock), pushback, &self.node.tuning);
        self.sample(Sample::AtLeast, clock);
    }

    /// It did not get as far as the endpoint. One that refuses has no calls, and must not look idle for that.
    #[cold]
    pub(crate) fn refused_at(&mut self, rejection: &Rejection, clock: &impl Clock) {
        let (load, tuning) = (&self.node.load, &self.node.tuning);
        let wait = rejection.retry_after.map(nanos);
        match rejection.reason {
            _ if self.concluded => {}
            Reason::BreakerOpen | Reason::NoEndpoint => load.refused(self.nanos(clock), wait, tuning),
            Reason::AtCapacity | Reason::Shed | Reason::QueueTimeout | Reason::RateLimited => {
                load.overloaded(self.nanos(clock), wait, tuning);
            }
            _ => {}
        }
    }

    #[cold]
    fn abandon(&mut self, why: Outcome, clock: &impl Clock) {
        match (why, self.phase) {
            (Outcome::Failure, _) => self.conclude_at(Outcome::Failure, None, clock),
            // It answered, and its reader left: that fast it is.
            (_, Phase::Headed | Phase::HeadedAtOnce) => self.sample(Sample::Success, clock),
            (_, Phase::Waiting | Phase::Paused) => self.sample(Sample::AtLeast, clock),
            (_, Phase::Begun) => {}
        }
    }
}

fn nanos(delay: Duration) -> u64 {
    u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)
}

impl Settle for BalancePermit {
    const HEEDS_REFUSALS: bool = true;

    fn refused(&mut self, rejection: Rejection) {
        self.refused_at(&rejection, &TokioClock);
    }

    #[inline]
    fn pending(&mut self) {
        self.pending_at(&TokioClock);
    }

    fn pause(&mut self) {
        self.pause_at(&TokioClock);
    }

    #[inline]
    fn head(&mut self) {
        self.head_at(&TokioClock);
    }

    #[inline]
    fn conclude(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        self.conclude_at(outcome, pushback, &TokioClock);
    }
}

impl Drop for BalancePermit {
    #[inline]
    fn drop(&mut self) {
        if !self.concluded {
            self.abandon(abandoned(), &TokioClock);
        }
        self.node.load.leave();
    }
}

impl fmt::Debug for BalancePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalancePermit")
            .field("endpoint", &self.node.name)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}
