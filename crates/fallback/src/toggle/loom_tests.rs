//! The shipped state machine under every interleaving of a few calls.

use super::{
    Back, Switch, ToggleConfig, ToggleState,
    machine::{Machine, Ticket, Told},
    state::SwitchedBy,
};
use buttress_core::{
    Clock, Outcome, TokioClock,
    sync::{Arc, Ordering::SeqCst},
};
use loom::thread::spawn;
use std::time::{Duration, Instant};

fn check(test: impl Fn(Instant) + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 20_000;
    model.check(move || test(TokioClock.now()));
}

const AFTER: Duration = Duration::from_millis(100);

fn machine(successes: u32, now: Instant) -> Arc<Machine> {
    let back = Back::Probe { after: AFTER, successes };
    let config = ToggleConfig::new("feature").first_failure(true).back(back).seed(1);
    Arc::new(Machine::new(config, now, 1))
}

fn end(machine: &Machine, ticket: Ticket, holds: bool, outcome: Outcome, now: Instant) {
    machine.conclude(ticket, holds, outcome, Told { stripe: 0, waited: false }, &now);
}

/// Switched off, and at the moment returned long enough.
fn due(machine: &Machine, now: Instant) -> Instant {
    end(machine, machine.admit(&now).unwrap(), false, Outcome::Failure, now);
    now + AFTER
}

fn switched_off(machine: &Machine, by: SwitchedBy) -> u64 {
    machine.totals.switched_off[by as usize].load(SeqCst)
}

#[test]
fn loom_of_two_failures_one_switches_off() {
    check(|now| {
        let machine = machine(1, now);
        let tickets = [(); 2].map(|()| machine.admit(&now).unwrap());
        let threads = tickets.map(|ticket| {
            let machine = machine.clone();
            spawn(move || end(&machine, ticket, false, Outcome::Failure, now))
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((machine.word().state(), machine.word().generation()), (ToggleState::Off, 1));
        assert_eq!(switched_off(&machine, SwitchedBy::FirstFailure), 1);
    });
}

#[test]
fn loom_one_of_two_callers_is_the_probe() {
    check(|now| {
        let machine = machine(1, now);
        let later = due(&machine, now);
        let other = machine.clone();
        let thread = spawn(move || other.admit(&later));
        let passed = [machine.admit(&later), thread.join().unwrap()];
        assert_eq!(passed.iter().flatten().count(), 1);
        assert_eq!((machine.totals.probes.load(SeqCst), machine.is_probe_out()), (1, true));
    });
}

#[test]
fn loom_no_failure_of_before_undoes_an_operators_word() {
    check(|now| {
        let machine = machine(1, now);
        let ticket = machine.admit(&now).unwrap();
        let other = machine.clone();
        let thread = spawn(move || end(&other, ticket, false, Outcome::Failure, now));
        machine.set(Switch::Auto, &now);
        thread.join().unwrap();
        assert_eq!(machine.word().state(), ToggleState::On);
    });
}

#[test]
fn loom_a_probe_that_is_answered_makes_room_and_counts_all_the_same() {
    check(|now| {
        let machine = machine(2, now);
        let later = due(&machine, now);
        let first = machine.admit(&later).unwrap();
        let other = machine.clone();
        let thread = spawn(move || {
            other.answered(first);
            end(&other, first, false, Outcome::Success, later);
        });
        let second = machine.admit(&later);
        if let Some(second) = second {
            end(&machine, second, true, Outcome::Success, later);
        }
        thread.join().unwrap();
        let word = machine.word();
        match second {
            Some(Ticket::Probe(_)) => assert_eq!(word.state(), ToggleState::On),
            Some(_) => panic!("it is not on yet"),
            None => assert_eq!((word.state(), word.good(), machine.is_probe_out()), (ToggleState::Probing, 1, false)),
        }
    });
}

#[test]
fn loom_a_probe_ends_well_or_hangs_and_never_both() {
    check(|now| {
        let machine = machine(1, now);
        let later = due(&machine, now);
        let probe = machine.admit(&later).unwrap();
        let other = machine.clone();
        let thread = spawn(move || end(&other, probe, true, Outcome::Success, later));
        let _ = machine.admit(&(later + AFTER));
        thread.join().unwrap();
        let hung = switched_off(&machine, SwitchedBy::Probe);
        let came_on = machine.totals.switched_on.load(SeqCst);
        assert_eq!((hung + came_on, machine.word().generation()), (1, 3));
        assert_eq!(machine.word().state() == ToggleState::Off, hung == 1);
    });
}
