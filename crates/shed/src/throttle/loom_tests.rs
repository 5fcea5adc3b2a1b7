//! The word of the throttle under every interleaving of answers, calls and an update.

use super::{Throttle, ThrottleConfig};
use buttress_core::{Clock, Outcome, TokioClock};
use loom::thread::spawn;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

fn check(test: impl Fn(Instant) + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.max_branches = 50_000;
    model.check(move || test(TokioClock.now()));
}

/// With two calls of which nothing is known yet.
fn throttle(now: Instant) -> Arc<Throttle> {
    Arc::new(ThrottleConfig::default().min_calls(2).seed(1).build_at(&now).unwrap())
}

#[test]
fn loom_of_two_answers_one_works_it_out_and_the_next_look_knows_both() {
    check(|now| {
        let throttle = throttle(now);
        let threads = [(); 2]
            .map(|()| throttle.try_send_at(&now).unwrap())
            .map(|permit| spawn(move || permit.settle_at(Outcome::Overload, &now)));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let seen = throttle.snapshot_at(&now);
        assert_eq!((seen.calls, seen.accepted, seen.overload_total), (2, 0, 2));
        let later = now + Duration::from_millis(20);
        assert!(throttle.probability_at(&later) > 0.6);
    });
}

#[test]
fn loom_an_update_holds_whoever_looks_meanwhile() {
    check(|now| {
        let throttle = throttle(now);
        let [one, ..] = [(); 4].map(|()| throttle.try_send_at(&now).unwrap());
        one.settle_at(Outcome::Overload, &now);
        // One of four is too many: by k = 2 nothing, by k = 1 a fifth. Those that are dropped said nothing, and do not count.
        let permits = [(); 3].map(|()| throttle.try_send_at(&now).unwrap());
        let later = now + Duration::from_millis(20);
        let looks = {
            let throttle = throttle.clone();
            spawn(move || throttle.probability_at(&later))
        };
        throttle.update_at(ThrottleConfig::default().min_calls(2).k(1.0), &later).unwrap();
        looks.join().unwrap();
        assert!(throttle.probability_at(&later) > 0.19);
        permits.into_iter().for_each(|permit| permit.settle_at(Outcome::Success, &later));
    });
}
