//! Whose turn it is inside a class.
//!
//! A table of buckets, whatever the number of tenants. Turns are taken by start-time fair queueing (Goyal, Vin and Cheng,
//! SIGCOMM 1996), whose virtual time is a count of rounds here: a bucket is served once in a round, and one that comes back
//! starts at the present round, or at the one where its last grant ends. So nobody saves up turns while away, and nobody
//! gains any by leaving for a moment.
//!
//! A grant lasts one round; for a tenant that asks k times as often as the others do on average it lasts k, at most
//! [`DEAREST`]. With equal turns alone the others, each near its fair share, would wait behind the noisy one whenever
//! they come in twos and threes. What they leave is still the noisy one's, as rounds pass at once while nobody else waits.
//!
//! A tenant's hash says eight buckets, and it takes one of them that nobody waits in (a set-associative hash as in CAKE;
//! Høiland-Jørgensen, Täht and Morton, LANMAN 2018). So two tenants share a bucket, and its turns, only when nine of one set
//! wait at the same time; the smaller the table, the more do.
//!
//! A grant is a grant, however long the call then runs.

use super::slots::Row;
use std::collections::VecDeque;

/// How many rounds a grant lasts at most.
const DEAREST: u32 = 8;
/// The present round, and those that a grant now can last to.
const ROUNDS: u64 = DEAREST as u64 + 1;
/// Buckets that a tenant can choose from.
const WAYS: usize = 8;
/// A scan of more would not be short.
const MOST: u32 = 1024;
/// After so many questions per bucket, what is remembered of them is halved.
const MEMORY: u32 = 16;

/// The tenants of one class.
#[derive(Debug)]
pub(super) struct Tenants {
    buckets: Vec<Bucket>,
    /// Whose turn it is in this round (at `round % ROUNDS`) and in the next ones: each bucket at most once. One in which
    /// nobody waits any more is left in until it is met.
    rounds: [VecDeque<u16>; ROUNDS as usize],
    round: u64,
    waiting: u32,
    /// How many rows are so long, by their length, and how long the longest is: an arrival that finds the line full, as nearly all do in an
    /// overload, asks for that before it asks whose row it is.
    lengths: Vec<u32>,
    most: u32,
    /// What all buckets asked.
    demand: u32,
    /// Buckets that asked anything.
    active: u32,
    asked_for: u32,
}

#[derive(Clone, Debug)]
struct Bucket {
    row: Row,
    /// Who took it last.
    tenant: u64,
    /// Questions, halved now and then.
    demand: u32,
    /// The round in which it may be served again.
    start: u64,
    /// Whether it is in `rounds`.
    queued: bool,
}

impl Tenants {
    pub(super) fn new(asked_for: u32) -> Self {
        let buckets = match asked_for.clamp(1, MOST) as usize {
            few if few < WAYS => few,
            many => many / WAYS * WAYS,
        };
        let empty = Bucket { row: Row::EMPTY, tenant: 0, demand: 0, start: 0, queued: false };
        Self {
            buckets: vec![empty; buckets],
            rounds: Default::default(),
            round: 0,
            waiting: 0,
            lengths: vec![buckets as u32],
            most: 0,
            demand: 0,
            active: 0,
            asked_for,
        }
    }

    /// The size it was made with, before it was fitted.
    pub(super) fn asked_for(&self) -> u32 {
        self.asked_for
    }

    /// Buckets, and turns that are remembered.
    #[cfg(all(test, not(buttress_loom)))]
    pub(super) fn room(&self) -> usize {
        self.buckets.len() + self.rounds.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Whether the sums are those of the buckets.
    #[cfg(all(test, not(buttress_loom)))]
    pub(super) fn adds_up(&self) -> bool {
        let demands = self.buckets.iter().map(|bucket| bucket.demand);
        self.demand == demands.clone().sum::<u32>()
            && self.active as usize == demands.filter(|&demand| demand > 0).count()
            && self.waiting == self.rows().map(Row::len).sum::<u32>()
            && self.most == self.rows().map(Row::len).max().unwrap_or(0)
            && (0..).zip(&self.lengths).all(|(len, &rows)| {
                rows as usize == self.buckets.iter().filter(|bucket| bucket.row.len() == len).count()
            })
    }

    pub(super) fn waiting(&self) -> u32 {
        self.waiting
    }

    pub(super) fn row(&self, bucket: usize) -> &Row {
        &self.buckets[bucket].row
    }

    /// The rows in which somebody waits.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.buckets.iter().map(|bucket| &bucket.row).filter(|row| row.len() > 0)
    }

    /// A tenant asks for a place: which bucket is its own. Counted as its demand, whatever the answer will be.
    pub(super) fn asked(&mut self, tenant: u64) -> usize {
        let index = self.choose(tenant);
        let bucket = &mut self.buckets[index];
        if bucket.demand == 0 {
            self.active += 1;
        }
        bucket.demand += 1;
        self.demand += 1;
        if self.demand >= MEMORY * self.buckets.len() as u32 {
            self.forget();
        }
        index
    }

    fn choose(&mut self, tenant: u64) -> usize {
        // Fibonacci hashing: the caller's hash may be a plain number.
        let mixed = (tenant.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        let ways = self.buckets.len().min(WAYS);
        let sets = self.buckets.len() / ways;
        let set = mixed % sets * ways..(mixed % sets + 1) * ways;
        if let Some(own) = set.clone().find(|&index| self.buckets[index].tenant == tenant) {
            return own;
        }
        // Of those that nobody waits in the one that asks least, as it is best forgotten.
        let idle = set.clone().filter(|&index| self.buckets[index].row.len() == 0);
        let Some(index) = idle.min_by_key(|&index| self.buckets[index].demand) else {
            // Always the same one, or it would have the turns of them all.
            return set.start + mixed / sets % ways;
        };
        let bucket = &mut self.buckets[index];
        self.demand -= bucket.demand;
        self.active -= u32::from(bucket.demand > 0);
        (bucket.tenant, bucket.demand, bucket.start) = (tenant, 0, 0);
        index
    }

    fn forget(&mut self) {
        (self.demand, self.active) = (0, 0);
        for bucket in &mut self.buckets {
            bucket.demand /= 2;
            self.demand += bucket.demand;
            self.active += u32::from(bucket.demand > 0);
        }
    }

    /// How many of the others will be served before one that has so many of its own before it.
    pub(super) fn beside(&self, bucket: usize, before: u32) -> u32 {
        let turns = before + 1;
        let all = if (self.most.saturating_sub(turns) as usize) < self.buckets.len() {
            let longer = (turns + 1..=self.most).map(|len| (len - turns) * self.lengths[len as usize]);
            self.waiting - longer.sum::<u32>()
        } else {
            self.rows().map(|row| row.len().min(turns)).sum()
        };
        all - self.row(bucket).len().min(turns)
    }

    /// The row with most waiting; of several that whose first came first, by `order`.
    pub(super) fn fullest(&self, order: impl Fn(&Row) -> u64) -> Option<&Row> {
        self.rows().filter(|row| row.len() == self.most).min_by_key(|row| order(row))
    }

    /// How many wait in it.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// One more waits in a bucket; `append` puts it there.
    pub(super) fn enter(&mut self, bucket: usize, now: u64, append: impl FnOnce(&mut Row)) {
        if self.buckets[bucket].row.len() == 0 {
            self.buckets[bucket].row.since = now;
        }
        append(&mut self.buckets[bucket].row);
        self.waiting += 1;
        let len = self.buckets[bucket].row.len();
        if self.lengths.len() <= len as usize {
            self.lengths.resize(len as usize + 1, 0);
        }
        self.lengths[len as usize - 1] -= 1;
        self.lengths[len as usize] += 1;
        self.most = self.most.max(len);
        self.queue(bucket);
    }

    /// One less does; `unlink` takes it away.
    pub(super) fn leave(&mut self, bucket: usize, unlink: impl FnOnce(&mut Row)) {
        unlink(&mut self.buckets[bucket].row);
        self.waiting -= 1;
        let len = self.buckets[bucket].row.len();
        self.lengths[len as usize] += 1;
        self.lengths[len as usize + 1] -= 1;
        if self.lengths[self.most as usize] == 0 {
            self.most -= 1;
        }
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self) -> Option<&Row> {
        if self.waiting == 0 {
            return None;
        }
        loop {
            let turns = &mut self.rounds[(self.round % ROUNDS) as usize];
            match turns.front() {
                None => self.round += 1,
                Some(&bucket) if self.buckets[usize::from(bucket)].row.len() > 0 => {
                    return Some(&self.buckets[usize::from(bucket)].row);
                }
                Some(&bucket) => {
                    turns.pop_front();
                    self.buckets[usize::from(bucket)].queued = false;
                }
            }
        }
    }

    /// The first of the bucket whose turn it is was granted, and is about to leave.
    pub(super) fn granted(&mut self, bucket: usize) {
        self.buckets[bucket].start = self.round + u64::from(self.cost(bucket));
        let turns = &mut self.rounds[(self.round % ROUNDS) as usize];
        if turns.front().is_some_and(|&front| usize::from(front) == bucket) {
            turns.pop_front();
            self.buckets[bucket].queued = false;
            if self.buckets[bucket].row.len() > 1 {
                self.queue(bucket);
            }
        }
    }

    /// How many rounds its grant lasts: how often it asks for each time that the others do, on average.
    fn cost(&self, bucket: usize) -> u32 {
        let own = self.buckets[bucket].demand;
        let others = self.demand - own;
        let heads = self.active - u32::from(own > 0);
        // Where many wait, a turn comes seldom enough: more rounds would be longer than anybody waits.
        let dearest = (64 / heads.max(1)).clamp(1, DEAREST);
        (own * heads).checked_div(others).unwrap_or(1).clamp(1, dearest)
    }

    fn queue(&mut self, index: usize) {
        let bucket = &mut self.buckets[index];
        if !bucket.queued {
            bucket.queued = true;
            let round = bucket.start.max(self.round);
            self.rounds[(round % ROUNDS) as usize].push_back(index as u16);
        }
    }
}
