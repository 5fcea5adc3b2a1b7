//! The layers, and the order they stand in.

use crate::{
    config,
    upload::RequestBody,
    upstream::{Attempt, Pool, PoolError},
};
use buttress::{
    BoxError, BreakerConfig, Bulkhead, BulkheadConfig, ConfigError, Endpoint, Error, Handle, Mode, Registry,
    RetryConfig, ServiceBuilderExt as _, ServiceExt as _, Signal,
};
use bytes::Bytes;
use http::{Request, Response, uri::Authority};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

/// What clients get.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// The chain of a route.
pub(crate) type Chain = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, Error<PoolError>>;

/// The chain of a cluster: what attempts are made of.
pub(crate) type Target = BoxCloneSyncService<Request<Attempt>, Response<ResponseBody>, Error<PoolError>>;

/// What stands around a cluster; every route to it shares it: its endpoint, or balance > endpoints.
pub(crate) fn cluster(name: &str, config: &config::Cluster, registry: &Registry) -> Result<Target, ConfigError> {
    let scope = format!("cluster.{name}");
    let [address] = config.endpoints.as_slice() else {
        let endpoints = config.endpoints.iter().map(|address| {
            let (service, signal) = endpoint(&format!("{scope}/{address}"), config, address, registry)?;
            Ok(Endpoint::new(address.to_string(), service).signal(signal))
        });
        let endpoints = endpoints.collect::<Result<Vec<_>, ConfigError>>()?;
        let balance = config.balance.clone().name(scope.clone()).endpoints(endpoints)?;
        return Ok(boxed(ServiceBuilder::new().http_client().registry(registry).named(&scope).balance(balance)));
    };
    Ok(endpoint(&scope, config, address, registry)?.0)
}

/// What stands around one endpoint: breaker > bulkhead > per-try deadline > pool; and the signal of its breaker.
fn endpoint(
    scope: &str,
    config: &config::Cluster,
    address: &Authority,
    registry: &Registry,
) -> Result<(Target, Signal), ConfigError> {
    let mut breaker = config.breaker.config.clone();
    if breaker.name == BreakerConfig::default().name {
        breaker = breaker.name(scope);
    }
    let breaker = switched(config.breaker.on, breaker.build()?)?;
    let signal = breaker.signal();
    let bulkhead = bulkhead(scope, &config.bulkhead)?;
    let per_try = switched(config.deadline.on, config.deadline.config.clone().build()?)?;
    let layers = ServiceBuilder::new().http_client().registry(registry).named(scope).breaker(breaker);
    let pool = Pool::new(config, address.clone())?.lift_errors();
    let service = match config.bulkhead.config.max_queue {
        0 => boxed(layers.bulkhead(bulkhead).deadline(per_try).service(pool)),
        _ => boxed(layers.queued_bulkhead(bulkhead).deadline(per_try).service(pool)),
    };
    Ok((service, signal))
}

/// What stands around a route: deadline(total) > bulkhead > retry > cluster.
pub(crate) fn route(
    name: &str,
    config: &config::Route,
    mut retry: RetryConfig,
    registry: &Registry,
    cluster: Target,
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
        0 => boxed(layers.bulkhead(bulkhead).retry(retry).service(cluster)),
        _ => boxed(layers.queued_bulkhead(bulkhead).retry(retry).service(cluster)),
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

fn boxed<S, Req, B>(service: S) -> BoxCloneSyncService<Req, Response<ResponseBody>, Error<PoolError>>
where
    S: Service<Req, Response = Response<B>, Error = Error<PoolError>> + Clone + Send + Sync + 'static,
    Req: 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|res: Response<B>| res.map(|b| b.map_err(Into::into).boxed_unsync())))
}
