use crate::{Admit, Call, Fresh, GateFuture, NoCut, Opaque, Protocol, Rejection, gate::DONE};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tower_layer::Layer;
use tower_service::Service;

/// An admission that may take a while.
#[derive(Debug)]
pub enum Admission<G, Q> {
    /// There was room.
    Now(G),
    /// The call waits for its turn; dropped, it leaves the queue.
    Later(Q),
}

/// A policy whose callers may wait for their turn: a bounded queue in front of a limit.
pub trait Enqueue<Req>: Admit<Req> {
    /// A place in the queue. It ends with a permit or, when its time is up, with a refusal.
    type Queued: Future<Output = Result<Self::Permit, Rejection>>;

    /// Admits, queues, or refuses at once.
    ///
    /// # Errors
    ///
    /// There is no room, and no room to wait either.
    fn enqueue(&self, turn: &mut Self::Turn, req: &Req) -> Result<Admission<Self::Permit, Self::Queued>, Rejection>;

    /// The same by what travels with the request, too, if the protocol has that: asked instead of [`enqueue`](Self::enqueue)
    /// where the policy [heeds it](crate::Gatekeeper::HEEDS_CONTEXT).
    ///
    /// # Errors
    ///
    /// As [`enqueue`](Self::enqueue).
    #[inline]
    fn enqueue_in(
        &self,
        turn: &mut Self::Turn,
        req: &Req,
        context: Option<&crate::Context>,
    ) -> Result<Admission<Self::Permit, Self::Queued>, Rejection> {
        let _ = context;
        self.enqueue(turn, req)
    }
}

/// The layer of every policy whose callers may wait. Like [`GateLayer`](crate::GateLayer), but the inner service is `Clone`:
/// a waiting call holds the one that is ready.
pub struct QueueLayer<A, P = Opaque> {
    policy: Arc<A>,
    protocol: P,
}

impl<A, P: Default> QueueLayer<A, P> {
    /// A layer around `policy`, or what becomes one.
    ///
    /// Call it through a type that fixes the protocol, as the aliases of the layer crates do
    /// (`pub type FooLayer = QueueLayer<Foo>;`), or as `QueueLayer::<Foo>::new`: the protocol is [`Opaque`] then.
    pub fn new(policy: impl Into<A>) -> Self {
        Self::shared(Arc::new(policy.into()))
    }

    /// A layer around a policy that others share.
    pub fn shared(policy: Arc<A>) -> Self {
        Self { policy, protocol: P::default() }
    }
}

impl<A, P> QueueLayer<A, P> {
    /// The policy that this layer's services share: read it, change it, drive it by hand.
    pub fn handle(&self) -> Arc<A> {
        self.policy.clone()
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> QueueLayer<A, Q> {
        QueueLayer { policy: self.policy, protocol }
    }

    /// The same config with a state of its own, for another route or service.
    pub fn fresh(&self) -> Self
    where
        A: Fresh,
        P: Clone,
    {
        Self { policy: Arc::new(self.policy.fresh()), protocol: self.protocol.clone() }
    }
}

impl<A, P: Clone> Clone for QueueLayer<A, P> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

impl<A: fmt::Debug, P> fmt::Debug for QueueLayer<A, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueLayer").field(&self.policy).finish()
    }
}

impl<S, A, P: Clone> Layer<S> for QueueLayer<A, P> {
    type Service = Queue<S, A, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Queue { inner, policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

/// The service of [`QueueLayer`].
pub struct Queue<S, A, P = Opaque> {
    inner: S,
    policy: Arc<A>,
    protocol: P,
}

impl<S: Clone, A, P: Clone> Clone for Queue<S, A, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

impl<S: fmt::Debug, A, P> fmt::Debug for Queue<S, A, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, A, P, Req> Service<Req> for Queue<S, A, P>
where
    S: Service<Req> + Clone,
    A: Enqueue<Req>,
    P: Protocol<Req>,
    P::Call: Call<S::Response, S::Error>,
{
    type Response = <P::Call as Call<S::Response, S::Error>>::Response<A::Permit, NoCut>;
    type Error = S::Error;
    type Future = QueueFuture<S, A::Queued, A::Permit, P::Call, Req, S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let admission = if A::HEEDS_CONTEXT {
            self.policy.enqueue_in(&mut A::Turn::default(), &req, self.protocol.context(&req))
        } else {
            self.policy.enqueue(&mut A::Turn::default(), &req)
        };
        let state = match admission {
            Ok(Admission::Now(permit)) => {
                let call = self.protocol.start(&req);
                State::Running { gate: GateFuture::admitted(self.inner.call(req), permit, call) }
            }
            Ok(Admission::Later(queued)) => {
                let call = self.protocol.start_refusable(&req);
                let fresh = self.inner.clone();
                let ready = mem::replace(&mut self.inner, fresh);
                State::Waiting { queued, then: Some((ready, req, call)) }
            }
            Err(rejection) => {
                State::Running { gate: GateFuture::refused(rejection, self.protocol.start_refusable(&req)) }
            }
        };
        QueueFuture { state }
    }
}

pin_project! {
    /// The future of [`Queue`].
    pub struct QueueFuture<S, Q, G, K, Req, F> {
        #[pin]
        state: State<S, Q, G, K, Req, F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Q, G, K, Req, F> {
        Waiting { #[pin] queued: Q, then: Option<(S, Req, K)> },
        Running { #[pin] gate: GateFuture<F, G, K> },
    }
}

impl<S, Q, G, K, Req, F> fmt::Debug for QueueFuture<S, Q, G, K, Req, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueFuture").finish_non_exhaustive()
    }
}

impl<S, Q, G, K, Req> Future for QueueFuture<S, Q, G, K, Req, S::Future>
where
    S: Service<Req>,
    Q: Future<Output = Result<G, Rejection>>,
    G: crate::Settle,
    K: Call<S::Response, S::Error>,
{
    type Output = Result<K::Response<G, NoCut>, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let gate = match this.state.as_mut().project() {
                StateProj::Running { gate } => return gate.poll(cx),
                StateProj::Waiting { queued, then } => {
                    let turn = ready!(queued.poll(cx));
                    let (mut inner, req, call) = then.take().expect(DONE);
                    match turn {
                        Ok(permit) => GateFuture::admitted(inner.call(req), permit, call),
                        Err(rejection) => GateFuture::refused(rejection, call),
                    }
                }
            };
            this.state.set(State::Running { gate });
        }
    }
}
