use super::{Ask, Ballot, By, ByAnswer, Same, Vote, VoteFuture};
use buttress_core::{Mode, Opaque};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// Asks several versions of a service at once. See the [module](super); made by [`VoteConfig::build`](super::VoteConfig::build).
///
/// Every service, clone, route and connection of one layer shares its [`Vote`].
pub struct VoteLayer<C, P = Opaque, E = ByAnswer> {
    pub(super) policy: Arc<Vote>,
    pub(super) others: Vec<C>,
    pub(super) protocol: P,
    pub(super) same: E,
}

impl<C, P, E> VoteLayer<C, P, E> {
    /// What this layer's services count, and what an operator told them.
    pub fn handle(&self) -> Arc<Vote> {
        self.policy.clone()
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> VoteLayer<C, Q, E> {
        VoteLayer { policy: self.policy, others: self.others, protocol, same: self.same }
    }

    /// Compares what `key` makes of answers: what versions may rightly differ in is left out (a time, an id).
    pub fn by<A, V: PartialEq, F: Fn(&A) -> V + Clone>(self, key: F) -> VoteLayer<C, P, By<F, V>> {
        VoteLayer { policy: self.policy, others: self.others, protocol: self.protocol, same: By::new(key) }
    }
}

impl<C: Clone, P: Clone, E: Clone> Clone for VoteLayer<C, P, E> {
    fn clone(&self) -> Self {
        Self {
            policy: self.policy.clone(),
            others: self.others.clone(),
            protocol: self.protocol.clone(),
            same: self.same.clone(),
        }
    }
}

impl<C, P, E> fmt::Debug for VoteLayer<C, P, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VoteLayer").field(&self.policy).finish()
    }
}

impl<S, C: Clone, P: Clone, E: Clone> Layer<S> for VoteLayer<C, P, E> {
    type Service = VoteService<S, C, P, E>;

    fn layer(&self, first: S) -> Self::Service {
        VoteService { first, layer: self.clone() }
    }
}

/// The service of [`VoteLayer`]. It is always ready: each version is waited for by the call.
pub struct VoteService<S, C, P = Opaque, E = ByAnswer> {
    first: S,
    layer: VoteLayer<C, P, E>,
}

impl<S, C, P, E> VoteService<S, C, P, E> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.first
    }
}

impl<S: Clone, C: Clone, P: Clone, E: Clone> Clone for VoteService<S, C, P, E> {
    fn clone(&self) -> Self {
        Self { first: self.first.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, C, P, E> fmt::Debug for VoteService<S, C, P, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VoteService").field("first", &self.first).finish_non_exhaustive()
    }
}

impl<S, C, P, E, Req> Service<Req> for VoteService<S, C, P, E>
where
    P: Ballot<Req, S::Response, S::Error>,
    S: Service<<P as Ask<Req>>::Copy> + Clone,
    C: Service<<P as Ask<Req>>::Copy, Response = S::Response, Error = S::Error> + Clone,
    E: Same<P::Answer>,
{
    type Response = P::Response;
    type Error = S::Error;
    type Future = VoteFuture<S, C, P, E, Req>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Req) -> Self::Future {
        let VoteLayer { policy, others, protocol, same } = &self.layer;
        let lease = policy.lease();
        let others = if lease.mode.get() == Mode::Disabled { Vec::new() } else { others.clone() };
        let call = protocol.start_refusable(&req);
        let gather = P::gather(req, lease.config.max_body);
        VoteFuture::new(lease, call, same.clone(), gather, self.first.clone(), others)
    }
}
