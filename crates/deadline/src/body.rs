use crate::{
    future::has_fired,
    policy::{Limit, Plan, SharedLease},
};
use buttress_core::{
    BoxError, Clock, Cut, Rejection, TokioClock,
    http::{CutBody, Piece, ResponseBody},
};
use http_body::SizeHint;
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::Sleep;

/// Ends a response body at its deadline, or when it makes no progress.
pub struct Cutoff {
    plan: Plan,
    lease: SharedLease,
}

impl Cutoff {
    #[inline]
    pub(crate) fn new(plan: Plan, lease: SharedLease) -> Self {
        Self { plan, lease }
    }
}

impl fmt::Debug for Cutoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cutoff").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Cut for Cutoff {
    type Body<B>
        = Covered<B>
    where
        B: ResponseBody;

    fn cover<B: ResponseBody>(self, body: B) -> Covered<B> {
        Covered { body }
    }
}

pin_project! {
    /// A response body under a deadline.
    pub struct Covered<B> {
        #[pin]
        body: B,
    }
}

impl<B: ResponseBody> CutBody<B> for Covered<B> {
    type Error = BoxError;

    fn poll_piece(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Piece<B::Error>> {
        self.project().body.poll_frame(cx).map(Piece::Frame)
    }
    fn cut_error(rejection: Rejection) -> BoxError {
        rejection.into()
    }
    fn inner_error(error: B::Error) -> BoxError {
        error.into()
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
