//! The layers, and the order they stand in.

use crate::{
    config,
    upload::RequestBody,
    upstream::{Attempt, Pool, PoolError},
};
use buttress::{
    BoxError, Breaker, BreakerConfig, Bulkhead, BulkheadConfig, ConfigError, Deadlines, Endpoint, Error, Handle, Mode,
    Registry, RetryConfig, ServiceBuilderExt as _, ServiceExt as _,
};
use bytes::Bytes;
use http::{Request, Response, uri::Authority};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower::{Service, ServiceBuilder, ServiceExt};

/// What clients get.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// The chain of a route.
pub(crate) type Chain = Shared<Request<RequestBody>>;

/// The chain of an upstream: what attempts are made of.
pub(crate) type Target = Shared<Request<Attempt>>;

/// What stands around an upstream; every route to it shares it: its endpoint, or balance > endpoints.
pub(crate) fn upstream(name: &str, config: &config::Upstream, registry: &Registry) -> Result<Target, ConfigError> {
    let layers = |scope: &str| ServiceBuilder::new().http_client().registry(registry).named(scope);
    let pool = |address: &Authority| Pool::new(config, address.clone()).lift_errors();
    let scope = format!("upstream.{name}");
    match config.bulkhead.config.max_queue {
        0 => spread(&scope, config, registry, |scope, Guards { breaker, bulkhead, per_try }, address| {
            layers(scope).breaker(breaker).bulkhead(bulkhead).deadline(per_try).service(pool(address))
        }),
        _ => spread(&scope, config, registry, |scope, Guards { breaker, bulkhead, per_try }, address| {
            layers(scope).breaker(breaker).queued_bulkhead(bulkhead).deadline(per_try).service(pool(address))
        }),
    }
}

/// One endpoint as it is, or a balance over several. One type each, from the balance to the pool: what is boxed is boxed once.
fn spread<S, B>(
    scope: &str,
    config: &config::Upstream,
    registry: &Registry,
    endpoint: impl Fn(&str, Guards, &Authority) -> S,
) -> Result<Target, ConfigError>
where
    S: Service<Request<Attempt>, Response = Response<B>, Error = Error<PoolError>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    if let [address] = config.address.as_slice() {
        return Ok(Shared::new(endpoint(scope, Guards::new(scope, config)?, address)));
    }
    let endpoints = config.address.iter().map(|address| {
        let scope = format!("{scope}/{address}");
        let guards = Guards::new(&scope, config)?;
        let signal = guards.breaker.signal();
        Ok(Endpoint::new(address.to_string(), endpoint(&scope, guards, address)).signal(signal))
    });
    let endpoints = endpoints.collect::<Result<Vec<_>, ConfigError>>()?;
    let balance = config.balance.clone().name(scope.to_owned()).endpoints(endpoints)?;
    Ok(Shared::new(ServiceBuilder::new().http_client().registry(registry).named(scope).balance(balance)))
}

/// What stands around one endpoint: breaker > bulkhead > per-try deadline > pool.
struct Guards {
    breaker: Breaker,
    bulkhead: Bulkhead,
    per_try: Deadlines,
}

impl Guards {
    fn new(scope: &str, config: &config::Upstream) -> Result<Self, ConfigError> {
        let mut breaker = config.breaker.config.clone();
        if breaker.name == BreakerConfig::default().name {
            breaker = breaker.name(scope);
        }
        Ok(Self {
            breaker: switched(config.breaker.on, breaker.build()?)?,
            bulkhead: bulkhead(scope, &config.bulkhead)?,
            per_try: switched(config.deadline.on, config.deadline.config.clone().build()?)?,
        })
    }
}

/// What stands around a route: deadline(total) > bulkhead > retry > upstream.
pub(crate) fn route(
    name: &str,
    config: &config::Route,
    mut retry: RetryConfig,
    registry: &Registry,
    upstream: Target,
) -> Result<Chain, ConfigError> {
    let scope = format!("route.{name}");
    let bulkhead = bulkhead(&scope, &config.bulkhead)?;
    if retry.name == RetryConfig::default().name {
        retry = retry.name(scope.clone());
    }
    let retry = switched(config.retry.on, retry.build()?)?;
    let total = switched(config.deadline.on, config.deadline.config.clone().build()?)?;
    let layers = ServiceBuilder::new().http_client().registry(registry).named(&scope).deadline(total);
    Ok(match config.bulkhead.config.max_queue {
        0 => Shared::new(layers.bulkhead(bulkhead).retry(retry).service(upstream)),
        _ => Shared::new(layers.queued_bulkhead(bulkhead).retry(retry).service(upstream)),
    })
}

/// A bulkhead that log lines name after its place, unless the config names it.
fn bulkhead(scope: &str, config: &config::Layer<BulkheadConfig>) -> Result<Bulkhead, ConfigError> {
    let mut own = config.config.clone();
    if own.name == BulkheadConfig::default().name {
        own = own.name(scope.to_owned());
    }
    switched(config.on, own.build()?)
}

/// A layer that is switched off stays in its chain, where an operator may switch it on.
fn switched<L: Handle>(on: bool, layer: L) -> Result<L, ConfigError> {
    if !on {
        layer.set_mode(Mode::Disabled)?;
    }
    Ok(layer)
}

/// A chain of any type. Its clones are one chain: a call clones what it needs into its own future, which is the one thing
/// that is boxed.
///
/// It is always ready: a call waits for the chain in its future.
pub(crate) struct Shared<Req>(Arc<dyn Calls<Req>>);

impl<Req> Shared<Req> {
    fn new<S, B>(service: S) -> Self
    where
        S: Service<Req, Response = Response<B>, Error = Error<PoolError>> + Clone + Send + Sync + 'static,
        Req: Send + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let boxed = |res: Response<B>| res.map(|body| body.map_err(Into::into).boxed_unsync());
        Self(Arc::new(service.map_response(boxed)))
    }
}

impl<Req> Clone for Shared<Req> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Error<PoolError>>> + Send>>;

trait Calls<Req>: Send + Sync {
    fn call(&self, req: Req) -> Answer;
}

impl<S, Req> Calls<Req> for S
where
    S: Service<Req, Response = Response<ResponseBody>, Error = Error<PoolError>> + Clone + Send + Sync + 'static,
    Req: Send + 'static,
    S::Future: Send,
{
    fn call(&self, req: Req) -> Answer {
        Box::pin(self.clone().oneshot(req))
    }
}

impl<Req> Service<Req> for Shared<Req> {
    type Response = Response<ResponseBody>;
    type Error = Error<PoolError>;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Req) -> Answer {
        self.0.call(req)
    }
}
