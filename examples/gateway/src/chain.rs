//! The layers, and the order they stand in.

use crate::{
    config,
    upload::RequestBody,
    upstream::{Pool, PoolError},
};
use buttress::{BoxError, ConfigError, Error, Registry, ServiceBuilderExt as _, ServiceExt as _};
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
    let layers = ServiceBuilder::new()
        .http_client()
        .registry(registry)
        .named(format_args!("upstream.{name}"))
        .breaker(config.breaker.clone().build()?);
    let (bulkhead, per_try) = (config.bulkhead.clone().build()?, config.deadline.clone().build()?);
    let pool = Pool::new(config).lift_errors();
    Ok(match config.bulkhead.max_queue {
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
    let layers = ServiceBuilder::new()
        .http_client()
        .registry(registry)
        .named(format_args!("route.{name}"))
        .deadline(config.deadline.clone().build()?);
    let bulkhead = config.bulkhead.clone().build()?;
    Ok(match config.bulkhead.max_queue {
        0 => boxed(layers.bulkhead(bulkhead).service(endpoint)),
        _ => boxed(layers.queued_bulkhead(bulkhead).service(endpoint)),
    })
}

fn boxed<S, B>(service: S) -> Chain
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Error<PoolError>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|res: Response<B>| res.map(|b| b.map_err(Into::into).boxed_unsync())))
}
