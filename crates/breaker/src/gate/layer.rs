use super::{RampedGate, permit::RampedGatePermit, valve::refusal};
use buttress_core::{Admit, GateLayer, Gatekeeper, Mode, Parked, Rejection, TokioClock};
use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

/// The layer of a [`RampedGate`]: `RampedGateLayer::new(config.build()?)`.
///
/// Every service, clone and connection of one layer shares the gate; [`GateLayer::fresh`] makes another one.
pub type RampedGateLayer = GateLayer<RampedGate>;

/// What a clone of the service keeps between `poll_ready` and `call`.
#[derive(Default)]
pub struct RampedGateTurn {
    parked: Parked,
    /// What `poll_ready` has decided on the next call.
    decided: Option<Decided>,
    /// Any of the above is set.
    busy: bool,
}

#[derive(Clone, Copy, Debug)]
enum Decided {
    Passes,
    /// Against the decision: the mode says so.
    LetThrough,
    /// It does not pass: drawn in this generation, and until one passes for certain, in nanoseconds since the origin.
    Refused {
        generation: u64,
        until: u64,
    },
}

impl RampedGateTurn {
    #[cold]
    fn clear(&mut self) -> Option<Decided> {
        self.parked.leave();
        self.busy = false;
        self.decided.take()
    }
}

impl fmt::Debug for RampedGateTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RampedGateTurn").field("decided", &self.decided).finish_non_exhaustive()
    }
}

impl Gatekeeper for RampedGate {
    type Permit = RampedGatePermit;
    type Turn = RampedGateTurn;

    #[inline]
    fn poll_ready(&self, turn: &mut RampedGateTurn, cx: &mut Context<'_>) -> Poll<Option<Rejection>> {
        let _ = cx;
        if !turn.busy && self.shared.admit_plainly().is_some() {
            return Poll::Ready(None);
        }
        Poll::Ready(self.decide(turn).err())
    }

    fn unready(&self) {
        self.count_unready();
    }

    fn parked(&self, turn: &mut RampedGateTurn, cx: &mut Context<'_>) {
        turn.busy = true;
        turn.parked.park(&self.shared.wakers, cx);
        // It may have been narrowed between the two looks: then the wake-up came too early.
        if turn.decided.is_none() && self.shared.admit_plainly().is_none() && self.shared.mode.get() != Mode::Disabled {
            cx.waker().wake_by_ref();
        }
    }
}

impl RampedGate {
    /// A failure of the inner service that no call had a part in.
    #[cold]
    fn count_unready(&self) {
        let valve = &*self.shared;
        // Whom it befell had been let through: nobody draws again.
        if valve.mode.get() != Mode::Disabled {
            let now = valve.nanos(&TokioClock);
            valve.fail(valve.word().generation(), now);
            valve.look(now);
        }
    }

    /// Which call of a narrow gate passes is drawn before the inner service is asked whether it is ready: a fleet that is down may
    /// never be. It is drawn once, however often a call is asked for before it comes.
    #[inline(never)]
    fn decide(&self, turn: &mut RampedGateTurn) -> Result<(), Rejection> {
        let valve = &*self.shared;
        let before = turn.clear();
        match valve.mode.get() {
            Mode::Disabled => return Ok(()),
            Mode::ForcedOpen => return Err(valve.refuse(self.shared.stripe(), None)),
            _ => {}
        }
        let now = valve.nanos(&TokioClock);
        let (decided, answer) = match before {
            Some(Decided::Refused { generation, until }) if generation == valve.word().generation() && now < until => {
                (Decided::Refused { generation, until }, Err(refusal(Some(Duration::from_nanos(until - now)))))
            }
            Some(decided @ (Decided::Passes | Decided::LetThrough)) => (decided, Ok(())),
            _ => match valve.decide(self.shared.stripe(), now) {
                Ok(word) if word.is_wide_open() => return Ok(()),
                Ok(_) => (Decided::Passes, Ok(())),
                Err(wait) if valve.mode.enforces() => {
                    let until = now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
                    let refused = Decided::Refused { generation: valve.word().generation(), until };
                    (refused, Err(valve.refuse(self.shared.stripe(), Some(wait))))
                }
                Err(_) => (Decided::LetThrough, Ok(())),
            },
        };
        turn.decided = Some(decided);
        turn.busy = true;
        answer
    }
}

impl<Req> Admit<Req> for RampedGate {
    #[inline]
    fn admit(&self, turn: &mut RampedGateTurn, _: &Req) -> Result<RampedGatePermit, Rejection> {
        if turn.busy {
            return self.admit_decided(turn);
        }
        self.try_acquire()
    }
}

impl RampedGate {
    #[cold]
    fn admit_decided(&self, turn: &mut RampedGateTurn) -> Result<RampedGatePermit, Rejection> {
        let decided = turn.clear();
        let ticket = match (self.shared.mode.get(), decided) {
            (Mode::Disabled | Mode::ForcedOpen, _) | (_, None | Some(Decided::Refused { .. })) => {
                return self.try_acquire();
            }
            (_, Some(Decided::Passes)) => self.shared.pass(),
            (_, Some(Decided::LetThrough)) => self.shared.let_through(),
        };
        Ok(RampedGatePermit::new(self.shared.lease(), ticket))
    }
}
