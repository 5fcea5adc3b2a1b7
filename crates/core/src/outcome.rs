use std::{fmt, num::NonZeroU32, time::Duration};

/// What a finished call says about the health of what is behind a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It works. A client's mistake (404) is a success, too: the service answered.
    Success,
    /// It does not.
    Failure,
    /// It works, and said "too much" (429, 503 with `Retry-After`).
    Overload,
    /// It says nothing about health: the caller gave up, or a layer of our own refused.
    Ignored,
}

impl Outcome {
    /// Every outcome, in the order of their discriminants.
    pub const ALL: [Outcome; 4] = [Self::Success, Self::Failure, Self::Overload, Self::Ignored];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Overload => "overload",
            Self::Ignored => "ignored",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a server says about coming back: after this long (`Retry-After`, `grpc-retry-pushback-ms`), or never.
///
/// Millisecond resolution, at most 49 days (longer waits are cut to that). Four bytes, as every response body carries one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pushback(NonZeroU32);

impl Pushback {
    /// Do not come back.
    pub const NEVER: Self = Self(NonZeroU32::MAX);

    /// Come back after `delay`, rounded up to a millisecond.
    pub fn after(delay: Duration) -> Self {
        let millis = delay.as_nanos().div_ceil(1_000_000);
        let stored = u32::try_from(millis).unwrap_or(u32::MAX - 2).min(u32::MAX - 2) + 1;
        Self(NonZeroU32::new(stored).unwrap_or(NonZeroU32::MIN))
    }

    /// How long to wait; `None`: never come back.
    pub fn delay(self) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_millis(u64::from(self.0.get() - 1)))
    }
}

impl fmt::Debug for Pushback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.delay() {
            Some(delay) => write!(f, "Pushback({delay:?})"),
            None => f.write_str("Pushback(never)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushback_rounds_up_and_keeps_zero_and_never_apart() {
        assert_eq!(Pushback::after(Duration::ZERO).delay(), Some(Duration::ZERO));
        assert_eq!(Pushback::after(Duration::from_micros(1)).delay(), Some(Duration::from_millis(1)));
        assert_eq!(Pushback::after(Duration::from_secs(7)).delay(), Some(Duration::from_secs(7)));
        assert_eq!(Pushback::NEVER.delay(), None);
        assert!(Pushback::after(Duration::MAX).delay().unwrap() > Duration::from_secs(49 * 86_400));
        assert_eq!(size_of::<Option<Pushback>>(), 4);
    }
}
