use crate::state::{CLOSED, Word};

/// An admitted call, as the machine knows it.
///
/// Whole words only. A permit goes from hand to hand in one call, and a byte that was just written is not there yet when the
/// word around it is moved: the processor waits for it at every move, which cost three times as much as the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    /// The state by which it was admitted.
    word: Word,
    /// Where its time is taken from: the first moment it was pending, or a probe's admission.
    pub(crate) began: u64,
    /// Its epoch in the ring of hung calls; a probe's mark.
    pub(crate) hung: u64,
    /// Its epoch in the ring of slow calls; 0: it is in none.
    pub(crate) slow_epoch: u64,
    /// `[ concluded 1 | slow 1 | phase 2 | kind 2 | slot 8 ]`
    marks: u64,
}

/// What its results mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of a closed circuit, or of a ramp.
    Closed,
    /// With its place among the probes.
    Probe(u8),
    /// A probe whose answer has come: it has no place any more, and its outcome still counts.
    Answered,
    /// Let through against the decision, or not measured.
    Free,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Phase {
    /// In the rings. (Before that, 0: never pending, and no time has passed.)
    Waiting = 1,
    /// Its latency is over.
    Past,
}

const PROBE: u64 = 1 << 8;
const FREE: u64 = 2 << 8;
const ANSWERED: u64 = 3 << 8;
const KIND: u64 = 0x3ff;
const PHASE_SHIFT: u32 = 10;
const PHASE: u64 = 3 << PHASE_SHIFT;
const SLOW: u64 = 1 << 12;
const CONCLUDED: u64 = 1 << 13;

impl Ticket {
    /// Of a call that a closed circuit lets in, or a ramping one.
    #[inline]
    pub(crate) fn closed(word: Word) -> Self {
        Self { word, began: 0, hung: 0, slow_epoch: 0, marks: 0 }
    }

    /// Of a probe at `slot`, with its `mark` there, from `now` on.
    pub(crate) fn probe(word: Word, slot: u8, mark: u64, now: u64) -> Self {
        let marks = u64::from(slot) | PROBE | (Phase::Waiting as u64) << PHASE_SHIFT;
        Self { began: now, hung: mark, marks, ..Self::closed(word) }
    }

    pub(crate) fn free() -> Self {
        Self { marks: FREE, ..Self::closed(Word(0)) }
    }

    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        self.word.generation()
    }

    /// The first epoch that counts, of the generation it was admitted in.
    #[inline]
    pub(crate) fn first(&self) -> u64 {
        if self.word.kind() == CLOSED { self.word.payload() } else { 0 }
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match self.marks & KIND & !0xff {
            0 => Kind::Closed,
            PROBE => Kind::Probe(self.marks as u8),
            ANSWERED => Kind::Answered,
            _ => Kind::Free,
        }
    }

    /// Its results do not count any more.
    pub(crate) fn set_free(&mut self) {
        self.marks = self.marks & !KIND | FREE;
    }

    /// A probe's place is given back.
    pub(crate) fn set_answered(&mut self) {
        self.marks = self.marks & !KIND | ANSWERED;
    }

    #[inline]
    pub(crate) fn is_in(&self, phase: Phase) -> bool {
        self.marks & PHASE == (phase as u64) << PHASE_SHIFT
    }

    #[inline]
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.marks = self.marks & !PHASE | (phase as u64) << PHASE_SHIFT;
    }

    #[inline]
    pub(crate) fn is_slow(&self) -> bool {
        self.marks & SLOW != 0
    }

    pub(crate) fn set_slow(&mut self) {
        self.marks |= SLOW;
    }

    /// Whether its outcome was known already; from now on it is.
    #[inline]
    pub(crate) fn conclude(&mut self) -> bool {
        let before = self.marks & CONCLUDED != 0;
        self.marks |= CONCLUDED;
        before
    }
}
