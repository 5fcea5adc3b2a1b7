//! What stands around a cluster: shed > gate > balance > endpoints.

use super::{Controls, EndpointControls, Shared, Target, bulkhead, switched};
use crate::{
    clients::network,
    config,
    upstream::{Attempt, Pool, PoolError},
};
use buttress::{
    Ask, Balancer, BoxError, Breaker, BreakerConfig, BreakerLayer, Bulkhead, Chaos, ChaosLayer, ConfigError, Context,
    Deadlines, Endpoint, Error, QueueLayer, RampedGate, RampedGateConfig, RampedGateLayer, Registry,
    ServiceBuilderExt as _, ServiceExt as _, Shed, ShedConfig, Telemetry, TelemetryConfig, telemetry::AttemptSpanLayer,
};
use bytes::Bytes;
use http::{Request, Response, uri::Authority};
use std::{collections::BTreeMap, sync::Arc};
use tower::{Service, ServiceBuilder};

/// What stands around a cluster; every route to it shares it: shed > its endpoint, or shed > gate > balance > endpoints.
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
    let shed = shed(&scope, config)?;
    controls.sheds.insert(name.to_owned(), shed.handle());
    let fleet = Fleet { scope: &scope, config, registry: &controls.registry, shed };
    let registry = &controls.registry;
    let layers = |scope: &str| ServiceBuilder::new().http_client().registry(registry).named(scope);
    // All endpoints of a cluster share one telemetry, which has its name already.
    let attempt = |scope: &str, address: &Authority, attempts, chaos, pool: Pool| {
        let spans = AttemptSpanLayer::new().telemetry(attempts).server(address.host(), address.port_u16());
        let layers = ServiceBuilder::new().http_client().with(spans).registry(registry).named(scope).with(chaos);
        layers.service(pool.lift_errors())
    };
    let (target, several) = match config.bulkhead.config.max_queue {
        0 => fleet.spread(guards, |guards| {
            let Guards { scope, address, breaker, bulkhead, per_try, attempts, chaos, pool } = guards;
            let layers = layers(&scope).with(BreakerLayer::shared(breaker)).bulkhead(bulkhead).deadline(per_try);
            layers.service(attempt(&scope, &address, attempts, chaos, pool))
        }),
        _ => fleet.spread(guards, |guards| {
            let Guards { scope, address, breaker, bulkhead, per_try, attempts, chaos, pool } = guards;
            let layers = layers(&scope).with(BreakerLayer::shared(breaker)).queued_bulkhead(bulkhead).deadline(per_try);
            layers.service(attempt(&scope, &address, attempts, chaos, pool))
        }),
    }?;
    if let Some((balancer, gate)) = several {
        controls.balancers.insert(name.to_owned(), balancer);
        controls.gates.insert(name.to_owned(), gate);
    }
    Ok(target)
}

/// Says whose an attempt is.
type Tenant = fn(&Request<Attempt>) -> Ask;

/// The limit of a cluster.
pub(crate) type Shedder = Shed<Tenant>;

/// Clients take turns: one that sends more than others waits longer than they do. Who they are nobody can make up, as they could
/// with a header.
fn tenant(req: &Request<Attempt>) -> Ask {
    let client = Context::of(req.extensions()).and_then(|context| context.client);
    Ask::new().tenant(client.map(network))
}

fn shed(scope: &str, config: &config::Cluster) -> Result<QueueLayer<Shedder>, ConfigError> {
    let mut own = config.shed.config.clone();
    if own.name == ShedConfig::default().name {
        own = own.name(scope.to_owned());
    }
    Ok(QueueLayer::new(switched(config.shed.on, own.build()?.by(tenant as Tenant))?))
}

fn gate(scope: &str, config: &config::Cluster) -> Result<RampedGate, ConfigError> {
    let mut own = config.gate.config.clone();
    if own.name == RampedGateConfig::default().name {
        own = own.name(scope.to_owned());
    }
    switched(config.gate.on, own.build()?)
}

/// What the endpoints of a cluster have in common.
struct Fleet<'a> {
    scope: &'a str,
    config: &'a config::Cluster,
    registry: &'a Registry,
    shed: QueueLayer<Shedder>,
}

/// What only clusters of several endpoints have.
type Several = (Arc<Balancer>, Arc<RampedGate>);

impl Fleet<'_> {
    /// One endpoint as it is, or a balance over several behind a gate. One type each, from the shedding to the pool: what is boxed
    /// is boxed once. A single endpoint has a breaker, which is all that a gate could be to it.
    fn spread<S, B>(
        self,
        mut guards: Vec<Guards>,
        endpoint: impl Fn(Guards) -> S,
    ) -> Result<(Target, Option<Several>), ConfigError>
    where
        S: Service<Request<Attempt>, Response = Response<B>, Error = Error<PoolError>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let Self { scope, config, registry, shed } = self;
        let layers = ServiceBuilder::new().http_client().registry(registry).named(scope).with(shed);
        if guards.len() == 1 {
            return Ok((Shared::new(layers.service(endpoint(guards.remove(0)))), None));
        }
        let endpoints = guards.into_iter().map(|guards| {
            let (name, signal) = (guards.address.to_string(), guards.breaker.signal());
            Endpoint::new(name, endpoint(guards)).signal(signal)
        });
        let balance = config.balance.clone().name(scope.to_owned()).endpoints(endpoints)?;
        let gate = RampedGateLayer::new(gate(scope, config)?);
        let several = (balance.handle(), gate.handle());
        Ok((Shared::new(layers.with(gate).balance(balance)), Some(several)))
    }
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
