use crate::{Admission, BreakerConfig, machine::Ramp, state::ProbeRules};
use buttress_core::sync::{AtomicU64, Ordering::Relaxed};

/// The config as the running breaker reads it: each value one word that an update replaces.
pub(crate) struct Params {
    consecutive: AtomicU64,
    failure_rate: AtomicU64,
    slow_rate: AtomicU64,
    min_calls: AtomicU64,
    /// The standard normal quantile of the confidence; 0: the plain rate decides.
    z: AtomicU64,
    slow_after: AtomicU64,
    hang_after: AtomicU64,
    open_for: AtomicU64,
    max_open: AtomicU64,
    probe_deadline: AtomicU64,
    /// 0: there is no ramp.
    ramp_share: AtomicU64,
    ramp_calls: AtomicU64,
    ramp_tick: AtomicU64,
    /// [ back-pressure 1 | overload is a failure 1 | probes 8 | close_after 8 | probe_window 8 ]
    small: AtomicU64,
}

/// More than any share or count: the condition is off.
const NEVER: f64 = f64::INFINITY;

impl Params {
    pub(crate) fn new(config: &BreakerConfig) -> Self {
        let zero = || AtomicU64::new(0);
        let params = Self {
            consecutive: zero(),
            failure_rate: zero(),
            slow_rate: zero(),
            min_calls: zero(),
            z: zero(),
            slow_after: zero(),
            hang_after: zero(),
            open_for: zero(),
            max_open: zero(),
            probe_deadline: zero(),
            ramp_share: zero(),
            ramp_calls: zero(),
            ramp_tick: zero(),
            small: zero(),
        };
        params.store(config);
        params
    }

    pub(crate) fn store(&self, config: &BreakerConfig) {
        let nanos = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.consecutive.store(config.consecutive.map_or(u64::MAX, u64::from), Relaxed);
        self.failure_rate.store(config.failure_rate.unwrap_or(NEVER).to_bits(), Relaxed);
        self.slow_rate.store(config.slow_rate.unwrap_or(NEVER).to_bits(), Relaxed);
        self.min_calls.store(u64::from(config.min_calls), Relaxed);
        self.z.store(config.confidence.map_or(0.0, quantile).to_bits(), Relaxed);
        self.slow_after.store(config.slow_after.map_or(u64::MAX, nanos), Relaxed);
        self.hang_after.store(nanos(config.effective_hang_after()), Relaxed);
        self.open_for.store(nanos(config.open_for), Relaxed);
        self.max_open.store(nanos(config.max_open), Relaxed);
        self.probe_deadline.store(nanos(config.probe_deadline), Relaxed);
        if let Some(ramp) = &config.ramp {
            self.ramp_calls.store(u64::from(ramp.calls), Relaxed);
            self.ramp_tick.store(nanos(ramp.tick), Relaxed);
        }
        self.ramp_share.store(config.ramp.as_ref().map_or(0.0, |ramp| ramp.share).to_bits(), Relaxed);
        let small = u64::from(config.admission == Admission::BackPressure) << 25
            | u64::from(config.overload_as_failure) << 24
            | u64::from(config.probes) << 16
            | u64::from(config.close_after) << 8
            | u64::from(config.probe_window);
        self.small.store(small, Relaxed);
    }

    pub(crate) fn consecutive(&self) -> u64 {
        self.consecutive.load(Relaxed)
    }

    pub(crate) fn slow_after(&self) -> u64 {
        self.slow_after.load(Relaxed)
    }

    pub(crate) fn hang_after(&self) -> u64 {
        self.hang_after.load(Relaxed)
    }

    pub(crate) fn open_for(&self) -> u64 {
        self.open_for.load(Relaxed)
    }

    pub(crate) fn max_open(&self) -> u64 {
        self.max_open.load(Relaxed)
    }

    pub(crate) fn probe_deadline(&self) -> u64 {
        self.probe_deadline.load(Relaxed)
    }

    pub(crate) fn ramp(&self) -> Option<Ramp> {
        let share = f64::from_bits(self.ramp_share.load(Relaxed));
        let failure_rate = f64::from_bits(self.failure_rate.load(Relaxed));
        (share > 0.0).then(|| Ramp {
            share,
            calls: self.ramp_calls.load(Relaxed),
            tick: self.ramp_tick.load(Relaxed),
            too_bad: if failure_rate <= 1.0 { failure_rate } else { 0.5 },
        })
    }

    pub(crate) fn back_pressure(&self) -> bool {
        self.small.load(Relaxed) >> 25 & 1 == 1
    }

    pub(crate) fn overload_as_failure(&self) -> bool {
        self.small.load(Relaxed) >> 24 & 1 == 1
    }

    pub(crate) fn probes(&self) -> ProbeRules {
        let small = self.small.load(Relaxed);
        ProbeRules { concurrent: small >> 16 & 0xff, enough: small >> 8 & 0xff, of: small & 0xff }
    }

    /// Whether so many failures among so many calls are too many.
    pub(crate) fn fails_too_often(&self, failures: u64, total: u64) -> bool {
        self.exceeds(failures, total, &self.failure_rate)
    }

    /// Whether slow calls count against a probe.
    pub(crate) fn judges_slowness(&self) -> bool {
        f64::from_bits(self.slow_rate.load(Relaxed)) <= 1.0
    }

    /// Whether so many slow calls among so many are too many.
    pub(crate) fn slow_too_often(&self, slow: u64, total: u64) -> bool {
        self.exceeds(slow, total, &self.slow_rate)
    }

    fn exceeds(&self, bad: u64, total: u64, threshold: &AtomicU64) -> bool {
        let threshold = f64::from_bits(threshold.load(Relaxed));
        bad > 0
            && total >= self.min_calls.load(Relaxed)
            && lower_bound(bad.min(total) as f64, total as f64, f64::from_bits(self.z.load(Relaxed))) >= threshold
    }
}

/// The lower bound of Wilson's score interval (J. Am. Stat. Assoc. 22, 1927); the plain rate for z = 0.
fn lower_bound(bad: f64, total: f64, z: f64) -> f64 {
    let (share, zz) = (bad / total, z * z);
    let centre = share + zz / (2.0 * total);
    let spread = z * (share * (1.0 - share) / total + zz / (4.0 * total * total)).sqrt();
    (centre - spread) / (1.0 + zz / total)
}

/// The standard normal quantile of `confidence` (at least a half), to 4.5e-4: Abramowitz and Stegun, 26.2.23.
fn quantile(confidence: f64) -> f64 {
    let t = (-2.0 * (1.0 - confidence).ln()).sqrt();
    let rational =
        (2.515_517 + t * (0.802_853 + t * 0.010_328)) / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
    (t - rational).max(0.0)
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    #[test]
    fn wilson_is_careful_with_small_samples_and_exact_without_confidence() {
        assert_eq!(lower_bound(10.0, 20.0, 0.0), 0.5);
        assert!((quantile(0.95) - 1.6449).abs() < 5e-4 && quantile(0.5) < 5e-4);
        // 10 of 20 at 95 % one-sided: 0.3274 (by hand from the formula).
        assert!((lower_bound(10.0, 20.0, 1.6449) - 0.3274).abs() < 1e-3);
        assert!(lower_bound(5000.0, 10_000.0, 1.6449) > 0.49);
    }
}
