//! Who waits for room, who goes next, and who is sent away: the queue in front of the limit, as plain data.
//!
//! * **Classes** are served strictly: while a higher one waits, a lower one gets nothing but the [reserve](Rules::reserve).
//!   A full queue makes room for a higher class by sending away the oldest of the lowest.
//! * **Tenants** of a class take turns ([`tenants`]). Whoever must leave leaves the tenant with most waiting.
//! * **Two modes** ([`spell`]). A short burst is served in order, as everybody will be in time. A queue that does not empty is
//!   overload: then each class has a wait of its own, and as in order means that everybody waits until it is too late, the
//!   newest goes first (adaptive LIFO and controlled delay; Maurer, "Fail at Scale", ACM Queue 13(8), 2015). But only of a
//!   tenant whose own calls have not stopped waiting for a spell. One that gets what it asks for, if in bursts, would lose
//!   those at the bottom for nothing: at twice the load a middle class that just fits had 91 % served, and has 96 % in order.
//! * **Deadlines** are looked at on arrival and again when it is somebody's turn: no room is given to a call that cannot use it.
//!
//! It reads no clock and wakes nobody. Times are nanoseconds since any origin; where the clock stands still or steps back,
//! waits grow longer and nothing breaks. Each operation costs O(log n) of the calls that wait, or a scan of the bounded table
//! of tenants; memory is bounded by [`Rules::max`] and [`Rules::tenants`].

mod expiry;
mod reserve;
mod slots;
mod spell;
mod tenants;
#[cfg(all(test, not(buttress_loom)))]
mod tests;

use buttress_core::Priority;
use expiry::Expiry;
use reserve::Reserve;
use slots::{Entry, Row, Slots};
pub(crate) use spell::LineMode;
use spell::{Order, Spell};
use tenants::Tenants;

const CLASSES: usize = 3;

/// Who asks to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// Its class.
    pub(crate) priority: Priority,
    /// A hash of its tenant. Calls of nobody in particular (0) are together one tenant like another.
    pub(crate) tenant: u64,
    /// The moment by which the call must be over.
    pub(crate) deadline: Option<u64>,
}

/// How the line is kept. Validated by the config; a line with senseless rules serves badly but does not break.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    /// How many wait in all; 0 is no queue.
    pub(crate) max: u32,
    /// In a burst: how much of the time to its deadline a call may spend waiting.
    pub(crate) burst_share: f64,
    /// In standing overload: how long each class waits (sheddable, normal, critical). Never longer than in a burst.
    pub(crate) standing_wait: [u64; CLASSES],
    /// The same for the lowest class that asks for room, where it is shorter.
    pub(crate) lowest_wait: u64,
    /// In a burst: the wait of a call without a deadline. Also the spell after which a queue is a standing one.
    pub(crate) burst_wait: u64,
    /// The share of grants that go to the lowest class that waits, whoever else does.
    pub(crate) reserve: f64,
    /// Places in each class's table of tenants; read when the line is made and when it is empty.
    pub(crate) tenants: u32,
}

/// Why somebody was sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// There was no place, and nobody to make one.
    Full,
    /// It made place for another.
    PushedOut,
    /// It cannot make its deadline.
    TooLate,
    /// It has waited as long as a call of its kind may.
    WaitedTooLong,
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// For [`Line::remove`]; not used again while it matters.
    pub(crate) number: u64,
    /// The moment when waiting is no use any more: nobody is granted anything at it or after.
    pub(crate) until: u64,
}

/// Those who wait.
#[derive(Debug)]
pub(crate) struct Line<T> {
    rules: Rules,
    slots: Slots<T>,
    classes: [Tenants; CLASSES],
    expiry: Expiry,
    reserve: Reserve,
    spell: Spell,
    /// When each class last asked for room.
    asked: [u64; CLASSES],
    /// Whom the last peek showed, while it waits.
    shown: Option<u32>,
}

impl<T> Line<T> {
    /// Nobody waits.
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            slots: Slots::new(),
            classes: [(); CLASSES].map(|()| Tenants::new(rules.tenants)),
            expiry: Expiry::new(),
            reserve: Reserve::new(rules.reserve),
            spell: Spell::new(rules.burst_wait),
            asked: [0; CLASSES],
            shown: None,
            rules,
        }
    }

    /// An arrival that found no room. It waits as `item`, or is refused.
    ///
    /// `pace` is the time expected between two grants: with it a call is refused at once if those before it alone will keep it
    /// until its time is up. `service` is how long a call typically takes once it runs; 0 where nobody knows.
    ///
    /// Whoever's time is up goes to `out`, and whoever was pushed out: there they are to be told.
    pub(crate) fn push(
        &mut self,
        ask: Ask,
        now: u64,
        pace: Option<u64>,
        service: u64,
        item: impl FnOnce() -> T,
        out: &mut Vec<(T, Why)>,
    ) -> Result<Place, Why> {
        self.settle(now, service, out);
        let class = class(ask.priority);
        self.asked[class] = now;
        let bucket = self.classes[class].asked(ask.tenant);
        let refusal = match self.until(class, ask.deadline, now, service) {
            until if until <= now => {
                if ask.deadline.is_some() {
                    Why::TooLate
                } else {
                    Why::Full
                }
            }
            _ if ask
                .deadline
                .is_some_and(|at| self.expected(class, bucket, now, pace).saturating_add(service) > at) =>
            {
                Why::TooLate
            }
            // Who would wait in vain stays out, unless the reserve is for him.
            until
                if ask.deadline.is_some()
                    && !(self.reserve.is_due() && self.bears_overload(class, now))
                    && self.expected(class, bucket, now, pace) >= until =>
            {
                Why::Full
            }
            until if self.len() >= self.rules.max => match self.victim(class, bucket, now) {
                None => Why::Full,
                Some(victim) => {
                    // First in, then out: the queue was not empty in between.
                    let place =
                        self.enter(Entry { item: item(), class, bucket, arrived: now, until, deadline: ask.deadline });
                    self.send_away(victim, Why::PushedOut, out);
                    self.spell.shed(now);
                    return Ok(place);
                }
            },
            until => {
                return Ok(self.enter(Entry {
                    item: item(),
                    class,
                    bucket,
                    arrived: now,
                    until,
                    deadline: ask.deadline,
                }));
            }
        };
        self.spell.shed(now);
        Err(refusal)
    }

    /// Who is next. Whoever's time is up goes to `out`, and whoever's turn it was but cannot make its deadline any more.
    pub(crate) fn peek(&mut self, now: u64, service: u64, out: &mut Vec<(T, Why)>) -> Option<&T> {
        self.settle(now, service, out);
        loop {
            let class = self.turn()?;
            let row = self.classes[class].next()?.clone();
            let index = match self.order(class, &row, now) {
                Order::Fifo => row.first(),
                Order::Lifo => row.last(),
            };
            if !self.slots[index].too_late(now, service) {
                self.shown = Some(index);
                return Some(&self.slots[index].item);
            }
            self.send_away(index, Why::TooLate, out);
            self.spell.shed(now);
        }
    }

    /// Takes the one that the last [`peek`](Self::peek) showed: it is granted. `None` where that one has left since.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let index = self.shown.take()?;
        let Entry { class, bucket, .. } = self.slots[index];
        self.reserve.granted(class == 0 || self.classes[class + 1..].iter().any(|above| above.waiting() > 0));
        self.classes[class].granted(bucket);
        Some(self.take(index).item)
    }

    /// Takes a waiter that left. One that leaves because its time was up counts as shed.
    pub(crate) fn remove(&mut self, number: u64, now: u64) -> Option<T> {
        let index = self.slots.find(number)?;
        let entry = self.take(index);
        if entry.until <= now {
            self.spell.shed(now);
        }
        Some(entry.item)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> u32 {
        self.slots.len()
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of a class wait.
    pub(crate) fn waiting(&self, priority: Priority) -> u32 {
        self.classes[class(priority)].waiting()
    }

    /// The mode at this moment.
    pub(crate) fn mode(&self, now: u64) -> LineMode {
        let mut spell = self.spell;
        spell.look(now, self.len());
        spell.mode()
    }

    /// For how long the oldest has waited; 0 where nobody waits. Scans the tables: for snapshots, not for each call.
    pub(crate) fn oldest_wait(&self, now: u64) -> u64 {
        let rows = self.classes.iter().filter(|class| class.waiting() > 0).flat_map(Tenants::rows);
        rows.map(|row| now.saturating_sub(self.slots[row.first()].arrived)).max().unwrap_or(0)
    }

    /// Other rules from now on. Those who wait keep their place and their time, even where there is place for fewer now.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.reserve.set(rules.reserve);
        self.spell.set_length(rules.burst_wait);
        self.rules = rules;
        self.fit_tables();
    }

    /// The moment when waiting is no use any more.
    fn until(&self, class: usize, deadline: Option<u64>, now: u64, service: u64) -> u64 {
        let burst = deadline.map_or(now.saturating_add(self.rules.burst_wait), |deadline| {
            let share = deadline.saturating_sub(now) as f64 * self.rules.burst_share;
            now.saturating_add(share as u64).min(deadline.saturating_sub(service))
        });
        match self.spell.mode() {
            LineMode::Burst => burst,
            LineMode::Standing => {
                let wait = self.rules.standing_wait[class];
                let wait = if self.bears_overload(class, now) { wait.min(self.rules.lowest_wait) } else { wait };
                burst.min(now.saturating_add(wait))
            }
        }
    }

    /// Whether no lower class asks for room: then it is this one that does not get all it asks for.
    fn bears_overload(&self, class: usize, now: u64) -> bool {
        self.asked[..class].iter().all(|&at| now.saturating_sub(at) >= self.rules.burst_wait)
    }

    /// How a row is served: in a standing line newest first, if it has itself not been empty for long, and its oldest has
    /// waited for a quarter of its time: those at the bottom are given up, so that the others are in time.
    ///
    /// That is for the lowest class that asks for room at all, which bears the overload. One above it gets all the room there is before that,
    /// so most likely it fits, and in order it is served in full: it is given half of its time to show that.
    fn order(&self, class: usize, row: &Row, now: u64) -> Order {
        if row.len() == 0 || !self.spell.stands(row, now) {
            return Order::Fifo;
        }
        let Entry { arrived, until, .. } = self.slots[row.first()];
        let patience = (until - arrived) / if self.bears_overload(class, now) { 4 } else { 2 };
        if now.saturating_sub(arrived) >= patience { Order::Lifo } else { Order::Fifo }
    }

    /// When the turn of an arrival is to be expected: after those before it. A little early, as the wait for the very next
    /// grant is left out: a call is refused for what is certain rather than for what is likely.
    fn expected(&self, class: usize, bucket: usize, now: u64, pace: Option<u64>) -> u64 {
        let Some(pace) = pace else { return now };
        let above: u32 = self.classes[class + 1..].iter().map(Tenants::waiting).sum();
        let before = match self.order(class, self.classes[class].row(bucket), now) {
            Order::Fifo => self.classes[class].row(bucket).len(),
            Order::Lifo => 0,
        };
        let beside = self.classes[class].beside(bucket, before) + before;
        now.saturating_add(pace.saturating_mul(u64::from(above + beside)))
    }

    /// Who leaves a full queue for an arrival: the oldest of the lowest class that waits, if that is lower. In its own class
    /// the arrival competes with the tenant that has most waiting, and if that is itself, those stay who would be served
    /// first: a tenant in order refuses the newest, one newest first sends away its oldest.
    ///
    /// The reserve needs a place, too. When a grant of the lowest class is due, its last one stays; and if one class has the
    /// whole queue, a lower one may push out one of it.
    fn victim(&self, class: usize, bucket: usize, now: u64) -> Option<u32> {
        if self.rules.max == 0 {
            return None;
        }
        let lowest = self.lowest()?;
        if lowest > class {
            let alone = self.classes[lowest].waiting() == self.len();
            return if alone && self.reserve.is_due() { Some(self.fullest(lowest)?.first()) } else { None };
        }
        let below: u32 = self.classes[..class].iter().map(Tenants::waiting).sum();
        if below > 1 || below == 1 && !self.reserve.is_due() {
            return Some(self.fullest(lowest)?.first());
        }
        let own = self.classes[class].row(bucket);
        let most = self.classes[class].most();
        match self.order(class, own, now) {
            Order::Fifo if most <= own.len() + 1 => None,
            Order::Lifo if most <= own.len() => Some(own.first()),
            _ => Some(self.fullest(class)?.first()),
        }
    }

    /// Of the tenants of a class with most waiting the one whose first came first.
    fn fullest(&self, class: usize) -> Option<&Row> {
        self.classes[class].fullest(|row| self.slots.order(row.first()))
    }

    /// The class whose turn it is.
    fn turn(&self) -> Option<usize> {
        if self.reserve.is_due() {
            self.lowest()
        } else {
            (0..CLASSES).rev().find(|&class| self.classes[class].waiting() > 0)
        }
    }

    fn lowest(&self) -> Option<usize> {
        (0..CLASSES).find(|&class| self.classes[class].waiting() > 0)
    }

    /// Sends away whoever's time is up, and looks what mode it is.
    fn settle(&mut self, now: u64, service: u64, out: &mut Vec<(T, Why)>) {
        while let Some(index) = self.expiry.first(now) {
            let late = self.slots[index].too_late(now, service);
            self.send_away(index, if late { Why::TooLate } else { Why::WaitedTooLong }, out);
            self.spell.shed(now);
        }
        self.spell.look(now, self.len());
    }

    fn enter(&mut self, entry: Entry<T>) -> Place {
        let Entry { class, bucket, until, arrived, .. } = entry;
        if self.is_empty() {
            self.spell.busy(arrived);
        }
        let index = self.slots.insert(entry);
        self.classes[class].enter(bucket, arrived, |row| self.slots.append(row, index));
        self.expiry.insert(until, index);
        Place { number: self.slots.number(index), until }
    }

    fn send_away(&mut self, index: u32, why: Why, out: &mut Vec<(T, Why)>) {
        out.push((self.take(index).item, why));
    }

    fn take(&mut self, index: u32) -> Entry<T> {
        let Entry { class, bucket, .. } = self.slots[index];
        self.classes[class].leave(bucket, |row| self.slots.unlink(row, index));
        self.expiry.remove(index);
        if self.shown == Some(index) {
            self.shown = None;
        }
        let entry = self.slots.release(index);
        if self.is_empty() {
            self.spell.idle();
            self.fit_tables();
        }
        entry
    }

    /// The tables of tenants in their new size: as soon as nobody is in the old ones.
    fn fit_tables(&mut self) {
        if self.is_empty() && self.classes[0].asked_for() != self.rules.tenants {
            self.classes = [(); CLASSES].map(|()| Tenants::new(self.rules.tenants));
        }
    }
}

/// The place of a class in our tables, the lowest first.
pub(crate) fn class(priority: Priority) -> usize {
    match priority {
        Priority::Sheddable => 0,
        Priority::Critical => 2,
        _ => 1,
    }
}
