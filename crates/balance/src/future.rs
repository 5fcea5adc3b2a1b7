use crate::{
    BalancePermit,
    choice::{Choice, Chosen},
    endpoints::Shared,
};
use buttress_core::{Call, GateFuture, Lease, NoCut, Protocol, Tried};
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
        call: Option<GateFuture<S::Future, BalancePermit, P::Call>>,
    }
}

impl<S, P, Req> BalanceFuture<S, P, Req>
where
    S: Service<Req> + Clone,
    P: Protocol<Req>,
{
    #[inline]
    pub(crate) fn new(lease: Arc<Lease<Arc<Shared<S>>>>, protocol: P, req: Req) -> Self {
        Self { choice: Some(Choice::new(lease)), req: Some(req), protocol, call: None }
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
            let chosen = ready!(Tried::with(|mut tried| choice.poll::<Req>(cx, &mut tried)));
            *this.choice = None;
            let req = this.req.take().expect(DONE);
            let call = match chosen {
                Chosen::Endpoint(mut service, permit) => {
                    let call = this.protocol.start(&req);
                    GateFuture::admitted(service.call(req), permit, call)
                }
                Chosen::Refused(rejection) => GateFuture::refused(rejection, this.protocol.start_refusable(&req)),
                Chosen::Failed(error) => return Poll::Ready(Err(error)),
            };
            this.call.set(Some(call));
        }
        this.call.as_pin_mut().expect(DONE).poll(cx)
    }
}

impl<S: Service<Req>, P: Protocol<Req>, Req> fmt::Debug for BalanceFuture<S, P, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceFuture").field("chosen", &self.call.is_some()).finish_non_exhaustive()
    }
}
