//! The layers, and the order they stand in.

use crate::{
    config,
    upload::RequestBody,
    upstream::{Pool, PoolError},
};
use buttress::{
    BoxError, BreakerConfig, Bulkhead, BulkheadConfig, ConfigError, Error, Handle, Mode, Registry,
    ServiceBuilderExt as _, ServiceExt as _,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

/// What clients get.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// A chain, or the inner part of one.
pub(crate) type Chain = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, Error<PoolError>>;

/// What stands around one endpoint; every route to it shares it: breaker > bulkhead > per-try deadline > pool.
pub(crate) fn endpoint(name: &str, config: &config::Upstream, registry: &Registry) -> Result<Chain, ConfigError> {
    let scope = format!("upstream.{name}");
    let mut breaker = config.breaker.config.clone();
    if breaker.name == BreakerConfig::default().name {
        breaker = breaker.name(&scope);
    }
    let breaker = switched(config.breaker.on, breaker.build()?)?;
    let bulkhead = bulkhead(&scope, &config.bulkhead)?;
    let per_try = switched(config.deadline.on, config.deadline.config.clone().build()?)?;
    let layers = ServiceBuilder::new().http_client().registry(registry).named(&scope).breaker(breaker);
    let pool = Pool::new(config).lift_errors();
    Ok(match config.bulkhead.config.max_queue {
        0 => boxed(layers.bulkhead(bulkhead).deadline(per_try).service(pool)),
        _ => boxed(layers.queued_bulkhead(bulkhead).deadline(per_try).service(pool)),
    })
}

/// What stands around a route: deadline(total) > bulkhead > endpoint.
pub(crate) fn route(
    name: &str,
    config: &config::Route,
    registry: &Registry,
    endpoint: Chain,
) -> Result<Chain, ConfigError> {
    let scope = format!("route.{name}");
    let bulkhead = bulkhead(&scope, &config.bulkhead)?;
    let total = switched(config.deadline.on, config.deadline.config.clone().build()?)?;
    let layers = ServiceBuilder::new().http_client().registry(registry).named(&scope).deadline(total);
    Ok(match config.bulkhead.config.max_queue {
        0 => boxed(layers.bulkhead(bulkhead).service(endpoint)),
        _ => boxed(layers.queued_bulkhead(bulkhead).service(endpoint)),
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

fn boxed<S, B>(service: S) -> Chain
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Error<PoolError>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|res: Response<B>| res.map(|b| b.map_err(Into::into).boxed_unsync())))
}
