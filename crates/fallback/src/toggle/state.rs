//! What a toggle is, in one word and by its names.

use std::time::Duration;

/// What an operator said of a toggle. It wins over everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Switch {
    /// It goes by itself.
    #[default]
    Auto,
    /// On, whatever fails.
    On,
    /// Off.
    Off,
}

impl Switch {
    /// Every position, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Auto, Self::On, Self::Off];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }

    #[inline]
    pub(super) fn of(byte: u8) -> Self {
        match byte {
            1 => Self::On,
            2 => Self::Off,
            _ => Self::Auto,
        }
    }
}

/// What a toggle does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ToggleState {
    /// They pass.
    On,
    /// None does.
    Off,
    /// One at a time does.
    Probing,
    /// A rising share does.
    Ramping,
}

impl ToggleState {
    /// Every state, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::On, Self::Off, Self::Probing, Self::Ramping];

    /// Every [name](Self::as_str) there is.
    pub const NAMES: [&'static str; 4] = ["on", "off", "probing", "ramping"];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// What switched a toggle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum SwitchedBy {
    /// A failure: the first one is enough.
    FirstFailure,
    /// The share of failures.
    FailureRate,
    /// The signal of another policy.
    Signal,
    /// A probe: a bad one switches off, good ones on.
    Probe,
    /// It was off long enough: the way back begins, or is at its end.
    Time,
    /// A level.
    Level,
    /// An operator.
    Operator,
}

impl SwitchedBy {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 7] =
        [Self::FirstFailure, Self::FailureRate, Self::Signal, Self::Probe, Self::Time, Self::Level, Self::Operator];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstFailure => "first_failure",
            Self::FailureRate => "failure_rate",
            Self::Signal => "signal",
            Self::Probe => "probe",
            Self::Time => "time",
            Self::Level => "level",
            Self::Operator => "operator",
        }
    }
}

/// A toggle has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToggleChange {
    /// What it was.
    pub from: ToggleState,
    /// What it is.
    pub to: ToggleState,
    /// What switched it.
    pub by: SwitchedBy,
}

impl ToggleChange {
    pub(super) fn tell(&self, toggle: &str) {
        let (from, to, by) = (self.from.as_str(), self.to.as_str(), self.by.as_str());
        // Switched off is what an operator wants to hear of.
        if self.to == ToggleState::Off {
            tracing::warn!(target: crate::TARGET, toggle, from, to, by, "toggle changed");
        } else {
            tracing::info!(target: crate::TARGET, toggle, from, to, by, "toggle changed");
        }
    }
}

// [ payload 40 | generation 22 | state 2 ]
const GENERATION_SHIFT: u32 = 2;
const PAYLOAD_SHIFT: u32 = 24;
const GENERATION_MASK: u64 = (1 << 22) - 1;
const PAYLOAD_MASK: u64 = (1 << 40) - 1;

// The payload of a probing toggle: [ when the probe began, in ms 33 | a probe is out 1 | good probes 6 ].
const OUT: u64 = 1 << 6;
const GOOD_MASK: u64 = OUT - 1;
const BEGAN_SHIFT: u32 = 7;
const BEGAN_MASK: u64 = (1 << 33) - 1;

/// The whole state of a toggle. Off, its payload is the moment from which it may come back; ramping, the one at which it began.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

/// A moment that never comes.
pub(super) const NEVER: u64 = PAYLOAD_MASK;

impl Word {
    /// On, nothing has happened yet.
    pub(super) const NEW: Self = Self(0);

    #[inline]
    pub(super) fn state(self) -> ToggleState {
        match self.0 & 3 {
            0 => ToggleState::On,
            1 => ToggleState::Off,
            2 => ToggleState::Probing,
            _ => ToggleState::Ramping,
        }
    }

    #[inline]
    pub(super) fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT & GENERATION_MASK) as u32
    }

    /// A moment, in milliseconds.
    #[inline]
    pub(super) fn moment(self) -> u64 {
        self.0 >> PAYLOAD_SHIFT
    }

    fn of(state: ToggleState, generation: u64, payload: u64) -> Self {
        Self(
            payload.min(PAYLOAD_MASK) << PAYLOAD_SHIFT
                | (generation & GENERATION_MASK) << GENERATION_SHIFT
                | state as u64,
        )
    }

    /// What comes after: results of now say nothing about it.
    pub(super) fn then(self, state: ToggleState, moment: u64) -> Self {
        Self::of(state, u64::from(self.generation()) + 1, moment)
    }

    /// What it becomes without a break: results of now count.
    pub(super) fn becomes(self, state: ToggleState) -> Self {
        Self::of(state, self.generation().into(), 0)
    }

    /// Good probes so far.
    pub(super) fn good(self) -> u32 {
        (self.moment() & GOOD_MASK) as u32
    }

    /// How long the probe that is out takes already, in milliseconds. `None`: there is a place for one.
    pub(super) fn probe_takes(self, now: u64) -> Option<u64> {
        let payload = self.moment();
        (payload & OUT != 0).then(|| now.wrapping_sub(payload >> BEGAN_SHIFT) & BEGAN_MASK)
    }

    /// With a probe that begins now.
    pub(super) fn with_probe(self, now: u64) -> Self {
        self.probing((now & BEGAN_MASK) << BEGAN_SHIFT | OUT | u64::from(self.good()))
    }

    /// With a place for a probe, after so many good ones.
    pub(super) fn without_probe(self, good: u32) -> Self {
        self.probing(u64::from(good) & GOOD_MASK)
    }

    /// With one more good probe; `frees`: and with a place for the next one.
    pub(super) fn with_good(self, frees: bool) -> Self {
        let payload = self.moment() + 1;
        self.probing(if frees { payload & GOOD_MASK } else { payload })
    }

    fn probing(self, payload: u64) -> Self {
        Self::of(ToggleState::Probing, self.generation().into(), payload)
    }
}

/// The moment `after` later.
pub(super) fn later(now: u64, after: Duration) -> u64 {
    now.saturating_add(u64::try_from(after.as_millis()).unwrap_or(NEVER)).min(NEVER - 1)
}
