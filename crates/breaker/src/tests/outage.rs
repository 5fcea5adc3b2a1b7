//! A gate in front of a simulated fleet: what users get, what the fleet gets, and how soon.

use crate::{RampedGate, RampedGateConfig, RampedGatePermit};
use buttress_core::{Clock, Draw, Outcome, TokioClock};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

const SEEDS: std::ops::Range<u64> = 1..11;

/// What the fleet does with a call.
#[derive(Clone, Copy)]
enum Fleet {
    /// So large a share of the calls is good; the others fail as late as they.
    Up(f64),
    /// Connections are refused.
    Down,
    /// No call is answered until its caller gives up, after 2 s.
    Hangs,
}

struct Numbers(Draw);

impl Numbers {
    fn unit(&self) -> f64 {
        self.0.unit()
    }

    fn exponential(&self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }
}

/// A hundredth of a second.
#[derive(Clone, Copy, Default, Debug)]
struct Bin {
    offered: u32,
    sent: u32,
    good: u32,
    /// The share at its end.
    share: f64,
}

const BIN: Duration = Duration::from_millis(10);

/// Open-loop Poisson arrivals at `rate` per second; the answers take 10 ms on an average.
fn run(config: RampedGateConfig, seed: u64, rate: f64, seconds: u64, fleet: impl Fn(Duration) -> Fleet) -> Vec<Bin> {
    let t0 = TokioClock.now();
    let gate = RampedGate::new_at(config.seed(seed), &t0).unwrap();
    let numbers = Numbers(Draw::new(seed));
    let mut bins = vec![Bin::default(); (seconds * 100) as usize];
    let (mut ends, mut calls) = (BinaryHeap::new(), Vec::<Option<(RampedGatePermit, Outcome)>>::new());
    let end = t0 + Duration::from_secs(seconds);
    let mut arrival = t0;
    let bin = |at: Instant| ((at - t0).as_nanos() / BIN.as_nanos()) as usize;
    while arrival < end {
        while ends.peek().is_some_and(|Reverse((at, _))| *at <= arrival) {
            let Reverse((at, call)): Reverse<(Instant, usize)> = ends.pop().unwrap();
            let (permit, outcome) = calls[call].take().unwrap();
            permit.settle_at(outcome, None, &at);
            if at < end {
                bins[bin(at)].good += u32::from(outcome == Outcome::Success);
                bins[bin(at)].share = gate.share();
            }
        }
        let now = arrival;
        let slot = &mut bins[bin(now)];
        slot.offered += 1;
        if let Ok(mut permit) = gate.try_acquire_at(&now) {
            slot.sent += 1;
            permit.pending_at(&now);
            let (outcome, takes) = match fleet(now - t0) {
                Fleet::Up(good) if numbers.unit() < good => {
                    (Outcome::Success, numbers.exponential(Duration::from_millis(10)))
                }
                Fleet::Up(_) => (Outcome::Failure, numbers.exponential(Duration::from_millis(10))),
                Fleet::Down => (Outcome::Failure, Duration::from_millis(1)),
                Fleet::Hangs => (Outcome::Failure, Duration::from_secs(2)),
            };
            ends.push(Reverse((now + takes, calls.len())));
            calls.push(Some((permit, outcome)));
        }
        slot.share = gate.share();
        arrival += numbers.exponential(Duration::from_secs_f64(1.0 / rate));
    }
    drop(calls);
    bins
}

/// The sum of what `read` says of the time from `from` to `to`, in seconds.
fn sum(bins: &[Bin], from: f64, to: f64, read: impl Fn(&Bin) -> u32) -> f64 {
    bins[(from * 100.0) as usize..(to * 100.0) as usize].iter().map(|bin| f64::from(read(bin))).sum()
}

/// After how many seconds from `from` on what `holds` says holds.
fn first(bins: &[Bin], from: f64, holds: impl Fn(&Bin) -> bool) -> f64 {
    let from = (from * 100.0) as usize;
    let bin = bins[from..].iter().position(|bin| bin.offered > 0 && holds(bin)).expect("it never does");
    (bin + 1) as f64 / 100.0
}

/// Up for 5 s, `fleet` for 10 s, up for 15 s.
fn outage(rate: f64, fleet: Fleet, config: impl Fn() -> RampedGateConfig) -> Vec<Vec<Bin>> {
    let at = |since: Duration| if (5.0..15.0).contains(&since.as_secs_f64()) { fleet } else { Fleet::Up(1.0) };
    let seeds = if rate > 2000.0 { 1..2 } else { SEEDS };
    seeds.map(|seed| run(config(), seed, rate, 30, at)).collect()
}

/// The worst of all seeds: the load on a fleet that is down, when that was noticed, and when all was well again.
fn worst(runs: &[Vec<Bin>]) -> (f64, f64, f64) {
    let most = |read: &dyn Fn(&Vec<Bin>) -> f64| runs.iter().map(read).fold(0.0, f64::max);
    let load = most(&|bins| sum(bins, 5.0, 15.0, |bin| bin.sent) / sum(bins, 5.0, 15.0, |bin| bin.offered));
    let noticed = most(&|bins| first(bins, 5.0, |bin| bin.share < 0.5));
    let recovered = most(&|bins| first(bins, 15.0, |bin| bin.share == 1.0));
    for bins in runs {
        let after = 15.0 + recovered + 0.1;
        let goodput = sum(bins, after, 30.0, |bin| bin.good) / sum(bins, after, 30.0, |bin| bin.offered);
        assert!(goodput > 0.99, "{goodput} of the calls are good after that");
    }
    println!("load {load:.4}, noticed after {noticed} s, wide open after {recovered} s");
    (load, noticed, recovered)
}

#[test]
fn an_outage_is_noticed_loads_the_fleet_little_and_is_over_soon() {
    for rate in [2000.0, 1400.0, 20_000.0] {
        let seen = worst(&outage(rate, Fleet::Down, RampedGateConfig::default));
        assert!(seen.0 <= 0.03 && seen.1 <= 0.2 && seen.2 <= 1.0, "{rate}/s: {seen:?}");
    }
}

#[test]
fn an_outage_in_which_calls_hang_is_noticed_by_their_age() {
    let config = || RampedGateConfig::default().hang_after(Duration::from_secs(1));
    let (load, noticed, recovered) = worst(&outage(2000.0, Fleet::Hangs, config));
    assert!(load <= 0.16 && noticed <= 1.5 && recovered <= 1.5);
}

#[test]
fn half_of_the_calls_are_served_while_the_other_half_fails() {
    for (rate, good) in [(2000.0, 0.5), (200.0, 0.5), (20.0, 0.5), (2000.0, 0.8), (20.0, 0.8)] {
        for seed in SEEDS {
            let bins = run(RampedGateConfig::default(), seed, rate, 60, |_| Fleet::Up(good));
            assert!(bins.iter().all(|bin| bin.offered == 0 || bin.share == 1.0), "{rate}/s, {good}: seed {seed}");
            let served = sum(&bins, 1.0, 60.0, |bin| bin.good) / sum(&bins, 1.0, 60.0, |bin| bin.offered);
            assert!(served > good - 0.05, "{served}");
        }
    }
}

#[test]
fn between_too_bad_and_good_enough_it_does_what_little_it_can() {
    for (good, least, most) in [(0.4, 0.98, 1.0), (0.35, 0.95, 1.0), (0.15, 0.0, 0.15), (0.1, 0.0, 0.08)] {
        let bins = run(RampedGateConfig::default(), 7, 2000.0, 60, |_| Fleet::Up(good));
        let sent = sum(&bins, 5.0, 60.0, |bin| bin.sent) / sum(&bins, 5.0, 60.0, |bin| bin.offered);
        println!("{good} good: {sent} sent");
        assert!((least..=most).contains(&sent), "{good} good: {sent} sent");
    }
}

#[test]
fn a_replica_that_takes_its_calls_with_it_narrows_nothing() {
    // One of ten, with 40 calls in flight, in the same millisecond; the other nine answer.
    let t0 = TokioClock.now();
    let gate = RampedGate::new_at(RampedGateConfig::default(), &t0).unwrap();
    let mut now = t0;
    for _ in 0..10 {
        let calls: Vec<_> = (0..400).map(|_| gate.try_acquire_at(&now).unwrap()).collect();
        for (i, call) in calls.into_iter().enumerate() {
            now += Duration::from_micros(50);
            call.settle_at(if i < 60 { Outcome::Failure } else { Outcome::Success }, None, &now);
        }
    }
    assert_eq!(gate.share(), 1.0);
}

#[test]
fn a_few_calls_are_enough_to_notice_and_to_come_back() {
    for rate in [200.0, 20.0] {
        let (load, noticed, recovered) = worst(&outage(rate, Fleet::Down, RampedGateConfig::default));
        // What it takes to notice: 40 calls, and 10 for each step down; then two a second.
        assert!(load * rate * 10.0 <= 130.0 && noticed <= 0.1 + 80.0 / rate, "{rate}/s: {load}, {noticed} s");
        assert!(recovered <= 4.5, "{rate}/s: {recovered} s");
    }
}
