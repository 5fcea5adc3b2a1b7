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

/// When a line is a standing one: after a spell in which it was never empty, until after a spell in which nobody was shed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spell {
    length: u64,
    mode: LineMode,
    /// In a burst: since when somebody waits.
    busy: Option<u64>,
    /// While standing: since when nobody was shed.
    calm: u64,
}

impl Spell {
    pub(super) fn new(length: u64) -> Self {
        Self { length: length.max(1), mode: LineMode::Burst, busy: None, calm: 0 }
    }

    pub(super) fn set_length(&mut self, length: u64) {
        self.length = length.max(1);
    }

    /// The mode as of the last look.
    pub(super) fn mode(&self) -> LineMode {
        self.mode
    }

    /// How a row is served: in a standing line newest first, if the row has itself not been empty for a spell.
    pub(super) fn order(&self, row: &Row, now: u64) -> Order {
        let stands = row.len() > 0 && now.saturating_sub(row.since) >= self.length;
        if stands && self.mode == LineMode::Standing { Order::Lifo } else { Order::Fifo }
    }

    /// Somebody waits, and nobody did before.
    pub(super) fn busy(&mut self, now: u64) {
        self.busy = Some(now);
    }

    /// Nobody waits any more.
    pub(super) fn idle(&mut self) {
        self.busy = None;
    }

    /// Somebody was refused, pushed out, or waited in vain.
    pub(super) fn shed(&mut self, now: u64) {
        self.calm = now;
    }

    /// Whether a spell is over. A clock that stepped back begins it anew.
    pub(super) fn look(&mut self, now: u64) {
        match self.mode {
            LineMode::Burst => {
                self.busy = self.busy.map(|since| since.min(now));
                if self.busy.is_some_and(|since| now - since >= self.length) {
                    self.mode = LineMode::Standing;
                    self.calm = now;
                }
            }
            LineMode::Standing => {
                self.calm = self.calm.min(now);
                if now - self.calm >= self.length {
                    self.mode = LineMode::Burst;
                    self.busy = self.busy.map(|_| now);
                }
            }
        }
    }
}
