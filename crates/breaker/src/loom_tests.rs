//! The shipped breaker under every interleaving of a few calls.

use crate::{BreakerConfig, State, machine::Machine};
use buttress_core::{
    Clock, Outcome, TokioClock,
    sync::{
        Arc, AtomicU64,
        Ordering::{Acquire, Release, SeqCst},
    },
};
use loom::thread::spawn;
use std::time::{Duration, Instant};

fn check(test: impl Fn(Instant) + Sync + Send + 'static) {
    check_with(3, test);
}

/// Probes take many steps: their signal is looked after, too.
fn check_with(preemptions: usize, test: impl Fn(Instant) + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 10_000;
    model.check(move || test(TokioClock.now()));
}

/// A clock that goes on, in seconds: who sees the later time sees what happened before it.
struct Moving(Instant, AtomicU64);

impl Clock for Moving {
    fn now(&self) -> Instant {
        self.0 + Duration::from_secs(self.1.load(Acquire))
    }
}

fn machine(config: BreakerConfig, now: Instant) -> Arc<Machine> {
    Arc::new(Machine::new(config.failure_rate(None).seed(1), now, 1))
}

fn state(machine: &Machine) -> State {
    State::of(machine.word())
}

fn settle(machine: &Machine, mut ticket: crate::ticket::Ticket, outcome: Outcome, now: Instant) {
    machine.conclude(&mut ticket, 0, outcome, None, &now);
}

/// Half-open, at the moment returned.
fn half_open(machine: &Machine, now: Instant) -> Instant {
    settle(machine, machine.admit(0, &now).unwrap(), Outcome::Failure, now);
    let later = now + Duration::from_secs(60);
    settle(machine, machine.admit(0, &later).unwrap(), Outcome::Ignored, later);
    assert_eq!(state(machine), State::HalfOpen);
    later
}

#[test]
fn loom_of_two_failures_one_trips_it() {
    check(|now| {
        let machine = machine(BreakerConfig::default().consecutive(1), now);
        let tickets = [(); 2].map(|()| machine.admit(0, &now).unwrap());
        let threads = tickets.map(|ticket| {
            let machine = machine.clone();
            spawn(move || settle(&machine, ticket, Outcome::Failure, now))
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!((state(&machine), machine.opened.load(SeqCst), machine.word().generation()), (State::Open, 1, 1));
    });
}

#[test]
fn loom_failures_in_a_row_are_counted_exactly() {
    check(|now| {
        let machine = machine(BreakerConfig::default().consecutive(3), now);
        let tickets = [(); 2].map(|()| machine.admit(0, &now).unwrap());
        let threads = tickets.map(|ticket| {
            let machine = machine.clone();
            spawn(move || settle(&machine, ticket, Outcome::Failure, now))
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(machine.consecutive(machine.word()), 2);
    });
}

#[test]
fn loom_an_old_result_never_moves_a_new_generation() {
    check(|now| {
        let machine = machine(BreakerConfig::default().consecutive(1).close_after(1).probe_window(1), now);
        let old = machine.admit(0, &now).unwrap();
        let clock = Arc::new(Moving(now, AtomicU64::new(0)));
        let stale = {
            let (machine, clock, mut old) = (machine.clone(), clock.clone(), old);
            spawn(move || machine.conclude(&mut old, 0, Outcome::Failure, None, &*clock))
        };
        machine.reset(machine.nanos(&*clock));
        // From here on a bucket is filled that the new generation counts.
        clock.1.store(3, Release);
        stale.join().unwrap();
        let counted = machine.counts(machine.word(), machine.nanos(&*clock)).failures;
        let opened = machine.opened.load(SeqCst);
        // Before the reset it opens the circuit, which the reset closes; after it, it says nothing.
        assert_eq!((state(&machine), counted), (State::Closed, 0), "opened {opened}");
        assert_eq!(machine.consecutive(machine.word()), 0);
    });
}

#[test]
fn loom_an_old_failure_never_ends_a_new_streak() {
    check(|now| {
        let machine = machine(BreakerConfig::default().consecutive(9), now);
        let old = machine.admit(0, &now).unwrap();
        let stale = {
            let machine = machine.clone();
            spawn(move || settle(&machine, old, Outcome::Failure, now))
        };
        machine.reset(machine.nanos(&now));
        settle(&machine, machine.admit(0, &now).unwrap(), Outcome::Failure, now);
        stale.join().unwrap();
        assert_eq!(machine.consecutive(machine.word()), 1);
    });
}

#[test]
fn loom_probe_places_are_conserved() {
    check_with(2, |now| {
        let machine = machine(BreakerConfig::default().consecutive(1).probes(1), now);
        let now = half_open(&machine, now);
        let threads = [Outcome::Ignored, Outcome::Success].map(|outcome| {
            let machine = machine.clone();
            spawn(move || match machine.admit(0, &now) {
                Ok(ticket) => {
                    assert_eq!(machine.word().tally().in_flight, 1, "one at once");
                    settle(&machine, ticket, outcome, now);
                }
                Err(_) => {}
            })
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!((state(&machine), machine.word().tally().in_flight), (State::HalfOpen, 0));
        assert!(machine.admit(0, &now).is_ok());
    });
}

#[test]
fn loom_it_closes_once() {
    check(|now| {
        let machine = machine(BreakerConfig::default().consecutive(1).close_after(1).probe_window(2), now);
        let now = half_open(&machine, now);
        let tickets = [(); 2].map(|()| machine.admit(0, &now).unwrap());
        let threads = tickets.map(|ticket| {
            let machine = machine.clone();
            spawn(move || settle(&machine, ticket, Outcome::Success, now))
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!((state(&machine), machine.word().generation()), (State::Closed, 3));
    });
}

#[test]
fn loom_a_probe_ends_or_expires_and_not_both() {
    check(|now| {
        let config = BreakerConfig::default().consecutive(1).probe_deadline(Duration::from_secs(1));
        let machine = machine(config.close_after(2).probe_window(3).probes(1), now);
        let now = half_open(&machine, now);
        let ticket = machine.admit(0, &now).unwrap();
        let late = now + Duration::from_secs(2);
        let ending = {
            let machine = machine.clone();
            spawn(move || settle(&machine, ticket, Outcome::Success, late))
        };
        machine.examine(machine.nanos(&late));
        ending.join().unwrap();
        let tally = machine.word().tally();
        assert_eq!((tally.in_flight, tally.successes + tally.failures), (0, 1));
    });
}

#[test]
fn loom_an_old_probe_never_counts_in_a_new_half_open() {
    check(|now| {
        let machine = machine(BreakerConfig::default().consecutive(1), now);
        let now = half_open(&machine, now);
        let old = machine.admit(0, &now).unwrap();
        let stale = {
            let machine = machine.clone();
            spawn(move || settle(&machine, old, Outcome::Success, now))
        };
        machine.reset(machine.nanos(&now));
        half_open(&machine, now);
        stale.join().unwrap();
        let tally = machine.word().tally();
        assert_eq!((tally.in_flight, tally.successes, tally.failures), (0, 0, 0));
    });
}

#[test]
fn loom_calls_in_flight_that_meet_in_one_slot_are_all_counted() {
    check(|now| {
        let machine = machine(BreakerConfig::default().consecutive(9), now);
        // Sixteen epochs apart: the later one moves the earlier one out of the slot.
        let threads = [0, 10, 10].map(|second| {
            let machine = machine.clone();
            let now = machine.nanos(&(now + Duration::from_secs(second)));
            spawn(move || machine.hung.enter(0, now))
        });
        let epochs = threads.map(|t| t.join().unwrap());
        assert_eq!(machine.hung.all(), 3);
        for (left, epoch) in epochs.into_iter().enumerate() {
            machine.hung.leave(0, epoch);
            assert_eq!(machine.hung.all(), 2 - left as u64);
        }
    });
}

#[test]
fn loom_calls_that_come_and_go_leave_the_rings_empty() {
    check(|now| {
        let machine = machine(BreakerConfig::default().consecutive(9), now);
        let threads = [0, 10].map(|second| {
            let machine = machine.clone();
            let now = now + Duration::from_secs(second);
            spawn(move || {
                let mut ticket = machine.admit(0, &now).unwrap();
                machine.pending(&mut ticket, 0, &now);
                settle(&machine, ticket, Outcome::Ignored, now);
            })
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!((machine.hung.all(), state(&machine)), (0, State::Closed));
    });
}

#[test]
fn loom_the_signal_of_a_half_open_circuit_says_at_last_whether_there_is_a_place() {
    check_with(2, |now| {
        let config = BreakerConfig::default().consecutive(1).probes(1).close_after(2).probe_window(3);
        let machine = machine(config, now);
        let later = half_open(&machine, now);
        let threads = [(); 2].map(|()| {
            let machine = machine.clone();
            spawn(move || match machine.admit(0, &later) {
                Ok(ticket) => settle(&machine, ticket, Outcome::Ignored, later),
                Err(refusal) => assert!(refusal.retry_after.is_some()),
            })
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        let signal = &machine.signal;
        assert!(signal.is(buttress_core::Signal::OPEN) && signal.until() <= later, "both places are free");
    });
}

/// The first tick of a ramp of one result per tick, at the moment returned.
fn ramping(machine: &Machine, now: Instant) -> Instant {
    let now = half_open(machine, now);
    settle(machine, machine.admit(0, &now).unwrap(), Outcome::Success, now);
    assert_eq!(state(machine), State::Ramping);
    now
}

fn with_ramp(calls: u32) -> BreakerConfig {
    let ramp = crate::RampConfig::default().share(0.5).calls(calls);
    BreakerConfig::default().consecutive(1).probes(1).close_after(1).probe_window(1).ramp(ramp)
}

#[test]
fn loom_results_on_a_ramp_are_all_counted_and_it_ends_once() {
    check_with(2, |now| {
        let machine = machine(with_ramp(2), now);
        let now = ramping(&machine, now);
        let word = machine.word();
        let threads = [(); 2].map(|()| {
            let machine = machine.clone();
            spawn(move || settle(&machine, crate::ticket::Ticket::closed(word), Outcome::Success, now))
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!((state(&machine), machine.word().generation()), (State::Closed, 4));
        assert!(!machine.signal.is(buttress_core::Signal::OPEN));
    });
}

#[test]
fn loom_of_a_good_end_and_a_bad_one_of_a_ramp_one_comes_true() {
    check_with(2, |now| {
        let machine = machine(with_ramp(1), now);
        let now = ramping(&machine, now);
        let word = machine.word();
        let threads = [Outcome::Success, Outcome::Failure].map(|outcome| {
            let machine = machine.clone();
            spawn(move || settle(&machine, crate::ticket::Ticket::closed(word), outcome, now))
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(machine.word().generation(), 4, "the other one is of an older generation");
        let is_open = state(&machine) == State::Open;
        assert_eq!(machine.signal.is(buttress_core::Signal::OPEN), is_open);
    });
}

#[test]
fn loom_of_two_calls_that_find_one_due_one_passes_for_certain() {
    check(|_| {
        let share = Arc::new(crate::share::Share::new(1));
        let threads = [(); 2].map(|()| {
            let share = share.clone();
            spawn(move || share.admit(0.0, 10, 100).is_ok())
        });
        let passed = threads.map(|t| t.join().unwrap());
        assert_eq!(passed.iter().filter(|passed| **passed).count(), 1);
        assert_eq!(share.due(), 110);
    });
}
