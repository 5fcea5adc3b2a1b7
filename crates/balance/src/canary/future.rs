use super::CanaryPermit;
use buttress_core::{Call, GateFuture, NoCut, Settle};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tower_service::Service;

pin_project! {
    /// The future of [`CanaryService`](crate::CanaryService).
    pub struct CanaryFuture<S, C, K, Req>
    where
        S: Service<Req>,
        C: Service<Req>,
    {
        // First the service becomes ready, then its answer is waited for.
        start: Option<Start<S, C, K>>,
        req: Option<Req>,
        #[pin]
        call: Option<GateFuture<Running<S::Future, C::Future>, CanaryPermit, K>>,
    }
}

struct Start<S, C, K> {
    service: Chosen<S, C>,
    permit: CanaryPermit,
    call: K,
}

pub(super) enum Chosen<S, C> {
    Stable(S),
    Canary(C),
}

pin_project! {
    #[project = RunningProj]
    enum Running<F, G> {
        Stable { #[pin] future: F },
        Canary { #[pin] future: G },
    }
}

impl<F, G> Future for Running<F, G>
where
    F: Future,
    G: Future<Output = F::Output>,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            RunningProj::Stable { future } => future.poll(cx),
            RunningProj::Canary { future } => future.poll(cx),
        }
    }
}

impl<S: Service<Req>, C: Service<Req>, K, Req> CanaryFuture<S, C, K, Req> {
    #[inline]
    pub(super) fn new(service: Chosen<S, C>, req: Req, permit: CanaryPermit, call: K) -> Self {
        Self { start: Some(Start { service, permit, call }), req: Some(req), call: None }
    }
}

const DONE: &str = "a future was polled after it had completed";

impl<S, C, K, Req> Future for CanaryFuture<S, C, K, Req>
where
    S: Service<Req>,
    C: Service<Req, Response = S::Response, Error = S::Error>,
    K: Call<S::Response, S::Error>,
{
    type Output = Result<K::Response<CanaryPermit, NoCut>, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // Out of its place, so that a panic settles the permit where it passes.
        if let Some(mut start) = this.start.take() {
            let readiness = match &mut start.service {
                Chosen::Stable(service) => service.poll_ready(cx),
                Chosen::Canary(service) => service.poll_ready(cx),
            };
            match readiness {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    let verdict = start.call.judge(Err(&error));
                    verdict.rejection.into_iter().for_each(|rejection| start.permit.refused(rejection));
                    start.permit.settle(verdict.outcome, verdict.pushback);
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    start.permit.pending();
                    *this.start = Some(start);
                    return Poll::Pending;
                }
            }
            let Start { service, permit, call } = start;
            let req = this.req.take().expect(DONE);
            let future = match service {
                Chosen::Stable(mut service) => Running::Stable { future: service.call(req) },
                Chosen::Canary(mut service) => Running::Canary { future: service.call(req) },
            };
            this.call.set(Some(GateFuture::admitted(future, permit, call)));
        }
        this.call.as_pin_mut().expect(DONE).poll(cx)
    }
}

impl<S: Service<Req>, C: Service<Req>, K, Req> fmt::Debug for CanaryFuture<S, C, K, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CanaryFuture").field("called", &self.call.is_some()).finish_non_exhaustive()
    }
}
