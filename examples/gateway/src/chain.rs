//! The layers, and the order they stand in.

use crate::{
    config,
    upstream::{Pool, PoolError, RequestBody},
};
use buttress_breaker::Breaker;
use buttress_bulkhead::Bulkhead;
use buttress_core::{BoxError, ConfigError, Error, GateLayer, Handle, Lift, QueueLayer, http::HttpClient};
use buttress_deadline::{DeadlineLayer, Deadlines};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use std::sync::Arc;
use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

/// What clients get.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// A chain, or the inner part of one.
pub(crate) type Chain = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, Error<PoolError>>;

/// The handles of all layers, by name: `upstream.a.breaker`.
pub(crate) type Handles = Vec<(String, Arc<dyn Handle>)>;

/// What stands around one endpoint. Every route to it shares it.
pub(crate) struct EndpointLayers {
    breaker: Arc<Breaker>,
    bulkhead: Compartment,
    per_try: Arc<Deadlines>,
}

impl EndpointLayers {
    /// Judges the config, all of it.
    pub(crate) fn new(name: &str, config: &config::Upstream, handles: &mut Handles) -> Result<Self, Vec<ConfigError>> {
        let mut tables = Tables::new(format!("upstream.{name}"));
        let breaker = tables.built("breaker", config.breaker.clone().build());
        let bulkhead = tables.built("bulkhead", config.bulkhead.clone().build());
        let per_try = tables.built("deadline", config.deadline.clone().build());
        let (Some(breaker), Some(bulkhead), Some(per_try)) = (breaker, bulkhead, per_try) else {
            return Err(tables.errors);
        };
        let bulkhead = Compartment { bulkhead, queued: config.bulkhead.max_queue > 0 };
        tables.shown("breaker", &breaker, handles);
        tables.shown("bulkhead", &bulkhead.bulkhead, handles);
        tables.shown("deadline", &per_try, handles);
        Ok(Self { breaker, bulkhead, per_try })
    }

    /// breaker > bulkhead > per-try deadline > pool.
    pub(crate) fn around(&self, pool: Pool) -> Chain {
        let tried = ServiceBuilder::new()
            .layer(DeadlineLayer::shared(self.per_try.clone()).protocol(HttpClient::new()))
            .service(Lift::new(pool));
        let breaker = GateLayer::<_, HttpClient>::shared(self.breaker.clone());
        boxed(ServiceBuilder::new().layer(breaker).service(self.bulkhead.around(tried)))
    }
}

/// What stands around a route, inside of what answers its clients.
pub(crate) struct RouteLayers {
    total: Arc<Deadlines>,
    bulkhead: Compartment,
}

impl RouteLayers {
    /// Judges the config, all of it.
    pub(crate) fn new(name: &str, config: &config::Route, handles: &mut Handles) -> Result<Self, Vec<ConfigError>> {
        let mut tables = Tables::new(format!("route.{name}"));
        let total = tables.built("deadline", config.deadline.clone().build());
        let bulkhead = tables.built("bulkhead", config.bulkhead.clone().build());
        let (Some(total), Some(bulkhead)) = (total, bulkhead) else { return Err(tables.errors) };
        let bulkhead = Compartment { bulkhead, queued: config.bulkhead.max_queue > 0 };
        tables.shown("deadline", &total, handles);
        tables.shown("bulkhead", &bulkhead.bulkhead, handles);
        Ok(Self { total, bulkhead })
    }

    /// deadline(total) > bulkhead > endpoint.
    pub(crate) fn around(&self, endpoint: Chain) -> Chain {
        let deadline = DeadlineLayer::shared(self.total.clone()).protocol(HttpClient::new());
        boxed(ServiceBuilder::new().layer(deadline).service(self.bulkhead.around(endpoint)))
    }
}

/// A bulkhead that refuses at once, or one whose callers wait: the config decides, both share one state.
struct Compartment {
    bulkhead: Arc<Bulkhead>,
    queued: bool,
}

impl Compartment {
    fn around<S, B>(&self, inner: S) -> Chain
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Error<PoolError>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let bulkhead = self.bulkhead.clone();
        if self.queued {
            let layer = QueueLayer::<_, HttpClient>::shared(bulkhead);
            boxed(ServiceBuilder::new().layer(layer).service(inner))
        } else {
            let layer = GateLayer::<_, HttpClient>::shared(bulkhead);
            boxed(ServiceBuilder::new().layer(layer).service(inner))
        }
    }
}

/// The tables of one upstream or route while they are built.
struct Tables {
    parent: String,
    errors: Vec<ConfigError>,
}

impl Tables {
    fn new(parent: String) -> Self {
        Self { parent, errors: Vec::new() }
    }

    fn built<T>(&mut self, table: &str, built: Result<T, ConfigError>) -> Option<Arc<T>> {
        match built {
            Ok(policy) => Some(Arc::new(policy)),
            Err(error) => {
                self.errors.push(error.within(format_args!("{}.{table}", self.parent)));
                None
            }
        }
    }

    fn shown<H: Handle>(&self, table: &str, handle: &Arc<H>, handles: &mut Handles) {
        handles.push((format!("{}.{table}", self.parent), handle.clone()));
    }
}

fn boxed<S, B>(service: S) -> Chain
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Error<PoolError>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|res: Response<B>| res.map(|b| b.map_err(Into::into).boxed_unsync())))
}
