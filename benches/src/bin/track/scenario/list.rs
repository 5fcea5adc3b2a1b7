//! Every scenario, in order.

use super::{
    Scenario,
    story::{Event, Storm, Story},
};
use crate::{metric::Metric, setup::Setup};
use buttress_sim::world::{Bursts, Down};
use std::time::Duration;

/// What there is to run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "1",
        title: "step to 2x",
        story: |setup| Story::calm(setup, None, 2.0).two_classes().step(2.0),
        measures: &[Metric::Goodput, Metric::P99, Metric::Critical],
    },
    Scenario {
        name: "2",
        title: "step to 5x",
        story: |setup| Story::calm(setup, None, 5.0).two_classes().step(5.0),
        measures: &[Metric::Goodput, Metric::P99, Metric::Critical],
    },
    Scenario {
        name: "3",
        title: "step to 10x",
        story: |setup| Story::calm(setup, None, 10.0).two_classes().step(10.0),
        measures: &[Metric::Goodput, Metric::Critical, Metric::P99],
    },
    Scenario { name: "4/1.2x", title: "1.2x for long", story: |setup| lasting(setup, 1.2), measures: LASTING },
    Scenario { name: "4/1.5x", title: "1.5x for long", story: |setup| lasting(setup, 1.5), measures: LASTING },
    Scenario {
        name: "5",
        title: "0.9x, no fault",
        story: |setup| {
            let calm = Story::calm(setup, None, 0.9).patience(setup.timeout.mul_f64(0.6));
            Story { load: vec![(Duration::ZERO, 0.9)], ..calm }
        },
        measures: &[Metric::Success, Metric::Shed, Metric::P99],
    },
    Scenario {
        name: "6",
        title: "capacity -80 % for 10 s",
        story: |setup| {
            let story = Story::calm(setup, None, setup.load).attempts(3);
            let left = (story.workers / 5).max(1);
            let whole = story.workers;
            story.spell(10.0, Event::Workers(left), Event::Workers(whole))
        },
        measures: &[Metric::Goodput, Metric::Recovery, Metric::Amplification],
    },
    Scenario {
        name: "7",
        title: "3x for 10 s",
        story: |setup| {
            let mut story = Story::calm(setup, None, 3.0).attempts(3);
            story.fault = story.span.start..story.after(10.0);
            story.load.extend([(story.fault.start, 3.0), (story.fault.end, setup.load)]);
            story
        },
        measures: &[Metric::Goodput, Metric::Recovery, Metric::Amplification],
    },
    Scenario {
        name: "8",
        title: "latency x3 for 20 s",
        story: |setup| Story::calm(setup, None, setup.load).spell(20.0, Event::Latency(3.0), Event::Latency(1.0)),
        measures: &[Metric::Goodput, Metric::Recovery],
    },
    Scenario { name: "9/20%", title: "20 % errors", story: |setup| errors(setup, 0.2), measures: ERRORS },
    Scenario { name: "9/50%", title: "50 % errors", story: |setup| errors(setup, 0.5), measures: ERRORS },
    Scenario {
        name: "10",
        title: "outage 10 s, refuses",
        story: |setup| outage(setup, Down::Refusing),
        measures: OUTAGE,
    },
    Scenario {
        name: "10h",
        title: "outage 10 s, hangs",
        story: |setup| outage(setup, Down::Hanging),
        measures: OUTAGE,
    },
    Scenario {
        name: "11",
        title: "half of c leaks away",
        story: |setup| {
            let mut story = Story::calm(setup, Some(140.0), setup.load).patience(setup.mean * 2);
            let lost = story.workers - story.workers.div_ceil(2);
            story.fault = story.span.start..story.after(120.0);
            let at = |n: u32| story.after(120.0 * f64::from(n) / f64::from(lost));
            story.events = (1..=lost).map(|n| (at(n), Event::Workers(story.workers - n))).collect();
            story
        },
        measures: &[Metric::Goodput, Metric::P99],
    },
    Scenario { name: "12/plain", title: "3 layers retry", story: |setup| storm(setup, Storm::Apart), measures: STORM },
    Scenario {
        name: "12/marks",
        title: "3 layers retry, marked",
        story: |setup| storm(setup, Storm::Marked),
        measures: STORM,
    },
    Scenario {
        name: "13",
        title: "priorities at 2x",
        story: |setup| {
            let patience = setup.timeout.mul_f64(0.2);
            let story = Story::calm(setup, None, 2.0).classes().patience(patience);
            Story { load: vec![(Duration::ZERO, 2.0)], ..story }
        },
        measures: &[Metric::Critical, Metric::Normal, Metric::Sheddable, Metric::Goodput],
    },
    Scenario {
        name: "14",
        title: "a tenant sends 10x",
        story: |setup| {
            // Ten tenants share the load; one sends ten times its share.
            let load = setup.load * 1.9;
            let story = Story::calm(setup, None, load);
            let tenants = [10.0].into_iter().chain([1.0; 9]).collect();
            Story { load: vec![(Duration::ZERO, load)], tenants, ..story }
        },
        measures: &[Metric::Quiet, Metric::Noisy, Metric::Goodput],
    },
    Scenario {
        name: "17",
        title: "bursts of 5x",
        story: |setup| {
            let story = Story::calm(setup, None, setup.load).patience(setup.timeout.mul_f64(0.6));
            // A tenth of the time five times as much: the mean is the setup's.
            let calm = setup.load / 1.4;
            let (every, length) = (story.length(1.0), story.length(0.1));
            let bursts = Some(Bursts::new(every, length, 5.0));
            Story { load: vec![(Duration::ZERO, calm)], bursts, ..story }
        },
        measures: &[Metric::Success, Metric::P99],
    },
    Scenario { name: "19/1c", title: "cold start at 2x", story: |setup| cold(setup, 1), measures: COLD },
    Scenario { name: "19/10c", title: "cold start, 10 c", story: |setup| cold(setup, 10), measures: COLD },
    Scenario { name: "21/2x", title: "contention, 2x", story: |setup| contention(setup, 2.0), measures: CONTENTION },
    Scenario { name: "21/5x", title: "contention, 5x", story: |setup| contention(setup, 5.0), measures: CONTENTION },
    Scenario { name: "22/1", title: "1 gateway, 2x", story: |setup| gateways(setup, 1, 0), measures: GATEWAY },
    Scenario { name: "22/2", title: "2 gateways, 2x", story: |setup| gateways(setup, 2, 0), measures: GATEWAYS },
    Scenario { name: "22/4", title: "4 gateways, 2x", story: |setup| gateways(setup, 4, 0), measures: GATEWAYS },
    Scenario { name: "22/8", title: "8 gateways, 2x", story: |setup| gateways(setup, 8, 0), measures: GATEWAYS },
    Scenario {
        name: "22/8+50ms",
        title: "8, clocks 50 ms off",
        story: |setup| gateways(setup, 8, 50),
        measures: GATEWAYS,
    },
    Scenario {
        name: "22/8+200ms",
        title: "8, clocks 200 ms off",
        story: |setup| gateways(setup, 8, 200),
        measures: GATEWAYS,
    },
    Scenario {
        name: "22/8cold",
        title: "8, all begin at 2x",
        story: |setup| Story { load: vec![(Duration::ZERO, 2.0)], ..gateways(setup, 8, 0) },
        measures: GATEWAYS,
    },
    Scenario { name: "23/3", title: "3 gateways for long", story: |setup| together(setup, 3), measures: TOGETHER },
    Scenario { name: "23/8", title: "8 gateways for long", story: |setup| together(setup, 8), measures: TOGETHER },
];

/// A scenario that there is not.
pub struct NotBuilt {
    pub name: &'static str,
    pub title: &'static str,
    /// What it waits for.
    pub lacks: &'static str,
}

pub const NOT_BUILT: [NotBuilt; 4] = [
    NotBuilt {
        name: "15",
        title: "one replica of 10 ten times slower",
        lacks: "the world has no several replicas behind one load, the balancer no ejection of those that stand out",
    },
    NotBuilt {
        name: "16",
        title: "one replica of 10 fails fast, half fails, stalls",
        lacks: "the world has no several replicas behind one load, the balancer no ejection of those that stand out",
    },
    NotBuilt {
        name: "18",
        title: "heartbeats, 1 % loss, partition",
        lacks: "the world has no network that loses messages, the library no heartbeats",
    },
    NotBuilt {
        name: "20",
        title: "healthy tail, 10 replicas, hedging",
        lacks: "the world has no several replicas behind one load, the library no hedging",
    },
];

/// What is left out when it is to go quickly: what lies between variants that are not, and what takes long.
pub const LEFT_OUT: [&str; 6] = ["22/2", "22/4", "22/8+50ms", "22/8cold", "23/3", "23/8"];

/// Scenarios that must hold with any numbers.
pub const GRID: [&str; 6] = ["1", "5", "6", "8", "17", "19/1c"];

const LASTING: &[Metric] = &[Metric::Goodput, Metric::Drift, Metric::WorstSecond];
const ERRORS: &[Metric] = &[Metric::Success, Metric::Trips, Metric::Amplification];
const OUTAGE: &[Metric] = &[Metric::Goodput, Metric::Load, Metric::Recovery, Metric::Detection];
const STORM: &[Metric] = &[Metric::Goodput, Metric::Amplification];
const COLD: &[Metric] = &[Metric::Goodput, Metric::P99];
const CONTENTION: &[Metric] = &[Metric::Goodput, Metric::P99];
const GATEWAY: &[Metric] = &[Metric::Goodput, Metric::P50];
const GATEWAYS: &[Metric] = &[Metric::Goodput, Metric::P50, Metric::OfSingle, Metric::Jain];

const TOGETHER: &[Metric] = &[Metric::Goodput, Metric::WorstSecond, Metric::Drift, Metric::P99];

fn lasting(setup: &Setup, load: f64) -> Story {
    let seconds = if setup.quick { 120.0 } else { 400.0 };
    Story::calm(setup, Some(seconds), load).step(load).patience(setup.timeout.mul_f64(0.1))
}

fn errors(setup: &Setup, rate: f64) -> Story {
    let story = Story::calm(setup, None, setup.load).attempts(3);
    let begin = story.span.start;
    Story { events: vec![(begin, Event::Errors(rate))], ..story }
}

fn outage(setup: &Setup, down: Down) -> Story {
    let story = Story::calm(setup, None, setup.load).attempts(3);
    story.spell(10.0, Event::Down(Some(down)), Event::Down(None))
}

fn storm(setup: &Setup, storm: Storm) -> Story {
    let story = outage(setup, Down::Refusing);
    // A thousand clients, each with a retry of its own.
    Story { storm: Some(storm), tenants: vec![1.0; 1000], ..story }
}

fn cold(setup: &Setup, times: u32) -> Story {
    let setup = Setup { warm_up: Duration::ZERO, workers: setup.workers * times, ..setup.clone() };
    Story { load: vec![(Duration::ZERO, 2.0)], ..Story::calm(&setup, Some(5.0), 2.0) }
}

fn contention(setup: &Setup, load: f64) -> Story {
    // Who waits inside makes all others slower.
    Story { contention: 0.2, ..Story::calm(setup, None, load).step(load).patience(Duration::ZERO) }
}

fn gateways(setup: &Setup, gateways: u32, skew_ms: u64) -> Story {
    let story = Story::calm(setup, None, 2.0).step(2.0);
    Story { gateways, skew: Duration::from_millis(skew_ms), ..story }
}

/// Limits that each take the others' calls for less room, or more, drift together: nobody sees that in a minute.
fn together(setup: &Setup, gateways: u32) -> Story {
    let story = Story::calm(setup, Some(240.0), 2.0).step(2.0);
    Story { gateways, ..story }
}
