use crate::{
    BalancePermit,
    choice::{Choice, Chosen},
    endpoints::Shared,
};
use buttress_core::{Call, Lease, NoCut, Outcome, Protocol, Settle, Tried};
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
    /// The future of [`Balance`](crate::Balance).
    pub struct BalanceFuture<S, P, Req>
    where
        S: Service<Req>,
        P: Protocol<Req>,
    {
        // First an endpoint is chosen, then its answer is waited for. A request is large: it moves alone, and once.
        choice: Option<Choice<S, S::Error>>,
        req: Option<Req>,
        protocol: P,
        #[pin]
        inner: Option<S::Future>,
        call: Option<P::Call>,
        permit: Option<BalancePermit>,
        pending: bool,
    }
}

impl<S, P, Req> BalanceFuture<S, P, Req>
where
    S: Service<Req> + Clone,
    P: Protocol<Req>,
{
    #[inline]
    pub(crate) fn new(lease: Arc<Lease<Arc<Shared<S>>>>, protocol: P, req: Req) -> Self {
        let choice = Some(Choice::new(lease));
        Self { choice, req: Some(req), protocol, inner: None, call: None, permit: None, pending: false }
    }
}

const DONE: &str = "a future was polled after it had completed";

impl<S, P, Req> Future for BalanceFuture<S, P, Req>
where
    S: Service<Req> + Clone,
    P: Protocol<Req>,
    P::Call: Call<S::Response, S::Error>,
{
    type Output = Result<<P::Call as Call<S::Response, S::Error>>::Response<BalancePermit, NoCut>, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(choice) = this.choice {
            let req = this.req.as_ref().expect(DONE);
            let chosen = ready!(Tried::with(|mut tried| choice.poll::<Req>(cx, &mut tried)));
            *this.choice = None;
            match chosen {
                Chosen::Endpoint(mut service, permit) => {
                    *this.permit = Some(permit);
                    *this.call = Some(this.protocol.start(req));
                    let fuse = Fuse(this.permit);
                    this.inner.set(Some(service.call(this.req.take().expect(DONE))));
                    std::mem::forget(fuse);
                }
                Chosen::Refused(rejection) => {
                    let call = this.protocol.start_refusable(req);
                    *this.req = None;
                    return Poll::Ready(call.reject(rejection));
                }
                Chosen::Failed(error) => return Poll::Ready(Err(error)),
            }
        }
        let inner = this.inner.as_pin_mut().expect(DONE);
        let fuse = Fuse(this.permit);
        // Judged where it lies: a response moves once, into what this returns.
        let mut polled = inner.poll(cx);
        std::mem::forget(fuse);
        let result = match &mut polled {
            Poll::Ready(Ok(res)) => Ok(res),
            Poll::Ready(Err(error)) => Err(&*error),
            Poll::Pending => {
                if !*this.pending {
                    *this.pending = true;
                    this.permit.as_mut().expect(DONE).pending();
                }
                return Poll::Pending;
            }
        };
        let tie = this.call.take().expect(DONE).tie(result, this.permit);
        polled.map_ok(|res| P::Call::bind(res, tie, NoCut))
    }
}

/// Settles the permit of a call that panics: whoever catches the panic may drop the call much later, and without one.
struct Fuse<'a>(&'a mut Option<BalancePermit>);

impl Drop for Fuse<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.settle(Outcome::Failure, None);
        }
    }
}

impl<S: Service<Req>, P: Protocol<Req>, Req> fmt::Debug for BalanceFuture<S, P, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceFuture").field("permit", &self.permit).finish_non_exhaustive()
    }
}
