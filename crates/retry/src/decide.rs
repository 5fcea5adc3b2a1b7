//! Whether a failed attempt is followed by another one. No I/O: time is an argument, a decision comes out.

use crate::{backoff::Step, retry::Shared};
use buttress_core::{Clock, Denied, Lost, Token};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// How far a call is: how often it was sent, and where it is in its sequence of back-offs.
#[derive(Debug)]
pub struct Course {
    made: u32,
    step: Step,
    committed: bool,
}

impl Default for Course {
    fn default() -> Self {
        Self::new()
    }
}

impl Course {
    /// A call that is being sent for the first time.
    pub const fn new() -> Self {
        Self { made: 1, step: Step::NEW, committed: false }
    }

    /// How often it was sent.
    pub fn attempts(&self) -> u32 {
        self.made
    }

    /// Something of a response went to the caller: there is no way back.
    pub fn commit(&mut self) {
        self.committed = true;
    }
}

/// What is wrong with an attempt that is worth another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Nothing of the request was processed: a connection that was refused, a stream that was.
    Unsent,
    /// An error in place of a response.
    Error,
    /// A status that the config lists.
    Status,
    /// A gRPC code that the config lists.
    Grpc,
    /// A server that said when to come back.
    Overload,
    /// One endpoint refused it (its circuit is open, it is full), and there are others.
    Refused,
    /// The deadline of one attempt passed.
    TimedOut,
    /// The user's rule said so.
    Rule,
}

impl Cause {
    /// Every cause, in the order of their discriminants.
    pub const ALL: [Cause; 8] = [
        Self::Unsent,
        Self::Error,
        Self::Status,
        Self::Grpc,
        Self::Overload,
        Self::Refused,
        Self::TimedOut,
        Self::Rule,
    ];

    /// The label in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "unsent",
            Self::Error => "error",
            Self::Status => "status",
            Self::Grpc => "grpc",
            Self::Overload => "overload",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Rule => "rule",
        }
    }
}

/// What the server says about the time of the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: the back-off decides.
    Backoff,
    /// Not before (`Retry-After`): the back-off comes on top, so that those who were told the same do not come back together.
    AtLeast(Duration),
    /// Then (`grpc-retry-pushback-ms`), and the back-offs begin anew.
    Exactly(Duration),
    /// Never.
    Never,
}

/// What becomes of a call after a failed attempt.
#[derive(Debug)]
pub enum Decision<A = ()> {
    /// It is sent again.
    Retry {
        /// So long from now.
        after: Duration,
        /// What pays for it: held to the end of that attempt.
        token: Token,
        /// The request to send.
        attempt: A,
    },
    /// The caller gets what there is.
    GiveUp(Why),
}

/// Why a bad result was not followed by another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// Another attempt would not change it, or must not be made.
    NotRetryable,
    /// The request may have been processed, and must not be twice.
    NotRepeatable,
    /// The user's rule said so.
    Declined,
    /// A response has begun to go to the caller.
    Committed,
    /// It was sent as often as it may be.
    Attempts,
    /// The server said: never.
    PushedBack,
    /// The server asked for more time than `max_retry_after`.
    TooLong,
    /// The next attempt would not fit before the deadline.
    Deadline,
    /// The body was larger than what is kept of one, and has been sent.
    BodyTooLarge,
    /// The body failed.
    BodyFailed,
    /// First attempts have not paid for it.
    BudgetEmpty,
    /// As many retries as the budget allows are under way.
    BudgetConcurrent,
    /// An operator closed the budget.
    BudgetClosed,
    /// An operator told the layer to observe only: it would have been sent again.
    Observed,
}

impl Why {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Why; 14] = [
        Self::NotRetryable,
        Self::NotRepeatable,
        Self::Declined,
        Self::Committed,
        Self::Attempts,
        Self::PushedBack,
        Self::TooLong,
        Self::Deadline,
        Self::BodyTooLarge,
        Self::BodyFailed,
        Self::BudgetEmpty,
        Self::BudgetConcurrent,
        Self::BudgetClosed,
        Self::Observed,
    ];

    /// The label in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRetryable => "not_retryable",
            Self::NotRepeatable => "not_repeatable",
            Self::Declined => "declined",
            Self::Committed => "committed",
            Self::Attempts => "attempts",
            Self::PushedBack => "pushed_back",
            Self::TooLong => "retry_after_too_long",
            Self::Deadline => "deadline",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyFailed => "body_failed",
            Self::BudgetEmpty => "budget_empty",
            Self::BudgetConcurrent => "budget_concurrent",
            Self::BudgetClosed => "budget_closed",
            Self::Observed => "observed",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Denied> for Why {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Concurrent => Self::BudgetConcurrent,
            Denied::ForcedOpen => Self::BudgetClosed,
            _ => Self::BudgetEmpty,
        }
    }
}

impl From<Lost> for Why {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::TooLarge => Self::BodyTooLarge,
            _ => Self::BodyFailed,
        }
    }
}

/// What further attempts are made of.
pub(crate) trait Again {
    type Attempt;

    /// Why none can be made, as far as is known.
    fn lost(&self) -> Option<Why>;

    /// A further attempt, after so many. It ends the one before.
    fn again(&mut self, attempt: u32) -> Option<Self::Attempt>;
}

/// Whoever only asks for the decision.
impl Again for () {
    type Attempt = ();

    fn lost(&self) -> Option<Why> {
        None
    }

    fn again(&mut self, _: u32) -> Option<()> {
        Some(())
    }
}

impl Shared {
    /// Decides. What costs nothing is asked first, then the budget: a token is taken only for an attempt that nothing else forbids. The
    /// attempt is made last, as it ends the one before, whose response is what the caller gets of any other decision.
    pub(crate) fn decide<K: Again>(
        &self,
        course: &mut Course,
        (cause, wait): (Cause, Wait),
        deadline: Option<Instant>,
        clock: &impl Clock,
        mut kept: K,
    ) -> Decision<K::Attempt> {
        let decided = self.plan(course, wait, deadline, clock).and_then(|after| {
            kept.lost().map_or(Ok(()), Err)?;
            let token = self.budget.withdraw(clock)?;
            if !self.mode.enforces() {
                return Err(Why::Observed);
            }
            match kept.again(course.made) {
                Some(attempt) => Ok((after, attempt, token)),
                // The body ran past the cap meanwhile.
                None => Err(kept.lost().unwrap_or(Why::BodyFailed)),
            }
        });
        match decided {
            Ok((after, attempt, token)) => {
                self.retrying(cause, course.made, after);
                course.made += 1;
                Decision::Retry { after, token, attempt }
            }
            Err(why) => {
                self.gave_up(why, course.made);
                Decision::GiveUp(why)
            }
        }
    }

    /// When the next attempt is to be made, if nothing but the budget can be against it.
    fn plan(
        &self,
        course: &mut Course,
        wait: Wait,
        deadline: Option<Instant>,
        clock: &impl Clock,
    ) -> Result<Duration, Why> {
        let rules = self.rules();
        if course.committed {
            return Err(Why::Committed);
        }
        if course.made >= rules.max_attempts {
            return Err(Why::Attempts);
        }
        let asked = match wait {
            Wait::Never => return Err(Why::PushedBack),
            Wait::Backoff => Duration::ZERO,
            Wait::AtLeast(asked) | Wait::Exactly(asked) => asked,
        };
        if asked > rules.max_retry_after {
            return Err(Why::TooLong);
        }
        let after = match wait {
            Wait::Exactly(asked) => {
                course.step.restart();
                asked
            }
            _ => asked + course.step.next(rules.backoff, self.draw.draw()),
        };
        let Some(deadline) = deadline else { return Ok(after) };
        let left = deadline.saturating_duration_since(clock.now()).saturating_sub(rules.min_attempt);
        match wait {
            _ if after < left => Ok(after),
            // The server's own time would do; what was put on top of it would not.
            Wait::AtLeast(asked) if asked < left => Ok(asked),
            _ => Err(Why::Deadline),
        }
    }
}
