use crate::Clock;
use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// What one policy lets all others know, in two shared words: a breaker writes that it is open and until when, a limiter
/// that it is limited; a hedger, a balancer, a degradation level read it with one relaxed load.
///
/// A hint, not a lock: a reader may see it a moment late, so it saves work and never decides correctness.
#[derive(Clone)]
pub struct Signal(Arc<Words>);

struct Words {
    /// `[ pressure 16 | flags 16 ]`
    state: AtomicU32,
    /// Milliseconds since the origin.
    until: AtomicU64,
    origin: Instant,
}

impl Signal {
    /// A circuit is open.
    pub const OPEN: u16 = 1;
    /// A limiter is at its limit.
    pub const LIMITED: u16 = 2;
    /// An endpoint is ejected.
    pub const EJECTED: u16 = 4;

    /// A quiet signal. `now` is the origin of its times.
    pub fn new(now: Instant) -> Self {
        Self(Arc::new(Words { state: AtomicU32::new(0), until: AtomicU64::new(0), origin: now }))
    }

    /// Whether there is another clone of it: one that nobody else has is read by nobody.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Raises `flags`, until `until` (the next probe). An open circuit or an ejected endpoint for which that is not known stays
    /// so until it is cleared.
    pub fn raise(&self, flags: u16, until: Option<Instant>) {
        let millis = until.map(|until| until.saturating_duration_since(self.0.origin).as_millis());
        match millis {
            Some(millis) => self.0.until.store(u64::try_from(millis).unwrap_or(u64::MAX), Relaxed),
            None if flags & (Self::OPEN | Self::EJECTED) != 0 => self.0.until.store(u64::MAX, Relaxed),
            None => {}
        }
        self.0.state.fetch_or(u32::from(flags), Relaxed);
    }

    /// Takes `flags` back.
    pub fn clear(&self, flags: u16) {
        self.0.state.fetch_and(!u32::from(flags), Relaxed);
    }

    /// Whether any of `flags` is raised.
    #[inline]
    pub fn is(&self, flags: u16) -> bool {
        self.0.state.load(Relaxed) & u32::from(flags) != 0
    }

    /// When a raised flag is worth another look. `None` of an open circuit or an ejected endpoint is a moment that never comes.
    pub fn until(&self) -> Instant {
        let until = Duration::from_millis(self.0.until.load(Relaxed));
        self.0.origin.checked_add(until).unwrap_or(self.0.origin)
    }

    /// Whether a circuit is open, or an endpoint ejected, and not due yet. One that is due lets calls through, which find out what becomes of it: who
    /// kept them away as well would keep it open for ever. The clock is read only where it is raised.
    #[inline]
    pub fn is_shut(&self, clock: &impl Clock) -> bool {
        self.is(Self::OPEN | Self::EJECTED) && self.until() > clock.now()
    }

    /// Sets the pressure: 0 is none, 1 is all there can be; values outside are cut to that.
    pub fn set_pressure(&self, pressure: f32) {
        let scaled = (pressure.clamp(0.0, 1.0) * f32::from(u16::MAX)) as u32;
        let mut word = self.0.state.load(Relaxed);
        while let Err(seen) = self.0.state.compare_exchange_weak(word, word & 0xffff | scaled << 16, Relaxed, Relaxed) {
            word = seen;
        }
    }

    /// The pressure, from 0 to 1.
    pub fn pressure(&self) -> f32 {
        (self.0.state.load(Relaxed) >> 16) as f32 / f32::from(u16::MAX)
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal")
            .field("open", &self.is(Self::OPEN))
            .field("limited", &self.is(Self::LIMITED))
            .field("ejected", &self.is(Self::EJECTED))
            .field("pressure", &self.pressure())
            .finish()
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    #[test]
    fn flags_and_pressure_share_a_word_and_leave_each_other_alone() {
        let now = crate::TokioClock.now();
        let signal = Signal::new(now);
        let other = signal.clone();
        signal.raise(Signal::OPEN, Some(now + Duration::from_secs(3)));
        signal.set_pressure(0.5);
        assert!(other.is(Signal::OPEN) && !other.is(Signal::LIMITED));
        assert_eq!(other.until(), now + Duration::from_secs(3));
        assert!((other.pressure() - 0.5).abs() < 0.001);
        assert!(other.is_shut(&now) && !other.is_shut(&(now + Duration::from_secs(3))), "then it is due");
        let far = now + Duration::from_secs(100 * 86_400);
        signal.raise(Signal::OPEN, Some(far));
        assert_eq!(other.until(), far);
        signal.clear(Signal::OPEN);
        signal.set_pressure(f32::NAN);
        assert!(!other.is(Signal::OPEN) && other.pressure() < 0.001);
        signal.raise(Signal::LIMITED, None);
        assert_eq!(other.until(), far, "a limiter says nothing about the time");
        signal.raise(Signal::OPEN, None);
        assert!(other.until() > far + Duration::from_secs(1 << 40), "forced open: nobody knows until when");
    }
}
