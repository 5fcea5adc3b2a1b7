//! How much load retries add to a service that fails.

use super::*;
use std::thread;

const REQUESTS: u64 = 100_000;

/// What `threads` send between them: each call again and again, while it fails and the policy says so.
fn load(retry: &Arc<Retry>, threads: u64, fail_percent: u64, clock: impl Clock + Copy + 'static) -> u64 {
    let threads: Vec<_> = (0..threads)
        .map(|seed| {
            let retry = retry.clone();
            thread::spawn(move || {
                let draw = buttress_core::Draw::new(seed);
                let mut sent = 0;
                for _ in 0..REQUESTS / threads {
                    retry.deposit(&clock);
                    let mut course = Course::new();
                    let mut token = None;
                    sent += 1;
                    while draw.draw() % 100 < fail_percent {
                        match retry.decide(&mut course, Cause::Status, Wait::Backoff, None, &clock) {
                            Decision::Retry { token: paid, .. } => token = Some(paid),
                            Decision::GiveUp(_) => break,
                        }
                        sent += 1;
                    }
                    drop(token);
                }
                sent
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

#[test]
fn retries_add_no_more_than_the_ratio_and_the_floor() {
    for threads in [1, 8] {
        for fail_percent in [50, 100] {
            for ratio in [0.01, 0.1, 0.3, 0.6, 0.9, 1.0, 1.5, 2.0] {
                let began = t0();
                let budget = BudgetConfig::new(ratio).min_per_sec(1.0);
                let retry = Arc::new(retry(config().max_attempts(15).budget(budget)));
                let retries = load(&retry, threads, fail_percent, TokioClock) - REQUESTS;
                let floor = 1 + (t0() - began).as_secs_f64().ceil() as u64;
                let paid = (ratio * REQUESTS as f64) as u64;
                assert!(retries <= paid + floor, "{threads} threads, {fail_percent} %: {retries} > {paid} + {floor}");
                if fail_percent == 100 {
                    // What was deposited is spent, up to what fades or is in somebody's hand.
                    assert!(retries * 100 >= paid * 90, "{threads} threads, {ratio}: {retries} of {paid}");
                }
                let seen = retry.snapshot();
                assert_eq!((seen.first_total, seen.retries_total, seen.budget.in_flight), (REQUESTS, retries, 0));
            }
        }
    }
}
