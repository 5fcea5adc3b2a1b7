//! The word of the levels under every interleaving of those who look, and an operator.

use super::LevelsConfig;
use buttress_core::{Clock, TokioClock};
use loom::thread::spawn;
use std::time::{Duration, Instant};

fn check(test: impl Fn(Instant) + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 20_000;
    model.check(move || test(TokioClock.now()));
}

fn config() -> LevelsConfig {
    LevelsConfig::new("full").level("slim", 0.5).level("static", 0.6).worse_after(Duration::ZERO)
}

#[test]
fn loom_of_two_who_look_one_steps() {
    check(|now| {
        let levels = config().build_at(&now).unwrap();
        levels.source(|| 1.0);
        let other = levels.clone();
        let thread = spawn(move || other.current_at(&now));
        levels.current_at(&now);
        thread.join().unwrap();
        assert_eq!(levels.snapshot_at(&now).current, 1);
    });
}

#[test]
fn loom_a_pinned_level_stays() {
    check(|now| {
        let levels = config().build_at(&now).unwrap();
        levels.source(|| 1.0);
        let other = levels.clone();
        let thread = spawn(move || other.current_at(&now));
        levels.pin_at("static", &now).unwrap();
        thread.join().unwrap();
        let later = now + Duration::from_secs(1);
        assert_eq!((levels.current_at(&later), levels.snapshot_at(&later).pinned), (2, true));
    });
}
