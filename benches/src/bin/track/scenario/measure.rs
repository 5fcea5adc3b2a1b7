//! Figures from what happened.

use super::story::{Event, Story};
use crate::{
    chain::Attempts,
    goals::shortest_time,
    metric::{Metric, Metrics},
    setup::Setup,
};
use buttress_core::Priority;
use buttress_sim::world::{End, Score, Upstream, World, jain};
use std::time::Duration;

/// What is left of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    pub metrics: Metrics,
    pub series: Vec<Point>,
}

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds since the end of the warm-up.
    pub at: f64,
    /// Useful work, over the workers there are in good health.
    pub goodput: f64,
    /// In seconds; `None` where nobody was served.
    pub p99: Option<f64>,
}

/// A run that is over.
pub struct Seen<'a> {
    pub world: &'a World,
    pub upstream: &'a Upstream,
    pub attempts: &'a Attempts,
    pub setup: &'a Setup,
    pub story: &'a Story,
    /// The median latency with one gateway, where that is asked for.
    pub single: Option<f64>,
}

/// How many points a series has, at most.
const POINTS: f64 = 120.0;

impl Seen<'_> {
    pub fn played(&self, measures: &[Metric]) -> Played {
        let Story { span, fault, .. } = self.story;
        let score = self.world.score(self.upstream, span.clone());
        let faulty = self.world.score(self.upstream, fault.clone());
        // A sum of nothing is -0.
        let metrics = measures.iter().filter_map(|m| Some((*m, self.measure(*m, &score, &faulty)? + 0.0))).collect();
        Played { metrics, series: self.series(&score) }
    }

    fn measure(&self, metric: Metric, score: &Score, faulty: &Score) -> Option<f64> {
        let Story { span, fault, .. } = self.story;
        let never = |found: Option<Duration>| found.map_or(f64::INFINITY, |after| after.as_secs_f64());
        Some(match metric {
            Metric::Goodput => score.goodput(),
            Metric::WorstSecond => self.worst_second(score),
            Metric::Critical => score.class(Priority::Critical),
            Metric::Normal => score.class(Priority::Normal),
            Metric::Sheddable => score.class(Priority::Sheddable),
            Metric::Success => score.good_share(),
            Metric::Quiet => score.share(|call| call.tenant != 0),
            Metric::Noisy => score.share(|call| call.tenant == 0),
            Metric::Shed => 1.0 - score.good_share(),
            Metric::P50 => latency(score, 0.5),
            Metric::P99 => latency(score, 0.99),
            Metric::Drift => {
                let p50 = |from: Duration, to| latency(&self.world.score(self.upstream, from..to), 0.5);
                let begin = p50(self.story.after(25.0), self.story.after(35.0));
                over(p50(span.end - self.story.length(10.0), span.end), begin)
            }
            Metric::OfSingle => over(latency(score, 0.5), self.single?),
            Metric::Jain => jain(&self.useful_by_gateway(score)),
            Metric::Amplification => self.attempts.within(fault) as f64 / faulty.calls.len().max(1) as f64,
            Metric::Load => faulty.amplification(),
            Metric::Recovery => never(score.recovery(fault.end, self.bin())),
            Metric::Detection => never(faulty.detection(fault.start, 0.5, self.bin())) * 1e3,
            Metric::Trips => {
                let width = self.bin().max(self.story.length(0.1));
                let asked = self.attempts.series(&faulty.span, width);
                let sent = faulty.series(width);
                sent.iter().zip(asked).filter(|(bin, asked)| 2 * bin.sent < *asked).count() as f64
            }
        })
    }

    fn bin(&self) -> Duration {
        bin(self.setup, self.story)
    }

    /// Over all that can be done: only where more is offered than that.
    fn worst_second(&self, score: &Score) -> f64 {
        let second = self.story.length(1.0);
        let all = f64::from(self.story.workers) * second.as_secs_f64();
        let whole = (score.span.end - score.span.start).as_secs_f64() / second.as_secs_f64();
        // The last one may be shorter.
        let seconds = score.series(second).into_iter().take((whole + 1e-9).floor() as usize);
        seconds.map(|bin| bin.useful / all).fold(f64::INFINITY, f64::min)
    }

    fn useful_by_gateway(&self, score: &Score) -> Vec<f64> {
        let mut useful = vec![0.0; self.story.gateways as usize];
        for call in score.calls.iter().filter(|call| call.end == End::Good) {
            if let Some(useful) = useful.get_mut(call.load as usize) {
                *useful += call.work as f64;
            }
        }
        useful
    }

    fn series(&self, score: &Score) -> Vec<Point> {
        let length = (score.span.end - score.span.start).as_secs_f64();
        let width = Duration::from_secs_f64((length / POINTS).max(1.0));
        let begin = score.span.start.as_secs_f64();
        let end = score.span.end.as_secs_f64();
        let points = score.series(width).into_iter().map(|bin| {
            let length = width.as_secs_f64().min(end - bin.at);
            let all = f64::from(self.story.workers) * length;
            Point { at: bin.at - begin, goodput: bin.useful / all, p99: (bin.ended > 0).then_some(bin.p99) }
        });
        points.collect()
    }
}

/// 50 ms, or what it takes to see fifty calls come before anything happens; in the setups of the grid a thousand, but no wider for
/// it than the shortest time that is asked for: or what is read from them could not meet it.
fn bin(setup: &Setup, story: &Story) -> Duration {
    let takes = |calls: f64| calls / (setup.load * story.capacity(setup));
    let wide = takes(setup.bin_calls).min(shortest_time(setup));
    Duration::from_secs_f64(wide.max(takes(50.0)).max(0.05))
}

/// The quantile `q` of those who were served, in milliseconds; where nobody was it never came.
fn latency(score: &Score, q: f64) -> f64 {
    let is_served = score.calls.iter().any(|call| call.end == End::Good);
    if is_served { score.latency(q).as_secs_f64() * 1e3 } else { f64::INFINITY }
}

/// One latency over another; without both of them infinite.
fn over(a: f64, b: f64) -> f64 {
    if b.is_finite() { a / b } else { f64::INFINITY }
}

/// The best that anybody could do, from the story alone. `None`: nobody says.
pub fn optimum(metric: Metric, setup: &Setup, story: &Story) -> Option<f64> {
    let service = |q: f64| setup.mean.as_secs_f64() * setup.work.quantile(q) * 1e3;
    let load = story.last_load();
    // Strictly one class after the other.
    let class = |n: usize| {
        let sum: f64 = story.classes.iter().sum();
        let before: f64 = story.classes[n + 1..].iter().sum::<f64>() / sum * load;
        let own = story.classes[n] / sum * load;
        ((1.0 - before).max(0.0) / own).min(1.0)
    };
    match metric {
        Metric::Goodput | Metric::WorstSecond | Metric::Jain => Some(1.0),
        Metric::Critical => Some(class(2)),
        Metric::Normal => Some(class(1)),
        Metric::Sheddable => Some(class(0)),
        Metric::Success => Some(success(story)),
        Metric::Quiet | Metric::Noisy => {
            let sum: f64 = story.tenants.iter().sum();
            let noisy = story.tenants.first()? / sum * load;
            let quiet = load - noisy;
            let share = if metric == Metric::Quiet { 1.0 / quiet } else { (1.0 - quiet).max(0.0) / noisy };
            Some(share.min(1.0))
        }
        Metric::Shed => Some(1.0 - success(story)),
        Metric::P50 => Some(service(0.5)),
        Metric::P99 => Some(service(0.99)),
        Metric::Drift | Metric::OfSingle => Some(1.0),
        Metric::Load | Metric::Recovery | Metric::Detection | Metric::Trips => Some(0.0),
        Metric::Amplification => None,
    }
}

/// The share that can be served where errors come by chance: of all attempts of a call not all may fail, and there are as many
/// attempts as the upstream can answer, whoever's they are.
fn success(story: &Story) -> f64 {
    let rate = |event: &Event| if let Event::Errors(rate) = event { *rate } else { 0.0 };
    let errors = story.events.iter().map(|(_, event)| rate(event)).fold(0.0, f64::max);
    let by_attempts = 1.0 - errors.powi(i32::try_from(story.attempts).unwrap_or(i32::MAX));
    let by_capacity = (1.0 - errors) / story.last_load();
    by_attempts.min(by_capacity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{GRID, SCENARIOS};
    use buttress_sim::world::Work;

    fn best(scenario: &str, metric: Metric) -> f64 {
        let setup = Setup::default();
        let scenario = SCENARIOS.iter().find(|s| s.name == scenario).unwrap();
        optimum(metric, &setup, &(scenario.story)(&setup)).unwrap()
    }

    #[test]
    fn the_optimum_serves_one_class_after_the_other() {
        assert_eq!(best("1", Metric::Critical), 1.0);
        assert!((best("3", Metric::Critical) - 0.5).abs() < 1e-9, "10x, a fifth critical");
        assert!((best("13", Metric::Normal) - 1.0).abs() < 1e-9);
        assert!(best("13", Metric::Sheddable).abs() < 1e-9);
    }

    #[test]
    fn what_quiet_tenants_leave_is_the_noisy_ones() {
        assert_eq!(best("14", Metric::Quiet), 1.0);
        assert!((best("14", Metric::Noisy) - 0.37 / 0.7).abs() < 1e-9);
    }

    #[test]
    fn errors_by_chance_are_mended_as_far_as_attempts_and_capacity_go() {
        assert!((best("9/50%", Metric::Success) - 0.5 / 0.7).abs() < 1e-9, "1.43 attempts for each");
        assert!((best("9/20%", Metric::Success) - (1.0 - 0.008)).abs() < 1e-9, "three attempts");
        assert_eq!(best("5", Metric::Shed), 0.0);
        assert_eq!(best("17", Metric::Success), 1.0);
    }

    #[test]
    fn whatever_the_setup_of_the_grid_its_time_goals_can_be_met() {
        for (workers, millis) in [4, 50, 200].iter().flat_map(|c| [1, 30, 100].map(|mean| (*c, mean))) {
            let mean = Duration::from_millis(millis);
            let setup =
                Setup { workers, mean, timeout: mean * 50, work: Work::Bimodal, bin_calls: 1e3, ..Setup::default() };
            for scenario in
                SCENARIOS.iter().filter(|s| GRID.contains(&s.name) && s.measures.contains(&Metric::Recovery))
            {
                let story = (scenario.story)(&setup);
                let width = bin(&setup, &story);
                let text = format!("{} c={workers} mean={mean:?}: {width:?}", scenario.name);
                assert!(width.as_secs_f64() <= shortest_time(&setup) + 1e-9, "{text}");
                assert!(width.as_secs_f64() * story.capacity(&setup) * setup.load >= 49.9, "{text}");
                let after = story.span.end - story.fault.end;
                assert!(after >= Duration::from_secs(2) + width * 2, "{text}: {after:?}");
            }
        }
    }
}
