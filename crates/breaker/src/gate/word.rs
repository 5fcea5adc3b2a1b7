//! The state of a gate in one word: `[ since 24 | evidence 6 | share 14 | generation 20 ]`. Every change of the share is one CAS
//! of it and begins a generation; results of an earlier one say nothing.

const GENERATION_BITS: u32 = 20;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const SHARE_SHIFT: u32 = GENERATION_BITS;
const SHARE_MASK: u64 = (1 << 14) - 1;
const EVIDENCE_SHIFT: u32 = 34;
const EVIDENCE_MASK: u64 = 63;
const SINCE_SHIFT: u32 = 40;
const SINCE_MASK: u64 = (1 << 24) - 1;
const MILLI: u64 = 1_000_000;

/// All calls pass.
const ALL: u64 = 1 << 13;

/// A bad result counts 1 against the service, a good one this much for it: they balance where a quarter of the calls is good.
const GOOD: i64 = 3;
/// As many narrow a gate that is wide open.
const AGAINST_ALL: i64 = 40;
/// As many narrow one that is narrow.
const AGAINST_SOME: i64 = 10;
/// As many widen it.
const FOR: i64 = -6;

/// The state's word.
///
/// The evidence is what is left of the bad results after the good ones have been set off against them. Since: when the first bad
/// one came to a gate that is wide open, in milliseconds (modulo four and a half hours).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// Wide open.
    pub(super) fn new() -> Self {
        Self(0).then(ALL)
    }

    fn of(generation: u64, share: u64, evidence: i64, since: u64) -> Self {
        let evidence = (evidence - FOR) as u64 & EVIDENCE_MASK;
        Self(
            (since & SINCE_MASK) << SINCE_SHIFT
                | evidence << EVIDENCE_SHIFT
                | share << SHARE_SHIFT
                | generation & GENERATION_MASK,
        )
    }

    #[inline]
    pub(super) fn is_wide_open(self) -> bool {
        self.0 >> SHARE_SHIFT & SHARE_MASK == ALL
    }

    #[inline]
    pub(super) fn generation(self) -> u64 {
        self.0 & GENERATION_MASK
    }

    /// The share of calls that pass, of 8192.
    fn parts(self) -> u64 {
        self.0 >> SHARE_SHIFT & SHARE_MASK
    }

    pub(super) fn share(self) -> f64 {
        self.parts() as f64 / ALL as f64
    }

    #[inline]
    pub(super) fn evidence(self) -> i64 {
        (self.0 >> EVIDENCE_SHIFT & EVIDENCE_MASK) as i64 + FOR
    }

    /// So much of it narrows the gate.
    pub(super) fn limit(self) -> i64 {
        if self.is_wide_open() { AGAINST_ALL } else { AGAINST_SOME }
    }

    /// The service is as healthy as can be told.
    #[inline]
    pub(super) fn is_at_ease(self) -> bool {
        self.is_wide_open() && self.evidence() <= 0
    }

    /// How long bad results have outweighed good ones, in nanoseconds.
    pub(super) fn suspected_for(self, now: u64) -> u64 {
        ((now / MILLI).wrapping_sub(self.0 >> SINCE_SHIFT) & SINCE_MASK) * MILLI
    }

    /// After so many bad results.
    pub(super) fn with_bad(self, count: u64, now: u64) -> Self {
        let since = if self.is_at_ease() { now / MILLI } else { self.0 >> SINCE_SHIFT };
        let evidence = self.evidence().saturating_add_unsigned(count).min(self.limit());
        Self::of(self.generation(), self.parts(), evidence, since)
    }

    /// After a good one. Before the gate is narrow, good results are no credit.
    pub(super) fn with_good(self) -> Self {
        let least = if self.is_wide_open() { 0 } else { FOR };
        let evidence = (self.evidence() - GOOD).max(least);
        Self::of(self.generation(), self.parts(), evidence, self.0 >> SINCE_SHIFT)
    }

    /// Whether there is evidence enough to widen it.
    pub(super) fn is_cleared(self) -> bool {
        !self.is_wide_open() && self.evidence() <= FOR
    }

    /// Without evidence.
    pub(super) fn unjudged(self) -> Self {
        Self::of(self.generation(), self.parts(), 0, 0)
    }

    fn then(self, parts: u64) -> Self {
        Self::of(self.generation() + 1, parts, 0, 0)
    }

    /// The next generation: half the share, but not less than `least`.
    pub(super) fn narrower(self, least: f64) -> Self {
        self.then((self.parts() / 2).max(parts_of(least)))
    }

    /// The next generation: twice the share.
    pub(super) fn wider(self) -> Self {
        self.then((self.parts() * 2).min(ALL))
    }

    /// The next generation: all calls.
    pub(super) fn wide_open(self) -> Self {
        self.then(ALL)
    }

    /// The next generation: no less than `least`, if it has less.
    pub(super) fn at_least(self, least: f64) -> Option<Self> {
        let least = parts_of(least);
        (self.parts() < least).then(|| self.then(least))
    }
}

/// Rounded up: a share is never below what was asked for.
fn parts_of(share: f64) -> u64 {
    ((share * ALL as f64).ceil() as u64).clamp(1, ALL)
}
