use std::time::{Duration, Instant};

/// Where `now` comes from. Policies take a clock as an argument and read it only when a decision depends on it.
///
/// An [`Instant`] is a clock that stands still, so a test passes the time itself:
///
/// ```
/// use buttress_core::Clock;
/// # fn epoch() -> std::time::Instant { tokio::time::Instant::now().into_std() }
/// fn is_late(due: std::time::Instant, clock: &impl Clock) -> bool {
///     clock.now() > due
/// }
/// let t0 = epoch();
/// assert!(!is_late(t0, &t0));
/// ```
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Instant;
}

impl Clock for Instant {
    #[inline]
    fn now(&self) -> Instant {
        *self
    }
}

/// Tokio's clock: the real one, or the paused one of a `start_paused` test. Works outside a runtime, too.
#[cfg(feature = "tokio")]
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioClock;

#[cfg(feature = "tokio")]
impl Clock for TokioClock {
    #[inline]
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// The moment a policy was made; its atomics store nanoseconds since then (584 years fit).
#[derive(Clone, Copy, Debug)]
pub struct Origin(Instant);

impl Origin {
    /// Time begins now.
    pub fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Nanoseconds from the origin to `now`; 0 for a moment before it.
    #[inline]
    pub fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.0);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos()))
    }

    /// The moment that lies `nanos` after the origin.
    pub fn at(&self, nanos: u64) -> Instant {
        self.0 + Duration::from_nanos(nanos)
    }
}
