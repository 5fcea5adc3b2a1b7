use crate::{
    Chaos, ChaosFuture,
    imitate::{Imitate, Imitated},
};
use buttress_core::{Call, Fresh, Opaque, Protocol, TokioClock};
use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// [`InjectLayer`] for any request: a refusal is an error.
pub type ChaosLayer = InjectLayer<Opaque>;

/// Injects faults into calls. Every service, clone, route and connection of one layer shares its [`Chaos`].
///
/// `InjectLayer<P>` is the layer for the protocol `P`; [`ChaosLayer`] is the one to begin with.
pub struct InjectLayer<P = Opaque> {
    policy: Arc<Chaos>,
    protocol: P,
}

impl<P: Default> InjectLayer<P> {
    /// A layer of `chaos`.
    pub fn new(chaos: impl Into<Chaos>) -> Self {
        Self::shared(Arc::new(chaos.into()))
    }

    /// A layer of a policy that others share.
    pub fn shared(policy: Arc<Chaos>) -> Self {
        Self { policy, protocol: P::default() }
    }
}

/// Injects nothing until its [`handle`](InjectLayer::handle) is told to.
impl<P: Default> Default for InjectLayer<P> {
    fn default() -> Self {
        Self::new(Chaos::default())
    }
}

impl<P> InjectLayer<P> {
    /// What this layer's services share: read it, change it.
    pub fn handle(&self) -> Arc<Chaos> {
        self.policy.clone()
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> InjectLayer<Q> {
        InjectLayer { policy: self.policy, protocol }
    }

    /// The same config with a state of its own, for another route or service.
    pub fn fresh(&self) -> Self
    where
        P: Clone,
    {
        Self { policy: Arc::new(self.policy.fresh()), protocol: self.protocol.clone() }
    }
}

impl<P: Clone> Clone for InjectLayer<P> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

impl<P> fmt::Debug for InjectLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChaosLayer").field(&self.policy).finish()
    }
}

impl<S, P: Imitate + Clone> Layer<S> for InjectLayer<P> {
    type Service = ChaosService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        self.policy.serve(P::HTTP);
        ChaosService { inner, policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

/// The service of [`ChaosLayer`].
pub struct ChaosService<S, P = Opaque> {
    inner: S,
    policy: Arc<Chaos>,
    protocol: P,
}

impl<S, P> ChaosService<S, P> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone, P: Clone> Clone for ChaosService<S, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

impl<S: fmt::Debug, P> fmt::Debug for ChaosService<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChaosService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, P, Req> Service<Req> for ChaosService<S, P>
where
    S: Service<Req> + Clone,
    P: Imitate + Protocol<Req>,
    P::Call: Imitated<S::Response, S::Error>,
{
    type Response = <P::Call as Call<S::Response, S::Error>>::Response<(), crate::Cutting>;
    type Error = S::Error;
    type Future = ChaosFuture<S, P::Call, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let decision = self.policy.next_of(&TokioClock, P::HTTP);
        if decision.end.is_none() && decision.delay.is_none() {
            let call = self.protocol.start(&req);
            return ChaosFuture::running(self.inner.call(req), decision.cut, call);
        }
        let call = self.protocol.start_refusable(&req);
        // The one that was ready goes, its clone stays.
        let clone = self.inner.clone();
        ChaosFuture::harmed(mem::replace(&mut self.inner, clone), req, decision, call)
    }
}
