use super::random::Stream;
use std::time::Duration;

/// How an upstream behaves: so many workers, first come, first served.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Model {
    /// How many calls it works on at once; all others wait in its queue. Default: 20.
    pub workers: u32,
    /// How long a call takes a worker, on average. Default: 10 ms.
    pub mean: Duration,
    /// How that varies. Default: log-normal with sigma 1.
    pub work: Work,
    /// Whether it stops working on calls whose callers have left. Default: it does not, which is the worst case and common.
    pub cancels: bool,
    /// How much slower it gets with what is inside: a call takes `1 + contention * (inside / workers - 1)` times as long as it
    /// should, where more calls are inside than there are workers. Default: 0.
    pub contention: f64,
    /// How many calls may wait; more are turned away. Default: no bound.
    pub queue: Option<u32>,
    /// The worker's time that turning a call away takes. Default: 0.
    pub rejection: Duration,
}

/// How the work of calls varies around its mean.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Work {
    /// Not at all.
    Fixed,
    /// Exponentially.
    Exponential,
    /// Log-normally, with this sigma (of the logarithm).
    Lognormal(f64),
    /// Nine of ten calls take half of the mean, the tenth 5.5 times the mean.
    Bimodal,
}

impl Model {
    /// The defaults with so many workers.
    pub fn new(workers: u32) -> Self {
        Self {
            workers,
            mean: Duration::from_millis(10),
            work: Work::Lognormal(1.0),
            cancels: false,
            contention: 0.0,
            queue: None,
            rejection: Duration::ZERO,
        }
    }

    buttress_core::setters! {
        /// Sets [`mean`](Self#structfield.mean).
        mean: Duration => mean;
        /// Sets [`work`](Self#structfield.work).
        work: Work => work;
        /// Sets [`cancels`](Self#structfield.cancels).
        cancels: bool => cancels;
        /// Sets [`contention`](Self#structfield.contention).
        contention: f64 => contention;
        /// Sets [`queue`](Self#structfield.queue).
        queue: u32 => Some(queue);
        /// Sets [`rejection`](Self#structfield.rejection).
        rejection: Duration => rejection;
    }

    pub(super) fn check(&self) {
        let contention = self.contention;
        assert!(contention.is_finite() && contention >= 0.0, "contention is finite and not negative: {contention}");
        if let Work::Lognormal(sigma) = self.work {
            assert!(sigma.is_finite() && sigma >= 0.0, "a log-normal's sigma is finite and not negative: {sigma}");
        }
    }

    /// How many calls it can do in a second.
    pub fn capacity(&self) -> f64 {
        f64::from(self.workers) / self.mean.as_secs_f64()
    }
}

impl Work {
    /// The work of one call; 1 is the mean.
    pub(super) fn draw(self, stream: &Stream) -> f64 {
        match self {
            Self::Fixed => 1.0,
            Self::Exponential => stream.exponential(),
            Self::Lognormal(sigma) => (sigma * stream.normal() - sigma * sigma / 2.0).exp(),
            Self::Bimodal if stream.uniform() < 0.9 => 0.5,
            Self::Bimodal => 5.5,
        }
    }

    /// The quantile `q` of the work of calls; 1 is the mean.
    pub fn quantile(self, q: f64) -> f64 {
        match self {
            Self::Fixed => 1.0,
            Self::Exponential => -(1.0 - q).ln(),
            Self::Lognormal(sigma) => (sigma * normal_quantile(q) - sigma * sigma / 2.0).exp(),
            Self::Bimodal if q <= 0.9 => 0.5,
            Self::Bimodal => 5.5,
        }
    }
}

/// The quantile of the normal distribution, by bisection of its distribution function (Abramowitz and Stegun, 26.2.17).
fn normal_quantile(q: f64) -> f64 {
    let below = |x: f64| {
        let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
        let poly =
            t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
        let tail = poly * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        if x > 0.0 { 1.0 - tail } else { tail }
    };
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if below(middle) < q { low = middle } else { high = middle }
    }
    low
}
