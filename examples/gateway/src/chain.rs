//! The layers, and the order they stand in.

use crate::{
    config,
    upstream::{Pool, PoolError, RequestBody},
};
use buttress_core::{BoxError, ConfigError, Error, Handle, Lift};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use std::sync::Arc;
use tower::{ServiceExt, util::BoxCloneSyncService};

/// What clients get.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// A route's whole chain.
pub(crate) type Chain = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, Error<PoolError>>;

/// The handles of all layers, by name: `upstream.a.breaker`.
pub(crate) type Handles = Vec<(String, Arc<dyn Handle>)>;

/// The chain around one endpoint: breaker > bulkhead > per-try deadline > pool.
pub(crate) fn endpoint(_name: &str, config: &config::Upstream, _: &mut Handles) -> Result<Chain, Vec<ConfigError>> {
    Ok(boxed(Lift::new(Pool::new(config))))
}

/// The chain around a route: deadline(total) > bulkhead > endpoint.
pub(crate) fn route(
    _name: &str,
    _config: &config::Route,
    endpoint: Chain,
    _: &mut Handles,
) -> Result<Chain, Vec<ConfigError>> {
    Ok(endpoint)
}

fn boxed<S, B>(service: S) -> Chain
where
    S: tower::Service<Request<RequestBody>, Response = Response<B>, Error = Error<PoolError>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|res: Response<B>| res.map(|b| b.map_err(Into::into).boxed_unsync())))
}
