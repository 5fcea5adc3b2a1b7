use super::{Coalesce, CoalesceFuture, KeyOf, Share, flights::Flights, future::Rest};
use buttress_core::{Fresh, Opaque};
use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// Makes one call of requests that are the same and come at the same time (single flight): the first one calls, the others wait for what it gets.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use buttress_core::Error;
/// use buttress_fallback::{Coalesce, CoalesceLayer};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// let price = service_fn(|item: &'static str| async move {
///     tokio::task::yield_now().await;
///     Ok::<_, Error<std::io::Error>>(item.len())
/// });
///
/// let layer = CoalesceLayer::new(Coalesce::default(), |item: &&'static str| Some(*item));
/// let handle = layer.handle();
/// let service = layer.layer(price);
///
/// let (a, b) = tokio::join!(service.clone().oneshot("apple"), service.oneshot("apple"));
/// assert_eq!((a.unwrap(), b.unwrap()), (5, 5));
/// assert_eq!((handle.snapshot().calls_total, handle.snapshot().shared_total), (1, 1));
/// # }
/// ```
///
/// `K` is the key, `F` what says it of a request ([`KeyOf`]), `P` the protocol. [`new`](Self::new) takes any request whose responses are `Clone`;
/// `CoalesceLayer::http` shares GET and HEAD requests without a body that do not say `no-cache` or `no-store`, and tells them apart by everything that they say and by their priority.
///
/// # Who gets what
///
/// | the call ends with | who called | the others |
/// |---|---|---|
/// | an answer | it | a copy |
/// | a refusal of a layer further in | it | the same refusal |
/// | another error, or a body that fails | it | a refusal, `shared_call_failed` |
/// | a deadline that passed | it | one of them calls again, for all |
/// | a panic | it | a refusal, `panicked` |
/// | HTTP: an answer that is `private`, `no-cache`, `no-store`, has `Set-Cookie`, `Vary: *` or trailers, an event stream, one that is larger than [`max_body`](crate::CoalesceConfig::max_body), or slower than [`collect_within`](crate::CoalesceConfig::collect_within) | its stream | each makes a call of its own |
///
/// Who is alone when the head of an answer comes gets the response as it is; who comes later makes another call. So nothing is collected, and nothing is late, where nobody waits.
///
/// # Cancel
///
/// Whoever is dropped leaves. If it was the one who called, the one who waits for the longest time goes on with the *same* call; when nobody is left the call is dropped. Those who wait
/// are woken when the result is there, and not before.
///
/// # Where it stands
///
/// Inside of the deadline, so that each caller has his own time, and of telemetry, so that each is seen; outside of the retry, the bulkhead and whatever else should see one call. The
/// shared call has the context of the one who called (its trace, its priority, its deadline as layers further in read it). HTTP: nobody enforces that deadline for all; where a layer further in
/// ends the call by it, another one is made.
///
/// # Shared by clones
///
/// The calls under way, counts, mode and config: clones, routes and connections of one layer share them, and so does whatever service it is put around: a service mounted at two places under the
/// same paths needs [`fresh`](Self::fresh).
///
/// # When not to use it
///
/// * Where an answer depends on what is not in the key. Over HTTP every header is; a client's address or certificate is not: then make it part of a [`key`](Self::key) of your own.
/// * Where two equal requests should have two effects, or two different random answers.
/// * Where calls are so short that they seldom overlap: every call takes a lock twice, an allocation for the call and one for the key.
pub struct CoalesceLayer<K, F, P = Opaque> {
    policy: Arc<Coalesce>,
    flights: Flights<K>,
    key: F,
    protocol: P,
}

/// What calls are looked up by. Every such type is one.
pub trait CoalesceKey: Eq + Hash + Clone + Send + Sync + 'static {}

impl<K: Eq + Hash + Clone + Send + Sync + 'static> CoalesceKey for K {}

impl<K: CoalesceKey, F> CoalesceLayer<K, F> {
    /// A layer of `policy` for any request: those with the same key share a call. `None`, and a request makes its own.
    ///
    /// Responses are cloned. For HTTP take `CoalesceLayer::http` (feature `http`).
    pub fn new<Req>(policy: impl Into<Arc<Coalesce>>, key: F) -> Self
    where
        F: Fn(&Req) -> Option<K>,
    {
        Self::with(policy.into(), key, Opaque::new())
    }
}

#[cfg(feature = "http")]
impl CoalesceLayer<super::RequestKey, super::ByRequest, buttress_core::http::HttpServer> {
    /// A layer of `policy` for HTTP: GET and HEAD requests without a body, [equal in all that matters](super::ByRequest).
    pub fn http(policy: impl Into<Arc<Coalesce>>) -> Self {
        Self::with(policy.into(), super::ByRequest, buttress_core::http::HttpServer::new())
    }
}

impl<K: CoalesceKey, F, P> CoalesceLayer<K, F, P> {
    fn with(policy: Arc<Coalesce>, key: F, protocol: P) -> Self {
        let flights = Flights::new(policy.flights.clone());
        Self { policy, flights, key, protocol }
    }

    /// What this layer's services share: read it, change it.
    pub fn handle(&self) -> Arc<Coalesce> {
        self.policy.clone()
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> CoalesceLayer<K, F, Q> {
        CoalesceLayer { policy: self.policy, flights: self.flights, key: self.key, protocol }
    }

    /// Tells requests apart by `key` instead; `None`, and a request makes a call of its own.
    ///
    /// Whatever an answer depends on must be in it, above all who asks: his credentials, his cookies, his address.
    pub fn key<Req, L: CoalesceKey, G>(self, key: G) -> CoalesceLayer<L, G, P>
    where
        G: Fn(&Req) -> Option<L>,
    {
        CoalesceLayer::with(self.policy, key, self.protocol)
    }

    /// The same config with calls and counts of its own, for another service.
    pub fn fresh(&self) -> Self
    where
        F: Clone,
        P: Clone,
    {
        Self::with(Arc::new(self.policy.fresh()), self.key.clone(), self.protocol.clone())
    }
}

impl<K, F: Clone, P: Clone> Clone for CoalesceLayer<K, F, P> {
    fn clone(&self) -> Self {
        Self {
            policy: self.policy.clone(),
            flights: self.flights.clone(),
            key: self.key.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<K, F, P> fmt::Debug for CoalesceLayer<K, F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CoalesceLayer").field(&self.policy).finish()
    }
}

impl<S, K, F: Clone, P: Clone> Layer<S> for CoalesceLayer<K, F, P> {
    type Service = CoalesceService<S, K, F, P>;

    fn layer(&self, inner: S) -> Self::Service {
        CoalesceService { inner, layer: self.clone() }
    }
}

/// The service of [`CoalesceLayer`].
pub struct CoalesceService<S, K, F, P = Opaque> {
    inner: S,
    layer: CoalesceLayer<K, F, P>,
}

impl<S, K, F, P> CoalesceService<S, K, F, P> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone, K, F: Clone, P: Clone> Clone for CoalesceService<S, K, F, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, K, F, P> fmt::Debug for CoalesceService<S, K, F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, K, F, P, Req> Service<Req> for CoalesceService<S, K, F, P>
where
    S: Service<Req, Future: Send + 'static> + Clone,
    S::Response: 'static,
    S::Error: 'static,
    K: CoalesceKey,
    F: KeyOf<Req, K>,
    P: Share<Req, S::Response, S::Error> + Clone,
    P::Call: Send + 'static,
{
    type Response = P::Response;
    type Error = S::Error;
    type Future = CoalesceFuture<S, P, Req, K>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut req: Req) -> Self::Future {
        let CoalesceLayer { policy, flights, key, protocol } = &self.layer;
        let call = protocol.start_refusable(&req);
        let key = if policy.shares() && protocol.prepare(&mut req) { key.key_of(&req) } else { None };
        let Some(key) = key else { return CoalesceFuture::single(self.inner.call(req), call) };
        let member = flights.join(key);
        if member.leads() {
            let (terms, crew) = (policy.terms(), member.crew());
            let judge = protocol.start(&req);
            member.launch(P::fly(judge, self.inner.call(req), move || crew.close_if_alone(), terms));
            return CoalesceFuture::member(member, None, call);
        }
        // A clone that reserves nothing: it is called only if what comes cannot be shared.
        let (policy, flights, protocol) = (policy.clone(), flights.clone(), protocol.clone());
        let rest = Rest { inner: self.inner.clone(), req, protocol, policy, flights };
        CoalesceFuture::member(member, Some(Box::new(rest)), call)
    }
}
