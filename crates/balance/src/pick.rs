//! The power of two choices (Mitzenmacher, IEEE TPDS 2001): of two endpoints drawn at random, the less loaded one.

use crate::{
    load::{Standing, Tuning},
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
    /// The good ones were all asked: one that was tried is better than to wait for them.
    pub(crate) swept: bool,
    /// The call has waited for them long enough: so is one that is failing.
    pub(crate) impatient: bool,
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
        if count < 2 || avoid.turn.is_some() || avoid.swept {
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
                        let (best, second, load) =
                            if load < least { (place, other, load) } else { (other, place, least) };
                        let goes = load > TRIAL || self.begin_trial(best, now);
                        return Picked::Node(if goes { best } else { second });
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
        if is_avoided {
            return None;
        }
        if state == State::Open && !node.load.is_suspect() {
            return Some(node.load.load(now.nanos(), tuning, node.is_limited()));
        }
        weigh(node, state, now, tuning)
    }

    /// The one at `place` looks best because nobody knows whether it works: one call goes to see. False: another one did.
    #[cold]
    fn begin_trial<C: Clock>(&self, place: usize, now: &Now<C>) -> bool {
        let load = &self.nodes[place].load;
        load.begin_trial(load.last_trial(), now.exact_nanos())
    }

    /// Looks at every endpoint: two by chance of those that come into question.
    #[inline(never)]
    fn look<C: Clock>(&self, draw: &Draw, now: &Now<C>, tuning: &Tuning, avoid: Avoid<'_>) -> Picked {
        if self.nodes.is_empty() {
            return Picked::Empty;
        }
        let in_turn = avoid.turn.is_some();
        let start = avoid.turn.map_or(0, |turn| (turn % self.nodes.len() as u64) as usize);
        // By choice, as `choice` counts them.
        let mut free = [(); 4].map(|()| Two::new(draw));
        let (mut waits, mut failed) = ([false; 4], false);
        let mut until: Option<Instant> = None;
        for offset in 0..self.nodes.len() {
            let place = (start + offset) % self.nodes.len();
            let node = &*self.nodes[place];
            let state = if avoid.force || in_turn { State::Open } else { node.state(now) };
            let is_last = || !in_turn && standing(node, state, now, tuning) == Standing::Last;
            let choice = || 2 * usize::from(is_last()) + usize::from(avoid.tried.is_some_and(|t| t.contains(node.id)));
            if state == State::Shut {
                node.load.skip();
                until = node.until().into_iter().chain(until).min();
            } else if avoid.failed.contains(&node.id) {
                failed = true;
            } else if avoid.waiting.contains(&node.id) {
                waits[choice()] = true;
            } else {
                free[choice()].offer(place, in_turn);
            }
        }
        let [fresh, again, last, last_again] = &free;
        let load = |place: usize| {
            let node = &self.nodes[place];
            load(node, if avoid.force { State::Open } else { node.state(now) }, now, tuning)
        };
        let least = |two: &Two<'_>| {
            let [a, b] = two.places;
            if in_turn || two.count < 2 {
                if !in_turn && load(a) <= TRIAL {
                    self.begin_trial(a, now);
                }
                return Picked::Node(a);
            }
            let (best, second, least) = if load(b) < load(a) { (b, a, load(b)) } else { (a, b, load(a)) };
            Picked::Node(if least > TRIAL || self.begin_trial(best, now) { best } else { second })
        };
        // All that come into question are asked before the next choice is. Good ones that may soon be ready are worth more than
        // a failing one that is.
        let is_fresh = fresh.count > 0 || waits[0];
        match () {
            () if fresh.count > 0 && !avoid.swept => least(fresh),
            () if is_fresh && !avoid.swept => Picked::Wait,
            () if again.count > 0 => least(again),
            () if (is_fresh || waits[1]) && !avoid.impatient => Picked::Wait,
            () if last.count > 0 => least(last),
            () if last_again.count > 0 => least(last_again),
            () if is_fresh || waits.contains(&true) => Picked::Wait,
            () if failed => Picked::Failed,
            () => Picked::Shut(until),
        }
    }
}

/// The load of one to which a call goes to see whether it works.
const TRIAL: f32 = 0.0;

/// What a circuit says whose time has come goes before what was seen of it.
#[inline]
fn standing<C: Clock>(node: &Node, state: State, now: &Now<C>, tuning: &Tuning) -> Standing {
    match state == State::Open && node.load.is_suspect() {
        true => node.load.standing(now.exact_nanos(), tuning),
        false => Standing::Good,
    }
}

/// A circuit whose time has come gets its probe, and only one at first: it looks idle until that is on its way. So does an
/// endpoint that was failing and has had its rest.
#[inline]
fn load<C: Clock>(node: &Node, state: State, now: &Now<C>, tuning: &Tuning) -> f32 {
    let is_trial = match state {
        // A long stream of before is no probe.
        State::Due => node.load.calls() == 0 || node.until().is_some_and(|due| is_untried(node, due, tuning)),
        _ => standing(node, state, now, tuning) == Standing::Rested,
    };
    if is_trial { TRIAL } else { node.load.load(now.nanos(), tuning, node.is_limited()) }
}

/// The load of one of which more than that is known. `None`: it is the last choice.
#[cold]
fn weigh<C: Clock>(node: &Node, state: State, now: &Now<C>, tuning: &Tuning) -> Option<f32> {
    (standing(node, state, now, tuning) != Standing::Last).then(|| load(node, state, now, tuning))
}

#[cold]
fn is_untried(node: &Node, due: Instant, tuning: &Tuning) -> bool {
    node.load.last_trial() < tuning.origin.nanos(due)
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
