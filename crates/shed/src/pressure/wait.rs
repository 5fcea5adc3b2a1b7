use super::Source;
use buttress_core::{
    ConfigError,
    sync::{AtomicU64, Ordering::Relaxed},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long calls wait, as somebody says: the longest wait since the last look, of a time that is all the pressure there can be. Clones are handles
/// of the same.
///
/// Where nobody says anything nobody waited: so a queue whose calls are all refused does not keep them out for ever. What was said before a lull (nobody has
/// looked for 5 s, or for two [intervals](super::PressureConfig::every)) is forgotten: the first call after it meets no queue of long ago.
///
/// ```
/// use buttress_shed::pressure::{PressureConfig, QueueWait};
/// use std::time::Duration;
///
/// let waits = QueueWait::new(Duration::from_millis(200))?;
/// let pressure = PressureConfig::default().build()?;
/// pressure.source("queue", waits.clone());
///
/// waits.observe(Duration::from_millis(150));
/// assert!((pressure.current() - 0.75).abs() < 0.001);
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct QueueWait {
    /// In nanoseconds.
    longest: Arc<AtomicU64>,
    full: Duration,
}

impl QueueWait {
    /// A wait of `full` is all the pressure there can be.
    ///
    /// # Errors
    ///
    /// No time at all.
    pub fn new(full: Duration) -> Result<Self, ConfigError> {
        if full.is_zero() {
            return Err(ConfigError::duration("full", full, "more than 0"));
        }
        Ok(Self { longest: Arc::new(AtomicU64::new(0)), full })
    }

    /// A call has waited so long. A short wait after a long one costs a load.
    #[inline]
    pub fn observe(&self, wait: Duration) {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        if nanos > self.longest.load(Relaxed) {
            self.longest.fetch_max(nanos, Relaxed);
        }
    }
}

impl Source for QueueWait {
    fn look(&mut self, _: Instant) -> Option<f64> {
        let longest = Duration::from_nanos(self.longest.swap(0, Relaxed));
        Some(longest.as_secs_f64() / self.full.as_secs_f64())
    }

    fn forget(&mut self) {
        self.longest.store(0, Relaxed);
    }
}
