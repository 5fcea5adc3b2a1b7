use super::{End, Telemetry, policy::Shared, policy::Stripe, snapshot};
use buttress_core::{Clock, Degraded, Lease, Outcome, Pushback, Rejection, Settle, Status, TokioClock, abandoned};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

/// A call that is measured, to its real end: as long as this is held it is in flight.
pub struct Measured {
    /// `None`: it is not measured.
    call: Option<Call>,
}

struct Call {
    lease: Arc<Lease<Shared>>,
    began: Instant,
    phase: Phase,
    refused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begun,
    /// Its status is known: it is HTTP, and has a head.
    Answered,
    /// The time to the head was counted.
    Headed,
    /// So was the time to the end.
    Over,
}

impl Measured {
    #[inline]
    pub(super) fn new(lease: Arc<Lease<Shared>>, began: Instant) -> Self {
        Self { call: Some(Call { lease, began, phase: Phase::Begun, refused: false }) }
    }

    pub(super) fn not() -> Self {
        Self { call: None }
    }

    /// A call that begins now, where there is somebody to measure it.
    #[cfg(feature = "http")]
    #[inline]
    pub(super) fn by(telemetry: Option<&Telemetry>) -> Self {
        telemetry.map_or_else(Self::not, Telemetry::begin)
    }
}

impl Call {
    #[inline]
    fn stripe(&self) -> &Stripe {
        &self.lease.stripes[self.lease.stripe()]
    }

    #[inline]
    fn head(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Begun | Phase::Answered) {
            self.phase = Phase::Headed;
            self.stripe().heads.record(now.saturating_duration_since(self.began));
        }
    }

    #[inline]
    fn end(&mut self, end: End, clock: &impl Clock) {
        if self.phase == Phase::Over {
            return;
        }
        let now = clock.now();
        if self.phase == Phase::Answered {
            self.head(now);
        }
        self.phase = Phase::Over;
        self.stripe().ends[end as usize].record(now.saturating_duration_since(self.began));
    }
}

impl Settle for Measured {
    #[inline]
    fn head(&mut self) {
        if let Some(call) = &mut self.call
            && call.phase != Phase::Headed
        {
            call.head(TokioClock.now());
        }
    }

    const HEEDS_REFUSALS: bool = true;

    fn refused(&mut self, rejection: Rejection) {
        if let Some(call) = &mut self.call
            && !call.refused
        {
            call.refused = true;
            if let Some(count) = call.stripe().refused.get(rejection.reason as usize) {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    const HEEDS_DEGRADED: bool = true;

    fn degraded(&mut self, degraded: Degraded) {
        if let Some(call) = &self.call
            && let Some(count) = call.stripe().degraded.get(degraded.by as usize)
        {
            count.fetch_add(1, Relaxed);
        }
    }

    const HEEDS_STATUS: bool = true;

    #[inline]
    fn status(&mut self, status: Status) {
        let Some(call) = &mut self.call else { return };
        let count = match status {
            Status::Http(status) => {
                call.phase = Phase::Answered;
                &call.stripe().statuses[snapshot::class_of(status)]
            }
            Status::Grpc(code) => &call.stripe().grpc[snapshot::place_of(code)],
        };
        count.fetch_add(1, Relaxed);
    }

    #[inline]
    fn conclude(&mut self, outcome: Outcome, _: Option<Pushback>) {
        if let Some(call) = &mut self.call {
            call.end(End::of(outcome), &TokioClock);
        }
    }
}

impl Drop for Measured {
    #[inline]
    fn drop(&mut self) {
        if let Some(call) = &mut self.call
            && call.phase != Phase::Over
        {
            call.end(End::abandoned(abandoned()), &TokioClock);
        }
    }
}

impl fmt::Debug for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measured").field("began", &self.call.as_ref().map(|call| call.began)).finish_non_exhaustive()
    }
}
