use super::{LAYER, TogglePermit};
use crate::{
    Instead,
    mark::{Degrade, give},
};
use buttress_core::{Cause, Degraded, DegradedBy, GateFuture, NoCut, Reason, Rejection};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

pin_project! {
    /// The future of [`SwitchService`](super::SwitchService).
    pub struct SwitchFuture<F, A, K> {
        #[pin]
        way: Way<F, A, K>,
    }
}

pin_project! {
    #[project = WayProj]
    enum Way<F, A, K> {
        On { #[pin] call: GateFuture<F, TogglePermit, K> },
        Off { #[pin] answer: A, call: Option<K> },
    }
}

impl<F, A, K> SwitchFuture<F, A, K> {
    #[inline]
    pub(super) fn on(inner: F, permit: TogglePermit, call: K) -> Self {
        Self { way: Way::On { call: GateFuture::admitted(inner, permit, call) } }
    }

    pub(super) fn off(answer: A, call: K) -> Self {
        Self { way: Way::Off { answer, call: Some(call) } }
    }
}

const DONE: &str = "a future was polled after it had completed";

impl<F, A, K, Res, Err> Future for SwitchFuture<F, A, K>
where
    F: Future<Output = Result<Res, Err>>,
    K: Degrade<Res, Err>,
    A: Future<Output = Option<Instead<Res, K::Answer>>>,
{
    type Output = Result<K::Response<TogglePermit, NoCut>, Err>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().way.project() {
            WayProj::On { call } => call.poll(cx),
            WayProj::Off { answer, call } => {
                let instead = ready!(answer.poll(cx));
                let call = call.take().expect(DONE);
                let given = match instead {
                    Some(instead) => give(call, instead, Degraded::new(DegradedBy::Toggle, Cause::Switched), None),
                    None => Err(call),
                };
                Poll::Ready(given.or_else(|call| call.reject(Rejection::new(Reason::SwitchedOff, LAYER))))
            }
        }
    }
}

impl<F, A, K> fmt::Debug for SwitchFuture<F, A, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwitchFuture").field("on", &matches!(self.way, Way::On { .. })).finish_non_exhaustive()
    }
}
