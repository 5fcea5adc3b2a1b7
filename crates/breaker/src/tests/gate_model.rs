//! The gate against a naive one.

use super::{MS, S};
use crate::{GateChange, RampedGate, RampedGateConfig, RampedGatePermit};
use buttress_core::{Clock, Outcome, TokioClock};
use proptest::prelude::*;
use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Start(u8),
    End(usize, Outcome),
    EndAll(Outcome),
    Drop(usize),
    Wait(u64),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = || {
        prop_oneof![
            6 => Just(Outcome::Success),
            12 => Just(Outcome::Failure),
            2 => Just(Outcome::Overload),
            1 => Just(Outcome::Ignored),
        ]
    };
    prop_oneof![
        120 => (1..40u8).prop_map(Step::Start),
        60 => (any::<usize>(), outcome()).prop_map(|(i, outcome)| Step::End(i, outcome)),
        60 => outcome().prop_map(Step::EndAll),
        10 => any::<usize>().prop_map(Step::Drop),
        60 => (0..300u64).prop_map(Step::Wait),
        1 => Just(Step::Reset),
    ]
}

/// What the gate ought to be: numbers in plain fields, and no word.
struct Naive {
    /// Of 8192.
    share: u64,
    generation: u64,
    evidence: i64,
    suspected: Instant,
    /// Calls since `measured`, while it was narrow.
    offered: u64,
    measured: Instant,
    passed: Option<Instant>,
}

const LEAST: u64 = 82;

impl Naive {
    fn turn(&mut self, share: u64) {
        (self.share, self.generation, self.evidence) = (share, self.generation + 1, 0);
    }

    /// Rate and elapsed time are counted from the millisecond in which the share has changed.
    fn measure(&mut self, t0: Instant, now: Instant) -> u64 {
        let elapsed = now - self.measured;
        let by_rate = elapsed.as_secs_f64() / (self.offered as f64 * 0.5);
        let is_known = self.share < 8192 && self.offered >= 10 && !elapsed.is_zero();
        let least = if is_known { ((by_rate.min(0.25) * 8192.0) - 1e-6).ceil() as u64 } else { 0 };
        self.begin(t0, now);
        least.max(LEAST)
    }

    fn begin(&mut self, t0: Instant, now: Instant) {
        (self.offered, self.measured) = (0, t0 + MS * (now - t0).as_millis() as u32);
    }

    /// With each bad result: whether the evidence has been there for long enough.
    fn look(&mut self, t0: Instant, now: Instant) {
        let suspected = now.saturating_duration_since(self.suspected);
        if self.share == 8192 && self.evidence == 40 && suspected >= 100 * MS {
            let least = self.measure(t0, now);
            self.passed = None;
            self.turn(least.max(4096));
        }
    }

    fn end(&mut self, generation: u64, outcome: Outcome, t0: Instant, now: Instant) {
        if generation != self.generation {
            return;
        }
        match outcome {
            Outcome::Success if self.share == 8192 => self.evidence = (self.evidence - 3).max(0),
            Outcome::Success => {
                self.evidence -= 3;
                if self.evidence <= -6 {
                    self.begin(t0, now);
                    self.turn((self.share * 2).min(8192));
                }
            }
            Outcome::Failure | Outcome::Overload if self.share == 8192 => {
                if self.evidence == 0 {
                    self.suspected = t0 + MS * (now - t0).as_millis() as u32;
                }
                self.evidence = (self.evidence + 1).min(40);
                self.look(t0, now);
            }
            Outcome::Failure | Outcome::Overload => {
                self.evidence += 1;
                if self.evidence == 10 {
                    let least = self.measure(t0, now);
                    let share = least.max(self.share / 2);
                    if share == self.share {
                        self.evidence = 0;
                    } else {
                        self.turn(share);
                    }
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_like_a_naive_gate(steps in prop::collection::vec(step(), 1..400), seed: u64) {
        let t0 = TokioClock.now();
        let mut now = t0;
        let gate = RampedGate::new_at(RampedGateConfig::default().seed(seed).hang_after(3600 * S), &t0).unwrap();
        let moves = Arc::new(Mutex::new(Vec::<GateChange>::new()));
        let told = moves.clone();
        gate.on_change(move |change| told.lock().unwrap().push(*change));
        let mut naive = Naive {
            share: 8192, generation: 1, evidence: 0, suspected: t0, offered: 0, measured: t0, passed: None,
        };
        let mut calls: Vec<(RampedGatePermit, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Start(count) => for _ in 0..count {
                    let admitted = gate.try_acquire_at(&now);
                    if naive.share == 8192 {
                        prop_assert!(admitted.is_ok(), "wide open");
                    } else {
                        naive.offered += 1;
                        if naive.passed.is_none_or(|passed| now - passed >= 500 * MS) {
                            prop_assert!(admitted.is_ok(), "none has passed for half a second");
                        }
                    }
                    let generation = naive.generation;
                    match admitted {
                        Ok(mut permit) => {
                            permit.pending_at(&now);
                            naive.passed = Some(now);
                            calls.push((permit, generation));
                        }
                        Err(refusal) => {
                            let wait = refusal.retry_after.unwrap();
                            prop_assert_eq!(wait, naive.passed.unwrap() + 500 * MS - now);
                        }
                    }
                }
                Step::End(i, outcome) if !calls.is_empty() => {
                    let (permit, generation) = calls.swap_remove(i % calls.len());
                    permit.settle_at(outcome, None, &now);
                    naive.end(generation, outcome, t0, now);
                }
                Step::EndAll(outcome) => for (permit, generation) in calls.drain(..) {
                    permit.settle_at(outcome, None, &now);
                    naive.end(generation, outcome, t0, now);
                },
                Step::Drop(i) if !calls.is_empty() => {
                    let (permit, _) = calls.swap_remove(i % calls.len());
                    permit.abandon_at(&now);
                }
                Step::Wait(millis) => now += MS * millis as u32,
                Step::Reset => {
                    gate.reset_at(&now);
                    naive.turn(8192);
                }
                Step::End(..) | Step::Drop(_) => {}
            }
            let share = gate.share();
            prop_assert!((0.01..=1.0).contains(&share));
            let seen = (share * 8192.0) as u64;
            prop_assert_eq!(seen, naive.share);
        }
        // A least share may be an odd number of parts, whose half is rounded down.
        let half = |share: f64| (share * 4096.0).floor() / 8192.0;
        let is_step = |change: &GateChange| {
            change.to == (change.from * 2.0).min(1.0) || change.to == half(change.from)
                || change.to > change.from / 2.0 && change.to <= 0.2501 || change.to == 1.0
        };
        let moves = moves.lock().unwrap();
        prop_assert!(moves.iter().all(is_step), "{:?}", moves);
    }
}
