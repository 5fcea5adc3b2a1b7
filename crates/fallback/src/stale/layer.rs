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

/// Keeps the last good answers of an HTTP service within a budget of bytes, and gives them where it fails
/// ([RFC 9111](https://www.rfc-editor.org/rfc/rfc9111), [RFC 5861](https://www.rfc-editor.org/rfc/rfc5861)). As an option it is a small shared cache
/// as well ([`cache`](crate::StaleConfig::cache)).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use buttress_fallback::{StaleConfig, StaleLayer};
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use std::{convert::Infallible, sync::Arc, sync::atomic::{AtomicU32, Ordering::Relaxed}, time::Duration};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # type Body = Full<bytes::Bytes>;
/// // A service that works once.
/// let calls = Arc::new(AtomicU32::new(0));
/// let service = service_fn(move |_req: Request<Body>| {
///     let works = calls.fetch_add(1, Relaxed) == 0;
///     let status = if works { 200 } else { 502 };
///     async move { Ok::<_, Infallible>(Response::builder().status(status).body(Body::from("news")).unwrap()) }
/// });
///
/// // It says nothing of caching: the operator allows an hour.
/// let layer = StaleLayer::new(StaleConfig::default().max(Duration::from_secs(3600)).build()?);
/// let stale = layer.handle();
/// let service = layer.layer(service);
///
/// let first = service.clone().oneshot(Request::get("/news").body(Body::default())?).await?;
/// first.into_body().collect().await?; // what was not read to its end is not kept
/// let second = service.oneshot(Request::get("/news").body(Body::default())?).await?;
/// assert_eq!(second.status(), 200);
/// assert_eq!(second.headers()["x-degraded"], "stale; cause=failure");
/// assert_eq!(second.headers()["cache-status"], "buttress; hit; ttl=0; detail=stale-if-error");
/// assert_eq!(stale.snapshot().served_stale_total, 1);
/// # Ok(()) }
/// ```
///
/// # What it keeps
///
/// Answers to GET that are whole: 200, 203, 204, 300, 301, 308, 404, 410. Never what says `no-store`, `private` or `no-cache` or has a `Cache-Control` that is written wrongly, has `Set-Cookie` or
/// `Vary: *`, is a part (206) or has trailers; never the answer to a request with `no-store`, `Range`, or with `Authorization` or `Cookie` unless it says `public`; never
/// what a layer further in refused or gave in place of something else. [`NotStored`](crate::NotStored) counts why. A resource is its authority (or `Host`) and its
/// path, whatever the method and the scheme; of each up to eight answers are kept, told apart by the headers that `Vary` names, and always by what a proxy in front says of how the request
/// came: `X-Forwarded-Proto` (where there is none, the URI's scheme), `X-Forwarded-Host`, and `Forwarded` but for its `for` and `by`.
///
/// # When it gives it
///
/// | the service | a stored answer is given |
/// |---|---|
/// | answers 500, 502, 503 or 504, fails, or a layer further in refuses (not: rate limits, other 4xx, the client's own deadline) | while it is fresh; for its `stale-if-error`, and where it says none for [`max`](crate::StaleConfig::max) |
/// | answers anything else, gRPC | never |
/// | need not be asked, as [`cache`](crate::StaleConfig::cache) is on | while it is fresh; for its `stale-while-revalidate`, and it is asked in the background |
///
/// Never stale with `must-revalidate`, `proxy-revalidate` or `s-maxage`. What a request says is honoured: `no-cache`, `max-age`, `min-fresh`, `max-stale`, `stale-if-error`,
/// `only-if-cached` (504 where there is nothing), conditions (304). On errors `max-stale` and `stale-if-error` of a request make the time shorter, and never longer. Where nothing can be given, the caller gets what the service said.
///
/// It carries `Age` and `Cache-Status` ([RFC 9211](https://www.rfc-editor.org/rfc/rfc9211)), and where it is stale or stands in place of a failure it is marked as
/// [`Degraded`](buttress_core::Degraded). A success of any unsafe method throws away what is stored of its resource, and of what its `Location` names of the same origin.
///
/// # Where it stands
///
/// Outside of the deadline, so that a call that hangs ends in a stored answer; inside of whatever compresses or personalises answers. What is asked in the background goes through
/// the layers further in, and is bounded by theirs alone. Its request has an empty body: a request body is `Default` (axum's is).
///
/// # Shared by clones, cancel, cost
///
/// Clones, routes and connections share one store: a service mounted at two places under the same paths needs [`fresh`](Self::fresh). A call or a body that
/// is dropped leaves nothing; a body is stored at its end. What is asked in the background goes on: once at a time for a resource, each time paid by a token of the budget, into which each request that is answered without asking deposits.
///
/// A GET costs a copy of its head, and what is stored one copy of its bytes. A body that declares more than [`max_body`](crate::StaleConfig::max_body) is not copied; copies under
/// way have a budget as large as the store's. Where the cache is off the store is read only after a failure.
///
/// # When not to use it
///
/// * Where an old answer is worse than none: stocks, balances, permissions.
/// * Where answers depend on what neither the URI nor `Vary` names: a client's address or certificate, `X-Forwarded-Prefix`. Say `private` there, or `Vary`.
/// * As the cache in front of a large site: it has no disk, no tags, and asks the origin with conditions only in the background.
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
        if policy.is_cache() || asked.said.only_if_cached {
            let found = policy.find(&asked, false);
            if let Some(found) = &found
                && let Some(answer) = policy.give(&asked, found, None)
            {
                policy.deposit(true);
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
        if policy.is_cache() {
            policy.deposit(false);
        }
        StaleFuture::running(self.inner.call(req), call, Course::Read(policy.clone(), asked))
    }
}
