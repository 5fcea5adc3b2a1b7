/// What a user knows better than the protocol: which answers are none, and which requests two tiers may process.
///
/// The values are [`ByVerdict`] (the default), and every closure `Fn(Result<&Res, &Err>) -> bool`, the acceptance test of a
/// recovery block: whether a result is one for the caller. It sees what the protocol has nothing against, before anybody has read the body:
///
/// ```
/// use buttress_core::Error;
/// use buttress_fallback::{FailoverConfig, FailoverLayer};
/// # let backup = ();
/// let layer = FailoverConfig::default()
///     .backup("b", backup)
///     .build()?
///     .accept(|rows: Result<&Vec<u64>, &Error<std::io::Error>>| rows.is_ok_and(|rows| !rows.is_empty()));
/// # let _: FailoverLayer<(), buttress_core::Opaque, _> = layer;
/// # Ok::<_, buttress_fallback::ConfigError>(())
/// ```
pub trait FailoverRule<Req, Res, Err>: Clone {
    /// Whether `req` may go to another tier though one may have processed it. `None`: what the protocol thinks. HTTP: by its method; opaque requests: no. A request
    /// that opens a tunnel, or has an `Idempotency-Key` and no idempotent method, goes to one tier whatever is said here.
    fn repeatable(&self, req: &Req) -> Option<bool> {
        let _ = req;
        None
    }

    /// Whether `result`, in which the protocol finds nothing bad, is one for the caller.
    fn accepts(&self, result: Result<&Res, &Err>) -> bool {
        let _ = result;
        true
    }
}

/// What the protocol says.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByVerdict;

impl<Req, Res, Err> FailoverRule<Req, Res, Err> for ByVerdict {}

impl<Req, Res, Err, F: Fn(Result<&Res, &Err>) -> bool + Clone> FailoverRule<Req, Res, Err> for F {
    #[inline]
    fn accepts(&self, result: Result<&Res, &Err>) -> bool {
        self(result)
    }
}
