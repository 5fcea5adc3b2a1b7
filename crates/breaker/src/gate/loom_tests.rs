//! The shipped gate under every interleaving of a few results.

use super::{RampedGateConfig, permit::Ticket, valve::Valve};
use buttress_core::{Clock, Signal, TokioClock, sync::Arc};
use loom::thread::spawn;
use std::time::{Duration, Instant};

fn check(test: impl Fn(Instant) + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.max_branches = 10_000;
    model.check(move || test(TokioClock.now()));
}

fn valve(now: Instant) -> Arc<Valve> {
    Arc::new(Valve::new(RampedGateConfig::default().seed(1), now, 1))
}

/// After so many failures within a second.
fn after(valve: &Valve, failures: u64) {
    for _ in 0..failures {
        let generation = valve.word().generation();
        valve.fail(generation, if valve.word().evidence() == 0 { 0 } else { 1_000_000_000 });
    }
}

#[test]
fn loom_bad_results_are_all_counted_and_narrow_it_once() {
    check(|now| {
        let valve = valve(now);
        after(&valve, 38);
        let generation = valve.word().generation();
        let threads = [(); 2].map(|()| {
            let valve = valve.clone();
            spawn(move || valve.fail(generation, 1_000_000_000))
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        let word = valve.word();
        assert_eq!((word.share(), word.generation(), word.evidence()), (0.5, generation + 1, 0));
        assert!((valve.signal.pressure() - 0.5).abs() < 0.001);
    });
}

#[test]
fn loom_of_the_last_good_and_the_last_bad_result_one_moves_it() {
    check(|now| {
        let valve = valve(now);
        after(&valve, 40);
        let later = now + Duration::from_secs(2);
        let generation = valve.word().generation();
        valve.succeed(generation, &later);
        let other = {
            let valve = valve.clone();
            spawn(move || valve.fail(generation, 2_000_000_000))
        };
        valve.succeed(generation, &later);
        other.join().unwrap();
        let word = valve.word();
        // The bad one came first, and is set off; or it is of an older generation.
        let moved = word.share() == 1.0 && word.generation() == generation + 1 && word.evidence() == 0;
        let set_off = word.share() == 0.5 && word.generation() == generation && word.evidence() == -5;
        assert!(moved || set_off, "{word:?}");
    });
}

#[test]
fn loom_an_old_result_never_speaks_in_a_new_generation() {
    check(|now| {
        let valve = valve(now);
        after(&valve, 39);
        let generation = valve.word().generation();
        let stale = {
            let valve = valve.clone();
            spawn(move || valve.fail(generation, 1_000_000_000))
        };
        valve.reset(1_000_000_000);
        stale.join().unwrap();
        let word = valve.word();
        assert_eq!((word.share(), word.evidence()), (1.0, 0));
        assert!(valve.signal.pressure() < 0.001 && !valve.signal.is(Signal::OPEN));
    });
}

#[test]
fn loom_the_signal_says_the_last_share() {
    check(|now| {
        let valve = valve(now);
        after(&valve, 40);
        let generation = valve.word().generation();
        after(&valve, 9);
        let other = {
            let valve = valve.clone();
            spawn(move || valve.fail(generation, 1_000_000_000))
        };
        let later = now + Duration::from_secs(1);
        let _: Result<Ticket, _> = valve.admit(0, &later);
        other.join().unwrap();
        assert_eq!(valve.word().share(), 0.25);
        assert!(valve.signal.is(Signal::OPEN) && (valve.signal.pressure() - 0.75).abs() < 0.001);
    });
}

#[test]
fn loom_the_signal_says_when_the_next_call_passes_for_certain() {
    check(|now| {
        let valve = valve(now);
        after(&valve, 50);
        let at = |millis: u64| 1_000_000_000 + millis * 1_000_000;
        let other = {
            let valve = valve.clone();
            spawn(move || valve.decide(0, at(700)).is_ok())
        };
        let _ = valve.decide(0, at(2_000));
        other.join().unwrap();
        let due = Duration::from_nanos(valve.origin.nanos(valve.signal.until()));
        assert_eq!(valve.probe_in(0), Some(due));
    });
}
