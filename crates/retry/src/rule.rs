/// What a user knows better than the protocol: which requests may be repeated, and which results are worth another attempt.
///
/// The values are [`ByTable`] (the default), [`Repeatable`], and every closure `Fn(Result<&Res, &Err>) -> bool`, which says whether
/// a result is worth another attempt:
///
/// ```
/// use buttress_core::Error;
/// use buttress_retry::{ResendLayer, RetryLayer};
/// # #[derive(Debug)] enum SqlError { Deadlock, Syntax }
/// # impl std::fmt::Display for SqlError { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
/// # impl std::error::Error for SqlError {}
///
/// let layer: ResendLayer<_, _> =
///     RetryLayer::default().when(|row: Result<&u64, &Error<SqlError>>| matches!(row, Err(Error::Inner(SqlError::Deadlock))));
/// # let _ = layer;
/// ```
///
/// Nothing that a rule says overrules the budget, the deadline, a pushback, the number of attempts, or a refusal of another layer that is
/// not to be retried.
pub trait RetryRule<Req, Res, Err>: Clone {
    /// Whether `req` may be sent again though it may have been processed the first time. `None`: what the protocol thinks. HTTP: by
    /// its method; opaque requests: only if [`worth_it`](Self::worth_it) says so of the result.
    fn repeatable(&self, req: &Req) -> Option<bool> {
        let _ = req;
        None
    }

    /// Whether `result` is worth another attempt. `None`: what the protocol's table says. `Some(true)` does not make a request
    /// repeatable that is not.
    fn worth_it(&self, result: Result<&Res, &Err>) -> Option<bool> {
        let _ = result;
        None
    }
}

/// What the protocol says. An opaque request is only sent again if nothing of it was processed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByTable;

impl<Req, Res, Err> RetryRule<Req, Res, Err> for ByTable {}

/// Every request may be repeated: idempotent queries, reads. Results are judged by the protocol: every error of an opaque service is
/// retried, unless it is a refusal that is not to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeatable;

impl<Req, Res, Err> RetryRule<Req, Res, Err> for Repeatable {
    #[inline]
    fn repeatable(&self, _: &Req) -> Option<bool> {
        Some(true)
    }
}

impl<Req, Res, Err, F: Fn(Result<&Res, &Err>) -> bool + Clone> RetryRule<Req, Res, Err> for F {
    #[inline]
    fn worth_it(&self, result: Result<&Res, &Err>) -> Option<bool> {
        Some(self(result))
    }
}
