use super::{
    Coalesce, Share,
    flights::{Flights, Landed, Member},
    layer::CoalesceKey,
    share::{Common, LAYER},
};
use buttress_core::{Reason, Rejection};
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
    /// The future of [`CoalesceService`](crate::CoalesceService).
    pub struct CoalesceFuture<S, P, Req, K>
    where
        S: Service<Req>,
        P: Share<Req, S::Response, S::Error>,
        K: CoalesceKey,
    {
        #[pin]
        state: State<S, P, Req, K>,
        call: Option<P::Call>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, P, Req, K>
    where
        S: Service<Req>,
        P: Share<Req, S::Response, S::Error>,
        K: CoalesceKey,
    {
        // Nobody shares it.
        Single { #[pin] inner: S::Future },
        // `rest` is of who waits.
        Member { member: Member<K, P::Own, Common<P::Kept>>, rest: Option<Box<Rest<S, P, Req, K>>> },
        // The shared call came to nothing for this one: another one is made, with a key one that is shared again.
        Starting { rest: Option<Box<Rest<S, P, Req, K>>>, key: Option<K> },
        Done,
    }
}

/// What a call of one's own takes.
pub(super) struct Rest<S, P, Req, K> {
    pub(super) inner: S,
    pub(super) req: Req,
    pub(super) protocol: P,
    pub(super) policy: Arc<Coalesce>,
    pub(super) flights: Flights<K>,
}

impl<S, P, Req, K> CoalesceFuture<S, P, Req, K>
where
    S: Service<Req>,
    P: Share<Req, S::Response, S::Error>,
    K: CoalesceKey,
{
    pub(super) fn single(inner: S::Future, call: P::Call) -> Self {
        Self { state: State::Single { inner }, call: Some(call) }
    }

    pub(super) fn member(
        member: Member<K, P::Own, Common<P::Kept>>,
        rest: Option<Box<Rest<S, P, Req, K>>>,
        call: P::Call,
    ) -> Self {
        Self { state: State::Member { member, rest }, call: Some(call) }
    }
}

impl<S, P, Req, K> fmt::Debug for CoalesceFuture<S, P, Req, K>
where
    S: Service<Req>,
    P: Share<Req, S::Response, S::Error>,
    K: CoalesceKey,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceFuture").finish_non_exhaustive()
    }
}

const DONE: &str = "a future was polled after it had completed";

impl<S, P, Req, K> Future for CoalesceFuture<S, P, Req, K>
where
    S: Service<Req, Future: Send + 'static> + Clone,
    S::Response: 'static,
    S::Error: 'static,
    P: Share<Req, S::Response, S::Error>,
    P::Call: Send + 'static,
    K: CoalesceKey,
{
    type Output = Result<P::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Single { inner } => {
                    let result = ready!(inner.poll(cx));
                    this.state.set(State::Done);
                    return Poll::Ready(P::single(this.call.take().expect(DONE), result));
                }
                StateProj::Member { member, rest } => {
                    let landed = ready!(Pin::new(&mut *member).poll(cx));
                    let mut call = || this.call.take().expect(DONE);
                    let (key, rest) = (member.key().clone(), rest.take());
                    let again = match landed {
                        Landed::Own(own) => return Poll::Ready(P::own(call(), own)),
                        Landed::Panicked => {
                            let rejection = Rejection::new(Reason::Panicked, LAYER);
                            return Poll::Ready(P::reject(call(), rejection));
                        }
                        Landed::Shared(common) => match &*common {
                            Common::Answer(kept) => return Poll::Ready(Ok(P::copy(call(), kept))),
                            Common::Refused(rejection) => return Poll::Ready(P::reject(call(), *rejection)),
                            Common::Again => Some(key),
                            Common::Apart => None,
                        },
                    };
                    if let Some(rest) = &rest
                        && again.is_none()
                    {
                        rest.policy.parted();
                    }
                    this.state.set(State::Starting { rest, key: again });
                }
                StateProj::Starting { rest, key } => {
                    let Rest { inner, .. } = &mut **rest.as_mut().expect(DONE);
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        return Poll::Ready(Err(error));
                    }
                    let (rest, key) = (rest.take().expect(DONE), key.take());
                    this.state.set(rest.start(key));
                }
                StateProj::Done => panic!("{DONE}"),
            }
        }
    }
}

impl<S, P, Req, K> Rest<S, P, Req, K>
where
    S: Service<Req, Future: Send + 'static> + Clone,
    S::Response: 'static,
    S::Error: 'static,
    P: Share<Req, S::Response, S::Error>,
    P::Call: Send + 'static,
    K: CoalesceKey,
{
    /// Makes the call, or joins one that another has made meanwhile. The inner service is ready.
    fn start(mut self: Box<Self>, key: Option<K>) -> State<S, P, Req, K> {
        let Some(key) = key else { return State::Single { inner: self.inner.call(self.req) } };
        let member = self.flights.join(key);
        if !member.leads() {
            // What is ready would keep its place from others.
            self.inner = self.inner.clone();
            return State::Member { member, rest: Some(self) };
        }
        let (terms, crew) = (self.policy.terms(), member.crew());
        let judge = self.protocol.start(&self.req);
        member.launch(P::fly(judge, self.inner.call(self.req), move || crew.close_if_alone(), terms));
        State::Member { member, rest: None }
    }
}
