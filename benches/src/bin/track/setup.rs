//! The world that scenarios take place in: what they have in common, and what the command line may change.

use std::time::Duration;

/// An upstream, its clients and the times of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// Workers of the upstream.
    pub workers: u32,
    /// The mean service time.
    pub mean: Duration,
    /// How service times vary.
    pub dist: Dist,
    /// How long a client waits.
    pub timeout: Duration,
    /// What is offered before anything happens, over capacity.
    pub load: f64,
    /// Before anything happens.
    pub warm_up: Duration,
    /// What is looked at.
    pub measured: Duration,
    /// Scenario 4 takes less time, and seven more do with the median where the worst seed counts.
    pub quick: bool,
}

/// How service times vary around their mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dist {
    Exponential,
    /// With this standard deviation of the logarithm.
    Lognormal(f64),
    /// 90 % take half of the mean, 10 % five and a half times it.
    Bimodal,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            workers: 20,
            mean: Duration::from_millis(10),
            dist: Dist::Lognormal(1.0),
            timeout: Duration::from_millis(500),
            load: 0.7,
            warm_up: Duration::from_secs(12),
            measured: Duration::from_secs(48),
            quick: false,
        }
    }
}

impl Setup {
    /// Calls per second that keep all workers busy.
    pub fn capacity(&self) -> f64 {
        f64::from(self.workers) / self.mean.as_secs_f64()
    }

    /// The 99th percentile of the service time.
    pub fn service_p99(&self) -> Duration {
        self.mean.mul_f64(self.dist.p99())
    }

    /// How much longer everything takes than with the times the scenarios were written for: never less.
    pub fn stretch(&self) -> f64 {
        (self.mean.as_secs_f64() / Self::default().mean.as_secs_f64()).max(1.0)
    }

    /// The same, with times stretched to the mean and then cut so that no more than `most` calls are made at `load` (over
    /// capacity) on average. Returns what became of one second.
    pub fn fit(mut self, load: f64, most: f64) -> (Self, f64) {
        let calls = self.capacity() * load * (self.warm_up + self.measured).as_secs_f64() * self.stretch();
        let factor = self.stretch() * (most / calls).min(1.0);
        self.warm_up = self.warm_up.mul_f64(factor);
        self.measured = self.measured.mul_f64(factor);
        (self, factor)
    }

    /// What tells it from the default one, for a title.
    pub fn title(&self) -> String {
        format!("c={} mean={:?} {} timeout={:?}", self.workers, self.mean, self.dist, self.timeout)
    }
}

impl Dist {
    /// The 99th percentile over the mean.
    fn p99(self) -> f64 {
        const Z99: f64 = 2.326_347_874;
        match self {
            Self::Exponential => 100_f64.ln(),
            Self::Lognormal(sigma) => (sigma * Z99 - sigma * sigma / 2.0).exp(),
            Self::Bimodal => 5.5,
        }
    }
}

impl std::str::FromStr for Dist {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sigma = |text: &str| text.parse().ok().filter(|sigma: &f64| *sigma > 0.0 && *sigma <= 2.0);
        match text.split_once(':') {
            None if text == "exponential" => Ok(Self::Exponential),
            None if text == "bimodal" => Ok(Self::Bimodal),
            None if text == "lognormal" => Ok(Self::Lognormal(1.0)),
            Some(("lognormal", text)) if sigma(text).is_some() => Ok(Self::Lognormal(sigma(text).unwrap_or(1.0))),
            _ => Err("allowed: exponential, bimodal, lognormal (sigma 1), lognormal:SIGMA (more than 0, at most 2)".to_owned()),
        }
    }
}

impl std::fmt::Display for Dist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exponential => f.write_str("exponential"),
            Self::Lognormal(sigma) => write!(f, "lognormal:{sigma}"),
            Self::Bimodal => f.write_str("bimodal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_p99_is_that_of_its_distribution() {
        let p99 = |dist| Setup { dist, ..Setup::default() }.service_p99().as_secs_f64() * 1e3;
        assert!((p99(Dist::Lognormal(1.0)) - 62.1).abs() < 0.1);
        assert!((p99(Dist::Exponential) - 46.05).abs() < 0.01);
        assert!((p99(Dist::Bimodal) - 55.0).abs() < 1e-9);
    }

    #[test]
    fn a_run_is_stretched_to_its_mean_and_cut_to_so_many_calls() {
        let slow = Setup { workers: 4, mean: Duration::from_millis(100), ..Setup::default() };
        let (fitted, factor) = slow.fit(2.0, 2e6);
        assert_eq!((fitted.measured, factor), (Duration::from_secs(480), 10.0));
        let fast = Setup { workers: 200, mean: Duration::from_millis(1), ..Setup::default() };
        let (fitted, factor) = fast.fit(2.0, 2e6);
        assert!((factor - 1.0 / 12.0).abs() < 1e-9, "{factor}");
        assert_eq!(fitted.warm_up + fitted.measured, Duration::from_secs(5));
    }

    #[test]
    fn a_distribution_is_read_as_it_is_written() {
        for dist in [Dist::Exponential, Dist::Lognormal(0.6), Dist::Bimodal] {
            assert_eq!(dist.to_string().parse(), Ok(dist));
        }
        for text in ["lognormal:0", "lognormal:x", "normal", "lognormal:3"] {
            assert!(text.parse::<Dist>().unwrap_err().contains("lognormal:SIGMA"), "{text}");
        }
    }
}
