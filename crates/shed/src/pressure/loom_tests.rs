//! The word of the pressure under every interleaving of those who look, and a task that drives it.

use super::PressureConfig;
use buttress_core::{Clock, TokioClock};
use loom::thread::spawn;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

fn check(test: impl Fn(Instant) + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 20_000;
    model.check(move || test(TokioClock.now()));
}

#[test]
fn loom_of_two_who_ask_one_looks() {
    check(|now| {
        let pressure = PressureConfig::default().build_at(&now).unwrap();
        let looks = Arc::new(AtomicU32::new(0));
        let count = looks.clone();
        pressure.source("test", move || f64::from(count.fetch_add(1, SeqCst)) + 1.0);
        let other = pressure.clone();
        let thread = spawn(move || other.current_at(&now));
        pressure.current_at(&now);
        thread.join().unwrap();
        assert_eq!((looks.load(SeqCst), pressure.current_at(&now)), (1, 1.0));
    });
}

#[test]
fn loom_what_a_task_drives_stays_driven_and_is_shown() {
    check(|now| {
        let pressure = PressureConfig::default().build_at(&now).unwrap();
        let looks = Arc::new(AtomicU32::new(0));
        let count = looks.clone();
        pressure.source("test", move || {
            count.fetch_add(1, SeqCst);
            1.0
        });
        let other = pressure.clone();
        let thread = spawn(move || other.current_at(&now));
        let driven = pressure.driven();
        driven.look(now);
        thread.join().unwrap();
        let before = looks.load(SeqCst);
        let later = now + 9 * Duration::from_millis(250);
        assert_eq!(pressure.current_at(&later), 1.0);
        assert_eq!(looks.load(SeqCst), before, "a look under way does not take it back");
        drop(driven);
        assert_eq!((pressure.current_at(&now), looks.load(SeqCst)), (1.0, before + 1));
    });
}
