use super::{Record, Stale, StaleFuture, future::Course, request::Kind, revalidate::revalidate, rules::Use};
use buttress_core::{
    Call, Fresh, Protocol, Reason, Rejection, TokioClock,
    http::{HttpServer, ResponseBody},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// Keeps the last good answers of an HTTP service, and gives them where it fails. Every service, clone, route and connection of one
/// layer shares its [`Stale`] store.
pub struct StaleLayer<P = HttpServer> {
    policy: Arc<Stale>,
    protocol: P,
}

impl StaleLayer {
    /// A layer of `policy`. One behind an `Arc` can be shared.
    pub fn new(policy: impl Into<Arc<Stale>>) -> Self {
        Self { policy: policy.into(), protocol: HttpServer::new() }
    }
}

/// With the defaults of [`StaleConfig`](crate::StaleConfig).
impl Default for StaleLayer {
    fn default() -> Self {
        Self::new(Stale::default())
    }
}

impl<P> StaleLayer<P> {
    /// What this layer's services share: read it, change it, empty it.
    pub fn handle(&self) -> Arc<Stale> {
        self.policy.clone()
    }

    /// Speaks `protocol` instead: `HttpGateway`, `HttpClient`.
    pub fn protocol<Q>(self, protocol: Q) -> StaleLayer<Q> {
        StaleLayer { policy: self.policy, protocol }
    }

    /// The same config with a store of its own, for another service.
    pub fn fresh(&self) -> Self
    where
        P: Clone,
    {
        Self { policy: Arc::new(self.policy.fresh()), protocol: self.protocol.clone() }
    }
}

impl<P: Clone> Clone for StaleLayer<P> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

impl<P> fmt::Debug for StaleLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StaleLayer").field(&self.policy).finish()
    }
}

impl<S, P: Clone> Layer<S> for StaleLayer<P> {
    type Service = StaleService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        StaleService { inner, policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

/// The service of [`StaleLayer`].
pub struct StaleService<S, P = HttpServer> {
    inner: S,
    policy: Arc<Stale>,
    protocol: P,
}

impl<S, P> StaleService<S, P> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone, P: Clone> Clone for StaleService<S, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

impl<S: fmt::Debug, P> fmt::Debug for StaleService<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, P, B, R> Service<Request<B>> for StaleService<S, P>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send> + Clone + Send + 'static,
    S::Error: Send,
    P: Protocol<Request<B>>,
    P::Call: Call<Response<R>, S::Error, Answer = Response<Bytes>> + Send + 'static,
    B: Body + Default + Send + 'static,
    R: ResponseBody,
{
    type Response = <P::Call as Call<Response<R>, S::Error>>::Response<(), Record>;
    type Error = S::Error;
    type Future = StaleFuture<S::Future, P::Call>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Request<B>) -> Self::Future {
        let policy = &self.policy;
        let call = self.protocol.start_refusable(&req);
        if !policy.is_on() {
            return StaleFuture::running(self.inner.call(req), call, Course::Pass);
        }
        let asked = match Kind::of(&req, &TokioClock) {
            Kind::Other => return StaleFuture::running(self.inner.call(req), call, Course::Pass),
            Kind::Write(uri, key) => {
                let course = Course::Write(policy.clone(), Box::new((uri, key)));
                return StaleFuture::running(self.inner.call(req), call, course);
            }
            Kind::Read(asked) => asked,
        };
        if policy.is_cache() {
            policy.deposit();
        }
        if policy.is_cache() || asked.said.only_if_cached {
            let found = policy.find(&asked, false);
            if let Some(found) = &found
                && let Some(answer) = policy.give(&asked, found, None)
            {
                if found.with == Use::Stale && policy.is_cache() {
                    let again = self.protocol.start(&req);
                    revalidate(policy, &self.inner, again, req, &asked, &found.stored);
                }
                return StaleFuture::answered(answer, call);
            }
            if asked.said.only_if_cached && found.is_none() {
                return StaleFuture::refused(Rejection::new(Reason::NotStored, "stale"), call);
            }
        }
        StaleFuture::running(self.inner.call(req), call, Course::Read(policy.clone(), asked))
    }
}
