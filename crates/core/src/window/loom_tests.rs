use super::{CountWindow, TimeWindow};
use crate::sync::Arc;
use loom::thread::spawn;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

fn check(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

fn ten_seconds() -> Arc<TimeWindow> {
    Arc::new(TimeWindow::new(Duration::from_secs(10), 1))
}

#[test]
fn loom_rotation_loses_nothing_new_and_keeps_nothing_old() {
    check(|| {
        let window = ten_seconds();
        window.failure(0, 0, 0);
        let adders: Vec<_> = [(16, true), (16, false), (0, true)]
            .map(|(epoch, failed)| {
                let window = window.clone();
                move || {
                    if failed {
                        window.failure(0, 0, epoch);
                    } else {
                        window.success(0, epoch);
                    }
                }
            })
            .into_iter()
            .collect();
        let mut threads = Vec::new();
        for add in adders {
            threads.push(spawn(add));
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
        let counts = window.counts(16, 16 * SECOND);
        assert_eq!((counts.total, counts.failures), (2, 1));
    });
}

#[test]
fn loom_a_stale_success_never_counts_in_a_new_generation() {
    check(|| {
        let window = ten_seconds();
        let stale = {
            let window = window.clone();
            spawn(move || window.success(0, 0))
        };
        let start = window.next_epoch(0);
        window.failure(0, start, window.advance(0));
        stale.join().unwrap();
        let counts = window.counts(start, 0);
        assert_eq!((counts.total, counts.failures), (1, 1));
    });
}

#[test]
fn loom_count_totals_are_never_behind_and_equal_the_bits_at_rest() {
    check(|| {
        let window = Arc::new(CountWindow::new(1));
        window.record(0, true, false);
        let threads = [true, false].map(|failed| {
            let window = window.clone();
            spawn(move || window.record(0, failed, failed))
        });
        let (bits, totals) = (window.bits(0), window.counts(0));
        assert!(totals.failures <= 3 && totals.slow <= 2, "{totals:?} {bits:?}");
        for thread in threads {
            thread.join().unwrap();
        }
        let (bits, counts) = (window.bits(0), window.counts(0));
        assert_eq!(bits, (counts.failures, counts.slow));
        assert_eq!(counts.total, 1);
    });
}

#[test]
fn loom_a_stale_recorder_never_counts_in_a_new_generation() {
    check(|| {
        let window = Arc::new(CountWindow::new(3));
        window.record(0, true, false);
        let stale = {
            let window = window.clone();
            spawn(move || window.record(0, true, true))
        };
        window.record(1, false, false);
        window.record(1, true, false);
        stale.join().unwrap();
        let counts = window.counts(1);
        assert_eq!((counts.total, counts.failures, counts.slow), (2, 1, 0));
        assert_eq!(window.bits(1), (1, 0));
    });
}
