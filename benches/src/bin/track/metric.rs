//! What is measured of a run, and what becomes of the same figure from several seeds.

use std::collections::BTreeMap;

/// Figures of one run, or one statistic of several.
pub type Metrics = BTreeMap<Metric, f64>;

/// A figure. Shares are of 1; times are in the unit of the name. A time that never came is infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Useful work done, over what could have been done.
    Goodput,
    /// The same in the worst second.
    WorstSecond,
    /// Calls of the first class that were served in time, over all of them.
    Critical,
    /// The same for the second class.
    Normal,
    /// The same for the last.
    Sheddable,
    /// Calls that were served in time, over all.
    Success,
    /// Calls of tenants that keep to their share that were served in time, over all of theirs.
    Quiet,
    /// The same for the tenant that does not.
    Noisy,
    /// Calls that were not served in time, over all: whether refused, failed or given up.
    Shed,
    /// Of calls that were served in time.
    P50,
    /// Of calls that were served in time.
    P99,
    /// The median in the end over the median in the beginning.
    Drift,
    /// The median over that of a single gateway.
    OfSingle,
    /// How evenly gateways are served: Jain's index.
    Jain,
    /// Attempts that left the innermost layer that retries (where there is none: that clients made) while the upstream was ill, over
    /// calls that came meanwhile. What a layer behind it keeps from the upstream counts all the same.
    Amplification,
    /// What the upstream was sent during the outage, over what clients called for.
    Load,
    /// From the end of the fault to goodput that stays.
    Recovery,
    /// From the beginning of the fault to the end of the first bin in which it is spared.
    Detection,
    /// Tenths of a second in which a healthy enough upstream was sent less than half of the attempts that were made.
    Trips,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    Higher,
    Lower,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Percent,
    Millis,
    Seconds,
    Times,
    Count,
}

impl Metric {
    /// Its name in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Goodput => "goodput",
            Self::WorstSecond => "worst_second",
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Sheddable => "sheddable",
            Self::Success => "success",
            Self::Quiet => "quiet",
            Self::Noisy => "noisy",
            Self::Shed => "shed",
            Self::P50 => "p50_ms",
            Self::P99 => "p99_ms",
            Self::Drift => "p50_drift",
            Self::OfSingle => "p50_of_single",
            Self::Jain => "jain",
            Self::Amplification => "amplification",
            Self::Load => "load",
            Self::Recovery => "recovery_s",
            Self::Detection => "detection_ms",
            Self::Trips => "trips",
        }
    }

    pub fn sense(self) -> Sense {
        match self {
            Self::Goodput
            | Self::WorstSecond
            | Self::Critical
            | Self::Normal
            | Self::Sheddable
            | Self::Success
            | Self::Quiet
            | Self::Noisy
            | Self::Jain => Sense::Higher,
            _ => Sense::Lower,
        }
    }

    pub fn unit(self) -> Unit {
        match self {
            Self::P50 | Self::P99 | Self::Detection => Unit::Millis,
            Self::Recovery => Unit::Seconds,
            Self::Drift | Self::OfSingle | Self::Jain | Self::Amplification | Self::Load => Unit::Times,
            Self::Trips => Unit::Count,
            _ => Unit::Percent,
        }
    }

    /// Whether `a` is worse than `b`.
    pub fn is_worse(self, a: f64, b: f64) -> bool {
        match self.sense() {
            Sense::Higher => a < b,
            Sense::Lower => a > b,
        }
    }
}

/// The middle one; of an even number the mean of the two in the middle. `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let mid = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[mid]),
        // Two that never came have no difference to take the half of.
        _ if values[mid - 1] == values[mid] => Some(values[mid]),
        _ => Some((values[mid - 1] + values[mid]) / 2.0),
    }
}

/// The statistics of several seeds: the median, and the worst by each metric's sense. What a seed does not have is left out.
pub fn across(seeds: &[Metrics]) -> (Metrics, Metrics) {
    let mut all = BTreeMap::<Metric, Vec<f64>>::new();
    for (metric, value) in seeds.iter().flatten() {
        all.entry(*metric).or_default().push(*value);
    }
    let worst = |metric: Metric, values: &[f64]| {
        values.iter().copied().reduce(|worst, value| if metric.is_worse(value, worst) { value } else { worst })
    };
    let worst = all.iter().filter_map(|(metric, values)| Some((*metric, worst(*metric, values)?))).collect();
    let median = all.into_iter().filter_map(|(metric, values)| Some((metric, median(values)?))).collect();
    (median, worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_even_of_what_never_came() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([f64::INFINITY, f64::INFINITY]), Some(f64::INFINITY));
        assert_eq!(median([1.0, f64::INFINITY, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn the_worst_is_the_lowest_goodput_and_the_longest_latency() {
        let seed = |goodput, p99| Metrics::from([(Metric::Goodput, goodput), (Metric::P99, p99)]);
        let (median, worst) = across(&[seed(0.9, 70.0), seed(0.8, 60.0), seed(1.0, 90.0)]);
        assert_eq!(median, seed(0.9, 70.0));
        assert_eq!(worst, seed(0.8, 90.0));
    }
}
