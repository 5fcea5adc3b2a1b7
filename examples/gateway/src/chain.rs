//! The layers, and the order they stand in.

mod cluster;
mod controls;

use crate::{
    config,
    upload::{Carried, RequestBody},
    upstream::{Attempt, PoolError},
};
use buttress::{
    BoxError, Bulkhead, BulkheadConfig, CanaryConfig, CanaryLayer, ConfigError, Error, FallbackConfig, Handle, Mode,
    Registry, RetryConfig, ServiceBuilderExt as _, StaleLayer, TelemetryConfig,
    core::Replay,
    fallback::{TierConfig, backup},
    http::{HttpClient, HttpGateway, ReplayBody},
    telemetry::{AccessLog, RequestSpanLayer},
};
use bytes::Bytes;
pub(crate) use cluster::{Shedder, cluster};
pub(crate) use controls::{Controls, EndpointControls};
use http::{Request, Response};
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
