use crate::{Fault, Harm};
use buttress_core::{Clock, Draw, Rejection, sync::AtomicU64};
use std::time::{Duration, Instant};

/// The layer of an injected [`Rejection`], whatever reason it imitates.
pub const LAYER: &str = "chaos";

/// What is to happen to one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// It goes on, or ends, after this long.
    pub delay: Option<Duration>,
    /// It ends without the service. `None`: the service is called.
    pub end: Option<End>,
    /// The body of its response fails after so many bytes.
    pub cut: Option<u64>,
}

/// How a call ends without the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It is refused.
    Refuse(Rejection),
    /// It is answered with an HTTP status.
    Status {
        /// The status.
        status: u16,
        /// What `Retry-After` says.
        retry_after: Option<Duration>,
    },
    /// It is not answered.
    Hang,
}

impl Decision {
    /// Nothing happens to it.
    pub const PASS: Self = Self { delay: None, end: None, cut: None };

    /// Whether nothing happens to it.
    pub fn is_pass(&self) -> bool {
        *self == Self::PASS
    }
}

/// Faults that were injected together.
pub(crate) struct Plan {
    pub(crate) faults: Box<[Active]>,
    pub(crate) draw: Draw,
    /// When the last of them is over; `None`: never.
    pub(crate) over: Option<Instant>,
    /// Whether time matters at all.
    has_ends: bool,
}

pub(crate) struct Active {
    pub(crate) fault: Fault,
    /// Of 2^53 draws so many hit.
    threshold: u64,
    pub(crate) until: Option<Instant>,
    pub(crate) harmed: AtomicU64,
}

/// Draws are compared by as many bits as a share has.
const SHARE_BITS: u32 = 53;

impl Active {
    fn is_over(&self, now: Option<Instant>) -> bool {
        self.until.zip(now).is_some_and(|(until, now)| now >= until)
    }

    /// Whether a call with this draw is hit, whatever the other faults do.
    fn hits(&self, place: usize, draw: u64) -> bool {
        sub_draw(draw, 2 * place) >> (u64::BITS - SHARE_BITS) < self.threshold
    }

    fn delay(&self, place: usize, draw: u64, min: Duration, max: Duration) -> Duration {
        let share = sub_draw(draw, 2 * place + 1) as f64 / u64::MAX as f64;
        min + (max - min).mul_f64(share)
    }
}

/// One of many independent numbers that follow from a draw.
fn sub_draw(draw: u64, place: usize) -> u64 {
    Draw::new(draw ^ (place as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)).draw()
}

impl Plan {
    pub(crate) fn new(faults: &[Fault], seed: u64, now: Instant) -> Self {
        let active = |fault: &Fault| Active {
            fault: *fault,
            threshold: (fault.percent / 100.0 * (1_u64 << SHARE_BITS) as f64) as u64,
            until: fault.lasts.and_then(|lasts| now.checked_add(lasts)),
            harmed: AtomicU64::new(0),
        };
        let faults: Box<[Active]> = faults.iter().map(active).collect();
        let ends = || faults.iter().map(|active| active.until);
        let over = if ends().all(|end| end.is_some()) { ends().flatten().max() } else { None };
        let has_ends = ends().any(|end| end.is_some());
        Self { faults, draw: Draw::new(seed), over, has_ends }
    }

    /// When this is decided, as far as it matters.
    pub(crate) fn now(&self, clock: &impl Clock) -> Option<Instant> {
        self.has_ends.then(|| clock.now())
    }

    /// What happens to a call with this draw, and which faults did it, as a bit each. Each fault is drawn for by itself: delays add
    /// up, the first that ends the call does, and who is not answered need not wait before.
    pub(crate) fn decide(&self, now: Option<Instant>, draw: u64, http: bool) -> (Decision, u32) {
        let mut decision = Decision::PASS;
        let (mut done_by, mut delays, mut cuts) = (0, 0, 0);
        for (place, active) in self.faults.iter().enumerate() {
            let harm = active.fault.harm;
            if harm.needs_http() && !http || active.is_over(now) || !active.hits(place, draw) {
                continue;
            }
            let bit = 1 << place;
            match harm {
                Harm::Latency { min, max } => {
                    let delay = active.delay(place, draw, min, max);
                    decision.delay = Some(decision.delay.unwrap_or_default() + delay);
                    delays |= bit;
                }
                Harm::Cut { after } => {
                    decision.cut = Some(decision.cut.map_or(after, |before| before.min(after)));
                    cuts |= bit;
                }
                Harm::Refuse { .. } | Harm::Status { .. } | Harm::Hang if decision.end.is_some() => {}
                Harm::Refuse { reason, retry_after } => {
                    let rejection = Rejection::new(reason, LAYER);
                    let rejection = retry_after.map_or(rejection, |delay| rejection.retry_after(delay));
                    (decision.end, done_by) = (Some(End::Refuse(rejection)), bit);
                }
                Harm::Status { status, retry_after } => {
                    (decision.end, done_by) = (Some(End::Status { status, retry_after }), bit);
                }
                Harm::Hang => (decision.end, done_by) = (Some(End::Hang), bit),
            }
        }
        if decision.end == Some(End::Hang) {
            (decision.delay, delays) = (None, 0);
        }
        if decision.end.is_some() {
            (decision.cut, cuts) = (None, 0);
        }
        (decision, done_by | delays | cuts)
    }

    /// The faults of a [`decide`](Self::decide)'s bits.
    pub(crate) fn of(&self, bits: u32) -> impl Iterator<Item = &Active> {
        self.faults.iter().enumerate().filter(move |(place, _)| bits & 1 << place != 0).map(|(_, active)| active)
    }
}
