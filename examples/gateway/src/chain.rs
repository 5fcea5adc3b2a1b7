//! The layers, and the order they stand in.

use crate::{
    config,
    upload::{Carried, RequestBody},
    upstream::{Attempt, Pool, PoolError},
};
use buttress::{
    Balancer, BoxError, Breaker, BreakerConfig, BreakerLayer, Bulkhead, BulkheadConfig, Canary, CanaryConfig,
    CanaryLayer, Chaos, ChaosLayer, ConfigError, Deadlines, Endpoint, Error, Failover, FallbackConfig, Handle, Mode,
    Registry, RetryConfig, ServiceBuilderExt as _, ServiceExt as _, Stale, StaleLayer, Telemetry, TelemetryConfig,
    core::{Replay, TokioClock},
    fallback::{Levels, LevelsConfig, TierConfig, Toggles, backup},
    http::{HttpClient, HttpGateway, ReplayBody},
    telemetry::{AccessLog, AttemptSpanLayer, RequestSpanLayer},
};
use bytes::Bytes;
use http::{Request, Response, uri::Authority};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower::{Service, ServiceBuilder, ServiceExt, util::MapRequestLayer};

/// What clients get.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// The chain of a route.
pub(crate) type Chain = Shared<Request<RequestBody>>;

/// The chain of a cluster: what attempts are made of.
pub(crate) type Target = Shared<Request<Attempt>>;

/// What the layers are, for operators.
pub(crate) struct Controls {
    /// All of them, under their names: `cluster.web/10.0.0.1:80.breaker`, `route.api.bulkhead`.
    pub(crate) registry: Registry,
    /// By cluster and endpoint.
    pub(crate) endpoints: BTreeMap<String, BTreeMap<String, EndpointControls>>,
    /// By cluster; one of a single endpoint has none.
    pub(crate) balancers: BTreeMap<String, Arc<Balancer>>,
    /// Where the config has levels.
    pub(crate) levels: Option<Levels>,
    pub(crate) toggles: Toggles,
    /// The last good answers, by route.
    pub(crate) stales: BTreeMap<String, Arc<Stale>>,
    /// By route.
    pub(crate) failovers: BTreeMap<String, Arc<Failover>>,
    /// By route.
    pub(crate) canaries: BTreeMap<String, Arc<Canary>>,
}

impl Controls {
    /// Levels and toggles; the layers are added when they are built.
    pub(crate) fn new(config: &config::Config) -> Result<Self, ConfigError> {
        let registry = Registry::new();
        let levels = config.levels.config().map(LevelsConfig::build).transpose()?;
        if let Some(levels) = &levels {
            registry.add("levels", Arc::new(levels.clone()));
        }
        let mut toggles = Toggles::builder();
        for (name, toggle) in &config.toggles {
            let own = toggle.config(name);
            toggles = toggles.add(match (&toggle.level, &levels) {
                (Some(level), Some(levels)) => own.level(levels, level)?,
                _ => own,
            });
        }
        let toggles = toggles.build()?;
        toggles.for_each(|toggle| _ = registry.add(format!("toggle.{}", toggle.name()), Arc::new(toggle.clone())));
        let (endpoints, balancers) = (BTreeMap::new(), BTreeMap::new());
        let (stales, failovers, canaries) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { registry, endpoints, balancers, levels, toggles, stales, failovers, canaries })
    }

    /// Levels heed the clusters that the config says: the share of endpoints whose circuits are open is their pressure.
    pub(crate) fn watch_clusters(&self, config: &config::Levels) {
        let Some(levels) = &self.levels else { return };
        for (name, endpoints) in &self.endpoints {
            if !config.clusters.is_empty() && !config.clusters.contains(name) {
                continue;
            }
            let signals: Vec<_> = endpoints.values().map(|endpoint| endpoint.breaker.signal()).collect();
            levels.source(move || {
                let open = signals.iter().filter(|signal| signal.is_shut(&TokioClock)).count();
                open as f64 / signals.len() as f64
            });
        }
    }
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
    let mut guards = Vec::new();
    let mut known = BTreeMap::new();
    for address in &config.endpoints {
        let place = match config.endpoints.len() {
            1 => scope.clone(),
            _ => format!("{scope}/{address}"),
        };
        let own = Guards::new(place, config, address, attempts.clone())?;
        let endpoint = EndpointControls { breaker: own.breaker.clone(), chaos: own.chaos.handle() };
        known.insert(address.to_string(), endpoint);
        guards.push(own);
    }
    controls.endpoints.insert(name.to_owned(), known);
    let Controls { registry, balancers, .. } = controls;
    let registry = &*registry;
    let layers = |scope: &str| ServiceBuilder::new().http_client().registry(registry).named(scope);
    // All endpoints of a cluster share one telemetry, which has its name already.
    let attempt = |scope: &str, address: &Authority, attempts, chaos, pool: Pool| {
        let spans = AttemptSpanLayer::new().telemetry(attempts).server(address.host(), address.port_u16());
        let layers = ServiceBuilder::new().http_client().with(spans).registry(registry).named(scope).with(chaos);
        layers.service(pool.lift_errors())
    };
    let (target, balancer) = match config.bulkhead.config.max_queue {
        0 => spread(&scope, config, registry, guards, |guards| {
            let Guards { scope, address, breaker, bulkhead, per_try, attempts, chaos, pool } = guards;
            let layers = layers(&scope).with(BreakerLayer::shared(breaker)).bulkhead(bulkhead).deadline(per_try);
            layers.service(attempt(&scope, &address, attempts, chaos, pool))
        }),
        _ => spread(&scope, config, registry, guards, |guards| {
            let Guards { scope, address, breaker, bulkhead, per_try, attempts, chaos, pool } = guards;
            let layers = layers(&scope).with(BreakerLayer::shared(breaker)).queued_bulkhead(bulkhead).deadline(per_try);
            layers.service(attempt(&scope, &address, attempts, chaos, pool))
        }),
    }?;
    balancers.extend(balancer.map(|balancer| (name.to_owned(), balancer)));
    Ok(target)
}

/// One endpoint as it is, or a balance over several. One type each, from the balance to the pool: what is boxed is boxed once.
fn spread<S, B>(
    scope: &str,
    config: &config::Cluster,
    registry: &Registry,
    mut guards: Vec<Guards>,
    endpoint: impl Fn(Guards) -> S,
) -> Result<(Target, Option<Arc<Balancer>>), ConfigError>
where
    S: Service<Request<Attempt>, Response = Response<B>, Error = Error<PoolError>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    if guards.len() == 1 {
        return Ok((Shared::new(endpoint(guards.remove(0))), None));
    }
    let endpoints = guards.into_iter().map(|guards| {
        let (name, signal) = (guards.address.to_string(), guards.breaker.signal());
        Endpoint::new(name, endpoint(guards)).signal(signal)
    });
    let balance = config.balance.clone().name(scope.to_owned()).endpoints(endpoints)?;
    let balancer = balance.handle();
    let target = ServiceBuilder::new().http_client().registry(registry).named(scope).balance(balance);
    Ok((Shared::new(target), Some(balancer)))
}

/// What stands around one endpoint: breaker > bulkhead > per-try deadline > telemetry > span > injected faults > pool.
struct Guards {
    /// Its place among the handles.
    scope: String,
    address: Authority,
    breaker: Arc<Breaker>,
    bulkhead: Bulkhead,
    per_try: Deadlines,
    attempts: Arc<Telemetry>,
    chaos: ChaosLayer,
    pool: Pool,
}

impl Guards {
    fn new(
        scope: String,
        config: &config::Cluster,
        address: &Authority,
        attempts: Arc<Telemetry>,
    ) -> Result<Self, ConfigError> {
        let mut breaker = config.breaker.config.clone();
        if breaker.name == BreakerConfig::default().name {
            breaker = breaker.name(scope.clone());
        }
        Ok(Self {
            breaker: Arc::new(switched(config.breaker.on, breaker.build()?)?),
            bulkhead: bulkhead(&scope, &config.bulkhead)?,
            per_try: switched(config.deadline.on, config.deadline.config.clone().build()?)?,
            attempts,
            chaos: ChaosLayer::new(Chaos::default()),
            pool: Pool::new(config, address.clone())?,
            address: address.clone(),
            scope,
        })
    }
}

/// What stands around a route: fallback > stale > toggle > deadline(total) > bulkhead > failover > retry > canary > cluster; the
/// bulkhead and the retry always, the others where there are such.
pub(crate) fn route(
    gateway: &str,
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
        inner = Shared::new(layers.with(CanaryLayer::new(split, target(&canary.cluster)?)).service(inner));
    }
    let bulkhead = bulkhead(&scope, &config.bulkhead)?;
    if retry.name == RetryConfig::default().name {
        retry = retry.name(scope.clone());
    }
    let retry = switched(config.retry.on, retry.build()?)?;
    let budget = retry.budget().clone();
    let total = switched(config.deadline.on, config.deadline.config.clone().build()?)?;
    let registry = controls.registry.clone();
    let layers = || ServiceBuilder::new().http_client().registry(&registry).named(&scope);
    let bounds = layers().deadline(total);
    let once = MapRequestLayer::new(|req: Request<RequestBody>| req.map(Carried::Once));
    let queues = config.bulkhead.config.max_queue > 0;
    let chain = match &config.failover {
        None if queues => Shared::new(bounds.queued_bulkhead(bulkhead).layer(once).retry(retry).service(inner)),
        None => Shared::new(bounds.bulkhead(bulkhead).layer(once).retry(retry).service(inner)),
        Some(failover) => {
            let kept = |req: Request<ReplayBody<RequestBody>>| req.map(Carried::Kept);
            let primary = Tier::new(layers().layer(MapRequestLayer::new(kept)).retry(retry).service(inner));
            let mut backups = Vec::new();
            for cluster in &failover.clusters {
                // It is asked once: the request was sent to others before.
                let attempt = move |req| HttpClient::new().once(kept(req));
                let tier = TierConfig::new(cluster.clone()).max_concurrent(failover.max_concurrent);
                backups.push((tier, Tier::new(target(cluster)?.map_request(attempt))));
            }
            let tiers = failover.tiers(config, &scope).tiers(backups).build()?;
            controls.failovers.insert(name.to_owned(), tiers.handle());
            match queues {
                true => Shared::new(bounds.queued_bulkhead(bulkhead).with(tiers).service(primary)),
                false => Shared::new(bounds.bulkhead(bulkhead).with(tiers).service(primary)),
            }
        }
    };
    let chain = match &config.toggle {
        None => chain,
        // It has its name in the registry already.
        Some(name) => {
            let toggle = controls.toggles.layer(name, backup::none())?;
            Shared::new(ServiceBuilder::new().http_client().with(toggle).service(chain))
        }
    };
    let Some(fallback) = config.fallback() else { return Ok(chain) };
    let chain = match &fallback.stale {
        None => chain,
        Some(stale) => {
            let stale = stale.config(gateway, &scope).build_sharing(budget)?;
            let layer = StaleLayer::new(stale);
            controls.stales.insert(name.to_owned(), layer.handle());
            Shared::new(layers().with(layer).service(chain))
        }
    };
    Ok(match &fallback.fixed {
        None => chain,
        Some(fixed) => {
            let policy = FallbackConfig::default().on(Vec::from(fallback.on)).name(scope.clone());
            Shared::new(layers().with(policy.layer(fixed.build()?)?).service(chain))
        }
    })
}

/// What a failover turns to: the request's body may be kept for another one.
type Tier = Shared<Request<ReplayBody<RequestBody>>>;

/// What every request passes, whether there is a route for it or not: it is measured, has a span, and a line in the log.
pub(crate) type Front = RequestSpanLayer<HttpGateway>;

/// The front of the requests to `pattern`; `scope` is its place.
pub(crate) fn front(
    gateway: HttpGateway,
    scope: &str,
    pattern: &str,
    access: config::Access,
    registry: &Registry,
) -> Result<Front, ConfigError> {
    let telemetry = Arc::new(TelemetryConfig::server().route(pattern.to_owned()).build()?);
    registry.add(format!("{scope}.telemetry"), telemetry.clone());
    let access = match access {
        config::Access::Off => AccessLog::Off,
        config::Access::Failed => AccessLog::Failed,
        config::Access::All => AccessLog::All,
    };
    Ok(RequestSpanLayer::new()
        .name(scope.to_owned())
        .route(pattern.to_owned())
        .access(access)
        .telemetry(telemetry)
        .protocol(gateway))
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
