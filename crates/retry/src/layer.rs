use crate::{ByTable, Repeat, Resend, Retry, RetryFuture, RetryRule, future::More, resend::private::Ask};
use buttress_core::{Fresh, Mode, Opaque, Replay, TokioClock, Tried, sync::Ordering::Relaxed};
use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// [`ResendLayer`] for any request that is `Clone`, by what its own config says.
pub type RetryLayer = ResendLayer<Opaque, ByTable>;

/// Sends requests again. Every service, clone, route and connection of one layer shares its [`Retry`] and its budget.
///
/// `ResendLayer<P, R>` is the layer for the protocol `P`: [`Opaque`] for any request that is `Clone`, `HttpClient` and `HttpServer` for HTTP and
/// gRPC. `R` is what the user knows better: see [`RetryRule`]. [`RetryLayer`] is the one to begin with.
pub struct ResendLayer<P = Opaque, R = ByTable> {
    policy: Arc<Retry>,
    protocol: P,
    rule: R,
}

impl<P: Default> ResendLayer<P> {
    /// A layer of `retry`.
    pub fn new(retry: impl Into<Retry>) -> Self {
        Self::shared(Arc::new(retry.into()))
    }

    /// A layer of a policy that others share.
    pub fn shared(policy: Arc<Retry>) -> Self {
        Self { policy, protocol: P::default(), rule: ByTable }
    }
}

/// With the defaults of [`RetryConfig`](crate::RetryConfig).
impl<P: Default> Default for ResendLayer<P> {
    fn default() -> Self {
        Self::new(Retry::default())
    }
}

impl<P, R> ResendLayer<P, R> {
    /// What this layer's services share: read it, change it.
    pub fn handle(&self) -> Arc<Retry> {
        self.policy.clone()
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> ResendLayer<Q, R> {
        ResendLayer { policy: self.policy, protocol, rule: self.rule }
    }

    /// Follows `rule`: a closure `Fn(Result<&Res, &Err>) -> bool`, or any [`RetryRule`].
    pub fn when<Q>(self, rule: Q) -> ResendLayer<P, Q> {
        ResendLayer { policy: self.policy, protocol: self.protocol, rule }
    }

    /// The same config with counts and a budget of its own, for another service.
    pub fn fresh(&self) -> Self
    where
        P: Clone,
        R: Clone,
    {
        Self { policy: Arc::new(self.policy.fresh()), protocol: self.protocol.clone(), rule: self.rule.clone() }
    }
}

impl<P: Clone, R: Clone> Clone for ResendLayer<P, R> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), protocol: self.protocol.clone(), rule: self.rule.clone() }
    }
}

impl<P, R> fmt::Debug for ResendLayer<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RetryLayer").field(&self.policy).finish()
    }
}

impl<S, P: Clone, R: Clone> Layer<S> for ResendLayer<P, R> {
    type Service = RetryService<S, P, R>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryService { inner, policy: self.policy.clone(), protocol: self.protocol.clone(), rule: self.rule.clone() }
    }
}

/// The service of [`ResendLayer`].
pub struct RetryService<S, P = Opaque, R = ByTable> {
    inner: S,
    policy: Arc<Retry>,
    protocol: P,
    rule: R,
}

impl<S, P, R> RetryService<S, P, R> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone, P: Clone, R: Clone> Clone for RetryService<S, P, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: self.policy.clone(),
            protocol: self.protocol.clone(),
            rule: self.rule.clone(),
        }
    }
}

impl<S: fmt::Debug, P, R> fmt::Debug for RetryService<S, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, P, R, Req> Service<Req> for RetryService<S, P, R>
where
    P: Resend<Req, S::Response, S::Error> + Clone,
    S: Service<<P as Replay<Req>>::Attempt> + Clone,
    R: RetryRule<Req, S::Response, S::Error>,
{
    type Response = P::Response;
    type Error = S::Error;
    type Future = RetryFuture<S, P, R, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let shared = &self.policy.shared;
        if shared.mode.get() == Mode::Disabled {
            return RetryFuture::once(self.inner.call(self.protocol.once(req)));
        }
        let ask = self.ask(&req);
        if ask.pays {
            shared.budget.deposit(&TokioClock);
        }
        if ask.repeat == Repeat::Never || !shared.terms.is_on.load(Relaxed) {
            return RetryFuture::once(self.inner.call(self.protocol.once(req)));
        }
        let lease = shared.lease();
        let call = self.protocol.start(&req);
        let (attempt, kept) = self.protocol.record(req, shared.terms.max_body.load(Relaxed));
        // The ready one makes the first attempt, and later ones once it is ready again; its clone stays for the next call.
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        let mut tried = Tried::new();
        let inner = tried.scope(|| ready.call(attempt));
        let more = More::new(ready, self.protocol.clone(), self.rule.clone(), ask, call, kept, tried, lease);
        RetryFuture::replayable(inner, more)
    }
}

impl<S, P, R> RetryService<S, P, R> {
    /// What the protocol and the user's rule say of a request.
    #[inline]
    fn ask<Req>(&self, req: &Req) -> Ask
    where
        P: Resend<Req, S::Response, S::Error>,
        S: Service<<P as Replay<Req>>::Attempt>,
        R: RetryRule<Req, S::Response, S::Error>,
    {
        let mut ask = self.protocol.ask(req, self.policy.shared.terms.idempotency_key.load(Relaxed));
        if ask.repeat != Repeat::Never
            && let Some(repeatable) = self.rule.repeatable(req)
        {
            ask.repeat = if repeatable { Repeat::Safe } else { Repeat::Unsafe };
        }
        ask
    }
}
