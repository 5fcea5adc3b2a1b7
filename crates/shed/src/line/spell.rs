use super::slots::Row;

/// Whether there are too many for a moment or for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineMode {
    /// For a moment: everybody in order.
    Burst,
    /// For good: short waits, and the newest first where the oldest will not be in time.
    Standing,
}

/// How a row is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Fifo,
    Lifo,
}

/// In so many parts of a spell the growth of a line is looked at.
const PARTS: u64 = 5;
/// A line that has grown from part to part, so many times in a row, is not waited for any longer.
const GROWN: u32 = 3;

/// When a line is a standing one: after a spell in which it was never empty, until after a spell in which nobody was shed.
///
/// One that grows all the time is a standing one after three fifths of a spell: a burst has its peak before that, and then
/// shrinks. In a real overload each moment of waiting for certainty is one in which everybody waits longer than the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spell {
    length: u64,
    mode: LineMode,
    /// In a burst: since when somebody waits.
    busy: Option<u64>,
    /// In a burst: how often in a row it was longer than a part before, when it was looked at last, and how long it was then.
    grown: u32,
    marked: u64,
    mark: u32,
    /// While standing: since when nobody was shed.
    calm: u64,
}

impl Spell {
    pub(super) fn new(length: u64) -> Self {
        Self { length: length.max(1), mode: LineMode::Burst, busy: None, grown: 0, marked: 0, mark: 0, calm: 0 }
    }

    pub(super) fn set_length(&mut self, length: u64) {
        self.length = length.max(1);
    }

    /// The mode as of the last look.
    pub(super) fn mode(&self) -> LineMode {
        self.mode
    }

    /// Whether the line stands, and a row of it has not been empty for as long as a line that grows takes to be one.
    pub(super) fn stands(&self, row: &Row, now: u64) -> bool {
        self.mode == LineMode::Standing && now.saturating_sub(row.since) >= self.length / PARTS * u64::from(GROWN)
    }

    /// Somebody waits, and nobody did before.
    pub(super) fn busy(&mut self, now: u64) {
        self.busy = Some(now);
        (self.grown, self.marked, self.mark) = (0, now, 0);
    }

    /// Nobody waits any more.
    pub(super) fn idle(&mut self) {
        self.busy = None;
        self.grown = 0;
    }

    /// Somebody was refused, pushed out, or waited in vain.
    pub(super) fn shed(&mut self, now: u64) {
        self.calm = now;
    }

    /// Whether a spell is over, with so many who wait. A clock that stepped back begins it anew.
    pub(super) fn look(&mut self, now: u64, waiting: u32) {
        match self.mode {
            LineMode::Burst => {
                self.busy = self.busy.map(|since| since.min(now));
                self.marked = self.marked.min(now);
                if self.busy.is_some() && now - self.marked >= self.length / PARTS {
                    self.grown = if waiting > self.mark { self.grown + 1 } else { 0 };
                    (self.marked, self.mark) = (now, waiting);
                }
                if self.busy.is_some_and(|since| now - since >= self.length || self.grown >= GROWN) {
                    self.mode = LineMode::Standing;
                    self.calm = now;
                }
            }
            LineMode::Standing => {
                self.calm = self.calm.min(now);
                if now - self.calm >= self.length {
                    self.mode = LineMode::Burst;
                    if self.busy.is_some() {
                        self.busy(now);
                    }
                }
            }
        }
    }
}
