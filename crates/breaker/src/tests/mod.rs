//! The state machine, with explicit times.

mod gate;
mod gate_model;
mod model;
mod outage;
mod peers;
mod ramp;
mod service;

use crate::{Admission, Breaker, BreakerConfig, Cause, State, Window};
use buttress_core::{Clock, Handle, Mode, Outcome, Pushback, Rejection, Signal, TokioClock};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// A breaker and a moment that only the test moves.
struct Rig {
    breaker: Breaker,
    now: Instant,
}

impl Rig {
    fn new(config: BreakerConfig) -> Self {
        let now = TokioClock.now();
        Self { breaker: Breaker::with_stripes(config.seed(1), &now, 1).unwrap(), now }
    }

    fn acquire(&self) -> Result<crate::BreakerPermit, Rejection> {
        self.breaker.try_acquire_at(&self.now)
    }

    fn call(&self, outcome: Outcome) {
        self.acquire().expect("admitted").settle_at(outcome, None, &self.now);
    }

    fn calls(&self, outcome: Outcome, count: usize) {
        (0..count).for_each(|_| self.call(outcome));
    }

    fn hang(&self) -> crate::BreakerPermit {
        let mut permit = self.acquire().expect("admitted");
        permit.pending_at(&self.now);
        permit
    }

    fn snapshot(&self) -> crate::BreakerSnapshot {
        self.breaker.snapshot_at(&self.now)
    }

    /// Opens it by hand and waits until a probe may go.
    fn open_and_wait(&mut self) {
        while self.snapshot().state == State::Closed {
            self.call(Outcome::Failure);
        }
        self.now += self.snapshot().retry_in.unwrap();
    }
}

fn consecutive(count: u32) -> BreakerConfig {
    BreakerConfig::default().failure_rate(None).consecutive(count)
}

#[test]
fn failures_in_a_row_open_it_and_a_success_begins_anew() {
    let rig = Rig::new(consecutive(3));
    rig.calls(Outcome::Failure, 2);
    rig.call(Outcome::Success);
    rig.calls(Outcome::Failure, 2);
    rig.call(Outcome::Overload);
    rig.call(Outcome::Ignored);
    assert_eq!((rig.snapshot().state, rig.snapshot().consecutive), (State::Closed, 2));
    rig.call(Outcome::Failure);
    assert_eq!(rig.snapshot().state, State::Open);
    let refused = rig.acquire().unwrap_err();
    assert_eq!(refused.retry_after, rig.snapshot().retry_in);
    assert!(rig.breaker.signal().is(Signal::OPEN));
}

#[test]
fn a_rate_needs_its_minimum_of_calls() {
    for window in [Window::Time(10 * S), Window::Count(100)] {
        let rig = Rig::new(BreakerConfig::default().window(window));
        rig.calls(Outcome::Success, 10);
        rig.calls(Outcome::Failure, 9);
        assert_eq!((rig.snapshot().state, rig.snapshot().failure_rate), (State::Closed, None));
        rig.call(Outcome::Failure);
        assert_eq!(rig.snapshot().state, State::Open, "{window:?}");
    }
}

#[test]
fn overload_counts_only_where_the_operator_says_so() {
    let rig = Rig::new(BreakerConfig::default());
    rig.calls(Outcome::Overload, 100);
    assert_eq!((rig.snapshot().state, rig.snapshot().calls), (State::Closed, 0));
    let rig = Rig::new(BreakerConfig::default().overload_as_failure(true));
    rig.calls(Outcome::Overload, 20);
    assert_eq!(rig.snapshot().state, State::Open);
}

#[test]
fn a_flood_of_calls_that_clients_gave_up_keeps_it_closed() {
    let mut rig = Rig::new(BreakerConfig::default().consecutive(5));
    for _ in 0..1000 {
        rig.call(Outcome::Ignored);
        let given_up = rig.hang();
        rig.now += MS;
        given_up.abandon_at(&rig.now);
    }
    let seen = rig.snapshot();
    assert_eq!((seen.state, seen.calls, seen.consecutive, seen.in_flight), (State::Closed, 0, 0, 0));
}

#[test]
fn with_confidence_a_small_sample_does_not_trip() {
    let rig = Rig::new(BreakerConfig::default().failure_rate(0.4).confidence(0.95));
    rig.calls(Outcome::Success, 11);
    rig.calls(Outcome::Failure, 9);
    assert_eq!(rig.snapshot().state, State::Closed, "45 % of 20 says little about 40 %");
    let rig = Rig::new(BreakerConfig::default().failure_rate(0.4).confidence(0.95));
    rig.calls(Outcome::Success, 550);
    rig.calls(Outcome::Failure, 380);
    assert_eq!(rig.snapshot().state, State::Closed, "41 % of 930 does not say enough");
    rig.breaker.update_at(rig.breaker.config().failure_rate(0.37), &rig.now).unwrap();
    rig.call(Outcome::Failure);
    assert_eq!(rig.snapshot().state, State::Open, "but much about 37 %");
}

#[test]
fn slow_calls_open_it_whether_they_end_or_not() {
    let config = || BreakerConfig::default().slow_after(100 * MS).slow_rate(0.8).hang_after(60 * S);
    let mut rig = Rig::new(config());
    for _ in 0..20 {
        let permit = rig.hang();
        rig.now += 100 * MS;
        permit.settle_at(Outcome::Success, None, &rig.now);
    }
    assert_eq!(rig.snapshot().state, State::Open, "ended");

    let mut rig = Rig::new(config());
    let waiting: Vec<_> = (0..20).map(|_| rig.hang()).collect();
    rig.now += 99 * MS;
    let seen = rig.snapshot();
    assert_eq!((seen.state, seen.slow_in_flight, seen.in_flight), (State::Closed, 0, 20));
    rig.now += 30 * MS;
    drop(rig.hang());
    assert_eq!(rig.snapshot().state, State::Open, "in flight");
    drop(waiting);
}

#[test]
fn a_head_ends_the_latency_and_a_slow_reader_costs_nothing() {
    let mut rig = Rig::new(BreakerConfig::default().slow_after(100 * MS).slow_rate(0.1));
    for _ in 0..30 {
        let mut permit = rig.hang();
        rig.now += MS;
        permit.head_at(&rig.now);
        rig.now += 10 * S;
        assert_eq!(rig.snapshot().slow_in_flight, 0);
        permit.head_at(&rig.now);
        permit.settle_at(Outcome::Success, None, &rig.now);
    }
    let mut reader = rig.hang();
    reader.head_at(&rig.now);
    rig.now += 60 * S;
    reader.abandon_at(&rig.now);
    let seen = rig.snapshot();
    assert_eq!((seen.state, seen.failures, seen.slow), (State::Closed, 0, 0));
}

#[test]
fn a_dropped_call_is_a_failure_only_if_it_hung() {
    let mut rig = Rig::new(BreakerConfig::default());
    let (young, old) = (rig.hang(), rig.hang());
    rig.now += 4 * S;
    young.abandon_at(&rig.now);
    assert_eq!(rig.snapshot().calls, 0);
    rig.now += S;
    old.abandon_at(&rig.now);
    assert_eq!((rig.snapshot().calls, rig.snapshot().failures), (1, 1));
}

#[test]
fn calls_that_hang_count_as_failures_in_a_row_once_each() {
    let mut rig = Rig::new(consecutive(5));
    let hanging: Vec<_> = (0..4).map(|_| rig.hang()).collect();
    rig.now += 6 * S;
    assert_eq!((rig.snapshot().consecutive, rig.snapshot().hung_in_flight), (4, 4));
    for permit in hanging {
        permit.abandon_at(&rig.now);
    }
    assert_eq!((rig.snapshot().consecutive, rig.snapshot().state), (4, State::Closed));
    rig.call(Outcome::Success);
    assert_eq!(rig.snapshot().consecutive, 0);
}

#[test]
fn a_body_that_is_cut_long_after_its_head_is_one_more_failure_in_a_row() {
    let mut rig = Rig::new(consecutive(2).hang_after(S));
    let mut long = rig.hang();
    long.head_at(&rig.now);
    rig.now += 10 * S;
    assert_eq!(rig.snapshot().consecutive, 0, "somebody looked, and it does not hang");
    long.settle_at(Outcome::Failure, None, &rig.now);
    assert_eq!(rig.snapshot().consecutive, 1);
}

#[test]
fn calls_that_hung_before_it_closed_do_not_open_it_again() {
    let mut rig = Rig::new(BreakerConfig::default());
    let hung: Vec<_> = (0..1000).map(|_| rig.hang()).collect();
    rig.now += 6 * S;
    assert_eq!(rig.snapshot().state, State::Open);
    rig.now += 60 * S;
    rig.calls(Outcome::Success, 3);
    assert_eq!(rig.snapshot().state, State::Closed);
    for _ in 0..100 {
        rig.now += S;
        let permit = rig.hang();
        permit.settle_at(Outcome::Success, None, &rig.now);
    }
    assert_eq!((rig.snapshot().state, rig.snapshot().hung_in_flight), (State::Closed, 0));
    drop(hung);
    let seen = rig.snapshot();
    assert_eq!((seen.state, seen.in_flight, seen.failures), (State::Closed, 0, 0));
}

#[test]
fn probes_are_few_and_close_it_on_three_of_five() {
    let mut rig = Rig::new(consecutive(1));
    rig.open_and_wait();
    let probes: Vec<_> = (0..3).map(|_| rig.acquire().expect("a probe")).collect();
    assert_eq!(rig.snapshot().state, State::HalfOpen);
    assert!(rig.acquire().unwrap_err().retry_after.is_some(), "no more than three at once");
    let [a, b, c] = <[_; 3]>::try_from(probes).unwrap();
    a.settle_at(Outcome::Success, None, &rig.now);
    b.settle_at(Outcome::Failure, None, &rig.now);
    c.settle_at(Outcome::Ignored, None, &rig.now);
    let seen = rig.snapshot();
    assert_eq!((seen.probes_good, seen.probes_bad, seen.in_flight), (1, 1, 0));
    rig.call(Outcome::Success);
    rig.call(Outcome::Failure);
    assert_eq!(rig.snapshot().state, State::HalfOpen, "two of four");
    rig.call(Outcome::Success);
    assert_eq!((rig.snapshot().state, rig.snapshot().calls), (State::Closed, 0));
    assert!(!rig.breaker.signal().is(Signal::OPEN));
}

#[test]
fn it_opens_again_as_soon_as_enough_good_probes_are_out_of_reach() {
    let mut rig = Rig::new(consecutive(1));
    rig.open_and_wait();
    rig.calls(Outcome::Failure, 2);
    assert_eq!(rig.snapshot().state, State::HalfOpen);
    rig.call(Outcome::Failure);
    assert_eq!((rig.snapshot().state, rig.snapshot().opened_total), (State::Open, 2));
}

#[test]
fn a_probe_that_was_answered_gives_its_place_to_the_next_and_its_outcome_counts_when_it_ends() {
    let mut rig = Rig::new(consecutive(1).probes(1).close_after(2).probe_window(2));
    rig.open_and_wait();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut probe = rig.acquire().expect("the place is free");
        assert!(rig.acquire().is_err(), "there is one place");
        probe.pending_at(&rig.now);
        probe.head_at(&rig.now);
        streams.push(probe);
    }
    rig.now += 3600 * S;
    assert!(rig.acquire().is_ok(), "long streams are no hung probes");
    assert_eq!(rig.snapshot().state, State::HalfOpen);
    for stream in streams {
        stream.settle_at(Outcome::Success, None, &rig.now);
    }
    assert_eq!(rig.snapshot().state, State::Closed);
}

#[test]
fn the_answer_of_a_probe_that_was_late_counts_no_more() {
    let mut rig = Rig::new(consecutive(1).probes(1).close_after(1).probe_window(2).probe_deadline(S));
    rig.open_and_wait();
    let mut late = rig.acquire().unwrap();
    rig.now += 2 * S;
    assert_eq!(rig.snapshot().state, State::HalfOpen);
    late.head_at(&rig.now);
    late.settle_at(Outcome::Success, None, &rig.now);
    assert_eq!(rig.snapshot().state, State::HalfOpen, "it was counted as bad at its deadline");
}

#[test]
fn new_rules_decide_on_probes_that_have_ended() {
    let t0 = TokioClock.now();
    let config = consecutive(1).probes(1).close_after(3).probe_window(5);
    let breaker = Breaker::new_at(config.clone(), &t0).unwrap();
    breaker.try_acquire_at(&t0).unwrap().settle_at(Outcome::Failure, None, &t0);
    let later = t0 + 60 * S;
    for outcome in [Outcome::Success, Outcome::Success, Outcome::Failure] {
        breaker.try_acquire_at(&later).unwrap().settle_at(outcome, None, &later);
    }
    assert_eq!(breaker.state(), State::HalfOpen);
    breaker.update_at(config.clone().probe_window(3), &later).unwrap();
    assert!(breaker.try_acquire_at(&later).is_err(), "three good ones of three are out of reach");
    assert_eq!(breaker.state(), State::Open);
    let again = later + 120 * S;
    for _ in 0..2 {
        breaker.try_acquire_at(&again).unwrap().settle_at(Outcome::Success, None, &again);
    }
    breaker.update_at(config.close_after(2), &again).unwrap();
    assert!(breaker.try_acquire_at(&again).is_ok());
    assert_eq!(breaker.state(), State::Closed, "two are enough now");
}

#[test]
fn whoever_waits_for_the_first_message_after_the_head_takes_the_calls_time_again() {
    let t0 = TokioClock.now();
    let breaker = Breaker::new_at(consecutive(1).hang_after(S), &t0).unwrap();
    let mut permit = breaker.try_acquire_at(&t0).unwrap();
    permit.pending_at(&t0);
    permit.head_at(&t0);
    let unread = t0 + 60 * S;
    assert_eq!(breaker.snapshot_at(&unread).state, State::Closed, "nobody asked for it");
    permit.pending_at(&unread);
    assert_eq!(breaker.snapshot_at(&(unread + 3 * S)).state, State::Open, "somebody did, and it hangs");
}

#[test]
fn a_slow_probe_is_a_bad_one_where_slow_calls_count() {
    let mut rig = Rig::new(consecutive(1).slow_after(100 * MS).slow_rate(0.5));
    rig.open_and_wait();
    let probe = rig.acquire().unwrap();
    rig.now += 100 * MS;
    probe.settle_at(Outcome::Success, None, &rig.now);
    assert_eq!(rig.snapshot().probes_bad, 1);
}

#[test]
fn a_probe_that_hangs_is_a_failure_at_its_deadline_and_only_once() {
    let mut rig = Rig::new(consecutive(1).probe_deadline(S));
    rig.open_and_wait();
    let mut hung: Vec<_> = (0..3).map(|_| rig.acquire().unwrap()).collect();
    rig.now += 999 * MS;
    assert!(rig.acquire().is_err());
    rig.now += 2 * MS;
    let late = hung.pop().unwrap();
    assert!(rig.acquire().is_err(), "three failures open it again");
    assert_eq!((rig.snapshot().state, rig.snapshot().opened_total), (State::Open, 2));
    late.settle_at(Outcome::Success, None, &rig.now);
    drop(hung);
    assert_eq!(rig.snapshot().state, State::Open);
}

#[test]
fn a_dropped_probe_gives_its_place_back() {
    let mut rig = Rig::new(consecutive(1));
    rig.open_and_wait();
    for _ in 0..100 {
        let probe = rig.acquire().expect("a free place");
        assert_eq!(rig.snapshot().in_flight, 1);
        probe.abandon_at(&rig.now);
    }
    let seen = rig.snapshot();
    assert_eq!((seen.state, seen.in_flight, seen.probes_bad), (State::HalfOpen, 0, 0));
}

#[test]
fn the_open_time_doubles_up_to_its_end_and_begins_anew_after_a_healthy_spell() {
    let mut rig = Rig::new(consecutive(1).open_for(S).max_open(10 * S).close_after(1).probe_window(1));
    let mut waits = Vec::new();
    for _ in 0..6 {
        rig.call(Outcome::Failure);
        waits.push(rig.snapshot().retry_in.unwrap());
        rig.now += *waits.last().unwrap();
    }
    for (wait, full) in waits.iter().zip([1, 2, 4, 8, 10, 10]) {
        assert!(*wait >= full * S / 2 && *wait <= full * S + MS, "{wait:?} of {full} s");
    }
    rig.call(Outcome::Success);
    rig.now += 9 * S;
    rig.call(Outcome::Failure);
    let unhealed = rig.snapshot().retry_in.unwrap();
    assert!(unhealed >= 5 * S);
    rig.now += unhealed;
    rig.call(Outcome::Success);
    rig.now += 10 * S;
    rig.call(Outcome::Failure);
    assert!(rig.snapshot().retry_in.unwrap() <= S + MS);
}

#[test]
fn a_pushback_is_the_least_open_time_and_max_open_the_most() {
    for (asked, waits) in [(Some(7), 7), (Some(100), 60), (None, 60)] {
        let rig = Rig::new(consecutive(1).open_for(S));
        let pushback = asked.map_or(Pushback::NEVER, |seconds| Pushback::after(seconds * S));
        rig.acquire().unwrap().settle_at(Outcome::Failure, Some(pushback), &rig.now);
        let retry_in = rig.snapshot().retry_in.unwrap();
        assert!(retry_in >= waits * S && retry_in <= waits * S + MS, "{retry_in:?}");
    }
}

#[test]
fn the_seed_decides_the_jitter() {
    let wait = |seed| {
        let now = TokioClock.now();
        let breaker = Breaker::new_at(consecutive(1).seed(seed), &now).unwrap();
        breaker.try_acquire_at(&now).unwrap().settle_at(Outcome::Failure, None, &now);
        breaker.snapshot_at(&now).retry_in
    };
    assert_eq!(wait(7), wait(7));
    assert_ne!(wait(7), wait(8));
}

#[test]
fn operator_modes_override_and_the_state_machine_runs_on() {
    let mut rig = Rig::new(consecutive(1));
    rig.breaker.set_mode(Mode::ForcedOpen).unwrap();
    assert_eq!(rig.acquire().unwrap_err().retry_after, None);
    rig.breaker.set_mode(Mode::Disabled).unwrap();
    rig.calls(Outcome::Failure, 10);
    assert_eq!(rig.snapshot().state, State::Closed);

    rig.breaker.set_mode(Mode::OBSERVE_ONLY).unwrap();
    rig.calls(Outcome::Failure, 10);
    let seen = rig.snapshot();
    assert_eq!((seen.state, seen.let_through_total, seen.opened_total), (State::Open, 9, 1));
    rig.now += seen.retry_in.unwrap();
    rig.calls(Outcome::Success, 3);
    assert_eq!((rig.snapshot().state, rig.snapshot().let_through_total), (State::Closed, 9));

    rig.breaker.set_mode(Mode::Enforcing(50)).unwrap();
    rig.call(Outcome::Failure);
    let refused = (0..1000).filter(|_| rig.acquire().is_err()).count();
    assert!((430..570).contains(&refused), "{refused}");
    assert!(rig.breaker.set_mode(Mode::Enforcing(101)).is_err());
}

#[test]
fn the_signal_says_whether_calls_are_refused() {
    let rig = Rig::new(consecutive(1));
    let signal = rig.breaker.signal();
    rig.breaker.set_mode(Mode::ForcedOpen).unwrap();
    assert!(signal.is(Signal::OPEN));
    rig.breaker.set_mode(Mode::OBSERVE_ONLY).unwrap();
    rig.call(Outcome::Failure);
    assert!(!signal.is(Signal::OPEN), "open, and calls pass");
    rig.breaker.set_mode(Mode::Enforcing(50)).unwrap();
    assert!(!signal.is(Signal::OPEN), "half of them pass, and who heeds the signal sends none");
    for mode in [Mode::Enforcing(100), Mode::Auto] {
        rig.breaker.set_mode(mode).unwrap();
        assert!(signal.is(Signal::OPEN));
    }
}

#[test]
fn the_signal_of_a_half_open_circuit_says_when_there_is_a_place_for_a_probe() {
    let mut rig = Rig::new(consecutive(1).probes(2).close_after(2).probe_window(3).probe_deadline(10 * S));
    let signal = rig.breaker.signal();
    let is_due = |rig: &Rig| signal.is(Signal::OPEN) && signal.until() <= rig.now;
    rig.open_and_wait();
    let first = rig.acquire().unwrap();
    assert!(is_due(&rig), "one more may go");
    rig.now += S;
    let second = rig.acquire().unwrap();
    assert!(signal.is(Signal::OPEN) && !is_due(&rig));
    // To the millisecond, which a deadline is rounded up to.
    let deadline = signal.until() - rig.now;
    assert!(deadline >= 9 * S - MS && deadline <= 9 * S + 2 * MS, "{deadline:?}");
    second.settle_at(Outcome::Ignored, None, &rig.now);
    assert!(is_due(&rig), "its place is free");
    let second = rig.acquire().unwrap();
    assert!(!is_due(&rig));
    rig.now = signal.until();
    // The first is past its deadline: that is a bad probe, and a place.
    let third = rig.acquire().unwrap();
    assert!(signal.is(Signal::OPEN) && !is_due(&rig));
    first.settle_at(Outcome::Success, None, &rig.now);
    second.settle_at(Outcome::Success, None, &rig.now);
    assert_eq!(
        (rig.snapshot().state, is_due(&rig)),
        (State::HalfOpen, false),
        "the last of three probes is on its way"
    );
    third.settle_at(Outcome::Success, None, &rig.now);
    assert_eq!((rig.snapshot().state, signal.is(Signal::OPEN)), (State::Closed, false));
}

#[test]
fn an_update_keeps_the_state_and_a_wrong_one_changes_nothing() {
    let mut rig = Rig::new(BreakerConfig::default());
    rig.calls(Outcome::Failure, 10);
    let waiting = rig.hang();
    rig.breaker.update_at(BreakerConfig::default().min_calls(11).hang_after(S), &rig.now).unwrap();
    assert_eq!((rig.snapshot().failures, rig.snapshot().state), (10, State::Closed));
    rig.now += 2 * S;
    assert_eq!(rig.snapshot().hung_in_flight, 0, "it began under the other threshold");
    rig.call(Outcome::Failure);
    assert_eq!(rig.snapshot().state, State::Open);
    waiting.abandon_at(&rig.now);

    let before = rig.breaker.config();
    let error = rig.breaker.update_at(before.clone().failure_rate(1.5), &rig.now).unwrap_err();
    assert_eq!(error.to_string(), "`failure_rate` is 1.5, allowed: more than 0 and at most 1");
    let error = rig.breaker.update_at(before.clone().window(Window::Count(50)), &rig.now).unwrap_err();
    assert_eq!(error.field, "window");
    assert_eq!(rig.breaker.config(), before);
}

#[test]
fn config_errors_name_field_value_and_what_is_allowed() {
    let config = BreakerConfig::default;
    for (config, text) in [
        (config().failure_rate(0.0), "`failure_rate` is 0, allowed: more than 0 and at most 1"),
        (config().failure_rate(f64::NAN), "`failure_rate` is NaN, allowed: more than 0 and at most 1"),
        (
            config().failure_rate(None),
            "`failure_rate` is none, allowed: a share, unless `consecutive` or `slow_rate` is set",
        ),
        (
            config().slow_rate(0.5),
            "`slow_rate` is 0.5, allowed: only where there is a `slow_after`: set `slow_after` as well",
        ),
        (config().consecutive(0), "`consecutive` is 0, allowed: 1 or more"),
        (config().window(Window::Count(0)), "`window` is 0, allowed: 1 to 1000000 calls"),
        (config().window(Window::Count(10)), "`min_calls` is 20, allowed: at most the size of `window`, 10"),
        (config().window(Window::Time(MS)), "`window` is 1ms, allowed: 100ms to 168h"),
        (config().confidence(1.0), "`confidence` is 1, allowed: 0.5 to below 1"),
        (config().open_for(61 * S), "`open_for` is 61s, allowed: at most `max_open`, which is 1m"),
        (config().max_open(S), "`max_open` is 1s, allowed: at least `open_for`, which is 5s"),
        (config().probes(33), "`probes` is 33, allowed: 1 to 32"),
        (config().close_after(6), "`close_after` is 6, allowed: 1 to `probe_window`"),
        (config().slow_after(2 * S).hang_after(S), "`hang_after` is 1s, allowed: `slow_after` or more"),
    ] {
        assert_eq!(config.build().unwrap_err().to_string(), text);
    }
}

#[test]
fn transitions_are_told_once_each_with_their_cause() {
    let mut rig = Rig::new(consecutive(2));
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = told.clone();
    rig.breaker.on_transition(move |t| listener.lock().unwrap().push((t.to, t.cause, t.generation)));
    rig.open_and_wait();
    rig.calls(Outcome::Success, 3);
    let want = [
        (State::Open, Cause::Consecutive, 1),
        (State::HalfOpen, Cause::OpenTimeOver, 2),
        (State::Closed, Cause::ProbesGood, 3),
    ];
    assert_eq!(*told.lock().unwrap(), want);
}

#[test]
fn a_panic_is_a_failure() {
    let breaker = consecutive(1).build().unwrap();
    let permit = breaker.try_acquire().unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _permit = permit;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(breaker.state(), State::Open);
    let _ = Admission::Reject;
}

#[test]
#[cfg(feature = "serde")]
fn a_config_is_read_as_people_write_it() {
    let config: BreakerConfig = serde_json::from_str(
        r#"{ "window": { "time": "30s" }, "slow_after": "250ms", "slow_rate": 0.5, "admission": "back_pressure" }"#,
    )
    .unwrap();
    let want = BreakerConfig::default().window(Window::Time(30 * S)).slow_after(250 * MS).slow_rate(0.5);
    assert_eq!(config, want.admission(Admission::BackPressure));
    let again: BreakerConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    assert!(serde_json::from_str::<BreakerConfig>(r#"{ "failure_rat": 0.5 }"#).is_err());
}

#[test]
fn slow_calls_of_an_earlier_generation_do_not_open_it_again() {
    let config = BreakerConfig::default().failure_rate(None).slow_rate(0.5).slow_after(S).hang_after(60 * S);
    let mut rig = Rig::new(config.min_calls(4).probes(1).close_after(1).probe_window(1));
    let slow: Vec<_> = (0..8).map(|_| rig.hang()).collect();
    rig.now += 2 * S;
    rig.hang().settle_at(Outcome::Ignored, None, &rig.now);
    assert_eq!(rig.snapshot().state, State::Open);
    rig.now += rig.snapshot().retry_in.unwrap();
    rig.call(Outcome::Success);
    assert_eq!((rig.snapshot().state, rig.snapshot().slow_in_flight), (State::Closed, 0));
    rig.now += 2 * S;
    rig.calls(Outcome::Success, 3);
    rig.call(Outcome::Failure);
    rig.hang().settle_at(Outcome::Ignored, None, &rig.now);
    assert_eq!(rig.snapshot().state, State::Closed);
    drop(slow);
}

#[test]
fn calls_that_hang_are_seen_by_successes_that_never_wait() {
    let mut rig = Rig::new(BreakerConfig::default().failure_rate(0.5).min_calls(20).hang_after(S));
    let hung: Vec<_> = (0..100).map(|_| rig.hang()).collect();
    rig.now += 2 * S;
    rig.calls(Outcome::Success, 16);
    assert_eq!(rig.breaker.state(), State::Open, "one in sixteen looks");
    drop(hung);
}
