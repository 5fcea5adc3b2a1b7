//! The power of two choices (Mitzenmacher, IEEE TPDS 2001): of two endpoints drawn at random, the less loaded one.

use crate::{
    load::Tuning,
    node::{Node, State},
    now::Now,
};
use buttress_core::{Clock, Draw, Tried};
use std::{sync::Arc, time::Instant};

/// The endpoints at one moment. Never changed: an update makes another one.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    pub(crate) nodes: Box<[Arc<Node>]>,
}

/// What is passed over.
#[derive(Clone, Copy, Default)]
pub(crate) struct Avoid<'a> {
    /// Earlier attempts of the same call went there: avoided while there is another.
    pub(crate) tried: Option<&'a Tried>,
    /// They were asked and are not ready.
    pub(crate) waiting: &'a [u32],
    /// They were asked and failed.
    pub(crate) failed: &'a [u32],
    /// Signals and loads say nothing: every endpoint in turn.
    pub(crate) turn: Option<u64>,
    /// Signals say nothing.
    pub(crate) force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Picked {
    /// The endpoint at this place.
    Node(usize),
    /// All that come into question were asked already and are not ready.
    Wait,
    /// None takes calls; when the first of them may again.
    Shut(Option<Instant>),
    /// All that come into question failed when they were asked.
    Failed,
    /// There is none.
    Empty,
}

/// So many pairs are drawn before all endpoints are looked at.
const PAIRS: usize = 3;

/// One pick in so many reads the clock, if nobody else does.
const SAMPLED: u64 = 16;

impl Roster {
    /// Two endpoints by chance, and of those the less loaded one. Constant time, unless most endpoints are passed over.
    #[inline]
    pub(crate) fn pick<C: Clock>(&self, draw: &Draw, now: &Now<C>, tuning: &Tuning, avoid: Avoid<'_>) -> Picked {
        let count = self.nodes.len();
        if count < 2 || avoid.turn.is_some() {
            return self.look(draw, now, tuning, avoid);
        }
        let mut first = None;
        for _ in 0..PAIRS {
            let drawn = draw.draw();
            if drawn.is_multiple_of(SAMPLED) {
                tuning.saw(now.exact_nanos());
            }
            let (a, b) = pair(drawn, count);
            for place in [a, b] {
                let node = &*self.nodes[place];
                let Some(load) = self.load_of(node, now, tuning, avoid) else { continue };
                match first {
                    None => first = Some((place, load)),
                    Some((other, least)) if other != place => {
                        return Picked::Node(if load < least { place } else { other });
                    }
                    Some(_) => {}
                }
            }
        }
        self.look(draw, now, tuning, avoid)
    }

    /// The load of a node that comes into question.
    #[inline]
    fn load_of<C: Clock>(&self, node: &Node, now: &Now<C>, tuning: &Tuning, avoid: Avoid<'_>) -> Option<f32> {
        let state = if avoid.force { State::Open } else { node.state(now) };
        if state == State::Shut {
            node.load.skip();
            return None;
        }
        let is_avoided = avoid.waiting.contains(&node.id)
            || avoid.failed.contains(&node.id)
            || avoid.tried.is_some_and(|tried| tried.contains(node.id));
        (!is_avoided).then(|| load(node, state, now.nanos(), tuning))
    }

    /// Looks at every endpoint: two by chance of those that come into question.
    #[inline(never)]
    fn look<C: Clock>(&self, draw: &Draw, now: &Now<C>, tuning: &Tuning, avoid: Avoid<'_>) -> Picked {
        if self.nodes.is_empty() {
            return Picked::Empty;
        }
        let start = avoid.turn.map_or(0, |turn| (turn % self.nodes.len() as u64) as usize);
        let (mut fresh, mut again) = (Two::new(draw), Two::new(draw));
        let (mut waiting, mut failed) = (Busy::default(), false);
        let mut until: Option<Instant> = None;
        for offset in 0..self.nodes.len() {
            let place = (start + offset) % self.nodes.len();
            let node = &*self.nodes[place];
            let tried = avoid.tried.is_some_and(|tried| tried.contains(node.id));
            if !avoid.force && avoid.turn.is_none() && node.state(now) == State::Shut {
                node.load.skip();
                until = node.until().into_iter().chain(until).min();
            } else if avoid.failed.contains(&node.id) {
                failed = true;
            } else if avoid.waiting.contains(&node.id) {
                *if tried { &mut waiting.tried } else { &mut waiting.fresh } = true;
            } else if tried {
                again.offer(place, avoid.turn.is_some());
            } else {
                fresh.offer(place, avoid.turn.is_some());
            }
        }
        let least = |two: &Two<'_>| {
            let load = |place: usize| {
                let node = &self.nodes[place];
                load(node, if avoid.force { State::Open } else { node.state(now) }, now.nanos(), tuning)
            };
            let [a, b] = two.places;
            Picked::Node(if two.count > 1 && avoid.turn.is_none() && load(b) < load(a) { b } else { a })
        };
        // The one that was just tried comes last: after those that are not ready yet.
        match () {
            () if fresh.count > 0 => least(&fresh),
            () if waiting.fresh => Picked::Wait,
            () if again.count > 0 => least(&again),
            () if waiting.tried => Picked::Wait,
            () if failed => Picked::Failed,
            () => Picked::Shut(until),
        }
    }
}

/// Which of those that are not ready exist.
#[derive(Default)]
struct Busy {
    fresh: bool,
    tried: bool,
}

/// A circuit whose time has come gets its probe, and only one: it looks idle until that is on its way.
#[inline]
fn load(node: &Node, state: State, nanos: u64, tuning: &Tuning) -> f32 {
    if state == State::Due && node.load.in_flight() == 0 {
        return 0.0;
    }
    node.load.load(nanos, tuning, node.is_limited())
}

/// Two different places below `count`, each pair as likely as any other, to within 2^-32.
#[inline]
fn pair(draw: u64, count: usize) -> (usize, usize) {
    let scale = |bits: u64, count: usize| (((bits & u64::from(u32::MAX)) * count as u64) >> 32) as usize;
    let a = scale(draw >> 32, count);
    let b = scale(draw, count - 1);
    (a, if b >= a { b + 1 } else { b })
}

/// Two of those offered, each pair as likely as any other (Vitter's algorithm R).
struct Two<'a> {
    draw: &'a Draw,
    places: [usize; 2],
    count: usize,
}

impl<'a> Two<'a> {
    fn new(draw: &'a Draw) -> Self {
        Self { draw, places: [0; 2], count: 0 }
    }

    #[inline]
    fn offer(&mut self, place: usize, in_turn: bool) {
        if self.count < 2 {
            // Which of an equal pair comes first is a matter of chance, too.
            self.places[self.count] = place;
            if self.count == 1 && !in_turn && self.draw.draw() & 1 == 1 {
                self.places.swap(0, 1);
            }
        } else if !in_turn {
            let at = ((self.draw.draw() >> 32) * (self.count as u64 + 1)) >> 32;
            if at < 2 {
                self.places[at as usize] = place;
            }
        }
        self.count += 1;
    }
}
