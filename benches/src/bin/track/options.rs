//! The command line, and what it asks for.

use crate::{
    contestant::Contestant,
    goals::number,
    run::Case,
    scenario::{GRID, LEFT_OUT, NOT_BUILT, SCENARIOS, Scenario},
    setup::{Setup, parse_classes, parse_work},
};
use buttress_core::config::parse_duration;
use buttress_sim::world::Work;
use clap::{CommandFactory, Parser, error::ErrorKind};
use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

/// Measures how a service behaves while what it depends on fails, in virtual time, with our layers and with those of others.
///
/// It prints a table, with what its columns, figures and score mean below, and how far it is to stderr.
#[derive(Debug, Parser)]
#[command(name = "track")]
pub struct Options {
    /// Only these: a number for all of its variants (`4`), or the name of one (`4/1.2x`).
    #[arg(long, value_name = "NAME", value_parser = scenario)]
    scenario: Vec<String>,
    /// Only these.
    #[arg(long, value_name = "NAME")]
    contestant: Vec<Contestant>,
    /// How many seeds, from 1 on, or which: `10`, `3,7,9`, `7,`. Default: 10, with `--quick` or `--grid` 3.
    #[arg(long)]
    seeds: Option<Seeds>,
    /// 3 seeds, scenario 4 in 120 s, the median counts where the worst seed would; wrong limits of tower, AIMD, Vegas and what lies
    /// between one gateway and eight are left out where nobody names them.
    #[arg(long)]
    quick: bool,
    /// Ours alone, with other numbers: c 4, 50, 200; means of 1, 30, 100 ms; three distributions.
    #[arg(long, conflicts_with_all = ["quick", "c", "mean", "dist", "timeout"])]
    grid: bool,
    /// Workers of the upstream, 1 to 10 000. Default: 20.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    c: Option<u32>,
    /// The mean service time, 10us to 10s. Default: 10ms.
    #[arg(long, value_parser = mean)]
    mean: Option<Duration>,
    /// How service times vary: fixed, exponential, bimodal, lognormal, lognormal:SIGMA. Default: lognormal.
    #[arg(long, value_parser = parse_work)]
    dist: Option<Work>,
    /// How long a client waits for an attempt, 1ms to 10m. Default: 50 times the mean.
    #[arg(long, value_parser = timeout)]
    timeout: Option<Duration>,
    /// The shares of critical, normal and sheddable calls in percent, 100 in all, in every scenario that is run: `20,30,50`. Each class
    /// is measured then. Default: as each scenario says.
    #[arg(long, value_name = "C,N,S", value_parser = parse_classes)]
    classes: Option<[f64; 3]>,
    /// What is offered before anything happens, over capacity: 0.05 to 0.95. Default: 0.7.
    #[arg(long, value_parser = load)]
    load: Option<f64>,
    /// Before anything happens, 1s to 1h. Default: 12s. (With a mean of more than 10 ms in proportion.)
    #[arg(long, value_parser = span)]
    warmup: Option<Duration>,
    /// What is looked at, 1s to 1h. Default: 48s. (Scenarios 4, 11 and 19 have times of their own.)
    #[arg(long, value_parser = span)]
    measured: Option<Duration>,
    /// How many runs at once, 1 to 256. Default: as many as there are cores.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Where the figures go.
    #[arg(long, default_value = "target/track.json")]
    pub json: PathBuf,
    /// The folder for the plots.
    #[arg(long, default_value = "target/track")]
    pub plots: PathBuf,
}

/// Which worlds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seeds(Vec<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "allowed: how many, 1 to 1000, or a list of different seeds with a comma in it".to_owned();
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
        if !text.contains(',') {
            let many = number(text)?;
            return if (1..=1000).contains(&many) { Ok(Self((1..=many).collect())) } else { Err(wrong()) };
        }
        let seeds: Vec<_> = text.trim_end_matches(',').split(',').map(number).collect::<Result<_, _>>()?;
        let repeats = seeds.iter().enumerate().any(|(n, seed)| seeds[..n].contains(seed));
        if seeds.is_empty() || repeats { Err(wrong()) } else { Ok(Self(seeds)) }
    }
}

fn scenario(text: &str) -> Result<String, String> {
    if SCENARIOS.iter().any(|s| s.name == text || number(s.name) == text) {
        return Ok(text.to_owned());
    }
    if let Some(it) = NOT_BUILT.iter().find(|it| it.name == text) {
        return Err(format!("not built yet: {}", it.lacks));
    }
    let names: Vec<_> = SCENARIOS.iter().map(|s| s.name).collect();
    Err(format!("allowed: {}, or the number alone", names.join(", ")))
}

fn within(text: &str, low: &str, high: &str) -> Result<Duration, String> {
    let read = parse_duration(text)?;
    let is_allowed = parse_duration(low)? <= read && read <= parse_duration(high)?;
    if is_allowed { Ok(read) } else { Err(format!("allowed: {low} to {high}")) }
}

fn mean(text: &str) -> Result<Duration, String> {
    within(text, "10us", "10s")
}

fn timeout(text: &str) -> Result<Duration, String> {
    within(text, "1ms", "10m")
}

fn span(text: &str) -> Result<Duration, String> {
    within(text, "1s", "1h")
}

fn load(text: &str) -> Result<f64, String> {
    let read = text.parse().ok().filter(|load| (0.05..=0.95).contains(load));
    read.ok_or_else(|| "allowed: 0.05 to 0.95".to_owned())
}

impl Options {
    /// The cases, each with its setup.
    pub fn cases(&self) -> Vec<Case> {
        let setups = if self.grid { self.grid_setups() } else { vec![self.setup()] };
        let wanted = |s: &&Scenario| {
            let named = |name: &String| name == s.name || name == number(s.name);
            match (self.scenario.is_empty(), self.grid) {
                (true, true) => GRID.contains(&s.name),
                (true, false) => !(self.quick && LEFT_OUT.contains(&s.name)),
                (false, _) => self.scenario.iter().any(named),
            }
        };
        let scenarios: Vec<_> = SCENARIOS.iter().filter(wanted).collect();
        let case = |setup: &Arc<Setup>, scenario: &&'static Scenario| Case {
            scenario,
            setup: setup.clone(),
            is_grid: self.grid,
        };
        setups.into_iter().map(Arc::new).flat_map(|setup| scenarios.iter().map(move |s| case(&setup, s))).collect()
    }

    /// Whether every case says something.
    ///
    /// # Errors
    ///
    /// The first that does not, with what is allowed.
    pub fn check(&self) -> Result<(), clap::Error> {
        for case in self.cases() {
            let check = case.scenario.check(&case.setup);
            check.map_err(|why| {
                Self::command().error(ErrorKind::ValueValidation, format!("--scenario {}: {why}", case.scenario.name))
            })?;
        }
        Ok(())
    }

    /// Whether all that the track has is run.
    pub fn is_whole(&self) -> bool {
        self.scenario.is_empty() && !self.grid
    }

    pub fn contestants(&self) -> Vec<Contestant> {
        let wanted = |one: &Contestant| match (self.contestant.is_empty(), self.grid) {
            (true, true) => *one == Contestant::Ours,
            (true, false) => !(self.quick && Contestant::LEFT_OUT.contains(one)),
            (false, _) => self.contestant.contains(one),
        };
        Contestant::ALL.into_iter().filter(wanted).collect()
    }

    pub fn seeds(&self) -> Vec<u64> {
        let many = if self.quick || self.grid { 3 } else { 10 };
        self.seeds.as_ref().map_or_else(|| (1..=many).collect(), |seeds| seeds.0.clone())
    }

    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }

    fn setup(&self) -> Setup {
        let usual = Setup::default();
        let mean = self.mean.unwrap_or(usual.mean);
        Setup {
            workers: self.c.unwrap_or(usual.workers),
            mean,
            work: self.dist.unwrap_or(usual.work),
            timeout: self.timeout.unwrap_or(mean * 50),
            classes: self.classes,
            load: self.load.unwrap_or(usual.load),
            warm_up: self.warmup.unwrap_or(usual.warm_up),
            measured: self.measured.unwrap_or(usual.measured),
            quick: self.quick,
            ..usual
        }
    }

    fn grid_setups(&self) -> Vec<Setup> {
        let mut setups = Vec::new();
        for workers in [4, 50, 200] {
            for mean in [1, 30, 100].map(Duration::from_millis) {
                for work in [Work::Lognormal(0.6), Work::Exponential, Work::Bimodal] {
                    let timeout = mean * 50;
                    setups.push(Setup { workers, mean, work, timeout, bin_calls: 1000.0, ..self.setup() });
                }
            }
        }
        setups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;

    fn parse(line: &str) -> Result<Options, String> {
        Options::try_parse_from(["track"].into_iter().chain(line.split_whitespace())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_number_is_all_of_its_variants() {
        let names = |line| parse(line).unwrap().cases().iter().map(|case| case.scenario.name).collect::<Vec<_>>();
        assert_eq!(names("--scenario 4 --scenario 12/marks"), ["4/1.2x", "4/1.5x", "12/marks"]);
        assert_eq!(names("--scenario 1"), ["1"]);
        assert_eq!(parse("").unwrap().cases().len(), SCENARIOS.len());
        assert_eq!(parse("--grid").unwrap().cases().len(), 27 * GRID.len());
    }

    #[test]
    fn seeds_are_a_number_of_them_or_a_list() {
        let seeds = |line| parse(line).unwrap().seeds();
        assert_eq!(seeds("--seeds 3"), [1, 2, 3]);
        assert_eq!(seeds("--seeds 7,"), [7]);
        assert_eq!(seeds("--seeds 3,7,9 --quick"), [3, 7, 9]);
        assert_eq!((seeds("").len(), seeds("--quick").len(), seeds("--grid").len()), (10, 3, 3));
    }

    #[test]
    fn a_time_out_follows_the_mean_unless_it_is_said() {
        let setup = |line| parse(line).unwrap().cases()[0].setup.clone();
        assert_eq!(*setup(""), Setup::default());
        assert_eq!(setup("--mean 4ms").timeout, Duration::from_millis(200));
        assert_eq!(setup("--mean 4ms --timeout 1s").timeout, Duration::from_secs(1));
    }

    #[test]
    fn classes_are_for_every_scenario_and_measured_in_each() {
        let case = parse("--scenario 1 --classes 20,30,50").unwrap().cases().remove(0);
        assert_eq!(case.scenario.story_of(&case.setup).classes, [0.5, 0.3, 0.2]);
        let measured = case.scenario.measures_of(&case.setup);
        assert!(
            [Metric::Critical, Metric::Normal, Metric::Sheddable].iter().all(|m| measured.contains(m)),
            "{measured:?}"
        );
        assert_eq!(measured.iter().filter(|m| **m == Metric::Critical).count(), 1);
        let usual = parse("--scenario 1").unwrap().cases().remove(0);
        assert_eq!(usual.scenario.story_of(&usual.setup).classes, [0.0, 0.8, 0.2]);
        assert_eq!(usual.scenario.measures_of(&usual.setup), usual.scenario.measures);
    }

    #[test]
    fn numbers_with_which_a_scenario_says_nothing_are_refused() {
        let check = |line: &str| parse(line).unwrap().check().map_err(|error| error.to_string());
        for (line, said) in [
            ("--scenario 6 --measured 1s", ["--scenario 6", "lasts 10.00 s", "0.00 s are seen", "2 s more"]),
            ("--scenario 8 --measured 21s", ["--scenario 8", "lasts 20.00 s", "1.00 s are seen", "--measured"]),
            ("--scenario 6 --c 10000", ["--scenario 6", "lasts 0.48 s", "fewer workers", "2 million calls"]),
            ("--scenario 6 --c 1", ["--scenario 6", "1 worker", "nothing would be lost", "--c of 2"]),
            ("--scenario 11 --c 1", ["--scenario 11", "1 worker", "nothing would be lost", "--c of 2"]),
        ] {
            let error = check(line).unwrap_err();
            for part in said {
                assert!(error.contains(part), "{line}: {error}");
            }
        }
        for line in ["", "--quick", "--grid", "--scenario 6 --measured 12s", "--scenario 6 --c 2", "--scenario 7 --c 1"]
        {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn a_wrong_value_is_told_with_its_field_and_what_is_allowed() {
        for (line, said) in [
            ("--scenario 99", ["'99'", "--scenario", "allowed: 1, 2, 3, 4/1.2x"]),
            ("--scenario 15", ["'15'", "--scenario", "not built yet: the world"]),
            ("--contestant us", ["'us'", "--contestant", "allowed: none, tower"]),
            ("--seeds 0", ["'0'", "--seeds", "allowed: how many, 1 to 1000"]),
            ("--seeds 1,1", ["'1,1'", "--seeds", "different seeds"]),
            ("--seeds a,b", ["'a,b'", "--seeds", "allowed: how many"]),
            ("--c 0", ["0", "--c", "1..=10000"]),
            ("--mean 5", ["'5'", "--mean", "a number and a unit"]),
            ("--mean 1h", ["'1h'", "--mean", "allowed: 10us to 10s"]),
            ("--dist normal", ["'normal'", "--dist", "allowed: fixed, exponential"]),
            ("--timeout 0s", ["'0s'", "--timeout", "allowed: 1ms to 10m"]),
            ("--classes 20,30", ["'20,30'", "--classes", "critical, normal and sheddable"]),
            ("--classes 20,30,60", ["'20,30,60'", "--classes", "100 in all"]),
            ("--classes=-20,70,50", ["'-20,70,50'", "--classes", "100 in all"]),
            ("--classes a,b,c", ["'a,b,c'", "--classes", "as in 20,30,50"]),
            ("--classes NaN,50,50", ["'NaN,50,50'", "--classes", "100 in all"]),
            ("--load 1.5", ["'1.5'", "--load", "allowed: 0.05 to 0.95"]),
            ("--load NaN", ["'NaN'", "--load", "allowed: 0.05 to 0.95"]),
            ("--measured 1ms", ["'1ms'", "--measured", "allowed: 1s to 1h"]),
            ("--threads 0", ["0", "--threads", "1..=256"]),
            ("--grid --c 5", ["--grid", "--c", "cannot be used with"]),
        ] {
            let error = parse(line).unwrap_err();
            for part in said {
                assert!(error.contains(part), "{line}: {error}");
            }
        }
    }
}
