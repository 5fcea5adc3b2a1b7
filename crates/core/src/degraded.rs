use crate::{Outcome, Rejection, Verdict};
use std::fmt;

/// An answer that is not the one that was asked for: whose it is, and why.
///
/// Over HTTP it is in the extensions of the response, and in its header [`x-degraded`](crate::http::X_DEGRADED): every degraded
/// answer is recognisable, by the layers further out ([`Settle::degraded`](crate::Settle::degraded)) and by whoever gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Degraded {
    /// Which kind of layer gave it.
    pub by: DegradedBy,
    /// Why.
    pub cause: Cause,
}

/// The kinds of layers that give degraded answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DegradedBy {
    /// A fallback: an answer made beforehand, computed, or of another service.
    Fallback,
    /// A stale store: an answer to an earlier request.
    Stale,
    /// A failover: the answer of a backup.
    Failover,
    /// A toggle: a feature is switched off.
    Toggle,
}

impl DegradedBy {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Fallback, Self::Stale, Self::Failover, Self::Toggle];

    /// The label in metrics, logs and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fallback => "fallback",
            Self::Stale => "stale",
            Self::Failover => "failover",
            Self::Toggle => "toggle",
        }
    }
}

/// Why there is a degraded answer in place of the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A layer further in refused the call.
    Refused(Rejection),
    /// The call failed.
    Failure,
    /// What was called said "too much".
    Overload,
    /// The answer was there, and is none that is accepted.
    Unwanted,
    /// An operator, a condition or a level switched it off: nothing was called.
    Switched,
    /// Too many calls before this one had failed: what they asked was not asked again.
    FailedOver,
    /// A degraded answer was good enough: what was called is asked in the background.
    Spared,
}

impl Cause {
    /// What a bad verdict is a cause of; `None` of a good one, and of one that says nothing.
    pub fn of(verdict: &Verdict) -> Option<Self> {
        match (verdict.rejection, verdict.outcome) {
            (Some(rejection), _) => Some(Self::Refused(rejection)),
            (None, Outcome::Failure) => Some(Self::Failure),
            (None, Outcome::Overload) => Some(Self::Overload),
            (None, _) => None,
        }
    }

    /// The label in metrics, logs and headers: the reason of a refusal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused(rejection) => rejection.reason().as_str(),
            Self::Failure => "failure",
            Self::Overload => "overload",
            Self::Unwanted => "unwanted",
            Self::Switched => "switched_off",
            Self::FailedOver => "failed_over",
            Self::Spared => "spared",
        }
    }
}

impl Degraded {
    /// An answer that `by` gave because of `cause`.
    pub const fn new(by: DegradedBy, cause: Cause) -> Self {
        Self { by, cause }
    }

    /// Marks `res` as such.
    #[cfg(feature = "http")]
    pub fn mark<B>(self, res: &mut http::Response<B>) {
        // Labels are tokens: a structured field (RFC 9651), an item with a parameter.
        if let Ok(value) = http::HeaderValue::try_from(self.to_string()) {
            res.headers_mut().insert(crate::http::X_DEGRADED, value);
        }
        res.extensions_mut().insert(self);
    }

    /// What `res` is marked as by a layer of this process.
    #[cfg(feature = "http")]
    pub fn of<B>(res: &http::Response<B>) -> Option<Self> {
        res.extensions().get().copied()
    }
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; cause={}", self.by.as_str(), self.cause.as_str())
    }
}

#[cfg(all(test, feature = "http", not(buttress_loom)))]
mod tests {
    use super::*;
    use crate::{Pushback, Reason};

    #[test]
    fn a_mark_is_read_by_machines_here_and_elsewhere() {
        let mut res = http::Response::new(());
        assert_eq!(Degraded::of(&res), None);
        let stale = Degraded::new(DegradedBy::Stale, Cause::Refused(Rejection::new(Reason::BreakerOpen, "breaker")));
        stale.mark(&mut res);
        assert_eq!(Degraded::of(&res), Some(stale));
        assert_eq!(res.headers()["x-degraded"], "stale; cause=breaker_open");
    }

    #[test]
    fn every_kind_stands_where_it_is_looked_up() {
        for (i, by) in DegradedBy::ALL.into_iter().enumerate() {
            assert_eq!(by as usize, i);
        }
    }

    #[test]
    fn only_what_is_bad_is_a_cause() {
        let cause = |outcome| Cause::of(&Verdict::new(outcome, None::<Pushback>));
        assert_eq!(cause(Outcome::Success), None);
        assert_eq!(cause(Outcome::Ignored), None);
        assert_eq!(cause(Outcome::Failure), Some(Cause::Failure));
        assert_eq!(cause(Outcome::Overload), Some(Cause::Overload));
        let shed = Rejection::new(Reason::Shed, "shed");
        assert_eq!(Cause::of(&Verdict::refused(shed)), Some(Cause::Refused(shed)));
    }
}
