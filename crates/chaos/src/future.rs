use crate::{Decision, LAYER, cut::Cutting, imitate::Imitated, plan::End};
use buttress_core::{Reason, Rejection};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Sleep, sleep};
use tower_service::Service;

pin_project! {
    /// The future of [`ChaosService`](crate::ChaosService).
    pub struct ChaosFuture<S, K, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        inner: Option<S::Future>,
        // In a box, so that calls that nothing happens to do not move it.
        held: Option<Box<Held<S, Req>>>,
        cut: Option<u64>,
        call: Option<K>,
    }
}

/// A call that does not go on at once, or not at all.
struct Held<S, Req> {
    service: S,
    req: Req,
    delay: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    end: Option<End>,
}

impl<S, Req> Held<S, Req> {
    /// Until its delay is over.
    fn poll_delay(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(delay) = self.delay.take() {
            self.timer = Some(Box::pin(sleep(delay)));
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl<S: Service<Req>, K, Req> ChaosFuture<S, K, Req> {
    #[inline]
    pub(crate) fn running(inner: S::Future, cut: Option<u64>, call: K) -> Self {
        Self { inner: Some(inner), held: None, cut, call: Some(call) }
    }

    #[cold]
    pub(crate) fn harmed(service: S, req: Req, decision: Decision, call: K) -> Self {
        let Decision { delay, end, cut } = decision;
        let held = Box::new(Held { service, req, delay, timer: None, end });
        Self { inner: None, held: Some(held), cut, call: Some(call) }
    }
}

impl<S: Service<Req>, K, Req> fmt::Debug for ChaosFuture<S, K, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChaosFuture").field("held", &self.held.is_some()).finish_non_exhaustive()
    }
}

const DONE: &str = "a future was polled after it had completed";

impl<S, K, Req> Future for ChaosFuture<S, K, Req>
where
    S: Service<Req>,
    K: Imitated<S::Response, S::Error>,
{
    type Output = Result<K::Response<(), Cutting>, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(held) = this.held {
            if held.end == Some(End::Hang) {
                return Poll::Pending;
            }
            ready!(held.poll_delay(cx));
            let Held { mut service, req, end, .. } = *this.held.take().expect(DONE);
            match end {
                None => this.inner.set(Some(service.call(req))),
                Some(end) => {
                    // What the request holds is free before anyone hears of the end.
                    drop((service, req));
                    return Poll::Ready(finish(this.call.take().expect(DONE), end));
                }
            }
        }
        let mut polled = this.inner.as_mut().as_pin_mut().expect(DONE).poll(cx);
        let result = match &mut polled {
            Poll::Ready(Ok(res)) => Ok(res),
            Poll::Ready(Err(error)) => Err(&*error),
            Poll::Pending => return Poll::Pending,
        };
        let tie = this.call.take().expect(DONE).tie(result, &mut None);
        let cut = Cutting(*this.cut);
        polled.map_ok(|res| K::bind(res, tie, cut))
    }
}

fn finish<K, Res, Err>(call: K, end: End) -> Result<K::Response<(), Cutting>, Err>
where
    K: Imitated<Res, Err>,
{
    let rejection = match end {
        End::Refuse(rejection) => rejection,
        End::Status { status, retry_after } => match K::status(status, retry_after) {
            Some(answer) => return Ok(call.answer(answer)),
            None => Rejection::new(Reason::Injected, LAYER),
        },
        End::Hang => Rejection::new(Reason::Injected, LAYER),
    };
    call.reject(rejection)
}
