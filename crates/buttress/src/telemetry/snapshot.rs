use buttress_core::{DegradedBy, HistogramSnapshot, Mode, Outcome, Reason};

/// How a call ended: by its [`Outcome`], or by a caller who did not wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// [`Outcome::Success`].
    Success,
    /// [`Outcome::Failure`].
    Failure,
    /// [`Outcome::Overload`].
    Overload,
    /// [`Outcome::Ignored`].
    Ignored,
    /// The caller dropped it, or its body, before its end.
    Abandoned,
}

impl End {
    /// Every end, in the order of their discriminants.
    pub const ALL: [End; 5] = [Self::Success, Self::Failure, Self::Overload, Self::Ignored, Self::Abandoned];

    /// The label `outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Overload => "overload",
            Self::Ignored => "ignored",
            Self::Abandoned => "abandoned",
        }
    }

    #[inline]
    pub(super) fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::Success,
            Outcome::Failure => Self::Failure,
            Outcome::Overload => Self::Overload,
            _ => Self::Ignored,
        }
    }

    /// Of a call that is dropped, for this reason.
    pub(super) fn abandoned(why: Outcome) -> Self {
        match why {
            Outcome::Ignored => Self::Abandoned,
            outcome => Self::of(outcome),
        }
    }
}

/// Labels of HTTP statuses.
pub(super) const STATUS_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];
/// Labels of gRPC codes.
pub(super) const GRPC_CODES: [&str; 18] =
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "other"];

/// Where a status is counted.
#[inline]
pub(super) fn class_of(status: u16) -> usize {
    match usize::from(status / 100) {
        class @ 1..=5 => class - 1,
        _ => STATUS_CLASSES.len() - 1,
    }
}

/// Where a gRPC code is counted.
#[inline]
pub(super) fn place_of(code: u8) -> usize {
    usize::from(code).min(GRPC_CODES.len() - 1)
}

/// What a [`Telemetry`](super::Telemetry) had counted at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TelemetrySnapshot {
    /// What an operator told it to do.
    pub mode: Mode,
    /// Calls that began, and are not at their real end.
    pub in_flight: u64,
    pub(super) ends: [HistogramSnapshot; End::ALL.len()],
    pub(super) heads: HistogramSnapshot,
    pub(super) statuses: [u64; STATUS_CLASSES.len()],
    pub(super) grpc: [u64; GRPC_CODES.len()],
    pub(super) refused: [u64; Reason::ALL.len()],
    pub(super) degraded: [u64; DegradedBy::ALL.len()],
}

impl TelemetrySnapshot {
    pub(super) fn new(mode: Mode, in_flight: u64) -> Self {
        Self {
            mode,
            in_flight,
            ends: Default::default(),
            heads: HistogramSnapshot::default(),
            statuses: [0; STATUS_CLASSES.len()],
            grpc: [0; GRPC_CODES.len()],
            refused: [0; Reason::ALL.len()],
            degraded: [0; DegradedBy::ALL.len()],
        }
    }

    /// How many calls ended so.
    pub fn count(&self, end: End) -> u64 {
        self.duration(end).count()
    }

    /// How long the calls took that ended so, to their real end.
    pub fn duration(&self, end: End) -> &HistogramSnapshot {
        &self.ends[end as usize]
    }

    /// How long all calls took.
    pub fn all(&self) -> HistogramSnapshot {
        let mut all = HistogramSnapshot::default();
        self.ends.iter().for_each(|end| all.merge(end));
        all
    }

    /// How long HTTP calls took to their response head, whatever it said. Other calls have none.
    pub fn head(&self) -> &HistogramSnapshot {
        &self.heads
    }

    /// How many calls a layer further in refused, or cut short, for this reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused.get(reason as usize).copied().unwrap_or_default()
    }

    /// How many calls got a degraded answer of this kind of layer. HTTP only: elsewhere nothing tells.
    pub fn degraded(&self, by: DegradedBy) -> u64 {
        self.degraded.get(by as usize).copied().unwrap_or_default()
    }

    /// How many responses had a status of the class that begins with `hundreds` (5: the 5xx).
    pub fn responses(&self, hundreds: u8) -> u64 {
        self.statuses[class_of(u16::from(hundreds) * 100)]
    }

    /// How many answers had this gRPC code; above 16: all that gRPC does not know.
    pub fn grpc(&self, code: u8) -> u64 {
        self.grpc[place_of(code)]
    }
}
