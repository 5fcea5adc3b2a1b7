use super::*;
use crate::load::{Load, Sample, Standing};
use proptest::prelude::*;

/// Milliseconds.
fn latency(load: &Load, now: u64, tuning: &Tuning) -> f64 {
    f64::from(load.average(now, tuning).unwrap()) / 1e6
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 0.002 * b.abs() + 0.001
}

#[test]
fn a_slow_answer_counts_at_once_and_fast_ones_take_its_time_constant_to_forget_it() {
    let (load, tuning) = (Load::new(), tuning());
    load.sample(0, 0, 10 * MILLI, Sample::Success, &tuning);
    load.sample(SECOND, SECOND, 500 * MILLI, Sample::Success, &tuning);
    assert!(close(latency(&load, SECOND, &tuning), 500.0));
    for tenth in 1..=100 {
        load.sample(SECOND + tenth * SECOND / 10, SECOND + tenth * SECOND / 10, 10 * MILLI, Sample::Success, &tuning);
    }
    // 10 s later, which is the time constant: 1/e of the difference is left.
    let want = 10.0 + 490.0 * (-1.0f64).exp();
    assert!(close(latency(&load, 11 * SECOND, &tuning), want), "{}", latency(&load, 11 * SECOND, &tuning));
}

#[test]
fn without_calls_the_latency_decays_to_a_floor_where_the_calls_in_flight_decide() {
    let (load, tuning) = (Load::new(), tuning());
    load.sample(0, 0, 100 * MILLI, Sample::Success, &tuning);
    assert!(close(latency(&load, 10 * SECOND, &tuning), 100.0 * (-1.0f64).exp()));
    let idle = load.load(3600 * SECOND, &tuning, false);
    load.enter();
    assert!(idle > 0.0 && load.load(3600 * SECOND, &tuning, false) == 2.0 * idle);
}

#[test]
fn the_odd_failure_is_averaged_and_the_third_in_a_row_counts_at_once() {
    let (load, tuning) = (Load::new(), tuning());
    for hundredth in 0..1_000 {
        let sample = if hundredth % 100 == 50 { Sample::Failure } else { Sample::Success };
        load.sample(hundredth * 10 * MILLI, hundredth * 10 * MILLI, 10 * MILLI, sample, &tuning);
    }
    let now = 10 * SECOND;
    // 1 % failures of 5 s: about 10 + 50 ms once they have been seen for long; not 5 s.
    let odd = latency(&load, now, &tuning);
    assert!((30.0..70.0).contains(&odd), "{odd}");
    load.sample(now, now, 0, Sample::Failure, &tuning);
    load.sample(now + MILLI, now + MILLI, 0, Sample::Failure, &tuning);
    assert!(latency(&load, now + MILLI, &tuning) < 80.0, "two are still odd");
    load.sample(now + 2 * MILLI, now + 2 * MILLI, 0, Sample::Failure, &tuning);
    assert!(close(latency(&load, now + 2 * MILLI, &tuning), 5_000.0));
    load.sample(now + 3 * MILLI, now + 3 * MILLI, 10 * MILLI, Sample::Success, &tuning);
    assert!(close(latency(&load, now + 3 * MILLI, &tuning), 10.0), "it works again");
    assert_eq!(load.failures(), 13);
}

#[test]
fn a_failure_that_took_longer_than_the_penalty_costs_what_it_took() {
    let (load, tuning) = (Load::new(), tuning());
    load.sample(0, 0, 20 * SECOND, Sample::Failure, &tuning);
    assert!(close(latency(&load, 0, &tuning), 20_000.0));
    let other = Load::new();
    other.sample(0, 0, MILLI, Sample::Failure, &tuning);
    assert!(close(latency(&other, 0, &tuning), 5_000.0));
}

#[test]
fn a_call_given_up_raises_the_latency_when_it_took_longer_and_never_lowers_it() {
    let (load, tuning) = (Load::new(), tuning());
    load.sample(0, 0, 100 * MILLI, Sample::Success, &tuning);
    load.sample(MILLI, MILLI, 50 * MILLI, Sample::AtLeast, &tuning);
    assert!(close(latency(&load, 0, &tuning), 100.0));
    load.sample(MILLI, MILLI, 300 * MILLI, Sample::AtLeast, &tuning);
    assert!(close(latency(&load, MILLI, &tuning), 300.0));
    // A streak is not forgotten by one that says nothing about it.
    load.sample(MILLI, MILLI, 0, Sample::Failure, &tuning);
    load.sample(MILLI, MILLI, 0, Sample::Failure, &tuning);
    load.sample(MILLI, MILLI, SECOND, Sample::AtLeast, &tuning);
    load.sample(MILLI, MILLI, 0, Sample::Failure, &tuning);
    assert!(close(latency(&load, MILLI, &tuning), 5_000.0));
}

#[test]
fn an_overload_costs_until_its_pushback_ends_and_no_longer_than_allowed() {
    let (load, tuning) = (Load::new(), tuning());
    load.sample(0, 0, 10 * MILLI, Sample::Success, &tuning);
    let plain = load.load(0, &tuning, false);
    load.overloaded(0, Some(3 * SECOND), &tuning);
    assert!(load.load(2_999 * MILLI, &tuning, false) > 100.0 * plain);
    assert!(load.load(3 * SECOND, &tuning, false) < plain);
    load.overloaded(10 * SECOND, None, &tuning);
    assert!(load.is_overloaded(10 * SECOND + 999 * MILLI) && !load.is_overloaded(11 * SECOND));
    load.overloaded(15 * SECOND, Some(0), &tuning);
    assert!(load.is_overloaded(16 * SECOND - 1), "come back at once, said with a refusal");
    load.overloaded(20 * SECOND, Some(u64::MAX), &tuning);
    assert!(load.is_overloaded(50 * SECOND - 1) && !load.is_overloaded(50 * SECOND), "30 s at most");
    assert!(load.load(60 * SECOND, &tuning, true) > load.load(60 * SECOND, &tuning, false), "limited");
}

#[test]
fn an_endpoint_that_nothing_is_known_of_gets_one_call_to_begin_with() {
    let (new, known, tuning) = (Load::new(), Load::new(), tuning());
    known.sample(0, 0, 2 * MILLI, Sample::Success, &tuning);
    assert!(new.load(0, &tuning, false) < known.load(0, &tuning, false));
    new.enter();
    assert!(new.load(0, &tuning, false) > 100.0 * known.load(0, &tuning, false));
    new.sample(MILLI, MILLI, MILLI, Sample::Success, &tuning);
    new.leave();
    assert!(new.load(MILLI, &tuning, false) < known.load(MILLI, &tuning, false));
}

/// An endpoint that failed three times in a row at `at`.
fn failing(at: u64, tuning: &Tuning) -> Load {
    let load = Load::new();
    (0..3).for_each(|_| load.sample(at, at, MILLI, Sample::Failure, tuning));
    load
}

#[test]
fn a_failing_endpoint_is_the_last_choice_and_gets_one_call_after_each_rest_that_grow_to_two_time_constants() {
    let tuning = tuning();
    let sick = failing(0, &tuning);
    let (mut now, mut rests) = (0, Vec::new());
    while rests.len() < 8 {
        let due = sick.next_trial(&tuning);
        assert_eq!(sick.standing(due - 1, &tuning), Standing::Last);
        assert_eq!(sick.standing(due, &tuning), Standing::Rested);
        assert!(sick.begin_trial(sick.last_trial(), due));
        assert_eq!(sick.standing(due, &tuning), Standing::Last, "one call");
        sick.sample(due, due, MILLI, Sample::Failure, &tuning);
        rests.push((due - now + SECOND / 2) / SECOND);
        now = due;
    }
    assert_eq!(rests, [1, 1, 2, 4, 8, 16, 20, 20]);
    // A trial that hangs does not keep others away for ever.
    assert!(sick.begin_trial(sick.last_trial(), now + 20 * SECOND));
    assert_eq!(sick.standing(now + 41 * SECOND, &tuning), Standing::Rested);
    sick.sample(now + 41 * SECOND, now + 20 * SECOND, MILLI, Sample::Success, &tuning);
    assert_eq!(sick.standing(now + 41 * SECOND, &tuning), Standing::Good);
}

#[test]
fn a_late_success_of_a_call_that_began_before_the_last_failure_does_not_lift_it() {
    let tuning = tuning();
    let sick = failing(SECOND, &tuning);
    sick.sample(SECOND + MILLI, SECOND - 1, 100 * MILLI, Sample::Success, &tuning);
    assert_eq!(sick.standing(SECOND + MILLI, &tuning), Standing::Last);
    assert!(close(latency(&sick, SECOND + MILLI, &tuning), 5_000.0));
    sick.sample(SECOND + MILLI, SECOND, 100 * MILLI, Sample::Success, &tuning);
    assert_eq!(sick.standing(SECOND + MILLI, &tuning), Standing::Good);
    assert!(close(latency(&sick, SECOND + MILLI, &tuning), 100.0));
}

#[test]
fn one_that_refuses_is_the_last_choice_until_it_said_and_no_longer_than_an_overload_is() {
    let (load, tuning) = (Load::new(), tuning());
    load.sample(0, 0, MILLI, Sample::Success, &tuning);
    load.refused(0, Some(300 * MILLI), &tuning);
    assert_eq!(load.standing(299 * MILLI, &tuning), Standing::Last);
    assert_eq!(load.standing(300 * MILLI, &tuning), Standing::Good);
    for wait in [Some(3600 * SECOND), None] {
        load.refused(SECOND, wait, &tuning);
        assert_eq!(load.standing(1_999 * MILLI, &tuning), Standing::Last);
        assert_eq!(load.standing(2 * SECOND, &tuning), Standing::Good);
    }
    assert!(!load.is_suspect());
}

#[test]
fn calls_that_wait_for_an_endpoint_are_part_of_its_load() {
    let (load, tuning) = (Load::new(), tuning());
    load.sample(0, 0, MILLI, Sample::Success, &tuning);
    let idle = load.load(0, &tuning, false);
    load.park();
    assert_eq!((load.load(0, &tuning, false), load.in_flight()), (2.0 * idle, 0));
    load.unpark();
    assert_eq!(load.load(0, &tuning, false), idle);
}

/// What the load does, in plain numbers.
#[derive(Default)]
struct Model {
    in_flight: u64,
    picks: u64,
    failures: u64,
    average: Option<(u64, u32, f64)>,
    failed: u64,
}

impl Model {
    fn average(&self, now: u64) -> Option<f64> {
        let (stamp, _, value) = self.average?;
        Some((value * (-(now.saturating_sub(stamp) as f64) / 10e9).exp()).max(1e3))
    }

    fn sample(&mut self, now: u64, began: u64, latency: u64, sample: Sample) {
        let lifts = began >= self.failed;
        if sample == Sample::Failure {
            self.failed = now;
        }
        let latency = (latency as f64).max(1e3);
        self.failures += u64::from(sample == Sample::Failure);
        let Some((stamp, streak, value)) = self.average else {
            self.average = match sample {
                Sample::Success => Some((now, 0, latency)),
                Sample::Failure => Some((now, 3, latency.max(5e9))),
                Sample::AtLeast if latency <= 1e3 => None,
                Sample::AtLeast => Some((now, 0, latency)),
            };
            return;
        };
        let keep = (-((now - stamp) as f64) / 10e9).exp();
        let blend = |with: f64| value * keep + with * (1.0 - keep);
        self.average = Some(match sample {
            Sample::Success if streak == 3 && lifts => (now, 0, latency),
            Sample::Success if streak == 3 => (now, 3, if latency > value { latency } else { blend(latency) }),
            Sample::Success => (now, 0, if latency > value { latency } else { blend(latency) }),
            Sample::Failure if streak >= 2 => (now, 3, latency.max(5e9).max(value * keep)),
            Sample::Failure => (now, streak + 1, blend(latency.max(5e9)).max(latency)),
            Sample::AtLeast if latency <= (value * keep).max(1e3) => return,
            Sample::AtLeast => (now, streak, latency),
        });
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter,
    Leave,
    Sample(Sample, u64),
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let sample = prop_oneof![3 => Just(Sample::Success), 1 => Just(Sample::Failure), 1 => Just(Sample::AtLeast)];
    let step = prop_oneof![
        2 => Just(Step::Enter),
        2 => Just(Step::Leave),
        5 => (sample, prop_oneof![0..100 * MILLI, 0..8 * SECOND]).prop_map(|(sample, took)| Step::Sample(sample, took)),
    ];
    // Gaps of at least a tick of the average's clock, which the model does not have.
    proptest::collection::vec((prop_oneof![MILLI..50 * MILLI, SECOND..30 * SECOND], step), 1..80)
}

proptest! {
    #[test]
    fn the_load_is_that_of_a_naive_model(steps in steps()) {
        let (load, tuning, mut model, mut now) = (Load::new(), tuning(), Model::default(), 0);
        for (gap, step) in steps {
            // Whole ticks.
            now += gap >> 14 << 14;
            match step {
                Step::Enter => {
                    load.enter();
                    model.in_flight += 1;
                    model.picks += 1;
                }
                Step::Leave if model.in_flight > 0 => {
                    load.leave();
                    model.in_flight -= 1;
                }
                Step::Leave => {}
                Step::Sample(sample, took) => {
                    let began = now.saturating_sub(took);
                    load.sample(now, began, took, sample, &tuning);
                    model.sample(now, began, took, sample);
                }
            }
            prop_assert_eq!((load.in_flight(), load.picks(), load.failures()), (model.in_flight, model.picks, model.failures));
            prop_assert_eq!(load.is_failing(), model.average.is_some_and(|(_, streak, _)| streak == 3));
            match (load.average(now, &tuning), model.average(now)) {
                (Some(seen), Some(want)) => prop_assert!((f64::from(seen) - want).abs() < 0.01 * want, "{seen} {want}"),
                (seen, want) => prop_assert!(seen.is_none() && want.is_none()),
            }
        }
    }
}

#[test]
fn what_a_pick_reads_of_an_endpoint_is_one_cache_line() {
    assert!(std::mem::offset_of!(Node, id) <= 64);
}
