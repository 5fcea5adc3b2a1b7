//! The world that scenarios take place in: what they have in common, and what the command line may change.

use buttress_sim::world::Work;
use std::time::Duration;

/// An upstream, its clients and the times of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// Workers of the upstream.
    pub workers: u32,
    /// The mean service time.
    pub mean: Duration,
    /// How service times vary.
    pub work: Work,
    /// How long a client waits.
    pub timeout: Duration,
    /// Sheddable, normal, critical, in every scenario. `None`: as each of them says.
    pub classes: Option<[f64; 3]>,
    /// What is offered before anything happens, over capacity.
    pub load: f64,
    /// Before anything happens.
    pub warm_up: Duration,
    /// What is looked at.
    pub measured: Duration,
    /// Scenario 4 takes less time, and the median counts where the worst seed would.
    pub quick: bool,
    /// How many calls a bin of a series must see come before anything happens, for times to be read from it; fewer, but fifty at
    /// least, where the bin would be wider than a time that is asked for.
    pub bin_calls: f64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            workers: 20,
            mean: Duration::from_millis(10),
            work: Work::Lognormal(1.0),
            timeout: Duration::from_millis(500),
            classes: None,
            load: 0.7,
            warm_up: Duration::from_secs(12),
            measured: Duration::from_secs(48),
            quick: false,
            bin_calls: 50.0,
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
        self.mean.mul_f64(self.work.quantile(0.99))
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
        format!("c={} mean={:?} {} timeout={:?}", self.workers, self.mean, work_name(self.work), self.timeout)
    }
}

/// Reads the shares of critical, normal and sheddable calls, in percent. They come back in the order of a story: the last class first.
pub fn parse_classes(text: &str) -> Result<[f64; 3], String> {
    let wrong =
        || "allowed: the percentages of critical, normal and sheddable calls, 100 in all, as in 20,30,50".to_owned();
    let shares: Vec<f64> =
        text.split(',').map(|share| share.trim().parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    match shares[..] {
        [critical, normal, sheddable]
            if shares.iter().all(|share| *share >= 0.0) && (shares.iter().sum::<f64>() - 100.0).abs() < 1e-6 =>
        {
            Ok([sheddable / 100.0, normal / 100.0, critical / 100.0])
        }
        _ => Err(wrong()),
    }
}

/// Reads how service times vary, as it is written on the command line.
pub fn parse_work(text: &str) -> Result<Work, String> {
    let sigma = |text: &str| text.parse().ok().filter(|sigma: &f64| *sigma > 0.0 && *sigma <= 2.0);
    let lognormal = text.strip_prefix("lognormal:").and_then(sigma);
    match text {
        "fixed" => Ok(Work::Fixed),
        "exponential" => Ok(Work::Exponential),
        "bimodal" => Ok(Work::Bimodal),
        "lognormal" => Ok(Work::Lognormal(1.0)),
        _ => lognormal.map(Work::Lognormal).ok_or_else(|| {
            "allowed: fixed, exponential, bimodal, lognormal (sigma 1), lognormal:SIGMA (more than 0, at most 2)"
                .to_owned()
        }),
    }
}

/// Writes it so that [`parse_work`] reads the same.
pub fn work_name(work: Work) -> String {
    match work {
        Work::Lognormal(sigma) => format!("lognormal:{sigma}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_p99_is_that_of_its_distribution() {
        let p99 = |work| Setup { work, ..Setup::default() }.service_p99().as_secs_f64() * 1e3;
        assert!((p99(Work::Lognormal(1.0)) - 62.1).abs() < 0.1);
        assert!((p99(Work::Exponential) - 46.05).abs() < 0.01);
        assert!((p99(Work::Bimodal) - 55.0).abs() < 1e-3);
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
        for work in [Work::Fixed, Work::Exponential, Work::Lognormal(0.6), Work::Bimodal] {
            assert_eq!(parse_work(&work_name(work)), Ok(work));
        }
        for text in ["lognormal:0", "lognormal:x", "normal", "lognormal:3"] {
            assert!(parse_work(text).unwrap_err().contains("lognormal:SIGMA"), "{text}");
        }
    }
}
