use crate::{Breaker, BreakerPermit, machine::Machine};
use buttress_core::{Admit, GateLayer, Gatekeeper, Keyed, Mode, Outcome, Parked, Rejection, Settle, TokioClock};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Sleep;

/// The layer of a [`Breaker`]: `BreakerLayer::new(config.build()?)`.
///
/// Every service, clone and connection of one layer shares the circuit; [`GateLayer::fresh`] makes another one.
pub type BreakerLayer = GateLayer<Breaker>;

/// A circuit per key (host, route, tenant): `KeyedBreakerLayer::new(KeyedConfig::default().build(key, make)?)`. It decides in `call`,
/// so [`Admission::BackPressure`](crate::Admission::BackPressure) refuses here.
pub type KeyedBreakerLayer<K, F> = GateLayer<Keyed<K, Breaker, F>>;

/// What a clone of the service keeps between `poll_ready` and `call`.
#[derive(Default)]
pub struct BreakerTurn {
    parked: Parked,
    sleep: Option<Pin<Box<Sleep>>>,
    /// `poll_ready` has decided that the next call passes although the circuit is open.
    let_through: bool,
    /// Any of the above is set.
    busy: bool,
}

impl BreakerTurn {
    #[cold]
    fn clear(&mut self) {
        self.parked.leave();
        self.sleep = None;
        self.let_through = false;
        self.busy = false;
    }
}

impl fmt::Debug for BreakerTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerTurn").field("waiting", &self.sleep.is_some()).finish_non_exhaustive()
    }
}

impl Gatekeeper for Breaker {
    type Permit = BreakerPermit;
    type Turn = BreakerTurn;

    #[inline]
    fn poll_ready(&self, turn: &mut BreakerTurn, cx: &mut Context<'_>) -> Poll<Option<Rejection>> {
        if turn.busy {
            turn.clear();
        }
        let machine: &Machine = &self.shared;
        if machine.is_plainly_closed() {
            return Poll::Ready(None);
        }
        // The refusal of an open circuit is made right here, where it stays: one look, one clock.
        if !machine.params.back_pressure()
            && let Some(wait) = machine.plainly_open_for(&TokioClock)
        {
            return Poll::Ready(Some(machine.refuse(self.shared.stripe(), Some(wait))));
        }
        self.poll_shut(turn, cx)
    }

    fn unready(&self) {
        self.count_unready();
    }

    fn parked(&self, turn: &mut BreakerTurn, cx: &mut Context<'_>) {
        turn.busy = true;
        turn.parked.park(&self.shared.wakers, cx);
        // It may have opened between the two looks: then the wake-up came too early.
        if !self.shared.is_plainly_closed() && self.would_refuse().is_some() {
            cx.waker().wake_by_ref();
        }
    }
}

impl Breaker {
    /// A failure of the inner service that no call had a part in.
    #[cold]
    fn count_unready(&self) {
        if let Ok(permit) = self.try_acquire() {
            permit.settle(Outcome::Failure, None);
        }
    }

    /// `Some`: the next call would be refused, and it is worth waiting this long (`None`: nobody knows how long).
    fn would_refuse(&self) -> Option<Option<Duration>> {
        match self.shared.mode.get() {
            Mode::Disabled => None,
            Mode::ForcedOpen => Some(None),
            _ => self.shared.shut(self.shared.nanos(&TokioClock)).map(Some),
        }
    }

    #[inline(never)]
    fn poll_shut(&self, turn: &mut BreakerTurn, cx: &mut Context<'_>) -> Poll<Option<Rejection>> {
        let machine: &Machine = &self.shared;
        loop {
            let Some(wait) = self.would_refuse() else { return Poll::Ready(None) };
            if !machine.mode.enforces() {
                turn.let_through = true;
                turn.busy = true;
                return Poll::Ready(None);
            }
            if !machine.params.back_pressure() {
                return Poll::Ready(Some(machine.refuse(self.shared.stripe(), wait)));
            }
            turn.busy = true;
            turn.parked.park(&machine.wakers, cx);
            let mut sleep = Box::pin(tokio::time::sleep(wait.unwrap_or(Duration::from_secs(3600))));
            let elapsed = sleep.as_mut().poll(cx).is_ready();
            turn.sleep = Some(sleep);
            // It may have closed between the decision and the parking.
            if !elapsed && self.would_refuse().is_some() {
                return Poll::Pending;
            }
        }
    }
}

impl<Req> Admit<Req> for Breaker {
    #[inline]
    fn admit(&self, turn: &mut BreakerTurn, _: &Req) -> Result<BreakerPermit, Rejection> {
        if turn.busy {
            return self.admit_decided(turn);
        }
        self.try_acquire()
    }
}

impl Breaker {
    #[cold]
    fn admit_decided(&self, turn: &mut BreakerTurn) -> Result<BreakerPermit, Rejection> {
        let let_through = turn.let_through;
        turn.clear();
        if let_through && self.would_refuse().is_some() {
            return Ok(BreakerPermit::new(self.shared.lease(), self.shared.let_through()));
        }
        self.try_acquire()
    }
}
