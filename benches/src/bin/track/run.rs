//! Runs, a few at a time, and what they come to.

use crate::{
    contestant::Contestant,
    goals::{Over, Target, goals_of, is_must},
    metric::{Metric, Metrics, across, median},
    scenario::{Played, Point, Scenario, Single, optimum},
    setup::Setup,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// A scenario with the numbers it is run with.
#[derive(Clone, Debug)]
pub struct Case {
    pub scenario: &'static Scenario,
    pub setup: Arc<Setup>,
    /// One of many setups: its name says which.
    pub is_grid: bool,
}

impl Case {
    /// Its name in reports.
    pub fn name(&self) -> String {
        if self.is_grid {
            format!("{} {}", self.scenario.name, self.setup.title())
        } else {
            self.scenario.name.to_owned()
        }
    }
}

/// What one contestant made of one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub contestant: Contestant,
    pub seeds: Vec<u64>,
    pub median: Metrics,
    pub worst: Metrics,
    /// Whether it meets each of the case's targets.
    pub met: Vec<bool>,
    /// Of the seed in the middle.
    pub series: Vec<Point>,
}

/// What all of them made of it.
#[derive(Clone, Debug)]
pub struct Sheet {
    pub case: Case,
    pub optimum: Metrics,
    pub targets: Vec<Target>,
    pub rows: Vec<Row>,
}

impl Sheet {
    /// From what was played, by contestant.
    pub fn new(case: Case, seeds: &[u64], played: BTreeMap<Contestant, Vec<Played>>) -> Self {
        let story = case.scenario.story_of(&case.setup);
        let best = |metric: &Metric| Some((*metric, optimum(*metric, &case.setup, &story)?));
        let optimum: Metrics = case.scenario.measures_of(&case.setup).iter().filter_map(best).collect();
        let mut rows: Vec<_> =
            played.into_iter().map(|(contestant, played)| row(&case, contestant, seeds, played)).collect();
        let others: Vec<_> = match rows.iter().any(|row| row.contestant == Contestant::Oracle) {
            true => {
                rows.iter().filter(|row| row.contestant != Contestant::Ours).map(|row| row.median.clone()).collect()
            }
            false => Vec::new(),
        };
        let goals = goals_of(case.scenario.name).filter(|goal| case.scenario.measures.contains(&goal.metric));
        let targets: Vec<_> = goals.map(|goal| goal.target(&case.setup, &optimum, &others)).collect();
        for row in &mut rows {
            row.met = targets.iter().map(|target| target.is_met(&row.median, &row.worst)).collect();
        }
        // In the order in which they are shown.
        rows.sort_by_key(|row| Contestant::ALL.iter().position(|one| *one == row.contestant));
        Self { case, optimum, targets, rows }
    }

    pub fn of(&self, contestant: Contestant) -> Option<&Row> {
        self.rows.iter().find(|row| row.contestant == contestant)
    }

    /// What ours is of the optimum, in the figure that counts for the score; at most 1.
    pub fn share_of_optimum(&self) -> Option<f64> {
        let headline = self.case.scenario.measures[0];
        let ours = self.of(Contestant::Ours)?.median.get(&headline)?;
        Some((ours / self.optimum.get(&headline)?).clamp(0.0, 1.0))
    }
}

fn row(case: &Case, contestant: Contestant, seeds: &[u64], played: Vec<Played>) -> Row {
    let metrics: Vec<_> = played.iter().map(|played| played.metrics.clone()).collect();
    let (medians, worst) = across(&metrics);
    let headline = case.scenario.measures[0];
    let value = |played: &Played| played.metrics.get(&headline).copied().unwrap_or(0.0);
    let middle = median(played.iter().map(value)).unwrap_or(0.0);
    let nearest = played.into_iter().min_by(|a, b| (value(a) - middle).abs().total_cmp(&(value(b) - middle).abs()));
    let series = nearest.map(|played| played.series).unwrap_or_default();
    Row { contestant, seeds: seeds.to_vec(), median: medians, worst, met: Vec::new(), series }
}

/// Plays every case with every contestant and seed, on so many threads; `tell` hears how many are done of how many.
pub fn play(
    cases: Vec<Case>,
    contestants: &[Contestant],
    seeds: &[u64],
    threads: usize,
    tell: impl Fn(usize, usize) + Sync,
) -> Vec<Sheet> {
    let mut jobs = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        for contestant in contestants.iter().filter(|one| case.scenario.admits(&case.setup, **one)) {
            jobs.extend(seeds.iter().map(|seed| (n, *contestant, *seed)));
        }
    }
    // What a single gateway would be sent belongs to it.
    let site = |case: &Case, contestant, seed: &u64| {
        let load = case.scenario.story_of(&case.setup).load;
        let load: Vec<_> = load.into_iter().map(|(at, load)| (at, load.to_bits())).collect();
        (Arc::as_ptr(&case.setup), load, contestant, *seed)
    };
    let singles: BTreeMap<_, _> =
        jobs.iter().map(|(n, one, seed)| (site(&cases[*n], *one, seed), Single::new())).collect();
    let singles: Vec<_> = jobs.iter().map(|(n, one, seed)| &singles[&site(&cases[*n], *one, seed)]).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Vec<Mutex<Option<Played>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Relaxed)
                    && let Some((case, contestant, seed)) = jobs.get(index)
                {
                    let played = cases[*case].scenario.play(&cases[*case].setup, *contestant, *seed, singles[index]);
                    *buttress_core::sync::lock(&results[index]) = Some(played);
                    tell(done.fetch_add(1, Relaxed) + 1, jobs.len());
                }
            });
        }
    });
    let mut played: Vec<BTreeMap<Contestant, Vec<Played>>> = cases.iter().map(|_| BTreeMap::new()).collect();
    for ((case, contestant, _), result) in jobs.into_iter().zip(results) {
        let result = result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        played[case].entry(contestant).or_default().extend(result);
    }
    cases.into_iter().zip(played).map(|(case, played)| Sheet::new(case, seeds, played)).collect()
}

/// What it all comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The geometric mean of ours over the optimum. `None`: ours did not run.
    pub score: Option<f64>,
    /// Goals of ours that must not be missed and are.
    pub missed: Vec<String>,
    /// Cases in which ours is worth less than half of the optimum.
    pub failed: Vec<String>,
}

impl Verdict {
    pub fn of(sheets: &[Sheet]) -> Self {
        let shares: Vec<_> =
            sheets.iter().filter_map(|sheet| Some((sheet.case.name(), sheet.share_of_optimum()?))).collect();
        let logs: f64 = shares.iter().map(|(_, share)| share.ln()).sum();
        let score = (!shares.is_empty()).then(|| (logs / shares.len() as f64).exp());
        let failed = shares.into_iter().filter(|(_, share)| *share < 0.5).map(|(name, _)| name).collect();
        let mut missed = Vec::new();
        for sheet in sheets.iter().filter(|sheet| is_must(sheet.case.scenario.name)) {
            let Some(ours) = sheet.of(Contestant::Ours) else { continue };
            let of_sheet = sheet.targets.iter().zip(&ours.met).filter(|(_, met)| !**met);
            missed.extend(of_sheet.map(|(target, _)| {
                let of = if target.over == Over::Worst { "worst " } else { "" };
                format!("{} {of}{}", sheet.case.name(), target.metric.name())
            }));
        }
        Self { score, missed, failed }
    }

    pub fn is_good(&self) -> bool {
        self.missed.is_empty() && self.failed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SCENARIOS;

    fn sheet(name: &str, ours: [(Metric, f64); 3]) -> Sheet {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
        let case = Case { scenario, setup: Arc::default(), is_grid: false };
        let played = Played { metrics: ours.into(), series: Vec::new() };
        Sheet::new(case, &[1], BTreeMap::from([(Contestant::Ours, vec![played])]))
    }

    #[test]
    fn a_must_that_is_missed_fails_and_another_goal_does_not() {
        let good = [(Metric::Goodput, 1.0), (Metric::P99, 70.0), (Metric::Critical, 1.0)];
        let slow = [(Metric::Goodput, 1.0), (Metric::P99, 170.0), (Metric::Critical, 1.0)];
        assert!(Verdict::of(&[sheet("1", good), sheet("2", slow)]).is_good());
        let verdict = Verdict::of(&[sheet("1", slow)]);
        assert_eq!((verdict.missed, verdict.failed.len()), (vec!["1 p99_ms".to_owned()], 0));
    }

    #[test]
    fn the_score_is_a_geometric_mean_and_less_than_half_fails() {
        let of = |goodput| [(Metric::Goodput, goodput), (Metric::P99, 70.0), (Metric::Critical, 1.0)];
        let verdict = Verdict::of(&[sheet("2", of(0.4)), sheet("3", of(0.9))]);
        assert!((verdict.score.unwrap() - 0.6).abs() < 1e-9);
        assert_eq!(verdict.failed, ["2"]);
        assert_eq!(Verdict::of(&[]).score, None);
    }

    #[test]
    fn threads_make_no_difference() {
        let setup = Arc::new(Setup {
            warm_up: std::time::Duration::from_secs(1),
            measured: std::time::Duration::from_secs(1),
            ..Setup::default()
        });
        let cases = || vec![Case { scenario: &SCENARIOS[0], setup: setup.clone(), is_grid: false }];
        let all = [Contestant::None, Contestant::Tower];
        let rows = |threads| play(cases(), &all, &[1, 2, 3], threads, |_, _| {}).remove(0).rows;
        assert_eq!(rows(1), rows(3));
    }

    #[test]
    fn a_single_gateway_is_one_with_the_same_load() {
        let second = std::time::Duration::from_secs(1);
        let setup = Arc::new(Setup { workers: 4, warm_up: second, measured: second, ..Setup::default() });
        let case = |name: &str| {
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
            Case { scenario, setup: setup.clone(), is_grid: false }
        };
        let play = |names: &[&'static str]| {
            let cases = names.iter().map(|name| case(name)).collect();
            play(cases, &[Contestant::Oracle], &[1], 1, |_, _| {}).pop().unwrap().rows
        };
        // Whoever else was there before.
        assert_eq!(play(&["22/2", "22/8cold"]), play(&["22/8cold"]));
    }
}
