use buttress_core::{
    Draw,
    sync::{
        AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
};
use std::time::Duration;

/// Which calls pass where only a share of them does: those that are drawn, and one for certain when none has passed for a while.
/// So however small the share and however few the calls, it is found out how they fare.
pub(crate) struct Share {
    /// When the next one passes for certain, in nanoseconds since the origin.
    due: AtomicU64,
    draw: Draw,
}

impl Share {
    pub(crate) fn new(seed: u64) -> Self {
        Self { due: AtomicU64::new(0), draw: Draw::new(seed) }
    }

    /// Whether a call passes where `share` of them do, and one after `quiet` nanoseconds without any. `Err`: how long until one
    /// passes for certain.
    pub(crate) fn admit(&self, share: f64, now: u64, quiet: u64) -> Result<(), Duration> {
        let due = self.due.load(Relaxed);
        let next = now.saturating_add(quiet);
        if due <= now && self.due.compare_exchange(due, next, AcqRel, Relaxed).is_ok() {
            return Ok(());
        }
        if self.draws(share) {
            self.due.fetch_max(next, AcqRel);
            return Ok(());
        }
        Err(Duration::from_nanos(self.due.load(Relaxed).saturating_sub(now).max(1)))
    }

    /// One passes for certain from `now` on.
    pub(crate) fn begin(&self, now: u64) {
        self.due.swap(now, AcqRel);
    }

    /// When the next one passes for certain.
    pub(crate) fn due(&self) -> u64 {
        self.due.load(Relaxed)
    }

    /// The very last of it, by a read that writes: what was done before comes before what is done by whoever changes it next.
    pub(crate) fn last_due(&self) -> u64 {
        self.due.fetch_or(0, AcqRel)
    }

    fn draws(&self, share: f64) -> bool {
        self.draw.unit() < share
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_share_passes_and_the_seed_decides_which() {
        let passed = |seed| {
            let share = Share::new(seed);
            share.begin(u64::MAX);
            (0..10_000).map(|_| share.admit(0.1, 5, 100).is_ok()).collect::<Vec<_>>()
        };
        let count = passed(7).iter().filter(|passed| **passed).count();
        assert!((900..=1100).contains(&count), "{count}");
        assert_eq!(passed(7), passed(7));
        assert_ne!(passed(7), passed(8));
    }

    #[test]
    fn one_passes_for_certain_when_none_has_for_so_long() {
        let share = Share::new(1);
        let passed: Vec<u64> = (1..=40).filter(|now| share.admit(0.0, now * 10, 100).is_ok()).collect();
        assert_eq!(passed, [1, 11, 21, 31]);
        assert_eq!(share.admit(0.0, 405, 100), Err(Duration::from_nanos(5)));
        assert!(share.admit(1.0, 405, 100).is_ok(), "drawn");
        assert_eq!(share.admit(0.0, 410, 100), Err(Duration::from_nanos(95)), "which is one as well");
    }
}
