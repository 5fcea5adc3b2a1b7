use crate::{Outcome, Pushback};

/// What a call holds from its admission to its real end: a permit.
///
/// It is told of the call's phases and concluded at most once; [`settle`](Self::settle) concludes and lets go. Dropped
/// without a conclusion it means that the call was abandoned; the permit's `Drop` asks [`abandoned`](crate::abandoned) what that
/// says: a panic is a failure, so is a passed deadline of ours, anything else is [`Outcome::Ignored`].
///
/// | hook | when |
/// |---|---|
/// | [`pending`](Self::pending) | the first time the call is not ready: from here on it takes time |
/// | [`head`](Self::head) | its latency ends: the response head (HTTP), the first message or the end (gRPC), the end (any other call) |
/// | [`conclude`](Self::conclude) | its outcome is known |
/// | `Drop` | its real end: whatever is held is given back |
pub trait Settle: Send + 'static {
    /// The call was not ready when it was first asked.
    #[inline]
    fn pending(&mut self) {}

    /// The call's latency ends here; its body goes on. May come more than once: the first one counts.
    #[inline]
    fn head(&mut self) {}

    /// The call's outcome. Comes at most once; what is held is kept until the drop (an upgraded connection goes on).
    fn conclude(&mut self, outcome: Outcome, pushback: Option<Pushback>);

    /// The call's real end.
    #[inline]
    fn settle(mut self, outcome: Outcome, pushback: Option<Pushback>)
    where
        Self: Sized,
    {
        self.conclude(outcome, pushback);
    }
}

/// [`Settle::settle`] without moving the permit.
#[inline]
pub(crate) fn settle_in_place<G: Settle>(guard: &mut Option<G>, outcome: Outcome, pushback: Option<Pushback>) {
    if let Some(guard) = guard {
        guard.conclude(outcome, pushback);
    }
    *guard = None;
}

impl Settle for () {
    #[inline]
    fn conclude(&mut self, _: Outcome, _: Option<Pushback>) {}
}

/// Two permits as one.
impl<A: Settle, B: Settle> Settle for (A, B) {
    #[inline]
    fn pending(&mut self) {
        self.0.pending();
        self.1.pending();
    }
    #[inline]
    fn head(&mut self) {
        self.0.head();
        self.1.head();
    }
    #[inline]
    fn conclude(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        self.0.conclude(outcome, pushback);
        self.1.conclude(outcome, pushback);
    }
}
