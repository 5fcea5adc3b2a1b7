//! How long a call takes without a queue, and how one tells.

/// A change of the first decile is believed in full from so many samples on.
pub(super) const SAMPLES: f64 = 150.0;
/// What was learnt weighs at most as much as so many times [`SAMPLES`].
const MEMORY: f64 = 4.0;

/// The first decile of the times of calls, in seconds, when none of them waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    pub(super) low: f64,
    weight: f64,
}

impl Base {
    pub(super) fn new(low: f64, samples: f64) -> Self {
        Self { low, weight: samples / SAMPLES }
    }

    /// Moves towards what so many samples say: in the beginning it is their mean, later an average that forgets, which a window
    /// moves by `share` of the way.
    pub(super) fn learn(&mut self, low: f64, samples: f64, share: f64) {
        let weight = samples / SAMPLES;
        let share = (weight / (self.weight + weight)).max(share.min(weight * share));
        self.weight = (self.weight + weight).min(MEMORY);
        self.low += share * (low - self.low);
    }

    /// Rises, slowly: what looks like slower calls may be a queue.
    pub(super) fn creep(&mut self, low: f64, samples: f64) {
        self.low += 0.02 * (samples / SAMPLES).min(1.0) * (low - self.low);
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
}
