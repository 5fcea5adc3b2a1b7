use super::{
    ByVerdict, Failover, FailoverConfig, FailoverFuture, FailoverPermit, FailoverRule, Relay, TierConfig, more::More,
    relay::private::Repeat,
};
use buttress_core::{Budget, Call, ConfigError, Mode, NoCut, Opaque, Replay, Striped, TokioClock, Tried};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// A [`FailoverConfig`] with its backups, on the way to a [`FailoverLayer`].
#[derive(Clone, Debug)]
pub struct FailoverTiers<C> {
    pub(super) config: FailoverConfig,
    pub(super) tiers: Vec<TierConfig>,
    pub(super) services: Vec<C>,
    pub(super) budget: Option<Arc<Budget>>,
}

impl<C> FailoverTiers<C> {
    /// The layer.
    ///
    /// # Errors
    ///
    /// The first field of the config, or of a tier, that is out of its range.
    pub fn build(self) -> Result<FailoverLayer<C>, ConfigError> {
        self.config.validate(&self.tiers)?;
        let policy = Arc::new(Failover::new(self.config, self.tiers, self.budget));
        let backups = Arc::new(Striped::new(self.services, policy.shared.stripes()));
        Ok(FailoverLayer { policy, backups, protocol: Opaque::new(), rule: ByVerdict })
    }
}

/// Puts backups behind a service. See the [module](super).
///
/// Every service, clone, route and connection of one layer shares its [`Failover`].
pub struct FailoverLayer<C, P = Opaque, R = ByVerdict> {
    policy: Arc<Failover>,
    backups: Arc<Striped<Vec<C>>>,
    protocol: P,
    rule: R,
}

impl<C, P, R> FailoverLayer<C, P, R> {
    /// What this layer's services go by: read it, override it.
    pub fn handle(&self) -> Arc<Failover> {
        self.policy.clone()
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> FailoverLayer<C, Q, R> {
        FailoverLayer { policy: self.policy, backups: self.backups, protocol, rule: self.rule }
    }

    /// Takes only what `rule` accepts, while a tier is left: a closure `Fn(Result<&Res, &Err>) -> bool`, or any [`FailoverRule`].
    pub fn accept<Q>(self, rule: Q) -> FailoverLayer<C, P, Q> {
        FailoverLayer { policy: self.policy, backups: self.backups, protocol: self.protocol, rule }
    }
}

impl<C, P: Clone, R: Clone> Clone for FailoverLayer<C, P, R> {
    fn clone(&self) -> Self {
        Self {
            policy: self.policy.clone(),
            backups: self.backups.clone(),
            protocol: self.protocol.clone(),
            rule: self.rule.clone(),
        }
    }
}

impl<C, P, R> fmt::Debug for FailoverLayer<C, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FailoverLayer").field(&self.policy).finish()
    }
}

impl<S, C, P: Clone, R: Clone> Layer<S> for FailoverLayer<C, P, R> {
    type Service = FailoverService<S, C, P, R>;

    fn layer(&self, primary: S) -> Self::Service {
        FailoverService { primary, is_ready: false, layer: self.clone() }
    }
}

/// The service of [`FailoverLayer`]. It is always ready: a tier that is not is waited for by the call, for as long as the tier's share of the time
/// lasts.
pub struct FailoverService<S, C, P = Opaque, R = ByVerdict> {
    primary: S,
    /// It was when it was asked, and was not called since.
    is_ready: bool,
    layer: FailoverLayer<C, P, R>,
}

impl<S, C, P, R> FailoverService<S, C, P, R> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.primary
    }
}

impl<S: Clone, C, P: Clone, R: Clone> Clone for FailoverService<S, C, P, R> {
    /// A clone shares the state and has not been asked yet whether it is ready.
    fn clone(&self) -> Self {
        Self { primary: self.primary.clone(), is_ready: false, layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, C, P, R> fmt::Debug for FailoverService<S, C, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverService").field("primary", &self.primary).finish_non_exhaustive()
    }
}

impl<S, C, P, R, Req> Service<Req> for FailoverService<S, C, P, R>
where
    P: Relay<Req, S::Response, S::Error> + Clone,
    S: Service<<P as Replay<Req>>::Attempt> + Clone,
    C: Service<<P as Replay<Req>>::Attempt, Response = S::Response, Error = S::Error> + Clone,
    R: FailoverRule<Req, S::Response, S::Error>,
{
    type Response = <P::Call as Call<S::Response, S::Error>>::Response<FailoverPermit, NoCut>;
    type Error = S::Error;
    type Future = FailoverFuture<S, C, P, R, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // A primary that hangs here, or fails, is what the backups are for: the call asks again.
        self.is_ready = self.is_ready || matches!(self.primary.poll_ready(cx), Poll::Ready(Ok(())));
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let FailoverLayer { policy, backups, protocol, rule } = &self.layer;
        let lease = policy.lease();
        let config = &lease.config;
        let mut ask = protocol.ask(&req);
        ask.allow(config.any_request.then_some(true));
        ask.allow(rule.repeatable(&req));
        if let Some(budget) = &lease.budget
            && Tried::present().is_none_or(|attempt| attempt == 0)
        {
            budget.deposit(&TokioClock);
        }
        let call = if config.timeout.is_some() { protocol.start_refusable(&req) } else { protocol.start(&req) };
        let is_one = ask.repeat == Repeat::Never || lease.mode.get() == Mode::Disabled;
        let (attempt, kept) = if is_one {
            (protocol.once(req), None)
        } else {
            let (attempt, kept) = protocol.record(req, config.max_body);
            (attempt, Some(kept))
        };
        let more = More::new(protocol.clone(), rule.clone(), kept, ask, lease.pick(&TokioClock), backups.lease());
        FailoverFuture::start(lease, more, call, attempt, &mut self.primary, &mut self.is_ready)
    }
}
