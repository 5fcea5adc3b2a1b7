//! How long a call takes without a queue, and how one tells.

/// A change of the first decile is believed in full from so many samples on.
pub(super) const SAMPLES: f64 = 150.0;
/// Calls may take longer by this for another mix of them.
pub(super) const SLOWER: f64 = 2.0;
/// A first look may be too short for all but the fastest: so much is needed before anything is known.
const LITTLE: f64 = 2.0;
/// What was learnt weighs at most as much as so many times [`SAMPLES`].
const MEMORY: f64 = 4.0;

/// How long calls take when none of them waits, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    /// The first decile.
    pub(super) low: f64,
    /// The mean of the fastest four fifths.
    pub(super) typical: f64,
    weight: f64,
}

impl Base {
    pub(super) fn new(seen: &Seen) -> Self {
        Self { low: seen.low, typical: seen.typical, weight: seen.samples / SAMPLES }
    }

    /// Whether too few calls were seen to know anything.
    pub(super) fn is_little(&self) -> bool {
        self.weight < LITTLE
    }

    /// Moves towards what a window says: in the beginning it is the mean of all, later an average that forgets, which a window
    /// moves by `share` of the way.
    pub(super) fn learn(&mut self, seen: &Seen, share: f64) {
        let weight = seen.samples / SAMPLES;
        let share = (weight / (self.weight + weight)).max(share.min(weight * share));
        self.weight = (self.weight + weight).min(MEMORY);
        self.low += share * (seen.low - self.low);
        self.typical += share * (seen.typical - self.typical);
    }

    /// Rises, slowly: what looks like slower calls may be a queue, and were it that of others. What may be chance is an average.
    pub(super) fn creep(&mut self, seen: &Seen, length: f64, noise: f64) {
        let time = if seen.low > noise * self.low { 60.0 } else { 10.0 };
        let weight = seen.samples / SAMPLES;
        let share = if self.is_little() { weight / (self.weight + weight) } else { (length / time).min(0.2) };
        self.weight = (self.weight + weight).min(MEMORY);
        self.low += share * (seen.low - self.low);
        self.typical += share * (seen.typical - self.typical);
    }

    /// How long calls wait, for all that `seen` says. In one queue all wait, and the fastest say it best. Where some never come to the queue, or there are
    /// many queues, the fastest know nothing of it: then it is what most take longer than twice as long as they should.
    pub(super) fn wait(&self, seen: &Seen) -> f64 {
        (seen.low - self.low).max(seen.typical - SLOWER * self.typical).max(0.0)
    }
}

/// What a window said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Under which limit.
    pub(super) limit: f64,
    /// Answers per second.
    pub(super) rate: f64,
    /// The first decile of the times of calls, in seconds.
    pub(super) low: f64,
    /// Their mean.
    pub(super) mean: f64,
    /// The mean of the fastest four fifths: that of all is chance where one in ten hangs.
    pub(super) typical: f64,
    pub(super) samples: f64,
}

impl Seen {
    /// How long to wait for calls to come back: one that took an hour says nothing of that.
    pub(super) fn trip(&self) -> f64 {
        self.mean.min(2.5 * self.typical)
    }

    /// Whether it was under such a limit, or nearly.
    pub(super) fn is_near(&self, limit: f64) -> bool {
        (self.limit / limit - 1.0).abs() <= 0.1
    }

    /// The same, and what the next window said. Of many before it the latest count.
    pub(super) fn and(&self, next: &Self) -> Self {
        let (before, n) = (self.samples.min(2.0 * SAMPLES), next.samples);
        let share = n / (before + n).max(1.0);
        let mean = |before: f64, next: f64| before + share * (next - before);
        Self {
            limit: mean(self.limit, next.limit),
            // So many calls, in the time of both.
            rate: 1.0 / mean(1.0 / self.rate.max(1e-9), 1.0 / next.rate.max(1e-9)),
            low: mean(self.low, next.low),
            mean: mean(self.mean, next.mean),
            typical: mean(self.typical, next.typical),
            samples: before + n,
        }
    }

    /// How much longer calls take `after` a change of the limit, and how much fewer they are, as a share of that change: 0.7 and more where
    /// they stand in a queue, -0.3 where they do not.
    ///
    /// By Little's law their typical time follows the limit, or the rate does; the first decile of a queue's times follows even more. The
    /// three together are less noisy than any of them.
    fn followed(&self, after: &Self) -> f64 {
        let ln = |a: f64, b: f64| (a.max(1e-9) / b.max(1e-9)).ln();
        let moved = ln(after.typical, self.typical) + ln(after.low, self.low) + ln(self.rate, after.rate);
        moved / 3.0 / ln(after.limit, self.limit)
    }

    /// Whether with fewer calls in flight there were as many answers, and sooner.
    pub(super) fn eased(&self, after: &Self) -> bool {
        after.limit < self.limit && self.followed(after) > 0.3
    }

    /// Whether with more calls in flight there were no more answers, and later.
    pub(super) fn waited(&self, after: &Self) -> bool {
        after.limit > self.limit && after.samples >= 5.0 && self.followed(after) > 0.2
    }

    /// Whether with more calls in flight there were as many more answers, and none later: without doubt.
    pub(super) fn gained(&self, after: &Self) -> bool {
        after.limit > self.limit && self.followed(after) < -0.1
    }

    /// Whether with fewer calls in flight there were as many fewer answers, and none sooner: without doubt.
    pub(super) fn lost(&self, after: &Self) -> bool {
        after.limit < self.limit && self.followed(after) < -0.1
    }

    /// Whether a limit that is much lower by now gives fewer answers, and none sooner.
    pub(super) fn starved(&self, after: &Self) -> bool {
        after.limit < 0.8 * self.limit && self.followed(after) < 0.0
    }
}
