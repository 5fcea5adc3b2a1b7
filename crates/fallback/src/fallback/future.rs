use super::{FallbackRule, LAYER, layer::Shared};
use crate::{
    Backup,
    mark::{Degrade, give},
};
use buttress_core::{Call, Cause, Degraded, DegradedBy, Lease, NoCut, Reason, Rejection};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tower_service::Service;

pin_project! {
    /// The future of [`AnswerService`](crate::AnswerService).
    pub struct AnswerFuture<S, B, W, K, Req>
    where
        S: Service<Req>,
        K: Call<S::Response, S::Error>,
        B: Backup<Req, S::Response, K::Answer>,
    {
        // First the service answers ...
        #[pin]
        inner: Option<S::Future>,
        // ... and where that is not good, the backup.
        #[pin]
        backup: Option<B::Future>,
        kept: Option<B::Kept>,
        call: Option<K>,
        shared: Option<Arc<Lease<Shared<B, W>>>>,
        cause: Cause,
        // What was there, in case that the backup has nothing. `None`: the service was not called.
        result: Option<Result<S::Response, S::Error>>,
    }
}

impl<S, B, W, K, Req> AnswerFuture<S, B, W, K, Req>
where
    S: Service<Req>,
    K: Call<S::Response, S::Error>,
    B: Backup<Req, S::Response, K::Answer>,
{
    /// A call that nobody stands in for.
    #[inline]
    pub(super) fn once(inner: S::Future, call: K) -> Self {
        Self { shared: None, kept: None, ..Self::of(Some(inner), call) }
    }

    #[inline(always)]
    pub(super) fn covered(inner: S::Future, call: K, kept: B::Kept, shared: Arc<Lease<Shared<B, W>>>) -> Self {
        Self { shared: Some(shared), kept: Some(kept), ..Self::of(Some(inner), call) }
    }

    /// A call that the backup alone answers.
    #[cold]
    pub(super) fn switched(shared: Arc<Lease<Shared<B, W>>>, call: K, req: &Req) -> Self {
        let kept = shared.backup.keep(req);
        let backup = shared.backup.answer(kept, Cause::Switched);
        Self { backup: Some(backup), shared: Some(shared), ..Self::of(None, call) }
    }

    #[inline(always)]
    fn of(inner: Option<S::Future>, call: K) -> Self {
        Self { inner, backup: None, kept: None, call: Some(call), shared: None, cause: Cause::Switched, result: None }
    }
}

const DONE: &str = "a future was polled after it had completed";

impl<S, B, W, K, Req> AnswerFuture<S, B, W, K, Req>
where
    S: Service<Req>,
    K: Degrade<S::Response, S::Error>,
    B: Backup<Req, S::Response, K::Answer>,
{
    /// What the backup answers. Apart from `poll`, so that calls without need of it do not carry it.
    #[cold]
    #[allow(clippy::type_complexity, reason = "what the future returns")]
    fn poll_backup(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<K::Response<(), NoCut>, S::Error>> {
        let mut this = self.project();
        let instead = ready!(this.backup.as_mut().as_pin_mut().expect(DONE).poll(cx));
        let call = this.call.take().expect(DONE);
        let (fallback, cause) = (&this.shared.as_ref().expect(DONE).fallback, *this.cause);
        let original = this.result.take();
        let pushback = original.as_ref().and_then(|original| call.judge(original.as_ref()).pushback);
        let call = match instead {
            None => call,
            Some(instead) => match give(call, instead, Degraded::new(DegradedBy::Fallback, cause), pushback) {
                Ok(answer) => {
                    // What it holds is free before anyone has the answer.
                    drop(original);
                    fallback.answered(cause);
                    return Poll::Ready(Ok(answer));
                }
                Err(call) => call,
            },
        };
        fallback.failed(cause);
        Poll::Ready(match original {
            Some(result) => call.finish(result, &mut None, NoCut),
            None => call.reject(Rejection::new(Reason::SwitchedOff, LAYER)),
        })
    }
}

impl<S, B, W, K, Req> Future for AnswerFuture<S, B, W, K, Req>
where
    S: Service<Req>,
    K: Degrade<S::Response, S::Error>,
    B: Backup<Req, S::Response, K::Answer>,
    W: FallbackRule<S::Response, S::Error>,
{
    type Output = Result<K::Response<(), NoCut>, S::Error>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.as_mut().project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            // Judged where it lies: a response moves once, into what this returns.
            let mut polled = inner.poll(cx);
            let result = match &mut polled {
                Poll::Ready(Ok(res)) => Ok(res),
                Poll::Ready(Err(error)) => Err(&*error),
                Poll::Pending => return Poll::Pending,
            };
            let call = this.call.as_ref().expect(DONE);
            let bad = this.shared.as_ref().and_then(|shared| {
                let seen = result.as_ref().map(|res| &**res).map_err(|error| *error);
                let cause = shared.fallback.decide(&call.judge(seen));
                cause.or_else(|| shared.rule.unwanted(seen).then_some(Cause::Unwanted))
            });
            let Some(cause) = bad.filter(|_| this.shared.as_ref().is_some_and(|shared| shared.fallback.enforces()))
            else {
                let tie = this.call.take().expect(DONE).tie(result, &mut None);
                return polled.map_ok(|res| K::bind(res, tie, NoCut));
            };
            let Poll::Ready(result) = polled else { return Poll::Pending };
            this.inner.set(None);
            *this.cause = cause;
            *this.result = Some(result);
            let shared = this.shared.as_ref().expect(DONE);
            this.backup.set(Some(shared.backup.answer(this.kept.take().expect(DONE), cause)));
        }
        self.poll_backup(cx)
    }
}

impl<S, B, W, K, Req> fmt::Debug for AnswerFuture<S, B, W, K, Req>
where
    S: Service<Req>,
    K: Call<S::Response, S::Error>,
    B: Backup<Req, S::Response, K::Answer>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerFuture").field("by_backup", &self.backup.is_some()).finish_non_exhaustive()
    }
}
