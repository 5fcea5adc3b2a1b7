//! What is asked of ours. Data: nothing here knows how a scenario is run.

use crate::{
    metric::{Metric, Metrics, Sense, Unit},
    setup::Setup,
};

/// A bound on one figure of one scenario.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// The scenario's number, for all of its variants that measure it, or one variant's whole name.
    pub scenario: &'static str,
    pub metric: Metric,
    pub bound: Bound,
    pub over: Over,
}

/// How far a figure may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// This far.
    At(f64),
    /// So much of the optimum.
    OfOptimum(f64),
    /// So many milliseconds where the service's p99 is that of the default setup, and in proportion to it elsewhere.
    Latency(f64),
    /// In proportion to the mean service time where that is longer than the default.
    Time(f64),
}

/// Of which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Median,
    /// The worst one. (The median when it is to go quickly.)
    Worst,
}

/// Scenarios whose goals must not be missed.
pub const MUST: [&str; 7] = ["1", "5", "6", "7", "10", "13", "23"];

/// Every goal.
pub const GOALS: &[Goal] = &[
    goal("1", Metric::Goodput, Bound::At(0.995)),
    goal("1", Metric::P99, Bound::Latency(72.0)),
    goal("1", Metric::Critical, Bound::At(0.999)),
    goal("2", Metric::Goodput, Bound::At(0.99)),
    goal("2", Metric::P99, Bound::Latency(95.0)),
    goal("3", Metric::Goodput, Bound::At(0.99)),
    goal("3", Metric::Critical, Bound::OfOptimum(0.98)),
    goal("4", Metric::Goodput, Bound::At(0.993)),
    goal("4", Metric::Drift, Bound::At(1.1)),
    goal("4", Metric::WorstSecond, Bound::At(0.85)),
    goal("5", Metric::Shed, Bound::At(0.002)),
    Goal { over: Over::Worst, ..goal("6", Metric::Recovery, Bound::Time(1.0)) },
    goal("6", Metric::Amplification, Bound::At(1.1)),
    goal("7", Metric::Recovery, Bound::Time(0.5)),
    goal("8", Metric::Goodput, Bound::OfOptimum(0.97)),
    goal("8", Metric::Recovery, Bound::Time(0.5)),
    goal("9/20%", Metric::Trips, Bound::At(0.0)),
    goal("9/50%", Metric::Success, Bound::At(0.5)),
    goal("9/50%", Metric::Amplification, Bound::At(1.1)),
    goal("10", Metric::Load, Bound::At(0.05)),
    goal("10", Metric::Recovery, Bound::Time(1.5)),
    goal("10", Metric::Detection, Bound::At(300.0)),
    goal("10h", Metric::Load, Bound::At(0.05)),
    goal("10h", Metric::Recovery, Bound::Time(1.5)),
    // `hang_after`, which nobody has set here.
    goal("10h", Metric::Detection, Bound::At(5_000.0)),
    goal("11", Metric::Goodput, Bound::At(0.98)),
    goal("11", Metric::P99, Bound::Latency(90.0)),
    goal("12/plain", Metric::Amplification, Bound::At(1.35)),
    goal("12/marks", Metric::Amplification, Bound::At(1.1)),
    goal("13", Metric::Critical, Bound::At(0.999)),
    goal("13", Metric::Normal, Bound::OfOptimum(0.97)),
    goal("14", Metric::Quiet, Bound::At(0.995)),
    goal("14", Metric::Noisy, Bound::OfOptimum(0.95)),
    goal("17", Metric::Success, Bound::At(0.98)),
    goal("17", Metric::P99, Bound::Latency(320.0)),
    goal("19/1c", Metric::Goodput, Bound::At(0.98)),
    goal("19/10c", Metric::Goodput, Bound::At(0.97)),
    goal("21", Metric::Goodput, Bound::At(0.99)),
    goal("22", Metric::OfSingle, Bound::At(1.6)),
    goal("22", Metric::Jain, Bound::At(0.95)),
    goal("22", Metric::Goodput, Bound::At(0.99)),
    goal("23", Metric::Goodput, Bound::At(0.98)),
    goal("23", Metric::WorstSecond, Bound::At(0.8)),
    // Of the median latency: nobody grows with another's queue.
    goal("23", Metric::Drift, Bound::At(1.5)),
];

const fn goal(scenario: &'static str, metric: Metric, bound: Bound) -> Goal {
    Goal { scenario, metric, bound, over: Over::Median }
}

/// The shortest of the times that are asked for, in seconds.
pub fn shortest_time(setup: &Setup) -> f64 {
    let time = |goal: &Goal| if let Bound::Time(seconds) = goal.bound { seconds } else { f64::INFINITY };
    GOALS.iter().map(time).fold(f64::INFINITY, f64::min) * setup.stretch()
}

/// The goals of a scenario's variant, whose name is its number, a slash and what varies.
pub fn goals_of(scenario: &str) -> impl Iterator<Item = &'static Goal> {
    GOALS.iter().filter(move |goal| goal.scenario == scenario || goal.scenario == number(scenario))
}

/// Whether its goals must not be missed.
pub fn is_must(scenario: &str) -> bool {
    MUST.contains(&number(scenario))
}

/// `"4"` of `"4/1.2x"`.
pub fn number(scenario: &str) -> &str {
    scenario.split_once('/').map_or(scenario, |(number, _)| number)
}

/// A goal as it is judged: with the numbers of a setup, an optimum and an oracle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    pub metric: Metric,
    pub over: Over,
    pub value: f64,
    /// All others miss it, also the one that was told everything: the goal is where the best of them is, less one point.
    pub is_moved: bool,
}

impl Goal {
    /// `others`: the medians of every contestant but ours, if one of them was told everything; else none: who they are then says
    /// nothing of what can be done. The goal moves only where the best of them misses it, and stays if none of them has a figure:
    /// an oracle that is badly tuned lowers nothing.
    pub fn target(&self, setup: &Setup, optimum: &Metrics, others: &[Metrics]) -> Target {
        let best = optimum.get(&self.metric).copied().unwrap_or(1.0);
        let value = match self.bound {
            Bound::At(value) => value,
            Bound::OfOptimum(share) => share * best,
            Bound::Latency(millis) => {
                millis * setup.service_p99().as_secs_f64() / Setup::default().service_p99().as_secs_f64()
            }
            Bound::Time(seconds) => seconds * setup.stretch(),
        };
        let over = if setup.quick { Over::Median } else { self.over };
        let better = |a: f64, b: f64| if self.metric.is_worse(a, b) { b } else { a };
        let figures = others.iter().filter_map(|other| other.get(&self.metric)).copied();
        let moved = figures
            .filter(|figure| figure.is_finite())
            .reduce(better)
            .filter(|best| self.metric.is_worse(*best, value))
            .map(|best| self.a_point_worse(best));
        Target { metric: self.metric, over, value: moved.unwrap_or(value), is_moved: moved.is_some() }
    }

    fn a_point_worse(&self, value: f64) -> f64 {
        match (self.metric.sense(), self.metric.unit()) {
            (Sense::Higher, _) => value - 0.01,
            (Sense::Lower, Unit::Percent) => value + 0.01,
            (Sense::Lower, _) => value * 1.01,
        }
    }
}

impl Target {
    /// Whether it is reached. What was not measured is missed.
    pub fn is_met(&self, median: &Metrics, worst: &Metrics) -> bool {
        let of = match self.over {
            Over::Median => median,
            Over::Worst => worst,
        };
        of.get(&self.metric).is_some_and(|value| !value.is_nan() && !self.metric.is_worse(*value, self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_goal_of_a_number_holds_for_its_variants_and_for_no_other_number() {
        assert_eq!(goals_of("4/1.2x").count(), 3);
        assert_eq!(goals_of("9/20%").map(|goal| goal.metric).collect::<Vec<_>>(), [Metric::Trips]);
        assert!(goals_of("1").all(|goal| goal.scenario == "1"));
        assert!(is_must("10") && !is_must("10h") && !is_must("12/plain"));
    }

    #[test]
    fn latencies_go_with_the_service_and_times_with_the_mean() {
        let setup = Setup { mean: Duration::from_millis(100), ..Setup::default() };
        let none = Metrics::new();
        let value = |metric, bound| goal("1", metric, bound).target(&setup, &none, &[]).value;
        assert!((value(Metric::P99, Bound::Latency(72.0)) - 720.0).abs() < 1e-3);
        assert_eq!(value(Metric::Recovery, Bound::Time(0.5)), 5.0);
        let optimum = Metrics::from([(Metric::Critical, 0.5)]);
        let target = goal("3", Metric::Critical, Bound::OfOptimum(0.98)).target(&setup, &optimum, &[]);
        assert_eq!(target.value, 0.49);
    }

    #[test]
    fn where_all_others_miss_the_goal_moves_to_the_best_of_them() {
        let target = |metric, bound, figures: &[f64]| {
            let others: Vec<_> = figures.iter().map(|figure| Metrics::from([(metric, *figure)])).collect();
            let target = goal("1", metric, bound).target(&Setup::default(), &Metrics::new(), &others);
            (target.value, target.is_moved)
        };
        let goodput = |figures: &[f64]| target(Metric::Goodput, Bound::At(0.995), figures);
        assert_eq!(goodput(&[0.999]), (0.995, false));
        assert_eq!(goodput(&[0.98]), (0.97, true));
        assert_eq!(goodput(&[0.1, 0.98, 0.5]), (0.97, true));
        assert_eq!(goodput(&[0.1, 0.996, 0.5]), (0.995, false), "an oracle that is tuned badly lowers nothing");
        let recovery = |figures: &[f64]| target(Metric::Recovery, Bound::Time(0.5), figures);
        assert_eq!(recovery(&[f64::INFINITY, 0.5]), (0.5, false));
        assert_eq!(recovery(&[f64::INFINITY, 2.0]), (2.02, true));
        assert_eq!(recovery(&[f64::INFINITY, f64::NAN]), (0.5, false), "nowhere to move to");
    }

    #[test]
    fn what_was_not_measured_is_missed_and_the_worst_seed_counts_where_it_is_asked_for() {
        let target = Target { metric: Metric::Recovery, over: Over::Worst, value: 1.0, is_moved: false };
        let of = |seconds| Metrics::from([(Metric::Recovery, seconds)]);
        assert!(target.is_met(&of(0.2), &of(1.0)));
        assert!(!target.is_met(&of(0.2), &of(1.1)));
        assert!(!target.is_met(&of(0.2), &Metrics::new()));
        assert!(!target.is_met(&of(0.2), &of(f64::NAN)));
    }
}
