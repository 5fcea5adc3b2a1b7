//! Which level holds: sans-IO, one observation after the other.

use super::LevelsConfig;

/// Goes up and down a step at a time. Times are milliseconds.
#[derive(Debug)]
pub(super) struct Ladder {
    /// What each level but the first begins at.
    starts: Vec<Option<f64>>,
    hysteresis: f64,
    worse_after: u64,
    better_after: u64,
    pub(super) level: usize,
    /// Since when the pressure is enough for the next level, or low enough for the one before.
    worse_since: Option<u64>,
    better_since: Option<u64>,
}

impl Ladder {
    pub(super) fn new(config: &LevelsConfig, level: usize) -> Self {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            starts: config.levels.iter().skip(1).map(|level| level.at).collect(),
            hysteresis: config.hysteresis,
            worse_after: millis(config.worse_after),
            better_after: millis(config.better_after),
            level,
            worse_since: None,
            better_since: None,
        }
    }

    /// The pressure at `now`. Returns the level that was left, if one was.
    pub(super) fn observe(&mut self, pressure: f64, now: u64) -> Option<usize> {
        let next = self.starts.get(self.level).copied().flatten();
        let is_worse = next.is_some_and(|at| pressure >= at);
        // Where an operator alone goes to, any pressure that asks for less leads back.
        let present = self.level.checked_sub(1).map(|n| self.starts[n].unwrap_or(f64::INFINITY));
        let is_better = present.is_some_and(|at| pressure < at - self.hysteresis);
        let from = self.level;
        if held(&mut self.worse_since, is_worse, self.worse_after, now) {
            self.level += 1;
        } else if held(&mut self.better_since, is_better, self.better_after, now) {
            self.level -= 1;
        } else {
            return None;
        }
        // The next step takes its own time, which begins now.
        (self.worse_since, self.better_since) = (None, None);
        Some(from)
    }

    /// Goes to a level at once.
    pub(super) fn go(&mut self, level: usize) -> usize {
        (self.worse_since, self.better_since) = (None, None);
        std::mem::replace(&mut self.level, level)
    }
}

/// Whether something has been so for `long` by now.
fn held(since: &mut Option<u64>, is_so: bool, long: u64, now: u64) -> bool {
    if !is_so {
        *since = None;
        return false;
    }
    now.saturating_sub(*since.get_or_insert(now)) >= long
}
