//! What is run, and what is made of it.

mod list;
mod measure;
mod story;

pub use list::{GRID, LEFT_OUT, NOT_BUILT, NotBuilt, SCENARIOS};
pub use measure::{Played, Point, optimum};
pub use story::{Event, Storm, Story};

use crate::{chain, contestant::Contestant, metric::Metric, setup::Setup};
use buttress_sim::world::World;
use measure::Seen;
use std::{sync::OnceLock, time::Duration};

/// The median latency with one gateway, once it is known.
pub type Single = OnceLock<f64>;

/// One scenario, or one variant of it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its number, and after a slash what varies.
    pub name: &'static str,
    pub title: &'static str,
    pub story: fn(&Setup) -> Story,
    /// What is measured. The first one is a share, and counts for the score.
    pub measures: &'static [Metric],
}

impl Scenario {
    /// Its story, with the classes that the setup asks for.
    pub fn story_of(&self, setup: &Setup) -> Story {
        let story = (self.story)(setup);
        Story { classes: setup.classes.unwrap_or(story.classes), ..story }
    }

    /// What is measured: where the setup asks for classes, each of them as well.
    pub fn measures_of(&self, setup: &Setup) -> Vec<Metric> {
        let classes = [Metric::Critical, Metric::Normal, Metric::Sheddable].into_iter();
        let more = classes.filter(|class| setup.classes.is_some() && !self.measures.contains(class));
        self.measures.iter().copied().chain(more).collect()
    }

    /// Why figures would say nothing with these numbers.
    ///
    /// # Errors
    ///
    /// See [`Story::check`].
    pub fn check(&self, setup: &Setup) -> Result<(), String> {
        self.story_of(setup).check(self.measures.contains(&Metric::Recovery))
    }

    /// Whether `contestant` has anything to do with it.
    pub fn admits(&self, setup: &Setup, contestant: Contestant) -> bool {
        let story = self.story_of(setup);
        match contestant {
            _ if story.storm.is_some() => {
                matches!(contestant, Contestant::None | Contestant::Tower | Contestant::Ours)
            }
            Contestant::Breaker => story.fails(),
            _ => true,
        }
    }

    /// Plays it once. The same arguments give the same result. `single`: the median latency with a single gateway, for who needs
    /// it next with the same setup, contestant and seed.
    pub fn play(&self, setup: &Setup, contestant: Contestant, seed: u64, single: &Single) -> Played {
        let (story, measures) = (self.story_of(setup), self.measures_of(setup));
        let alone = || {
            let story = Story { gateways: 1, skew: Duration::ZERO, ..story.clone() };
            play(setup, &story, &[Metric::P50], contestant, seed, None).metrics[&Metric::P50]
        };
        let single = measures.contains(&Metric::OfSingle).then(|| *single.get_or_init(alone));
        play(setup, &story, &measures, contestant, seed, single)
    }
}

fn play(
    setup: &Setup,
    story: &Story,
    measures: &[Metric],
    contestant: Contestant,
    seed: u64,
    single: Option<f64>,
) -> Played {
    World::play(seed, async |world| {
        let upstream = story.upstream(&world, setup);
        let attempts = chain::Attempts::default();
        for gateway in 0..story.gateways {
            let site =
                chain::Site { world: &world, upstream: &upstream, setup, story, seed, gateway, attempts: &attempts };
            let entry = chain::enter(contestant, &site);
            world.load(story.clients(setup, entry.attempts, entry.time_out), entry.chain);
        }
        // The last ones have their time, too.
        world.run_until(story.span.end + setup.timeout * story.attempts).await;
        Seen { world: &world, upstream: &upstream, attempts: &attempts, setup, story, single }.played(measures)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{goals::GOALS, metric::Sense};
    use buttress_sim::world::Work;

    #[test]
    fn every_goal_is_measured_and_the_headline_is_a_share_with_an_optimum() {
        let setup = Setup::default();
        for goal in GOALS {
            let of = |s: &&Scenario| crate::goals::goals_of(s.name).any(|g| g == goal);
            let left_out = SCENARIOS.iter().filter(of).filter(|s| !s.measures.contains(&goal.metric));
            let left_out: Vec<_> = left_out.map(|s| s.name).collect();
            // A single gateway shares with nobody.
            let may_be: &[&str] = if matches!(goal.metric, Metric::OfSingle | Metric::Jain) { &["22/1"] } else { &[] };
            assert!(SCENARIOS.iter().any(|s| of(&s)), "{goal:?}");
            assert_eq!(left_out, may_be, "{goal:?}");
        }
        for scenario in SCENARIOS {
            let headline = scenario.measures[0];
            assert_eq!(headline.sense(), Sense::Higher, "{}", scenario.name);
            assert!(optimum(headline, &setup, &(scenario.story)(&setup)).unwrap() > 0.0, "{}", scenario.name);
        }
    }

    #[test]
    fn a_breaker_runs_where_the_upstream_fails_by_itself() {
        let admits = |s: &&Scenario| s.admits(&Setup::default(), Contestant::Breaker);
        let names: Vec<_> = SCENARIOS.iter().filter(admits).map(|s| s.name).collect();
        assert_eq!(names, ["9/20%", "9/50%", "10", "10h"]);
    }

    #[test]
    fn names_are_there_once() {
        for (n, scenario) in SCENARIOS.iter().enumerate() {
            assert!(SCENARIOS[..n].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
        }
        assert!(GRID.iter().all(|name| SCENARIOS.iter().any(|scenario| scenario.name == *name)));
    }

    #[test]
    fn the_same_seed_twice_is_the_same_run() {
        let second = Duration::from_secs(1);
        let setup = Setup { warm_up: second, measured: second, ..Setup::default() };
        let play = |seed| SCENARIOS[0].play(&setup, Contestant::Tower, seed, &Single::new()).metrics;
        assert_eq!(play(3), play(3));
        assert_ne!(play(3), play(4));
    }

    #[test]
    fn a_limit_does_not_hide_what_clients_try() {
        let scenario = SCENARIOS.iter().find(|s| s.name == "6").unwrap();
        let setup = Setup {
            workers: 5,
            warm_up: Duration::from_secs(2),
            measured: Duration::from_secs(13),
            ..Setup::default()
        };
        let of = |contestant| scenario.play(&setup, contestant, 1, &Single::new()).metrics[&Metric::Amplification];
        assert!(of(Contestant::Tower) > 1.5, "most are refused, and tried again: {}", of(Contestant::Tower));
        assert!(of(Contestant::Ours) >= 1.0, "each is tried once: {}", of(Contestant::Ours));
    }

    #[test]
    fn who_serves_nobody_is_infinitely_slow() {
        let second = Duration::from_secs(1);
        let timeout = Duration::from_millis(2);
        let setup = Setup { work: Work::Fixed, timeout, warm_up: second, measured: second, ..Setup::default() };
        let of = |name: &str| {
            let scenario = SCENARIOS.iter().find(|s| s.name == name).unwrap();
            scenario.play(&setup, Contestant::None, 1, &Single::new()).metrics
        };
        assert_eq!(of("1")[&Metric::P99], f64::INFINITY);
        assert_eq!(of("22/2")[&Metric::P50], f64::INFINITY);
        assert_eq!(of("22/2")[&Metric::OfSingle], f64::INFINITY);
    }
}
