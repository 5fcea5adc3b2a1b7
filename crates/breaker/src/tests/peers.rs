//! Faults found in other breakers, each with the test that keeps it out of this one.

use super::{MS, Rig, S, consecutive};
use crate::{Breaker, BreakerConfig, State, Window};
use buttress_core::{Outcome, Signal};
use std::sync::{Arc, OnceLock};

#[test]
fn peer_01_the_count_window_slides() {
    let rig = Rig::new(BreakerConfig::default().window(Window::Count(100)));
    rig.calls(Outcome::Success, 100_000);
    rig.calls(Outcome::Failure, 50);
    assert_eq!(rig.snapshot().state, State::Open);
}

#[test]
fn peer_04_a_time_window_is_as_small_after_a_hundred_thousand_calls() {
    let rig = Rig::new(BreakerConfig::default());
    // Words and no lists: what a window holds is known when it is made.
    let bytes = size_of::<crate::machine::Machine>();
    assert!(bytes < 4096, "{bytes}");
    rig.calls(Outcome::Success, 100_000);
    assert_eq!(rig.snapshot().calls, 100_000);
    assert!(!std::mem::needs_drop::<crate::ticket::Ticket>(), "a call leaves nothing behind");
}

#[test]
fn peer_05_half_open_ends_however_slowly_probes_come() {
    let mut rig = Rig::new(BreakerConfig::default());
    rig.open_and_wait();
    for _ in 0..3 {
        assert_ne!(rig.snapshot().state, State::Closed);
        rig.call(Outcome::Success);
        rig.now += 3600 * S;
    }
    assert_eq!(rig.snapshot().state, State::Closed);
}

#[test]
fn peer_06_results_of_an_older_state_move_nothing() {
    let mut rig = Rig::new(consecutive(1).close_after(1).probe_window(1));
    let old: Vec<_> = (0..5).map(|_| rig.hang()).collect();
    let [bad, good, late_good, late_bad, last] = <[_; 5]>::try_from(old).unwrap();
    rig.open_and_wait();
    good.settle_at(Outcome::Success, None, &rig.now);
    assert_eq!(rig.snapshot().state, State::Open, "not closed by an old success");
    let probe = rig.acquire().unwrap();
    bad.settle_at(Outcome::Failure, None, &rig.now);
    late_good.settle_at(Outcome::Success, None, &rig.now);
    assert_eq!((rig.snapshot().state, rig.snapshot().in_flight), (State::HalfOpen, 1));
    probe.settle_at(Outcome::Success, None, &rig.now);
    late_bad.settle_at(Outcome::Failure, None, &rig.now);
    rig.now += 3 * S;
    last.settle_at(Outcome::Success, None, &rig.now);
    assert_eq!((rig.snapshot().state, rig.snapshot().calls), (State::Closed, 0));
}

#[test]
fn peer_07_hung_calls_are_seen_when_nobody_drops_them() {
    let mut rig = Rig::new(BreakerConfig::default());
    let hung: Vec<_> = (0..1000).map(|_| rig.hang()).collect();
    rig.now += 4 * S;
    drop(rig.hang());
    assert_eq!(rig.breaker.state(), State::Closed);
    rig.now += 2 * S;
    let _next = rig.hang();
    assert_eq!(rig.breaker.state(), State::Open, "the next call to wait saw them");
    drop(hung);
}

#[test]
fn peer_07_hung_calls_are_seen_when_a_deadline_drops_them() {
    let mut rig = Rig::new(BreakerConfig::default());
    let hung: Vec<_> = (0..1000).map(|_| rig.hang()).collect();
    rig.now += 5 * S;
    hung.into_iter().for_each(|permit| permit.abandon_at(&rig.now));
    assert_eq!(rig.breaker.state(), State::Open);
}

#[test]
fn peer_11_a_callback_may_use_the_breaker() {
    let breaker = Arc::new(consecutive(1).build().unwrap());
    let seen = Arc::new(OnceLock::new());
    let (inside, found) = (Arc::downgrade(&breaker), seen.clone());
    breaker.on_transition(move |transition| {
        let breaker = inside.upgrade().unwrap();
        if transition.to == State::Open {
            found.set(breaker.snapshot().state).unwrap();
            breaker.on_transition(|_| ());
            breaker.update(breaker.config()).unwrap();
            breaker.reset();
        }
    });
    let (done, finished) = std::sync::mpsc::channel();
    let worker = breaker.clone();
    std::thread::spawn(move || {
        fail(&worker);
        done.send(()).unwrap();
    });
    finished.recv_timeout(10 * S).expect("no deadlock");
    assert_eq!((seen.get(), breaker.state()), (Some(&State::Open), State::Closed));
}

fn fail(breaker: &Breaker) {
    let permit = breaker.try_acquire().unwrap();
    buttress_core::Settle::settle(permit, Outcome::Failure, None);
}

#[test]
fn peer_12_the_signal_is_cleared_when_it_closes_however_it_closes() {
    let mut rig = Rig::new(consecutive(1));
    let signal = rig.breaker.signal();
    rig.call(Outcome::Failure);
    assert!(signal.is(Signal::OPEN));
    assert!(signal.until() > rig.now);
    rig.breaker.reset_at(&rig.now);
    assert!(!signal.is(Signal::OPEN));
    rig.open_and_wait();
    rig.calls(Outcome::Success, 3);
    assert!(!signal.is(Signal::OPEN));
    assert_eq!((rig.snapshot().state, rig.snapshot().retry_in), (State::Closed, None));
}

#[test]
fn peer_13_reset_forgets_in_every_state() {
    for window in [Window::Time(10 * S), Window::Count(100)] {
        let mut rig = Rig::new(BreakerConfig::default().window(window).consecutive(50));
        rig.calls(Outcome::Failure, 19);
        let waiting = rig.hang();
        rig.breaker.reset_at(&rig.now);
        let seen = rig.snapshot();
        assert_eq!((seen.state, seen.calls, seen.consecutive, seen.in_flight), (State::Closed, 0, 0, 0), "closed");
        rig.now += MS;
        waiting.settle_at(Outcome::Failure, None, &rig.now);
        assert_eq!(rig.snapshot().failures, 0, "a call from before");
        rig.calls(Outcome::Failure, 20);
        assert_eq!(rig.snapshot().state, State::Open);
        rig.breaker.reset_at(&rig.now);
        rig.call(Outcome::Success);
        assert_eq!((rig.snapshot().state, rig.snapshot().calls), (State::Closed, 1), "open");
        rig.open_and_wait();
        let probe = rig.acquire().unwrap();
        rig.breaker.reset_at(&rig.now);
        probe.settle_at(Outcome::Failure, None, &rig.now);
        assert_eq!((rig.snapshot().state, rig.snapshot().calls), (State::Closed, 0), "half-open");
    }
}
