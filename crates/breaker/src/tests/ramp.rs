//! The ramp of a breaker.

use super::{MS, Rig, S, consecutive};
use crate::{BreakerConfig, BreakerPermit, Cause, RampConfig, State};
use buttress_core::{Handle, Mode, Outcome, Signal};
use std::sync::{Arc, Mutex};

/// One failure opens it, one good probe begins a ramp.
fn ramped() -> BreakerConfig {
    consecutive(1).probes(1).close_after(1).probe_window(1).ramp(RampConfig::default())
}

impl Rig {
    /// In the first tick of a ramp.
    fn ramp(&mut self) {
        self.open_and_wait();
        self.call(Outcome::Success);
        assert_eq!(self.snapshot().state, State::Ramping);
    }

    /// As many calls as it takes for one to pass.
    fn sent(&self) -> BreakerPermit {
        (0..10_000).find_map(|_| self.acquire().ok()).expect("a share passes")
    }

    fn send(&self, outcome: Outcome, count: usize) {
        (0..count).for_each(|_| self.sent().settle_at(outcome, None, &self.now));
    }
}

#[test]
fn a_share_passes_that_each_good_tick_doubles_until_it_closes() {
    let mut rig = Rig::new(ramped());
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = told.clone();
    rig.breaker.on_transition(move |t| listener.lock().unwrap().push((t.from, t.to, t.cause)));
    rig.ramp();
    for share in [0.1, 0.2, 0.4, 0.8] {
        assert_eq!((rig.snapshot().state, rig.snapshot().share), (State::Ramping, share));
        // Of a moment, so that none is due.
        let passed = (0..10_000).filter(|_| {
            rig.acquire().is_ok_and(|permit| {
                permit.settle_at(Outcome::Ignored, None, &rig.now);
                true
            })
        });
        let passed = passed.count() as f64 / 10_000.0;
        assert!((passed - share).abs() < 0.02, "{passed} of {share}");
        rig.send(Outcome::Success, 19);
        assert_eq!(rig.snapshot().calls, 19);
        rig.send(Outcome::Success, 1);
    }
    assert_eq!((rig.snapshot().state, rig.snapshot().share, rig.snapshot().calls), (State::Closed, 1.0, 0));
    let told = told.lock().unwrap()[1..].to_vec();
    let want = [
        (State::Open, State::HalfOpen, Cause::OpenTimeOver),
        (State::HalfOpen, State::Ramping, Cause::ProbesGood),
        (State::Ramping, State::Closed, Cause::RampGood),
    ];
    assert_eq!(told, want);
}

#[test]
fn the_seed_decides_which_calls_pass() {
    let passed = |seed| {
        let mut rig = Rig::new(ramped());
        rig.breaker = crate::Breaker::with_stripes(ramped().seed(seed), &rig.now, 1).unwrap();
        rig.ramp();
        (0..200).map(|_| rig.acquire().is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(passed(3), passed(3));
    assert_ne!(passed(3), passed(4));
}

#[test]
fn a_bad_tick_opens_it_again_and_as_soon_as_that_is_certain() {
    let mut rig = Rig::new(ramped());
    rig.ramp();
    rig.send(Outcome::Success, 20);
    rig.send(Outcome::Failure, 9);
    let seen = rig.snapshot();
    assert_eq!((seen.state, seen.share, seen.failures), (State::Ramping, 0.2, 9));
    rig.send(Outcome::Failure, 1);
    assert_eq!((rig.snapshot().state, rig.snapshot().opened_total), (State::Open, 2));
    let mut rig = Rig::new(ramped().failure_rate(0.1));
    rig.ramp();
    rig.send(Outcome::Failure, 2);
    assert_eq!(rig.snapshot().state, State::Open, "two of twenty are as many as may not be");
}

#[test]
fn a_few_results_are_enough_after_a_while() {
    let mut rig = Rig::new(ramped());
    rig.ramp();
    rig.send(Outcome::Success, 4);
    rig.now += 260 * MS;
    assert_eq!(rig.snapshot().share, 0.1);
    rig.send(Outcome::Success, 1);
    assert_eq!(rig.snapshot().share, 0.2, "a quarter of the results, a quarter of the time");
    rig.send(Outcome::Success, 1);
    rig.now += 990 * MS;
    assert_eq!(rig.snapshot().share, 0.2);
    rig.now += 20 * MS;
    assert_eq!(rig.snapshot().share, 0.4, "any after all of the time");
    rig.now += 60 * S;
    assert_eq!(rig.snapshot().share, 0.4, "none is none");
}

#[test]
fn a_call_a_minute_comes_to_the_end_of_the_ramp_and_is_never_refused() {
    let mut rig = Rig::new(ramped());
    rig.ramp();
    for _ in 0..4 {
        assert_eq!(rig.snapshot().state, State::Ramping);
        rig.now += 60 * S;
        rig.acquire().expect("none has passed for long").settle_at(Outcome::Success, None, &rig.now);
    }
    assert_eq!(rig.snapshot().state, State::Closed);
    rig.ramp();
    for _ in 0..3 {
        assert_eq!(rig.snapshot().state, State::Ramping, "less than three bad ones are not called bad");
        rig.now += 60 * S;
        rig.acquire().expect("none has passed for long").settle_at(Outcome::Failure, None, &rig.now);
    }
    assert_eq!(rig.snapshot().state, State::Open);
}

#[test]
fn calls_that_hang_on_a_ramp_open_it_again() {
    let mut rig = Rig::new(ramped().hang_after(S));
    rig.ramp();
    let hung: Vec<_> = (0..3)
        .map(|_| {
            let mut permit = rig.sent();
            permit.pending_at(&rig.now);
            permit
        })
        .collect();
    rig.now += 900 * MS;
    let seen = rig.snapshot();
    assert_eq!((seen.state, seen.in_flight, seen.hung_in_flight), (State::Ramping, 3, 0));
    rig.now += 400 * MS;
    assert!(rig.acquire().is_err());
    assert_eq!(rig.breaker.state(), State::Open, "whoever asks looks");
    drop(hung);
}

#[test]
fn slow_calls_are_bad_where_they_count() {
    let mut rig = Rig::new(ramped().slow_after(100 * MS).slow_rate(0.9));
    rig.ramp();
    for _ in 0..10 {
        let mut permit = rig.sent();
        permit.pending_at(&rig.now);
        rig.now += 100 * MS;
        permit.settle_at(Outcome::Success, None, &rig.now);
        if rig.breaker.state() == State::Open {
            break;
        }
    }
    assert_eq!(rig.snapshot().state, State::Open);
}

#[test]
fn results_of_an_older_generation_move_no_ramp_and_those_of_a_ramp_nothing_after_it() {
    let mut rig = Rig::new(ramped());
    let old = [(); 4].map(|()| rig.hang());
    rig.ramp();
    let probe = old.map(|permit| permit.settle_at(Outcome::Failure, None, &rig.now));
    assert_eq!((rig.snapshot().calls, probe.len()), (0, 4));
    let mine = [(); 2].map(|()| {
        let mut permit = rig.sent();
        permit.pending_at(&rig.now);
        permit
    });
    for _ in 0..4 {
        rig.send(Outcome::Success, 20);
    }
    assert_eq!(rig.snapshot().state, State::Closed);
    let [bad, hung] = mine;
    bad.settle_at(Outcome::Failure, None, &rig.now);
    rig.now += 60 * S;
    let seen = rig.snapshot();
    assert_eq!((seen.state, seen.consecutive, seen.hung_in_flight), (State::Closed, 0, 0));
    hung.abandon_at(&rig.now);
    assert_eq!(rig.snapshot().state, State::Closed);
}

#[test]
fn a_refusal_on_a_ramp_and_the_signal_say_when_a_call_passes_for_certain() {
    let mut rig = Rig::new(ramped());
    rig.ramp();
    let signal = rig.breaker.signal();
    assert!(signal.is(Signal::OPEN) && signal.until() <= rig.now, "one may go");
    assert!((signal.pressure() - 0.9).abs() < 0.001);
    rig.acquire().expect("for certain").settle_at(Outcome::Success, None, &rig.now);
    let refused = (0..100).find_map(|_| rig.acquire().err()).expect("most are refused");
    let wait = refused.retry_after.unwrap();
    let until = signal.until() - rig.now;
    assert!(wait <= 200 * MS && until <= wait && until + MS > wait, "{wait:?} {until:?}");
    rig.now += wait;
    assert!(!signal.is_shut(&rig.now) && rig.acquire().is_ok());
    rig.breaker.set_mode(Mode::Enforcing(50)).unwrap();
    assert!(!signal.is(Signal::OPEN) && signal.pressure() < 0.001);
    rig.breaker.set_mode(Mode::Auto).unwrap();
    rig.send(Outcome::Success, 20);
    assert!((signal.pressure() - 0.8).abs() < 0.001);
    rig.send(Outcome::Success, 60);
    assert!(!signal.is(Signal::OPEN) && signal.pressure() < 0.001);
}

#[test]
fn who_heeds_the_signal_is_never_refused_and_brings_it_to_its_end() {
    let mut rig = Rig::new(ramped());
    rig.ramp();
    let (signal, began) = (rig.breaker.signal(), rig.now);
    while rig.breaker.state() == State::Ramping {
        if !signal.is_shut(&rig.now) {
            rig.acquire().expect("it is due").settle_at(Outcome::Success, None, &rig.now);
        }
        rig.now += MS;
        assert!(rig.now - began < 5 * S);
    }
    assert_eq!(rig.snapshot().state, State::Closed);
}

#[test]
fn modes_updates_and_a_reset_on_a_ramp() {
    let mut rig = Rig::new(ramped());
    rig.ramp();
    rig.breaker.set_mode(Mode::OBSERVE_ONLY).unwrap();
    (0..100).for_each(|_| rig.call(Outcome::Ignored));
    assert!(rig.snapshot().let_through_total > 50);
    rig.breaker.set_mode(Mode::ForcedOpen).unwrap();
    assert_eq!(rig.acquire().unwrap_err().retry_after, None);
    rig.breaker.set_mode(Mode::Auto).unwrap();
    rig.breaker.update_at(ramped().ramp(RampConfig::default().share(0.5)), &rig.now).unwrap();
    assert_eq!((rig.snapshot().state, rig.snapshot().share), (State::Ramping, 0.5));
    rig.breaker.update_at(ramped().ramp(None), &rig.now).unwrap();
    assert!(rig.acquire().is_ok());
    assert_eq!(rig.snapshot().state, State::Closed, "there is no ramp any more");
    rig.ramp_again();
    let waiting = rig.sent();
    rig.breaker.reset_at(&rig.now);
    waiting.settle_at(Outcome::Failure, None, &rig.now);
    assert_eq!((rig.snapshot().state, rig.snapshot().calls), (State::Closed, 0));
}

impl Rig {
    fn ramp_again(&mut self) {
        self.breaker.update_at(ramped(), &self.now).unwrap();
        self.ramp();
    }
}

#[test]
fn config_errors_name_the_field_of_the_ramp() {
    let config = |ramp| BreakerConfig::default().ramp(ramp).build().unwrap_err().to_string();
    let ramp = RampConfig::default;
    assert_eq!(config(ramp().share(1.0)), "`ramp.share` is 1, allowed: 0.01 to below 1");
    assert_eq!(config(ramp().share(f64::NAN)), "`ramp.share` is NaN, allowed: 0.01 to below 1");
    assert_eq!(config(ramp().calls(0)), "`ramp.calls` is 0, allowed: 1 to 100");
    assert_eq!(config(ramp().calls(101)), "`ramp.calls` is 101, allowed: 1 to 100");
    assert_eq!(config(ramp().tick(MS)), "`ramp.tick` is 1ms, allowed: 10ms to 1m");
}

#[test]
#[cfg(feature = "serde")]
fn a_ramp_is_read_as_people_write_it() {
    let config: BreakerConfig = serde_json::from_str(r#"{ "ramp": { "tick": "5s" } }"#).unwrap();
    assert_eq!(config, BreakerConfig::default().ramp(RampConfig::default().tick(5 * S)));
    let again: BreakerConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    assert!(serde_json::from_str::<BreakerConfig>(r#"{ "ramp": { "shar": 0.5 } }"#).is_err());
}
