use super::{Canary, CanaryFuture, CanaryPermit, Side, future::Chosen};
use buttress_core::{Call, NoCut, Opaque, Protocol, Tried};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// Puts a canary beside a service: both get the calls that the [`Canary`] gives them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use buttress_balance::{CanaryConfig, CanaryLayer};
/// use buttress_core::Error;
/// use tower::{Layer, ServiceExt, service_fn};
///
/// let stable = service_fn(|_: ()| async { Ok::<_, Error<std::io::Error>>("1.0") });
/// let canary = service_fn(|_: ()| async { Ok::<_, Error<std::io::Error>>("1.1") });
///
/// let layer = CanaryLayer::new(CanaryConfig::new(5.0).build()?, canary);
/// let handle = layer.handle();
/// let service = layer.layer(stable); // over HTTP: `layer.protocol(HttpClient::new())`, or a builder's `.with(layer)`
///
/// handle.set_weight(100.0)?;
/// assert_eq!(service.oneshot(()).await?, "1.1");
/// # Ok(()) }
/// ```
pub struct CanaryLayer<C, P = Opaque> {
    policy: Arc<Canary>,
    canary: C,
    protocol: P,
}

impl<C> CanaryLayer<C> {
    /// Gives `canary` the calls that `policy` says. A policy behind an `Arc` can be shared.
    pub fn new(policy: impl Into<Arc<Canary>>, canary: C) -> Self {
        Self { policy: policy.into(), canary, protocol: Opaque::new() }
    }
}

impl<C, P> CanaryLayer<C, P> {
    /// What this layer's services go by: read it, change it, override it.
    pub fn handle(&self) -> Arc<Canary> {
        self.policy.clone()
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> CanaryLayer<C, Q> {
        CanaryLayer { policy: self.policy, canary: self.canary, protocol }
    }
}

impl<C: Clone, P: Clone> Clone for CanaryLayer<C, P> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), canary: self.canary.clone(), protocol: self.protocol.clone() }
    }
}

impl<C, P> fmt::Debug for CanaryLayer<C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CanaryLayer").field(&self.policy).finish()
    }
}

impl<S, C: Clone, P: Clone> Layer<S> for CanaryLayer<C, P> {
    type Service = CanaryService<S, C, P>;

    fn layer(&self, stable: S) -> Self::Service {
        let Self { policy, canary, protocol } = self.clone();
        CanaryService { stable, canary, policy, protocol }
    }
}

/// The service of [`CanaryLayer`]. It is always ready: the service that a call goes to is asked when the request is known, by
/// the call's future.
pub struct CanaryService<S, C, P = Opaque> {
    stable: S,
    canary: C,
    policy: Arc<Canary>,
    protocol: P,
}

impl<S: Clone, C: Clone, P: Clone> Clone for CanaryService<S, C, P> {
    fn clone(&self) -> Self {
        Self {
            stable: self.stable.clone(),
            canary: self.canary.clone(),
            policy: self.policy.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<S, C, P> fmt::Debug for CanaryService<S, C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CanaryService").field(&self.policy).finish()
    }
}

/// The canary in [`Tried`], unless a balancer further in says more: endpoints count from 0.
const CANARY: u32 = u32::MAX;

impl<S, C, P, Req> Service<Req> for CanaryService<S, C, P>
where
    S: Service<Req> + Clone,
    C: Service<Req, Response = S::Response, Error = S::Error> + Clone,
    P: Protocol<Req>,
    P::Call: Call<S::Response, S::Error>,
{
    type Response = <P::Call as Call<S::Response, S::Error>>::Response<CanaryPermit, NoCut>;
    type Error = S::Error;
    type Future = CanaryFuture<S, C, P::Call, Req>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let attempt = self.protocol.context(&req).map_or(0, |context| context.attempt);
        let permit = self.policy.pick(attempt.max(Tried::present().unwrap_or(0)));
        let chosen = match permit.side() {
            Side::Stable => Chosen::Stable(self.stable.clone()),
            Side::Canary => {
                // Whatever refuses the call there, its breaker above all: the next attempt goes elsewhere.
                Tried::with(|tried| tried.into_iter().for_each(|tried| tried.pick(CANARY, true)));
                Chosen::Canary(self.canary.clone())
            }
        };
        let call = self.protocol.start(&req);
        CanaryFuture::new(chosen, req, permit, call)
    }
}
