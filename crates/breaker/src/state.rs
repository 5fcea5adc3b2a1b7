//! The state of a breaker in one word: `[ payload 38 | generation 24 | kind 2 ]`. Every transition is one CAS of it, and it carries
//! all it means, so readers need no fence and nothing has to be published beside it.

const KIND_MASK: u64 = 3;
const GENERATION_MASK: u64 = (1 << 24) - 1;
const PAYLOAD_SHIFT: u32 = 26;
const PAYLOAD_MASK: u64 = (1 << 38) - 1;
const SIX: u64 = 63;
// The payload of a ramp.
const SEVEN: u64 = 127;
const BAD_SHIFT: u32 = 7;
const STEP_SHIFT: u32 = 14;
const STEP_MASK: u64 = 7;
const BEGAN_SHIFT: u32 = 17;
const BEGAN_MASK: u64 = (1 << 21) - 1;
/// About a millisecond, so a tick is told from one that began half an hour ago.
const BEGAN_UNIT_SHIFT: u32 = 20;

pub(crate) const CLOSED: u64 = 0;
pub(crate) const OPEN: u64 = 1;
pub(crate) const HALF_OPEN: u64 = 2;
pub(crate) const RAMPING: u64 = 3;

/// The state's word.
///
/// Payload: closed: the first epoch of the time window that counts; open: until when, in milliseconds since the origin;
/// half-open, probing: `[ failures 6 | successes 6 | in flight 6 ]`; ramping: `[ when the tick began 21 | step 3 | bad 7 | good 7 ]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    pub(crate) fn new(kind: u64, generation: u32, payload: u64) -> Self {
        let generation = u64::from(generation) & GENERATION_MASK;
        Self(payload.min(PAYLOAD_MASK) << PAYLOAD_SHIFT | generation << 2 | kind)
    }

    #[inline]
    pub(crate) fn kind(self) -> u64 {
        self.0 & KIND_MASK
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 2 & GENERATION_MASK) as u32
    }

    #[inline]
    pub(crate) fn payload(self) -> u64 {
        self.0 >> PAYLOAD_SHIFT
    }

    /// Calls are measured, by their outcomes and while they are in flight.
    pub(crate) fn measures(self) -> bool {
        matches!(self.kind(), CLOSED | RAMPING)
    }

    /// The next generation, in another state.
    pub(crate) fn then(self, kind: u64, payload: u64) -> Self {
        Self::new(kind, self.generation().wrapping_add(1), payload)
    }

    /// The same generation of half-open with other counts.
    fn with(self, tally: Tally) -> Self {
        Self::new(HALF_OPEN, self.generation(), tally.failures << 12 | tally.successes << 6 | tally.in_flight)
    }

    pub(crate) fn tally(self) -> Tally {
        let payload = self.payload();
        Tally { in_flight: payload & SIX, successes: payload >> 6 & SIX, failures: payload >> 12 & SIX }
    }

    /// One more probe, if there is a place for it.
    pub(crate) fn with_probe(self, rules: ProbeRules) -> Option<Self> {
        let mut tally = self.tally();
        let free = tally.in_flight < rules.concurrent && tally.in_flight + tally.successes + tally.failures < rules.of;
        tally.in_flight += 1;
        free.then(|| self.with(tally))
    }

    /// A probe is over; `good`: `None` if it said nothing.
    pub(crate) fn without_probe(self, good: Option<bool>) -> Self {
        let mut tally = self.tally();
        tally.in_flight = tally.in_flight.saturating_sub(1);
        let word = self.with(tally);
        good.map_or(word, |good| word.with_result(good))
    }

    /// The outcome of a probe that has no place any more.
    pub(crate) fn with_result(self, good: bool) -> Self {
        let mut tally = self.tally();
        if good {
            tally.successes = (tally.successes + 1).min(SIX);
        } else {
            tally.failures = (tally.failures + 1).min(SIX);
        }
        self.with(tally)
    }
}

/// A ramp.
impl Word {
    /// The next generation, in the first tick of a ramp.
    pub(crate) fn ramp(self, now: u64) -> Self {
        self.then(RAMPING, (now >> BEGAN_UNIT_SHIFT & BEGAN_MASK) << BEGAN_SHIFT)
    }

    /// The next tick of a ramp.
    pub(crate) fn next_step(self, now: u64) -> Self {
        let step = (self.step() + 1).min(STEP_MASK);
        let began = now >> BEGAN_UNIT_SHIFT & BEGAN_MASK;
        Self::new(RAMPING, self.generation(), began << BEGAN_SHIFT | step << STEP_SHIFT)
    }

    /// How often the share has been doubled.
    pub(crate) fn step(self) -> u64 {
        self.payload() >> STEP_SHIFT & STEP_MASK
    }

    /// How long the tick takes already, in nanoseconds.
    pub(crate) fn since_step(self, now: u64) -> u64 {
        let began = self.payload() >> BEGAN_SHIFT;
        ((now >> BEGAN_UNIT_SHIFT).wrapping_sub(began) & BEGAN_MASK) << BEGAN_UNIT_SHIFT
    }

    /// The good results of the tick, and the bad ones.
    pub(crate) fn ramped(self) -> (u64, u64) {
        (self.payload() & SEVEN, self.payload() >> BAD_SHIFT & SEVEN)
    }

    /// One more of them.
    pub(crate) fn with_ramped(self, good: bool) -> Self {
        let (mut goods, mut bads) = self.ramped();
        let count = if good { &mut goods } else { &mut bads };
        *count = (*count + 1).min(SEVEN);
        let payload = self.payload() >> STEP_SHIFT << STEP_SHIFT | bads << BAD_SHIFT | goods;
        Self::new(RAMPING, self.generation(), payload)
    }
}

/// The probes of a half-open circuit.
#[derive(Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) in_flight: u64,
    pub(crate) successes: u64,
    pub(crate) failures: u64,
}

/// When probes close the circuit, and when they open it again.
#[derive(Clone, Copy)]
pub(crate) struct ProbeRules {
    pub(crate) concurrent: u64,
    pub(crate) enough: u64,
    pub(crate) of: u64,
}

impl ProbeRules {
    pub(crate) fn closes(self, tally: Tally) -> bool {
        tally.successes >= self.enough
    }

    /// `enough` is out of reach.
    pub(crate) fn opens(self, tally: Tally) -> bool {
        tally.failures > self.of - self.enough.min(self.of)
    }
}
