//! The breaker against a naive one that keeps every call in a list.

use super::{MS, Rig, consecutive};
use crate::{BreakerConfig, BreakerPermit, State, Window};
use buttress_core::Outcome;
use proptest::prelude::*;
use std::{collections::VecDeque, time::Duration};

#[derive(Clone, Copy, Debug)]
enum Step {
    Start,
    End(usize, Outcome),
    Drop(usize),
    Wait(u64),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Success),
        3 => Just(Outcome::Failure),
        1 => Just(Outcome::Overload),
        1 => Just(Outcome::Ignored),
    ];
    prop_oneof![
        12 => Just(Step::Start),
        12 => (any::<usize>(), outcome).prop_map(|(i, outcome)| Step::End(i, outcome)),
        2 => any::<usize>().prop_map(Step::Drop),
        6 => (0..3000u64).prop_map(Step::Wait),
        1 => Just(Step::Reset),
    ]
}

/// What the state machine ought to be, without a word of packing.
struct Naive {
    state: State,
    generation: u32,
    outcomes: VecDeque<bool>,
    in_a_row: u32,
    probes: u32,
    good: u32,
    bad: u32,
}

const SIZE: usize = 10;
const MIN: usize = 5;
const CONSECUTIVE: u32 = 4;

impl Naive {
    fn turn(&mut self, state: State) {
        let generation = self.generation + 1;
        *self = Self { state, generation, outcomes: VecDeque::new(), in_a_row: 0, probes: 0, good: 0, bad: 0 };
    }

    fn start(&mut self, open_time_is_over: bool) -> bool {
        if self.state == State::Open && open_time_is_over {
            self.turn(State::HalfOpen);
        }
        match self.state {
            State::Closed => true,
            State::HalfOpen if self.probes < 3 && self.probes + self.good + self.bad < 5 => {
                self.probes += 1;
                true
            }
            _ => false,
        }
    }

    fn end(&mut self, generation: u32, outcome: Outcome) {
        if generation != self.generation {
            return;
        }
        let good = match outcome {
            Outcome::Success => Some(true),
            Outcome::Failure => Some(false),
            _ => None,
        };
        if self.state == State::HalfOpen {
            self.probes -= 1;
            match good {
                Some(true) => self.good += 1,
                Some(false) => self.bad += 1,
                None => {}
            }
            if self.good >= 3 {
                self.turn(State::Closed);
            } else if self.bad > 2 {
                self.turn(State::Open);
            }
        } else if let Some(good) = good {
            self.outcomes.push_back(good);
            if self.outcomes.len() > SIZE {
                self.outcomes.pop_front();
            }
            self.in_a_row = if good { 0 } else { self.in_a_row + 1 };
            let failures = self.outcomes.iter().filter(|good| !**good).count();
            let too_often = self.outcomes.len() >= MIN && failures * 2 >= self.outcomes.len();
            if !good && (self.in_a_row >= CONSECUTIVE || too_often) {
                self.turn(State::Open);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_like_a_naive_breaker(steps in prop::collection::vec(step(), 1..300)) {
        let config = BreakerConfig::default().consecutive(CONSECUTIVE).min_calls(MIN as u32);
        let long = Duration::from_secs(3600);
        let mut rig = Rig::new(config.window(Window::Count(SIZE as u32)).hang_after(long).probe_deadline(long));
        let mut naive = Naive {
            state: State::Closed, generation: 0, outcomes: VecDeque::new(), in_a_row: 0, probes: 0, good: 0, bad: 0,
        };
        let mut calls: Vec<(BreakerPermit, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Start => {
                    let over = rig.snapshot().retry_in.is_some_and(|wait| wait.is_zero());
                    let admitted = rig.acquire();
                    prop_assert_eq!(admitted.is_ok(), naive.start(over));
                    if let Ok(mut permit) = admitted {
                        permit.pending_at(&rig.now);
                        calls.push((permit, naive.generation));
                    }
                }
                Step::End(i, outcome) if !calls.is_empty() => {
                    let (permit, generation) = calls.swap_remove(i % calls.len());
                    permit.settle_at(outcome, None, &rig.now);
                    naive.end(generation, outcome);
                }
                Step::Drop(i) if !calls.is_empty() => {
                    let (permit, generation) = calls.swap_remove(i % calls.len());
                    permit.abandon_at(&rig.now);
                    naive.end(generation, Outcome::Ignored);
                }
                Step::Wait(millis) => rig.now += MS * millis as u32,
                Step::Reset => {
                    rig.breaker.reset_at(&rig.now);
                    naive.turn(State::Closed);
                }
                Step::End(..) | Step::Drop(_) => {}
            }
            let seen = rig.snapshot();
            prop_assert_eq!((seen.state, seen.generation, seen.consecutive), (naive.state, naive.generation, naive.in_a_row));
            prop_assert_eq!(seen.calls, naive.outcomes.len() as u64);
            if naive.state == State::HalfOpen {
                let probes = (seen.in_flight as u32, seen.probes_good as u32, seen.probes_bad as u32);
                prop_assert_eq!(probes, (naive.probes, naive.good, naive.bad));
            }
        }
    }

    #[test]
    fn the_calls_in_flight_are_counted_right_whatever_their_age(
        steps in prop::collection::vec((0..3u8, any::<usize>(), 0..4000u64), 1..200),
    ) {
        let mut rig = Rig::new(consecutive(u32::MAX).slow_after(MS * 400).hang_after(MS * 4000));
        let mut calls: Vec<(BreakerPermit, std::time::Instant)> = Vec::new();
        for (what, i, millis) in steps {
            match what {
                0 => calls.push((rig.hang(), rig.now)),
                1 if !calls.is_empty() => calls.swap_remove(i % calls.len()).0.settle_at(Outcome::Success, None, &rig.now),
                _ => rig.now += MS * millis as u32,
            }
            let seen = rig.snapshot();
            let older = |age| calls.iter().filter(|(_, began)| rig.now - *began >= MS * age).count() as u64;
            prop_assert_eq!(seen.in_flight, calls.len() as u64);
            prop_assert!(seen.slow_in_flight <= older(400) && seen.slow_in_flight >= older(500 + 50), "{:?}", seen);
            prop_assert!(seen.hung_in_flight <= older(4000) && seen.hung_in_flight >= older(5000 + 500), "{:?}", seen);
        }
    }
}
