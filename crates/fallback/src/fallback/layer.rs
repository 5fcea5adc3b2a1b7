use super::{AnswerFuture, ByVerdict, Fallback, FallbackRule};
use crate::{Backup, mark::Degrade};
use buttress_core::{Call, NoCut, Opaque, Parked, Protocol, Striped};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// [`AnswerLayer`] for any request.
pub type FallbackLayer<B> = AnswerLayer<B, Opaque, ByVerdict>;

/// Answers with a [`Backup`] in place of results that failed. Every service, clone, route and connection of one layer shares its
/// [`Fallback`].
///
/// `AnswerLayer<B, P, W>` is the layer for the protocol `P`: [`Opaque`] for any request, `HttpServer`, `HttpGateway` and `HttpClient` for HTTP.
/// `W` is what the user knows better of results: see [`when`](Self::when). [`FallbackLayer`] is the one to begin with.
pub struct AnswerLayer<B, P = Opaque, W = ByVerdict> {
    shared: Arc<Striped<Shared<B, W>>>,
    protocol: P,
}

/// What a call holds of its layer, from a stripe of its thread's own.
pub(super) struct Shared<B, W> {
    pub(super) fallback: Arc<Fallback>,
    pub(super) backup: B,
    pub(super) rule: W,
}

fn striped<B, W>(fallback: Arc<Fallback>, backup: B, rule: W) -> Arc<Striped<Shared<B, W>>> {
    let shared = Shared { fallback, backup, rule };
    Arc::new(Striped::new(shared, Striped::<Shared<B, W>>::default_stripes()))
}

impl<B, P: Default> AnswerLayer<B, P> {
    /// A layer of `fallback` that answers with `backup`.
    pub fn new(fallback: impl Into<Fallback>, backup: B) -> Self {
        Self::shared(Arc::new(fallback.into()), backup)
    }

    /// A layer of a policy that others share.
    pub fn shared(fallback: Arc<Fallback>, backup: B) -> Self {
        Self { shared: striped(fallback, backup, ByVerdict), protocol: P::default() }
    }
}

impl<B, P, W> AnswerLayer<B, P, W> {
    /// What this layer's services share: read it, change it.
    pub fn handle(&self) -> Arc<Fallback> {
        self.shared.fallback.clone()
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> AnswerLayer<B, Q, W> {
        AnswerLayer { shared: self.shared, protocol }
    }

    /// Answers also in place of results for which `rule` says so: a closure `Fn(Result<&Res, &Err>) -> bool`, which sees the head of
    /// a response, or any [`FallbackRule`]. It is asked of what the config does not name.
    pub fn when<V>(self, rule: V) -> AnswerLayer<B, P, V>
    where
        B: Clone,
    {
        let shared = striped(self.shared.fallback.clone(), self.shared.backup.clone(), rule);
        AnswerLayer { shared, protocol: self.protocol }
    }

    /// The same config with counts of its own, for another service.
    pub fn fresh(&self) -> Self
    where
        B: Clone,
        P: Clone,
        W: Clone,
    {
        use buttress_core::Fresh;
        let Shared { fallback, backup, rule } = &**self.shared;
        let shared = striped(Arc::new(fallback.fresh()), backup.clone(), rule.clone());
        Self { shared, protocol: self.protocol.clone() }
    }
}

impl<B, P: Clone, W> Clone for AnswerLayer<B, P, W> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), protocol: self.protocol.clone() }
    }
}

impl<B, P, W> fmt::Debug for AnswerLayer<B, P, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FallbackLayer").field(&self.shared.fallback).finish()
    }
}

impl<S, B, P: Clone, W> Layer<S> for AnswerLayer<B, P, W> {
    type Service = AnswerService<S, B, P, W>;

    fn layer(&self, inner: S) -> Self::Service {
        AnswerService::new(inner, self.shared.clone(), self.protocol.clone())
    }
}

/// The service of [`AnswerLayer`].
pub struct AnswerService<S, B, P = Opaque, W = ByVerdict> {
    inner: S,
    shared: Arc<Striped<Shared<B, W>>>,
    protocol: P,
    parked: Parked,
    /// Said in `poll_ready`, kept in `call`: the inner service was not asked and must not be called.
    switched: bool,
}

impl<S, B, P, W> AnswerService<S, B, P, W> {
    fn new(inner: S, shared: Arc<Striped<Shared<B, W>>>, protocol: P) -> Self {
        Self { inner, shared, protocol, parked: Parked::default(), switched: false }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone, B, P: Clone, W> Clone for AnswerService<S, B, P, W> {
    /// A clone has not been asked yet whether it is ready.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.shared.clone(), self.protocol.clone())
    }
}

impl<S: fmt::Debug, B, P, W> fmt::Debug for AnswerService<S, B, P, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, P, W, Req> Service<Req> for AnswerService<S, B, P, W>
where
    S: Service<Req>,
    P: Protocol<Req>,
    P::Call: Degrade<S::Response, S::Error>,
    B: Backup<Req, S::Response, <P::Call as Call<S::Response, S::Error>>::Answer>,
    W: FallbackRule<S::Response, S::Error>,
{
    type Response = <P::Call as Call<S::Response, S::Error>>::Response<(), NoCut>;
    type Error = S::Error;
    type Future = AnswerFuture<S, B, W, P::Call, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.switched = self.shared.fallback.is_switched();
        if self.switched {
            return Poll::Ready(Ok(()));
        }
        let readiness = self.inner.poll_ready(cx);
        if readiness.is_pending() {
            self.shared.fallback.park(&mut self.parked, cx);
        }
        readiness
    }

    #[inline(always)]
    fn call(&mut self, req: Req) -> Self::Future {
        let fallback = &self.shared.fallback;
        if self.switched || fallback.is_switched() {
            return AnswerFuture::switched(self.shared.lease(), self.protocol.start_refusable(&req), &req);
        }
        let call = self.protocol.start(&req);
        if fallback.is_disabled() {
            return AnswerFuture::once(self.inner.call(req), call);
        }
        let kept = self.shared.backup.keep(&req);
        AnswerFuture::covered(self.inner.call(req), call, kept, self.shared.lease())
    }
}
