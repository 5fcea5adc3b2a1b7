use crate::{
    BalanceConfig,
    load::{Load, Sample, Standing, Tuning},
};
use buttress_core::{Clock, Origin, TokioClock, sync::Arc};
use loom::thread;

fn explore(test: impl Fn(Arc<(Load, Tuning)>) + Sync + Send + 'static) {
    let now = TokioClock.now();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let tuning = Tuning::new(Origin::new(now), &BalanceConfig::default());
        test(Arc::new((Load::new(), tuning)));
    });
}

#[test]
fn loom_in_flight_is_exact_and_never_below_what_a_thread_knows() {
    explore(|shared| {
        let call = |shared: Arc<(Load, Tuning)>| {
            for _ in 0..2 {
                shared.0.enter();
                assert!((1..=2).contains(&shared.0.in_flight()), "its own call, and at most one more");
                shared.0.leave();
            }
        };
        let other = shared.clone();
        let thread = thread::spawn(move || call(other));
        call(shared.clone());
        thread.join().unwrap();
        assert_eq!((shared.0.in_flight(), shared.0.picks()), (0, 4));
    });
}

#[test]
fn loom_no_failure_is_lost_the_third_in_a_row_counts_whoever_brings_it() {
    explore(|shared| {
        let (load, tuning) = &*shared;
        load.sample(0, 0, 1_000_000, Sample::Success, tuning);
        load.sample(0, 0, 0, Sample::Failure, tuning);
        let other = shared.clone();
        let thread = thread::spawn(move || other.0.sample(0, 0, 0, Sample::Failure, &other.1));
        load.sample(0, 0, 0, Sample::Failure, tuning);
        thread.join().unwrap();
        assert_eq!(load.failures(), 3);
        assert!(load.average(0, tuning).unwrap() > 4.9e9);
    });
}

#[test]
fn loom_a_peak_is_not_lost_to_a_sample_beside_it() {
    explore(|shared| {
        let (load, tuning) = &*shared;
        load.sample(0, 0, 10_000_000, Sample::Success, tuning);
        let other = shared.clone();
        let thread = thread::spawn(move || other.0.sample(1 << 14, 1 << 14, 500_000_000, Sample::Success, &other.1));
        load.sample(1 << 14, 1 << 14, 1_000_000, Sample::Success, tuning);
        thread.join().unwrap();
        assert!(load.average(1 << 14, tuning).unwrap() > 4.9e8);
    });
}

#[test]
fn loom_the_longest_pushback_wins() {
    explore(|shared| {
        let other = shared.clone();
        let thread = thread::spawn(move || other.0.overloaded(0, Some(5_000_000_000), &other.1));
        shared.0.overloaded(0, Some(2_000_000_000), &shared.1);
        thread.join().unwrap();
        assert!(shared.0.is_overloaded(4_999_999_999) && !shared.0.is_overloaded(5_000_000_000));
    });
}

#[test]
fn loom_one_call_goes_to_see_whether_a_failing_endpoint_works() {
    explore(|shared| {
        let (load, tuning) = &*shared;
        (0..3).for_each(|_| load.sample(0, 0, 0, Sample::Failure, tuning));
        let now = load.next_trial(tuning);
        let goes = move |load: &Load, tuning: &Tuning| {
            let last = load.last_trial();
            load.standing(now, tuning) == Standing::Rested && load.begin_trial(last, now)
        };
        let other = shared.clone();
        let thread = thread::spawn(move || goes(&other.0, &other.1));
        let here = goes(load, tuning);
        assert!(here != thread.join().unwrap(), "one of them");
    });
}

#[test]
fn loom_a_success_of_before_lifts_nothing_whenever_it_comes() {
    explore(|shared| {
        let (load, tuning) = &*shared;
        (0..2).for_each(|_| load.sample(1 << 20, 1 << 20, 0, Sample::Failure, tuning));
        let other = shared.clone();
        let thread = thread::spawn(move || other.0.sample(2 << 20, 2 << 20, 0, Sample::Failure, &other.1));
        load.sample(2 << 20, 1 << 20, 1_000_000, Sample::Success, tuning);
        thread.join().unwrap();
        // Before the failure it ends the row; after it, it says nothing.
        let before = load.average(2 << 20, tuning).unwrap() < 4.9e9 || !load.is_failing();
        assert!(before || load.standing(2 << 20, tuning) == Standing::Last);
        load.sample(3 << 20, 3 << 20, 0, Sample::Failure, tuning);
        load.sample(3 << 20, 2 << 20, 1_000_000, Sample::Success, tuning);
        assert_eq!(load.is_failing(), !before);
    });
}
