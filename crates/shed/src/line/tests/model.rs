//! The line against a naive one: a list that is scanned. Tenants' turns are left to the line: that they are fair is shown
//! elsewhere. All else is predicted: who is sent away and why, the class that is served, and who of a tenant.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Waiter {
    item: u32,
    number: u64,
    class: usize,
    tenant: u64,
    arrived: u64,
    until: u64,
    deadline: Option<u64>,
}

struct Model {
    rules: Rules,
    /// In order of arrival.
    waiting: Vec<Waiter>,
    mode: LineMode,
    busy: u64,
    /// When the length was looked at in a burst, and what it was.
    marks: Vec<(u64, usize)>,
    calm: u64,
    asked: [u64; 3],
    /// Since when each tenant of each class waits.
    since: [[u64; 8]; CLASSES],
    owed: u64,
}

fn too_late(waiter: &Waiter, now: u64, service: u64) -> bool {
    waiter.deadline.is_some_and(|deadline| now + service > deadline)
}

impl Model {
    fn of(&self, class: usize, tenant: u64) -> Vec<&Waiter> {
        self.waiting.iter().filter(|waiter| waiter.class == class && waiter.tenant == tenant).collect()
    }

    fn count(&self, class: usize) -> usize {
        self.waiting.iter().filter(|waiter| waiter.class == class).count()
    }

    fn lifo(&self, class: usize, tenant: u64, now: u64) -> bool {
        let waits = !self.of(class, tenant).is_empty();
        let long = now.saturating_sub(self.since[class][tenant as usize]) >= self.rules.burst_wait / 5 * 3;
        let patience = if self.lowest(class, now) { 4 } else { 2 };
        let old = |first: &&Waiter| now.saturating_sub(first.arrived) >= (first.until - first.arrived) / patience;
        waits && long && self.mode == LineMode::Standing && self.of(class, tenant).first().is_some_and(old)
    }

    fn lowest(&self, class: usize, now: u64) -> bool {
        (0..class).all(|below| now.saturating_sub(self.asked[below]) >= self.rules.burst_wait)
    }

    fn take(&mut self, item: u32) -> Waiter {
        let position = self.waiting.iter().position(|waiter| waiter.item == item).expect("it waits");
        self.waiting.remove(position)
    }

    /// Checks who was sent away for the time, and moves the mode.
    fn settle(&mut self, now: u64, service: u64, out: &mut Out<u32>) {
        let (due, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|waiter| waiter.until <= now);
        self.waiting = rest;
        let mut want: Vec<_> = due
            .iter()
            .map(|one| (one.item, if too_late(one, now, service) { Why::TooLate } else { Why::WaitedTooLong }))
            .collect();
        let mut got: Vec<_> = out.drain(..due.len()).collect();
        want.sort_by_key(|one| one.0);
        got.sort_by_key(|one| one.0);
        assert_eq!(got, want, "whose time is up is sent away, and nobody else");
        if !due.is_empty() {
            self.calm = now;
        }
        match self.mode {
            LineMode::Burst => {
                self.busy = self.busy.min(now);
                let waits = self.waiting.len();
                self.marks.last_mut().into_iter().for_each(|mark| mark.0 = mark.0.min(now));
                if waits > 0 && self.marks.last().is_some_and(|mark| now - mark.0 >= self.rules.burst_wait / 5) {
                    self.marks.push((now, waits));
                }
                // Three times in a row longer than the time before.
                let grown = self.marks.len() > 3
                    && self.marks[self.marks.len() - 4..].windows(2).all(|two| two[1].1 > two[0].1);
                if waits > 0 && (now - self.busy >= self.rules.burst_wait || grown) {
                    (self.mode, self.calm) = (LineMode::Standing, now);
                }
            }
            LineMode::Standing => {
                self.calm = self.calm.min(now);
                if now - self.calm >= self.rules.burst_wait {
                    (self.mode, self.busy, self.marks) = (LineMode::Burst, now, vec![(now, 0)]);
                }
            }
        }
    }

    fn until(&self, class: usize, deadline: Option<u64>, now: u64, service: u64) -> u64 {
        let burst = match deadline {
            None => now + self.rules.burst_wait,
            Some(deadline) => (now + (deadline.saturating_sub(now) as f64 * self.rules.burst_share) as u64)
                .min(deadline.saturating_sub(service)),
        };
        let wait = self.rules.standing_wait[class];
        let wait = if self.lowest(class, now) { wait.min(self.rules.lowest_wait) } else { wait };
        if self.mode == LineMode::Burst { burst } else { burst.min(now + wait) }
    }

    /// Plays the turns before an arrival's own.
    fn before(&self, class: usize, tenant: u64, now: u64) -> u64 {
        let above: usize = (class + 1..CLASSES).map(|above| self.count(above)).sum();
        let own = if self.lifo(class, tenant, now) { 0 } else { self.of(class, tenant).len() };
        let mut left: Vec<_> =
            (0..8).filter(|&other| other != tenant).map(|other| self.of(class, other).len()).collect();
        let mut turns = own;
        for _ in 0..=own {
            for left in left.iter_mut().filter(|left| **left > 0) {
                *left -= 1;
                turns += 1;
            }
        }
        (above + turns) as u64
    }

    fn oldest_of_fullest(&self, class: usize) -> Option<u32> {
        let most = (0..8).map(|tenant| self.of(class, tenant).len()).max()?;
        let first = |waiter: &&Waiter| waiter.class == class && self.of(class, waiter.tenant).len() == most;
        self.waiting.iter().find(first).map(|waiter| waiter.item)
    }

    fn victim(&self, class: usize, tenant: u64, now: u64) -> Option<u32> {
        let lowest = self.waiting.iter().map(|waiter| waiter.class).min()?;
        let due = self.owed >= 1_000_000;
        let below = self.waiting.iter().filter(|waiter| waiter.class < class).count();
        if self.rules.max == 0 {
            None
        } else if lowest > class {
            self.oldest_of_fullest(lowest).filter(|_| due && self.count(lowest) == self.waiting.len())
        } else if below > 1 || below == 1 && !due {
            self.oldest_of_fullest(lowest)
        } else {
            let fullest = self.oldest_of_fullest(class)?;
            let most = (0..8).map(|tenant| self.of(class, tenant).len()).max()?;
            let own = self.of(class, tenant);
            match self.lifo(class, tenant, now) {
                false => (most > own.len() + 1).then_some(fullest),
                true if most > own.len() => Some(fullest),
                true => Some(own[0].item),
            }
        }
    }

    fn push(&mut self, ask: Ask, now: u64, pace: Option<u64>, service: u64) -> Result<(u64, Option<u32>), Why> {
        let class = class(ask.priority);
        self.asked[class] = now;
        let until = self.until(class, ask.deadline, now, service);
        let expected = pace.map_or(now, |pace| now + pace * self.before(class, ask.tenant, now));
        let full = self.waiting.len() >= self.rules.max as usize;
        let answer = if until <= now {
            Err(if ask.deadline.is_some() { Why::TooLate } else { Why::Full })
        } else if ask.deadline.is_some_and(|at| expected + service > at) {
            Err(Why::TooLate)
        } else if ask.deadline.is_some() && !(self.owed >= 1_000_000 && self.lowest(class, now)) && expected >= until {
            Err(Why::Full)
        } else if full {
            self.victim(class, ask.tenant, now).map(|victim| (until, Some(victim))).ok_or(Why::Full)
        } else {
            Ok((until, None))
        };
        if !matches!(answer, Ok((_, None))) {
            self.calm = now;
        }
        answer
    }

    fn enter(&mut self, waiter: Waiter, now: u64) {
        if self.waiting.is_empty() {
            self.busy = now;
            self.marks = vec![(now, 0)];
        }
        if self.of(waiter.class, waiter.tenant).is_empty() {
            self.since[waiter.class][waiter.tenant as usize] = now;
        }
        self.waiting.push(waiter);
    }

    /// Checks that it is this one's turn: of its class, and of its tenant.
    fn check_turn(&self, item: u32, now: u64) {
        let classes = self.waiting.iter().map(|waiter| waiter.class);
        let class = if self.owed >= 1_000_000 { classes.min() } else { classes.max() };
        let waiter = self.waiting.iter().find(|waiter| waiter.item == item).expect("it waits");
        assert_eq!(Some(waiter.class), class);
        let own = self.of(waiter.class, waiter.tenant);
        let next = if self.lifo(waiter.class, waiter.tenant, now) { own.last() } else { own.first() };
        assert_eq!(next.map(|next| next.item), Some(item));
    }

    fn grant(&mut self, item: u32, step: u64) {
        let waiter = self.take(item);
        if waiter.class == 0 || self.waiting.iter().any(|other| other.class > waiter.class) {
            self.owed = self.owed.saturating_sub(1_000_000);
        }
        self.owed = (self.owed + step).min(1_000_000 + step);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push { class: usize, tenant: u64, deadline: Option<u64>, pace: Option<u64>, service: u64 },
    Grant { service: u64 },
    Peek { service: u64 },
    Remove(usize),
    Clock(i64),
    Max(u32),
}

const PRIORITIES: [Priority; CLASSES] = [Priority::Sheddable, Priority::Normal, Priority::Critical];

fn step(tenants: u64) -> impl Strategy<Value = Step> {
    let some = |range: std::ops::Range<u64>| prop::option::of(range.prop_map(|ms| ms * MS));
    let service = || prop_oneof![Just(0), (1..40u64).prop_map(|ms| ms * MS)];
    let push = (0..CLASSES, 0..tenants, some(0..400), some(0..40), service());
    prop_oneof![
        10 => push.prop_map(|(class, tenant, deadline, pace, service)| Step::Push { class, tenant, deadline, pace, service }),
        5 => service().prop_map(|service| Step::Grant { service }),
        1 => service().prop_map(|service| Step::Peek { service }),
        1 => (0..20usize).prop_map(Step::Remove),
        6 => (0..30i64).prop_map(|ms| Step::Clock(ms * MS as i64)),
        1 => (-200..300i64).prop_map(|ms| Step::Clock(ms * MS as i64)),
        1 => (0..9u32).prop_map(Step::Max),
    ]
}

fn check(max: u32, reserve: f64, steps: Vec<Step>) -> [bool; 2] {
    let mut rules = Rules { burst_wait: 100 * MS, reserve, tenants: 16, ..rules(max) };
    let step = (reserve * 1e6) as u64;
    let mut line = Line::new(rules.clone());
    let mut model = Model {
        rules: rules.clone(),
        waiting: Vec::new(),
        mode: LineMode::Burst,
        busy: 0,
        marks: Vec::new(),
        calm: 0,
        asked: [0; 3],
        since: Default::default(),
        owed: 0,
    };
    let (mut now, mut next, mut ended, mut out) = (1000 * MS, 0, Vec::new(), Vec::new());
    let mut seen = [false; 2];
    for one in steps {
        match one {
            Step::Push { class, tenant, deadline, pace, service } => {
                let ask = Ask { priority: PRIORITIES[class], tenant, deadline: deadline.map(|after| now + after) };
                let room = line.len().max(rules.max);
                let got = line.push(ask, now, pace, service, || next, &mut out);
                ended.extend(out.iter().map(|one| one.0));
                model.settle(now, service, &mut out);
                let want = model.push(ask, now, pace, service);
                match (got, want) {
                    (Err(got), Err(want)) => {
                        assert_eq!(got, want);
                        ended.push(next);
                    }
                    (Ok(place), Ok((until, victim))) => {
                        assert_eq!(
                            (place.until, &out[..]),
                            (until, &Vec::from_iter(victim.map(|one| (one, Why::PushedOut)))[..])
                        );
                        let deadline = ask.deadline;
                        model.enter(
                            Waiter { item: next, number: place.number, class, tenant, arrived: now, until, deadline },
                            now,
                        );
                        victim.map(|victim| model.take(victim));
                    }
                    (got, want) => panic!("{got:?} instead of {want:?}"),
                }
                assert!(line.len() <= room);
                assert!(line.classes.iter().all(|class| class.adds_up()));
                next += 1;
            }
            Step::Grant { service } | Step::Peek { service } => {
                let shown = line.peek(now, service, &mut out).copied();
                ended.extend(out.iter().map(|one| one.0));
                model.settle(now, service, &mut out);
                for (item, why) in out.drain(..) {
                    model.check_turn(item, now);
                    let waiter = model.take(item);
                    assert!(why == Why::TooLate && too_late(&waiter, now, service));
                    model.calm = now;
                }
                assert_eq!(shown.is_none(), model.waiting.is_empty());
                if let Some(item) = shown {
                    model.check_turn(item, now);
                    let waiter = model.waiting.iter().find(|waiter| waiter.item == item).expect("it waits");
                    assert!(now < waiter.until && !too_late(waiter, now, service));
                    seen[0] |= model.lifo(waiter.class, waiter.tenant, now);
                    seen[1] |= model.waiting.iter().any(|other| other.class > waiter.class);
                }
                if matches!(one, Step::Grant { .. }) {
                    assert_eq!(line.pop(), shown);
                    assert_eq!(line.pop(), None, "one grant for a look");
                    ended.extend(shown);
                    if let Some(item) = shown {
                        model.grant(item, step);
                    }
                }
            }
            Step::Remove(which) => {
                if let Some(waiter) = model.waiting.get(which).cloned() {
                    assert_eq!(line.remove(waiter.number, now), Some(waiter.item));
                    assert_eq!(line.remove(waiter.number, now), None);
                    ended.push(waiter.item);
                    model.take(waiter.item);
                    if waiter.until <= now {
                        model.calm = now;
                    }
                }
            }
            Step::Clock(by) => now = now.saturating_add_signed(by),
            Step::Max(max) => {
                rules.max = max;
                model.rules.max = max;
                line.set_rules(rules.clone());
            }
        }
        out.clear();
        assert_eq!(line.len() as usize, model.waiting.len());
        assert_eq!(
            [0, 1, 2].map(|class| line.waiting(PRIORITIES[class]) as usize),
            [0, 1, 2].map(|class| model.count(class))
        );
        assert!(model.waiting.iter().all(|waiter| line.slots.find(waiter.number).is_some()));
    }
    ended.extend(model.waiting.iter().map(|waiter| waiter.item));
    ended.sort_unstable();
    assert_eq!(ended, Vec::from_iter(0..next), "each item comes out once");
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_line_is_the_naive_one(
        max in 0..9u32,
        reserve in prop_oneof![Just(0.0), Just(0.02), Just(0.3)],
        steps in (1..=7u64).prop_flat_map(|tenants| prop::collection::vec(step(tenants), 0..400)),
    ) {
        check(max, reserve, steps);
    }
}

#[test]
fn the_comparison_sees_every_order() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut seen = [false; 2];
    for _ in 0..10 {
        let steps =
            prop::collection::vec(step(2), 400).new_tree(&mut runner).expect("a strategy without filters").current();
        let new = check(6, 0.3, steps);
        seen = [seen[0] || new[0], seen[1] || new[1]];
    }
    assert_eq!(seen, [true, true], "newest first, and a grant of the reserve");
}
