//! What became of all the calls of one kind.

use super::traffic::{Call, End};
use std::time::Duration;

/// Points of a history.
pub(crate) const POINTS: usize = 32;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: Vec<Call>,
    /// Of each part of the demo: good calls, and all.
    history: [(u32, u32); POINTS],
}

impl Tally {
    /// Calls that ended at this share of the demo.
    pub(crate) fn add(&mut self, calls: Vec<Call>, share: f64) {
        let (good, all) = &mut self.history[((share * POINTS as f64) as usize).min(POINTS - 1)];
        *all += calls.len() as u32;
        *good += calls.iter().filter(|call| call.end == End::Good).count() as u32;
        self.calls.extend(calls);
    }

    pub(crate) fn count(&self, end: End) -> usize {
        self.calls.iter().filter(|call| call.end == end).count()
    }

    /// The share of good calls.
    pub(crate) fn good(&self) -> Option<f64> {
        good(&self.calls)
    }

    /// The share of calls that got an answer, good or degraded.
    pub(crate) fn served(&self) -> Option<f64> {
        Some(self.good()? + self.count(End::Degraded) as f64 / self.calls.len() as f64)
    }

    /// The share of good calls over time.
    pub(crate) fn history(&self) -> [Option<f64>; POINTS] {
        self.history.map(|(good, all)| (all > 0).then(|| f64::from(good) / f64::from(all)))
    }
}

/// The share of good calls.
pub(crate) fn good<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Option<f64> {
    let (mut good, mut all) = (0_u32, 0_u32);
    for call in calls {
        good += u32::from(call.end == End::Good);
        all += 1;
    }
    (all > 0).then(|| f64::from(good) / f64::from(all))
}

/// The latency that this share of calls stayed below.
pub(crate) fn quantile(calls: &[Call], share: f64) -> Duration {
    let mut all: Vec<Duration> = calls.iter().map(|call| call.latency).collect();
    all.sort_unstable();
    let at = (all.len() as f64 * share).ceil() as usize;
    all.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn calls(ends: &[(End, u64)]) -> Vec<Call> {
        let call =
            |&(end, millis)| Call { began: Instant::now(), latency: Duration::from_millis(millis), once: false, end };
        ends.iter().map(call).collect()
    }

    #[test]
    fn a_quantile_is_one_of_the_latencies() {
        let all = calls(&[(End::Good, 30), (End::Good, 10), (End::Cut, 20), (End::Good, 40)]);
        assert_eq!([0.25, 0.5, 0.99, 1.0].map(|q| quantile(&all, q).as_millis()), [10, 20, 40, 40]);
        assert_eq!(quantile(&[], 0.99), Duration::ZERO);
    }

    #[test]
    fn a_tally_knows_the_share_of_good_calls_then_and_altogether() {
        let mut tally = Tally::default();
        assert_eq!(tally.good(), None);
        tally.add(calls(&[(End::Good, 1), (End::Hung, 1)]), 0.0);
        tally.add(calls(&[(End::Good, 1), (End::Good, 1)]), 1.2);
        assert_eq!(tally.good(), Some(0.75));
        let history = tally.history();
        assert_eq!((history[0], history[1], history[POINTS - 1]), (Some(0.5), None, Some(1.0)));
        assert_eq!((tally.count(End::Hung), tally.count(End::Cut)), (1, 0));
    }
}
