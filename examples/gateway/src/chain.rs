//! The layers, and the order they stand in.

use crate::{
    config,
    upload::RequestBody,
    upstream::{Attempt, Pool, PoolError},
};
use buttress::{
    Balancer, BoxError, Breaker, BreakerConfig, BreakerLayer, Bulkhead, BulkheadConfig, Canary, CanaryConfig,
    CanaryLayer, Chaos, ChaosLayer, ConfigError, Endpoint, Error, Handle, Mode, Registry, RetryConfig,
    ServiceBuilderExt as _, ServiceExt as _, Signal, Telemetry, TelemetryConfig, TelemetryLayer,
    http::HttpGateway,
    telemetry::{AccessLog, AttemptSpanLayer, RequestSpanLayer},
};
use bytes::Bytes;
use http::{Request, Response, uri::Authority};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use std::{collections::BTreeMap, sync::Arc};
use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

/// What clients get.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// The chain of a route.
pub(crate) type Chain = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, Error<PoolError>>;

/// The chain of a cluster: what attempts are made of.
pub(crate) type Target = BoxCloneSyncService<Request<Attempt>, Response<ResponseBody>, Error<PoolError>>;

/// What the layers are, for operators.
#[derive(Default)]
pub(crate) struct Controls {
    /// All of them, under their names: `cluster.web/10.0.0.1:80.breaker`, `route.api.bulkhead`.
    pub(crate) registry: Registry,
    /// By cluster and endpoint.
    pub(crate) endpoints: BTreeMap<String, BTreeMap<String, EndpointControls>>,
    /// By cluster; one of a single endpoint has none.
    pub(crate) balancers: BTreeMap<String, Arc<Balancer>>,
    /// By route.
    pub(crate) canaries: BTreeMap<String, Arc<Canary>>,
}

pub(crate) struct EndpointControls {
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) chaos: Arc<Chaos>,
}

/// What stands around a cluster; every route to it shares it: its endpoint, or balance > endpoints.
pub(crate) fn cluster(name: &str, config: &config::Cluster, controls: &mut Controls) -> Result<Target, ConfigError> {
    let scope = format!("cluster.{name}");
    let attempts = Arc::new(TelemetryConfig::client().build()?);
    controls.registry.add(format!("{scope}.telemetry"), attempts.clone());
    let several = config.endpoints.len() > 1;
    let (mut endpoints, mut known, mut alone) = (Vec::new(), BTreeMap::new(), None);
    for address in &config.endpoints {
        let place = if several { format!("{scope}/{address}") } else { scope.clone() };
        let (service, signal, endpoint) = endpoint(&place, config, address, &attempts, &controls.registry)?;
        known.insert(address.to_string(), endpoint);
        match several {
            true => endpoints.push(Endpoint::new(address.to_string(), service).signal(signal)),
            false => alone = Some(service),
        }
    }
    controls.endpoints.insert(name.to_owned(), known);
    if let Some(service) = alone {
        return Ok(service);
    }
    let balance = config.balance.clone().name(scope.clone()).endpoints(endpoints)?;
    controls.balancers.insert(name.to_owned(), balance.handle());
    Ok(boxed(ServiceBuilder::new().http_client().registry(&controls.registry).named(&scope).balance(balance)))
}

/// What stands around one endpoint: breaker > bulkhead > per-try deadline > telemetry > span > injected faults > pool; and the
/// signal of its breaker.
fn endpoint(
    scope: &str,
    config: &config::Cluster,
    address: &Authority,
    attempts: &Arc<Telemetry>,
    registry: &Registry,
) -> Result<(Target, Signal, EndpointControls), ConfigError> {
    let mut breaker = config.breaker.config.clone();
    if breaker.name == BreakerConfig::default().name {
        breaker = breaker.name(scope);
    }
    let breaker = Arc::new(switched(config.breaker.on, breaker.build()?)?);
    let signal = breaker.signal();
    let bulkhead = bulkhead(scope, &config.bulkhead)?;
    let per_try = switched(config.deadline.on, config.deadline.config.clone().build()?)?;
    let chaos = ChaosLayer::new(Chaos::default());
    let controls = EndpointControls { breaker: breaker.clone(), chaos: chaos.handle() };
    let layers =
        ServiceBuilder::new().http_client().registry(registry).named(scope).with(BreakerLayer::shared(breaker));
    let pool = ServiceBuilder::new()
        .http_client()
        .with(TelemetryLayer::shared(attempts.clone()))
        .with(AttemptSpanLayer::new())
        .registry(registry)
        .named(scope)
        .with(chaos)
        .service(Pool::new(config, address.clone())?.lift_errors());
    let service = match config.bulkhead.config.max_queue {
        0 => boxed(layers.bulkhead(bulkhead).deadline(per_try).service(pool)),
        _ => boxed(layers.queued_bulkhead(bulkhead).deadline(per_try).service(pool)),
    };
    Ok((service, signal, controls))
}

/// What stands around a route: deadline(total) > bulkhead > retry > canary, where there is one > cluster.
pub(crate) fn route(
    name: &str,
    config: &config::Route,
    mut retry: RetryConfig,
    clusters: &BTreeMap<&str, Target>,
    controls: &mut Controls,
) -> Result<Chain, ConfigError> {
    let scope = format!("route.{name}");
    let target = |cluster: &str| {
        let known = clusters.get(cluster).cloned();
        known.ok_or_else(|| ConfigError::new(format!("{scope}.cluster"), cluster, "the name of a cluster"))
    };
    let mut inner = target(&config.cluster)?;
    if let Some(canary) = &config.canary {
        let split = CanaryConfig::new(canary.weight)
            .margin(canary.margin)
            .window(canary.window)
            .min_calls(canary.min_calls)
            .name(scope.clone())
            .build()?;
        let split = Arc::new(split);
        controls.canaries.insert(name.to_owned(), split.clone());
        let layers = ServiceBuilder::new().http_client().registry(&controls.registry).named(&scope);
        inner = boxed(layers.with(CanaryLayer::new(split, target(&canary.cluster)?)).service(inner));
    }
    let bulkhead = bulkhead(&scope, &config.bulkhead)?;
    if retry.name == RetryConfig::default().name {
        retry = retry.name(scope.clone());
    }
    let retry = switched(config.retry.on, retry.build()?)?;
    let total = switched(config.deadline.on, config.deadline.config.clone().build()?)?;
    let layers = ServiceBuilder::new().http_client().registry(&controls.registry).named(&scope).deadline(total);
    Ok(match config.bulkhead.config.max_queue {
        0 => boxed(layers.bulkhead(bulkhead).retry(retry).service(inner)),
        _ => boxed(layers.queued_bulkhead(bulkhead).retry(retry).service(inner)),
    })
}

/// What every request passes, whether there is a route for it or not.
pub(crate) struct Front {
    pub(crate) telemetry: buttress::GateLayer<Telemetry, HttpGateway>,
    pub(crate) spans: RequestSpanLayer<HttpGateway>,
}

impl Front {
    /// That of the requests to `pattern`; `scope` is its place.
    pub(crate) fn new(
        gateway: HttpGateway,
        scope: &str,
        pattern: &str,
        access: config::Access,
        registry: &Registry,
    ) -> Result<Self, ConfigError> {
        let telemetry = TelemetryLayer::new(TelemetryConfig::server().route(pattern.to_owned()).build()?);
        let access = match access {
            config::Access::Off => AccessLog::Off,
            config::Access::Failed => AccessLog::Failed,
            config::Access::All => AccessLog::All,
        };
        let spans = RequestSpanLayer::new().route(pattern.to_owned()).access(access);
        registry.add(format!("{scope}.telemetry"), telemetry.handle());
        Ok(Self { telemetry: telemetry.protocol(gateway), spans: spans.protocol(gateway) })
    }
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
