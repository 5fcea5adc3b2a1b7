use super::{Scribe, ms};
use crate::{
    limit::{Span, Window},
    meter::{End, Meter},
};
use buttress_core::{Clock, TokioClock};
use proptest::{collection::vec, prelude::*};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

const MS: u64 = 1_000_000;

fn meter(scribe: &Scribe) -> Meter {
    Meter::new(Box::new(scribe.clone()), TokioClock.now())
}

/// So many calls of 10 ms each end, all at once. Whether that ends the window.
fn add(meter: &Meter, calls: u32, now: u64) -> bool {
    (0..calls).map(|_| meter.add(10 * MS, End::Whole, 1, now)).fold(false, |_, over| over)
}

#[test]
fn a_window_is_over_after_enough_calls_or_enough_time_with_some_or_few_or_at_a_moment() {
    let fresh = || meter(&Scribe::new(10, 250));
    assert!(!add(&fresh(), 249, 499 * MS));
    assert!(add(&fresh(), 250, 0));
    assert!(!add(&fresh(), 19, 1_999 * MS) && !add(&fresh(), 20, 499 * MS));
    assert!(add(&fresh(), 20, 500 * MS));
    assert!(!add(&fresh(), 4, 60_000 * MS), "a handful says nothing, however long it takes");
    assert!(add(&fresh(), 5, 2_000 * MS));
    let scribe = Scribe::new(10, 250);
    let start = TokioClock.now();
    scribe
        .set_span(Span { looks: [(250, Duration::ZERO), (20, ms(500)), (5, ms(2_000))], until: Some(start + ms(30)) });
    let meter = Meter::new(Box::new(scribe.clone()), start);
    assert!(!meter.is_over(29 * MS) && meter.is_over(30 * MS), "nothing need have ended");
    assert!(meter.close(30 * MS, || 0).is_some());
    assert_eq!(scribe.windows(), [Window::empty(start, start + ms(30))]);
}

#[test]
fn a_window_says_what_was_seen_and_the_next_begins_empty() {
    let scribe = Scribe::new(10, 4);
    let meter = meter(&scribe);
    meter.add(10 * MS, End::Whole, 3, 5 * MS);
    meter.add(20 * MS, End::Cut, 7, 6 * MS);
    meter.add(40 * MS, End::TimedOut, 2, 7 * MS);
    meter.overload();
    meter.found_no_room();
    assert!(meter.close(8 * MS, || 0).is_none(), "it is not over yet");
    assert!(meter.add(50 * MS, End::Whole, 1, 20 * MS));
    let closed = meter.close(20 * MS, || 9).unwrap();
    assert_eq!((closed.changed, closed.limited, closed.in_flight), (false, true, 7));
    let window = scribe.windows()[0];
    assert_eq!((window.samples, window.completed, window.censored, window.timed_out), (4, 9, 2, 1));
    assert_eq!((window.total, window.shortest, window.mean()), (ms(120), ms(10), Some(ms(30))));
    assert_eq!((window.overloads, window.in_flight, window.limited, window.length()), (1, 7, true, ms(20)));
    assert_eq!((meter.mean(), meter.typical(), meter.pace()), (30 * MS, 30 * MS, Some(20 * MS / 9)));
    add(&meter, 4, 30 * MS);
    meter.close(30 * MS, || 13).unwrap();
    let next = scribe.windows()[1];
    assert_eq!((next.samples, next.completed, next.censored, next.timed_out), (4, 4, 0, 0));
    assert_eq!((next.overloads, next.in_flight, next.limited, next.start), (0, 1, false, window.end));
}

#[test]
fn the_first_decile_and_the_fastest_four_fifths_are_those_of_the_answered() {
    let scribe = Scribe::new(10, 10);
    let meter = meter(&scribe);
    let close = |slow: u32, end| {
        (0..slow).for_each(|_| _ = meter.add(1_000 * MS, end, 1, 0));
        add(&meter, 10 - slow, 0);
        meter.close(20 * MS, || 0).unwrap();
        *scribe.windows().last().unwrap()
    };
    let window = close(2, End::Whole);
    assert_eq!((window.answered(), window.low, window.typical, window.mean()), (10, ms(10), ms(10), Some(ms(208))));
    assert_eq!(close(3, End::Whole).typical, Duration::from_nanos((7 * 10 + 1_000) * MS / 8));
    let window = close(9, End::TimedOut);
    assert_eq!((window.answered(), window.low, window.typical), (1, ms(10), ms(10)), "however many hang");
    let window = close(10, End::Cut);
    assert_eq!((window.answered(), window.low, window.typical), (0, Duration::ZERO, Duration::ZERO));
    assert_eq!((meter.typical(), meter.mean()), (10 * MS, 1_000 * MS), "what was known is what there is");
}

#[test]
fn at_a_high_rate_few_are_timed_and_as_soon_as_it_is_low_all_are() {
    let scribe = Scribe::new(10, 250);
    let meter = meter(&scribe);
    let mut completed = 0;
    let mut now = 0;
    let mut at = |rate: u64| {
        // A window of a tenth of a second at that rate.
        add(&meter, 250, now);
        now += 100 * MS;
        completed += rate / 10;
        meter.close(now, || completed).unwrap();
        meter.one_in()
    };
    assert_eq!((at(100), at(2_500), at(2_600), at(10_000)), (1, 1, 2, 4));
    let one_in = at(80_000);
    assert_eq!(one_in, 32);
    let timed = (0..80_000).filter(|count| meter.times(*count)).count();
    assert!((2_450..=2_550).contains(&timed), "{timed}");
    // In step with no pattern: of every eighth call it times as many as of the others.
    let timed = (0..80_000).filter(|count| count % 8 == 0 && meter.times(*count)).count();
    assert!((290..=335).contains(&timed), "{timed}");
    assert!(!meter.is_over(5 * 100 * MS + 501 * MS));
    assert_eq!(meter.one_in(), 1, "a window that lasts needs every call");
    assert_eq!(at(u64::MAX / 100), 1024, "and never fewer than that");
}

#[test]
fn a_clock_that_stands_or_steps_back_breaks_nothing() {
    let scribe = Scribe::new(10, 2);
    let meter = meter(&scribe);
    for now in [5 * MS, 5 * MS, 3 * MS, 0, 6 * MS] {
        add(&meter, 2, now);
        meter.close(now, || 1).unwrap();
    }
    let windows = scribe.windows();
    let lengths: Vec<_> = windows.iter().map(Window::length).collect();
    assert_eq!(lengths, [ms(5), ms(0), ms(0), ms(0), ms(1)]);
    assert!(windows.iter().all(|window| window.samples == 2 && window.end >= window.start));
    assert!(windows.iter().all(|window| window.throughput().is_finite()));
}

#[test]
fn sums_that_would_not_fit_end_the_window_before() {
    let scribe = Scribe::new(10, u32::MAX);
    let meter = meter(&scribe);
    let mut calls = 0;
    while !meter.add(u64::MAX, End::TimedOut, 1, 0) {
        calls += 1;
    }
    meter.close(0, || 0).unwrap();
    assert_eq!(scribe.windows()[0].samples, calls + 1);
    assert!(calls < 200 && scribe.windows()[0].mean() > Some(Duration::from_secs(1_000)));
    assert!((0..1 << 20).any(|_| meter.add(1, End::Whole, 1, 0)), "so do as many samples as fit");
}

#[test]
fn another_algorithm_begins_with_nothing_of_what_was_seen() {
    let (first, second) = (Scribe::new(10, 3), Scribe::new(20, 3));
    let meter = meter(&first);
    meter.add(10 * MS, End::Cut, 9, MS);
    meter.restart(Some(Box::new(second.clone())), 2 * MS, 50);
    assert_eq!(meter.limit(), 20);
    add(&meter, 3, 5 * MS);
    meter.close(5 * MS, || 53).unwrap();
    let window = second.windows()[0];
    assert_eq!((window.samples, window.completed, window.censored, window.in_flight), (3, 3, 0, 1));
    assert_eq!((window.length(), first.windows()), (ms(3), vec![]));
}

proptest! {
    #[test]
    fn whatever_happens_every_sample_is_in_one_window(
        calls in vec((1u64..200, 0u8..3, 0u64..40), 1..400),
        span in 1u32..60,
    ) {
        let scribe = Scribe::new(10, span);
        let meter = meter(&scribe);
        let (mut now, mut completed) = (0, 0);
        for (time, end, pause) in &calls {
            now += pause * MS;
            completed += 1;
            let end = [End::Whole, End::Cut, End::TimedOut][usize::from(*end)];
            if meter.add(time * MS, end, 1, now) {
                meter.close(now, || completed).unwrap();
            }
        }
        // What is left, and one to end it with.
        now += 5_000 * MS;
        for _ in 0..5 {
            meter.add(0, End::Whole, 1, now);
        }
        meter.close(now, || completed).unwrap();
        let windows = scribe.windows();
        let sum = |of: fn(&Window) -> u64| windows.iter().map(of).sum::<u64>();
        prop_assert_eq!(sum(|window| window.samples.into()), calls.len() as u64 + 5);
        prop_assert_eq!(sum(|window| window.completed), completed);
        prop_assert_eq!(sum(|window| window.total.as_millis() as u64), calls.iter().map(|call| call.0).sum::<u64>());
        prop_assert_eq!(sum(|window| window.timed_out.into()), calls.iter().filter(|call| call.1 == 2).count() as u64);
        prop_assert_eq!(sum(|window| window.censored.into()), calls.iter().filter(|call| call.1 > 0).count() as u64);
        prop_assert!(windows.iter().all(|window| window.timed_out <= window.censored && window.censored <= window.samples));
        prop_assert!(windows.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
}

#[test]
fn many_threads_lose_no_sample_and_count_none_twice() {
    let scribe = Scribe::new(10, 50);
    let (meter, completed) = (meter(&scribe), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for i in 0..10_000 {
                    completed.fetch_add(1, Relaxed);
                    let end = if i % 5 == 0 { End::TimedOut } else { End::Whole };
                    if meter.add(16_000, end, 1, 0) {
                        meter.close(0, || completed.load(Relaxed));
                    }
                }
            });
        }
    });
    for _ in 0..50 {
        meter.add(16_000, End::Whole, 1, 0);
    }
    meter.close(0, || completed.load(Relaxed)).unwrap();
    let windows = scribe.windows();
    let sum = |of: fn(&Window) -> u64| windows.iter().map(of).sum::<u64>();
    assert_eq!((sum(|window| window.samples.into()), sum(|window| window.completed)), (80_050, 80_000));
    assert_eq!(sum(|window| window.total.as_nanos() as u64), 80_050 * 16_000);
    assert_eq!((sum(|window| window.timed_out.into()), sum(|window| window.censored.into())), (16_000, 16_000));
}
