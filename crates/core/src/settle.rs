use crate::{Degraded, Outcome, Pushback};

/// What a call holds from its admission to its real end: a permit.
///
/// It is told of the call's phases and concluded at most once; [`settle`](Self::settle) concludes and lets go. Dropped
/// without a conclusion it means that the call was abandoned; the permit's `Drop` asks [`abandoned`](crate::abandoned) what that
/// says: a panic is a failure, so is a passed deadline of ours, anything else is [`Outcome::Ignored`].
///
/// | hook | when |
/// |---|---|
/// | [`pending`](Self::pending) | somebody waits for the answer: from here on the call takes time |
/// | [`pause`](Self::pause) | the call waits for its own client: what passes now is not the service's time |
/// | [`head`](Self::head) | nobody does any more: its latency ends with the response head. (gRPC: whoever asks for the first message waits again) |
/// | [`refused`](Self::refused), [`degraded`](Self::degraded), [`status`](Self::status) | what the answer is, for a permit that asks to be told |
/// | [`conclude`](Self::conclude) | its outcome is known |
/// | `Drop` | its real end: whatever is held is given back |
pub trait Settle: Send + 'static {
    /// The call was not ready when it was asked. May come more than once, and again after a [`pause`](Self::pause) or a
    /// [`head`](Self::head).
    #[inline]
    fn pending(&mut self) {}

    /// The call waits for the rest of its request, which its client has not sent. [`pending`](Self::pending) comes when it has the
    /// word again.
    #[inline]
    fn pause(&mut self) {}

    /// The call's latency ends here; its body goes on. May come more than once: the first one after a
    /// [`pending`](Self::pending) counts.
    #[inline]
    fn head(&mut self) {}

    /// Its time is over for good, with the head of an HTTP response or the first message of gRPC, and this is what its answer says
    /// so far. Follows [`head`](Self::head). A call whose body is over as soon as its head is there is not told of it: it is
    /// [concluded](Self::conclude) at once.
    #[inline]
    fn timed(&mut self, so_far: Outcome) {
        let _ = so_far;
    }

    /// Whether [`refused`](Self::refused) is told.
    const HEEDS_REFUSALS: bool = false;

    /// A layer further in refused the call: with an error, with a response that is marked as its [`Rejection`](crate::Rejection), or
    /// by an error that its body ends with. [`conclude`](Self::conclude) follows.
    fn refused(&mut self, rejection: crate::Rejection) {
        let _ = rejection;
    }

    /// Whether [`degraded`](Self::degraded) is told.
    const HEEDS_DEGRADED: bool = false;

    /// A layer further in gave this answer in place of the one that was asked for.
    fn degraded(&mut self, degraded: Degraded) {
        let _ = degraded;
    }

    /// Whether [`status`](Self::status) is told.
    const HEEDS_STATUS: bool = false;

    /// What the answer says of itself: its HTTP status when its head is there, its gRPC code when that is known.
    fn status(&mut self, status: Status) {
        let _ = status;
    }

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

/// The status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Of HTTP.
    Http(u16),
    /// The code of gRPC. An answer that ends without one counts as `INTERNAL`, as everywhere.
    Grpc(u8),
}

impl Status {
    /// gRPC's `RESOURCE_EXHAUSTED`. It is an [`Outcome::Overload`], but libraries also say it of a message that is too large: only with a pushback
    /// is it certain to speak of load.
    pub const RESOURCE_EXHAUSTED: Self = Self::Grpc(8);
}

/// Tells of a refusal, if that is asked for.
#[inline]
pub(crate) fn tell_refused<G: Settle>(guard: &mut Option<G>, rejection: Option<crate::Rejection>) {
    if G::HEEDS_REFUSALS
        && let (Some(guard), Some(rejection)) = (guard, rejection)
    {
        guard.refused(rejection);
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

/// Runs `poll`, and if it panics settles the permit as failed: whoever catches the panic may drop the call much later, and
/// without one.
#[inline]
pub(crate) fn or_fail<G: Settle, T>(guard: &mut Option<G>, poll: impl FnOnce() -> T) -> T {
    struct Fuse<'a, G: Settle>(&'a mut Option<G>);
    impl<G: Settle> Drop for Fuse<'_, G> {
        fn drop(&mut self) {
            settle_in_place(self.0, Outcome::Failure, None);
        }
    }
    let fuse = Fuse(guard);
    let polled = poll();
    std::mem::forget(fuse);
    polled
}

impl Settle for () {
    #[inline]
    fn conclude(&mut self, _: Outcome, _: Option<Pushback>) {}
}

/// Two permits as one. Each is told what either asks for.
impl<A: Settle, B: Settle> Settle for (A, B) {
    #[inline]
    fn pending(&mut self) {
        self.0.pending();
        self.1.pending();
    }
    #[inline]
    fn pause(&mut self) {
        self.0.pause();
        self.1.pause();
    }
    #[inline]
    fn head(&mut self) {
        self.0.head();
        self.1.head();
    }
    #[inline]
    fn timed(&mut self, so_far: Outcome) {
        self.0.timed(so_far);
        self.1.timed(so_far);
    }

    const HEEDS_REFUSALS: bool = A::HEEDS_REFUSALS || B::HEEDS_REFUSALS;

    #[inline]
    fn refused(&mut self, rejection: crate::Rejection) {
        self.0.refused(rejection);
        self.1.refused(rejection);
    }

    const HEEDS_DEGRADED: bool = A::HEEDS_DEGRADED || B::HEEDS_DEGRADED;

    #[inline]
    fn degraded(&mut self, degraded: Degraded) {
        self.0.degraded(degraded);
        self.1.degraded(degraded);
    }

    const HEEDS_STATUS: bool = A::HEEDS_STATUS || B::HEEDS_STATUS;

    #[inline]
    fn status(&mut self, status: Status) {
        self.0.status(status);
        self.1.status(status);
    }

    #[inline]
    fn conclude(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        self.0.conclude(outcome, pushback);
        self.1.conclude(outcome, pushback);
    }
}
