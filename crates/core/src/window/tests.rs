use super::{CountWindow, Counts, TimeWindow};
use proptest::prelude::*;
use std::{collections::VecDeque, time::Duration};

const SECOND: u64 = 1_000_000_000;

fn ten_seconds() -> TimeWindow {
    TimeWindow::new(Duration::from_secs(10), 1)
}

/// Every call with the moment it was recorded at; counts by looking at all of them.
#[derive(Default)]
struct Naive(VecDeque<(u64, bool, bool)>);

impl Naive {
    fn counts(&self, of: impl Fn(usize, u64) -> bool) -> Counts {
        let calls = self.0.iter().enumerate().filter(|(i, (at, ..))| of(*i, *at));
        calls.fold(Counts::default(), |sum, (_, (_, failed, slow))| Counts {
            total: sum.total + 1,
            failures: sum.failures + u64::from(*failed),
            slow: sum.slow + u64::from(*slow),
        })
    }
}

proptest! {
    #[test]
    fn a_time_window_equals_a_list_of_calls(
        calls in prop::collection::vec((0..3 * SECOND, any::<bool>(), any::<bool>(), 0..30u8), 1..200),
        stripes in 1..4usize,
    ) {
        let window = TimeWindow::new(Duration::from_secs(10), stripes);
        let (mut naive, mut now, mut start) = (Naive::default(), 0, 0);
        for (i, (step, failed, slow, luck)) in calls.into_iter().enumerate() {
            now += step;
            let epoch = window.advance(now);
            if luck == 0 {
                start = window.next_epoch(now);
                naive.0.clear();
            }
            let counted_in = epoch.max(start);
            if failed {
                window.failure(i % stripes, start, epoch);
            } else {
                window.success(i % stripes, start);
            }
            if slow {
                window.slow(i % stripes, start, epoch);
            }
            naive.0.push_back((counted_in, failed, slow));
            let newest = (now / SECOND).max(start);
            prop_assert_eq!(window.counts(start, now), naive.counts(|_, epoch| epoch + 10 > newest));
        }
    }

    #[test]
    fn a_count_window_equals_a_list_of_calls(
        size in 1..70u32,
        calls in prop::collection::vec((0..10u8, 0..6u8, 0..200u8), 1..600),
        failing in 0..10u8,
    ) {
        let window = CountWindow::new(size);
        let (mut naive, mut generation) = (Naive::default(), 0);
        for (failed, slow, luck) in calls {
            if luck == 0 {
                generation += 1;
                naive.0.clear();
            }
            if luck == 1 && generation > 0 {
                window.record(generation - 1, true, true);
            }
            let (failed, slow) = (failed < failing, slow == 0);
            window.record(generation, failed, slow);
            naive.0.push_back((0, failed, slow));
            if naive.0.len() > size as usize {
                naive.0.pop_front();
            }
            let counts = window.counts(generation);
            prop_assert_eq!(counts, naive.counts(|_, _| true));
            prop_assert_eq!(window.bits(generation), (counts.failures, counts.slow));
        }
    }
}

#[test]
fn old_calls_leave_the_time_window_with_nobody_sweeping() {
    let window = ten_seconds();
    window.failure(0, 0, window.advance(0));
    assert_eq!(window.counts(0, 9 * SECOND).failures, 1);
    assert_eq!(window.counts(0, 10 * SECOND).failures, 0);
}

#[test]
fn a_new_generation_sees_nothing_of_the_one_before_and_nothing_is_swept() {
    let window = ten_seconds();
    let before = window.advance(SECOND);
    window.failure(0, 0, before);
    let start = window.next_epoch(SECOND);
    window.success(0, start);
    let counts = window.counts(start, SECOND);
    assert_eq!((counts.total, counts.failures), (1, 0));
    window.failure(0, 0, before);
    assert_eq!(window.counts(start, SECOND), counts, "a straggler of the old generation");
    assert_eq!(window.counts(start, 5 * SECOND), counts);
}

#[test]
fn generations_that_follow_each_other_within_a_bucket_are_kept_apart() {
    let window = ten_seconds();
    for _ in 0..5 {
        let start = window.next_epoch(SECOND);
        window.success(0, start);
        assert_eq!(window.counts(start, SECOND).total, 1);
    }
}

#[test]
fn successes_ask_for_the_clock_once_in_sixteen() {
    let window = ten_seconds();
    let asked = (0..160).filter(|_| window.success(0, 0)).count();
    assert_eq!(asked, 10);
}

#[test]
fn successes_in_the_wrong_bucket_are_as_few_as_the_table_says() {
    for (stripes, bound) in [(1, 16), (2, 15), (4, 13), (8, 9), (16, 17)] {
        let window = TimeWindow::new(Duration::from_secs(10), stripes);
        window.advance(0);
        // The worst there is: nobody looks at the clock, and every stripe fills up to just before it would.
        let mut unseen = 0;
        let asked = (0..16).any(|_| {
            (0..stripes).any(|stripe| {
                unseen += 1;
                window.success(stripe, 0)
            })
        });
        assert!(asked);
        assert_eq!(unseen, bound, "{stripes} stripes");
    }
}

#[test]
fn counts_near_the_end_of_their_range_are_halved_together() {
    let window = ten_seconds();
    for _ in 0..400_000 {
        window.success(0, 0);
        window.failure(0, 0, 0);
        window.slow(0, 0, 0);
    }
    for _ in 0..200_000 {
        window.success(0, 0);
        window.failure(0, 0, 0);
        window.slow(0, 0, 0);
    }
    let counts = window.counts(0, 0);
    assert!(counts.total < 1_200_000 && counts.total > 400_000, "{counts:?}");
    let share = |part: u64| (part as f64 / counts.total as f64 - 0.5).abs() < 0.001;
    assert!(share(counts.failures) && share(counts.slow), "{counts:?}");
}

#[test]
fn another_length_begins_an_empty_window_that_slides_at_the_new_pace() {
    let window = ten_seconds();
    for length in [100, 1, 3600, 10] {
        let now = 7_000 * SECOND;
        window.failure(0, 0, window.advance(now));
        window.resize(Duration::from_secs(length), now);
        assert_eq!(window.counts(0, now).failures, 0, "{length}");
        window.failure(0, 0, window.advance(now));
        assert_eq!(window.counts(0, now + length * SECOND * 8 / 10).failures, 1, "{length}");
        assert_eq!(window.counts(0, now + length * SECOND).failures, 0, "{length}");
    }
    assert_eq!(window.length(), Duration::from_secs(10));
}

#[test]
fn tags_that_come_round_again_after_a_long_sleep_do_not_revive_old_calls() {
    let window = ten_seconds();
    window.failure(0, 0, window.advance(3 * SECOND));
    let round = 1 << 24;
    assert_eq!(window.counts(0, (3 + round) * SECOND).failures, 0);
}

#[test]
fn a_full_count_window_without_failures_is_not_written_by_a_success() {
    let window = CountWindow::new(100);
    (0..100).for_each(|_| window.record(0, false, false));
    let before = window.words();
    (0..1037).for_each(|_| window.record(0, false, false));
    assert_eq!(window.words(), before);
    window.record(0, true, false);
    assert_ne!(window.words(), before);
    (0..100).for_each(|_| window.record(0, false, false));
    assert_eq!(window.counts(0).failures, 0);
}

#[test]
fn a_count_window_slides_after_any_number_of_good_calls() {
    let window = CountWindow::new(100);
    (0..100_000).for_each(|_| window.record(0, false, false));
    (0..50).for_each(|_| window.record(0, true, false));
    assert_eq!((window.counts(0).failures, window.counts(0).total), (50, 100));
}
