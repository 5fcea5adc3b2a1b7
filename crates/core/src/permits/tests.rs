//! The permits against a naive model.
use super::{
    Joined, Place, Verdict,
    waiting::{Full, Waiting, join, permits},
};
use proptest::{collection::vec, prelude::*};
use std::{
    cell::Cell,
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

/// What the permits should do, said as simply as can be.
#[derive(Default)]
struct Model {
    limit: u32,
    out: u32,
    waiting: VecDeque<usize>,
    lifo: bool,
}

impl Model {
    fn settle(&mut self) -> Vec<usize> {
        let mut granted = Vec::new();
        while self.out < self.limit {
            let next = if self.lifo { self.waiting.pop_back() } else { self.waiting.pop_front() };
            let Some(next) = next else { break };
            self.out += 1;
            granted.push(next);
        }
        granted
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Try(usize),
    Join(usize),
    Release(usize),
    Leave(usize),
    Limit(u32),
    PassAll,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (0..4usize).prop_map(Op::Try),
        4 => (0..4usize).prop_map(Op::Join),
        5 => any::<usize>().prop_map(Op::Release),
        2 => any::<usize>().prop_map(Op::Leave),
        1 => (0..12u32).prop_map(Op::Limit),
        1 => Just(Op::PassAll),
    ];
    vec(op, 0..120)
}

proptest! {
    #[test]
    fn they_do_what_a_naive_model_does(ops in ops(), stripes in prop_oneof![Just(1usize), Just(2), Just(4)], lifo: bool) {
        let permits = permits(4, stripes, lifo);
        let mut model = Model { limit: 4, lifo, ..Model::default() };
        let mut held: Vec<usize> = Vec::new();
        let mut places: Vec<(usize, usize, Place<Waiting>)> = Vec::new();
        for (id, op) in ops.into_iter().enumerate() {
            let mut passed = VecDeque::new();
            match op {
                Op::Try(home) => {
                    let home = home % stripes;
                    let room = model.out < model.limit && model.waiting.is_empty();
                    prop_assert_eq!(permits.try_acquire(home, || ()), room);
                    if room {
                        model.out += 1;
                        held.push(home);
                    }
                }
                Op::Join(home) => {
                    let home = home % stripes;
                    let room = model.out < model.limit && model.waiting.is_empty();
                    match join(&permits, home, 5) {
                        Ok(Joined::Now) => {
                            prop_assert!(room);
                            model.out += 1;
                            held.push(home);
                        }
                        Ok(Joined::Later(place)) => {
                            prop_assert!(!room && model.waiting.len() < 5);
                            model.waiting.push_back(id);
                            places.push((id, home, place));
                        }
                        Err(Full) => prop_assert!(!room && model.waiting.len() == 5),
                    }
                }
                Op::Release(which) if !held.is_empty() => {
                    permits.release(held.swap_remove(which % held.len()), || ());
                    model.out -= 1;
                }
                Op::Leave(which) if !places.is_empty() => {
                    let (id, _, place) = places.swap_remove(which % places.len());
                    prop_assert_eq!(permits.leave(&place, || ()), None);
                    model.waiting.retain(|waiting| *waiting != id);
                }
                Op::Limit(limit) => {
                    permits.set_limit(|| limit, ());
                    model.limit = limit;
                }
                Op::PassAll => {
                    let counted = Cell::new(0);
                    permits.pass_all((), || counted.set(counted.get() + 1));
                    passed = std::mem::take(&mut model.waiting);
                    prop_assert_eq!(counted.get(), passed.len());
                }
                Op::Release(_) | Op::Leave(_) => {}
            }
            let granted = model.settle();
            places = places.into_iter().filter_map(|(id, home, mut place)| {
                let turn = place.poll(&Context::from_waker(Waker::noop()));
                let expected = match id {
                    id if granted.contains(&id) => Poll::Ready(Verdict::Permit),
                    id if passed.contains(&id) => Poll::Ready(Verdict::Pass),
                    _ => Poll::Pending,
                };
                assert_eq!(turn, expected);
                if turn == Poll::Ready(Verdict::Permit) {
                    held.push(home);
                }
                turn.is_pending().then_some((id, home, place))
            }).collect();
            prop_assert_eq!((permits.in_flight(), permits.queued()), (model.out, model.waiting.len() as u32));
        }
        places.iter().for_each(|(_, _, place)| assert_eq!(permits.leave(place, || ()), None));
        held.into_iter().for_each(|home| permits.release(home, || ()));
        permits.assert_at_rest(model.limit);
    }
}
