#[cfg(feature = "fallback")]
mod fallback;

use crate::Registry;
#[cfg(feature = "http")]
use buttress_core::http::{HttpClient, HttpGateway, HttpServer};
use buttress_core::{GateLayer, Gatekeeper, Handle, Opaque, QueueLayer};
use std::sync::Arc;
use tower::{ServiceBuilder, layer::util::Stack};
use tower_layer::Layer;
use tower_service::Service;

/// A layer of ours: it takes a builder's protocol, and shows its handle.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a layer that speaks a protocol",
    note = "use `.layer(..)` for other layers"
)]
pub trait Speak<P> {
    /// The layer that speaks `P`.
    type Layer;

    /// Speaks `protocol` from now on.
    fn speak(self, protocol: P) -> Self::Layer;

    /// What a registry shows of it.
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        None
    }
}

impl<A: Gatekeeper + Handle, P> Speak<P> for GateLayer<A> {
    type Layer = GateLayer<A, P>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

impl<A: Handle, P> Speak<P> for QueueLayer<A> {
    type Layer = QueueLayer<A, P>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

#[cfg(feature = "deadline")]
impl<P> Speak<P> for crate::DeadlineLayer {
    type Layer = buttress_deadline::CutLayer<P>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

#[cfg(feature = "retry")]
impl<P, R> Speak<P> for buttress_retry::ResendLayer<Opaque, R> {
    type Layer = buttress_retry::ResendLayer<P, R>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

#[cfg(feature = "balance")]
impl<C, P> Speak<P> for buttress_balance::CanaryLayer<C> {
    type Layer = buttress_balance::CanaryLayer<C, P>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

#[cfg(feature = "chaos")]
impl<P> Speak<P> for crate::ChaosLayer {
    type Layer = buttress_chaos::InjectLayer<P>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

/// Gives [`tower::ServiceBuilder`] a protocol that all layers of ours after it speak, and a method for each of them.
///
/// **The protocol comes first**: `.http_server()`, `.http_gateway(name)`, `.http_client()` or `.opaque()`, and then the methods of [`Scope`]. Those that are here as well
/// (`.shed(..)`, `.breaker(..)`) are `.opaque()` and the same: for what is no HTTP, as under HTTP their refusals would be errors instead of responses. The others are
/// not here because tower has methods of these names (`.retry(..)`, `.rate_limit(..)`), or because they ask for a protocol that says more (`.throttle(..)`).
pub trait ServiceBuilderExt<L>: Sized {
    /// All layers of ours that follow speak `protocol`.
    fn protocol<P>(self, protocol: P) -> Scope<L, P>;

    /// They speak HTTP as a server: a refusal is a response, the error type is left alone (axum, tonic servers, generated
    /// tonic clients).
    #[cfg(feature = "http")]
    fn http_server(self) -> Scope<L, HttpServer> {
        self.protocol(HttpServer::new())
    }

    /// They speak HTTP as an intermediary that calls itself `name` in `Proxy-Status`.
    #[cfg(feature = "http")]
    fn http_gateway(self, name: &'static str) -> Scope<L, HttpGateway> {
        self.protocol(HttpGateway::new(name))
    }

    /// They speak HTTP as a client: a refusal is an error, so the innermost service needs
    /// [`lift_errors`](crate::ServiceExt::lift_errors) (hyper, reqwest).
    #[cfg(feature = "http")]
    fn http_client(self) -> Scope<L, HttpClient> {
        self.protocol(HttpClient::new())
    }

    /// They take any request and judge results by `Ok` and `Err`.
    fn opaque(self) -> Scope<L, Opaque> {
        self.protocol(Opaque::new())
    }

    /// A circuit breaker around any service whose error can carry a refusal. A config is built first:
    /// `.breaker(config.build()?)`.
    #[cfg(feature = "breaker")]
    fn breaker(
        self,
        breaker: impl crate::IntoPolicy<crate::Breaker>,
    ) -> Scope<Stack<GateLayer<crate::Breaker>, L>, Opaque> {
        self.opaque().breaker(breaker)
    }

    /// A bulkhead around any service whose error can carry a refusal; a number is its limit. See [`Scope::bulkhead`].
    #[cfg(feature = "bulkhead")]
    fn bulkhead(
        self,
        bulkhead: impl crate::IntoPolicy<crate::Bulkhead>,
    ) -> Scope<Stack<GateLayer<crate::Bulkhead>, L>, Opaque> {
        self.opaque().bulkhead(bulkhead)
    }

    /// Load shedding around any service whose error can carry a refusal. See [`Scope::shed`].
    ///
    /// ```
    /// # #[cfg(feature = "shed")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use buttress::prelude::*;
    /// use tower::{ServiceBuilder, ServiceExt as _, service_fn};
    ///
    /// let service = ServiceBuilder::new()
    ///     .shed(ShedConfig::default().build()?)
    ///     .service(service_fn(|n: u64| async move { Ok::<_, Error<std::io::Error>>(n) }));
    /// assert_eq!(service.oneshot(7).await?, 7);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "shed"))] fn main() {}
    /// ```
    #[cfg(feature = "shed")]
    fn shed<D>(self, shed: crate::Shed<D>) -> Scope<Stack<QueueLayer<crate::Shed<D>>, L>, Opaque>
    where
        crate::Shed<D>: Handle,
    {
        self.opaque().shed(shed)
    }

    /// Sheds under pressure, around any service whose error can carry a refusal. See [`Scope::pressure`].
    #[cfg(feature = "shed")]
    fn pressure(
        self,
        gate: impl crate::IntoPolicy<crate::PressureGate>,
    ) -> Scope<Stack<GateLayer<crate::PressureGate>, L>, Opaque> {
        self.opaque().pressure(gate)
    }

    /// A deadline around any service whose error can carry a refusal.
    #[cfg(feature = "deadline")]
    fn deadline(
        self,
        deadline: impl crate::IntoPolicy<crate::Deadlines>,
    ) -> Scope<Stack<buttress_deadline::CutLayer<Opaque>, L>, Opaque> {
        self.opaque().deadline(deadline)
    }
}

impl<L> ServiceBuilderExt<L> for ServiceBuilder<L> {
    fn protocol<P>(self, protocol: P) -> Scope<L, P> {
        Scope { builder: self, protocol, registry: None, prefix: String::new() }
    }
}

/// A [`ServiceBuilder`] that knows the protocol, so it is written once, and a registry for the handles. It is a [`Layer`],
/// as `ServiceBuilder` is: hand it to `Router::layer` as it stands.
#[derive(Clone, Debug)]
pub struct Scope<L, P> {
    builder: ServiceBuilder<L>,
    protocol: P,
    registry: Option<Registry>,
    prefix: String,
}

impl<L, P: Clone> Scope<L, P> {
    /// The handles of all layers that follow are added to `registry`, under the names of their kinds.
    #[must_use]
    pub fn registry(self, registry: &Registry) -> Self {
        Self { registry: Some(registry.clone()), ..self }
    }

    /// Their names in the registry begin with `name` and a dot. Log events show the `name` of each policy's own config
    /// instead: a policy is named before it gets here.
    #[must_use]
    pub fn named(self, name: impl std::fmt::Display) -> Self {
        Self { prefix: format!("{name}."), ..self }
    }

    /// All layers of ours that follow speak another protocol.
    pub fn protocol<Q>(self, protocol: Q) -> Scope<L, Q> {
        Scope { builder: self.builder, protocol, registry: self.registry, prefix: self.prefix }
    }

    /// A layer of ours: it gets the protocol, the registry gets its handle. For those without a method of their own (per
    /// key, shared by hand with [`GateLayer::shared`], made elsewhere).
    pub fn with<T: Speak<P>>(self, layer: T) -> Scope<Stack<T::Layer, L>, P> {
        if let (Some(registry), Some(handle)) = (&self.registry, layer.watch()) {
            registry.add(format!("{}{}", self.prefix, handle.kind()), handle);
        }
        let protocol = self.protocol.clone();
        self.layer(layer.speak(protocol))
    }

    /// Any other layer, as it is. A layer of ours would not get the protocol: use its method, or [`with`](Self::with).
    pub fn layer<T>(self, layer: T) -> Scope<Stack<T, L>, P> {
        Scope {
            builder: self.builder.layer(layer),
            protocol: self.protocol,
            registry: self.registry,
            prefix: self.prefix,
        }
    }

    /// A circuit breaker. A config is built first: `.breaker(config.build()?)`.
    #[cfg(feature = "breaker")]
    pub fn breaker(
        self,
        breaker: impl crate::IntoPolicy<crate::Breaker>,
    ) -> Scope<Stack<GateLayer<crate::Breaker, P>, L>, P> {
        self.with(crate::BreakerLayer::new(breaker.into_policy()))
    }

    /// A gate in front of a fleet, which narrows as calls fail and widens as they succeed: outside of a balancer, where breakers are
    /// inside. A config is built first: `.ramped_gate(RampedGateConfig::default().build()?)`.
    #[cfg(feature = "breaker")]
    pub fn ramped_gate(
        self,
        gate: impl crate::IntoPolicy<crate::RampedGate>,
    ) -> Scope<Stack<GateLayer<crate::RampedGate, P>, L>, P> {
        self.with(crate::RampedGateLayer::new(gate.into_policy()))
    }

    /// Load shedding: as many calls at once as the service inside can use, found out by itself, the important ones first.
    /// `.shed(ShedConfig::default().build()?)`; the service inside is `Clone`.
    ///
    /// Importance and deadline come from the request's [`Context`](crate::Context). What is no HTTP has none, nor has any
    /// request a tenant by itself: `.build()?.by(|req: &Req| Ask::new().tenant(..))` says.
    ///
    /// ```
    /// # #[cfg(feature = "shed")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use buttress::{Priority, prelude::*};
    /// use tower::{ServiceBuilder, ServiceExt as _, service_fn};
    ///
    /// struct Job { tenant: u32, urgent: bool }
    /// let shed = ShedConfig::default().build()?.by(|job: &Job| {
    ///     let ask = Ask::new().tenant(job.tenant);
    ///     if job.urgent { ask.priority(Priority::Critical) } else { ask }
    /// });
    /// let service = ServiceBuilder::new()
    ///     .opaque()
    ///     .shed(shed)
    ///     .service(service_fn(|job: Job| async move { Ok::<_, Error<std::io::Error>>(job.tenant) }));
    /// assert_eq!(service.oneshot(Job { tenant: 7, urgent: true }).await?, 7);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "shed"))] fn main() {}
    /// ```
    ///
    /// To keep the handle make the layer first, and hand it to [`with`](Self::with):
    ///
    /// ```
    /// # #[cfg(feature = "shed")] {
    /// use buttress::{Handle, Mode, prelude::*};
    /// use tower::ServiceBuilder;
    ///
    /// let shed = ShedConfig::default().layer_by(|tenant: &u64| Ask::new().tenant(*tenant))?;
    /// let handle = shed.handle();
    /// let chain = ServiceBuilder::new().opaque().with(shed); // in place of `.shed(..)`
    ///
    /// handle.set_mode(Mode::OBSERVE_ONLY)?;
    /// handle.update(handle.config().limit(buttress::shed::Algorithm::Fixed(64)))?;
    /// assert_eq!(handle.snapshot().limit, 64);
    /// # let _ = chain;
    /// # }
    /// # Ok::<(), buttress::ConfigError>(())
    /// ```
    #[cfg(feature = "shed")]
    pub fn shed<D>(self, shed: crate::Shed<D>) -> Scope<Stack<QueueLayer<crate::Shed<D>, P>, L>, P>
    where
        crate::Shed<D>: Handle,
    {
        self.with(QueueLayer::<crate::Shed<D>>::new(shed))
    }

    /// So many calls in a period, and no more: `.rate_limit(RateLimitConfig::per_second(100).build()?)`. Per client or tenant:
    /// [`KeyedRateLimitLayer`](crate::KeyedRateLimitLayer), by [`with`](Self::with). (A plain `ServiceBuilder` has a `rate_limit` of
    /// tower's own, which makes callers wait.)
    ///
    /// To keep the handle make the layer first, and hand it to [`with`](Self::with):
    ///
    /// ```
    /// # #[cfg(feature = "shed")] {
    /// use buttress::{Handle, Mode, prelude::*};
    /// use tower::ServiceBuilder;
    ///
    /// let limit = RateLimitConfig::per_second(100).layer()?;
    /// let handle = limit.handle();
    /// let chain = ServiceBuilder::new().opaque().with(limit); // in place of `.rate_limit(..)`
    ///
    /// handle.set_mode(Mode::OBSERVE_ONLY)?;
    /// assert_eq!(handle.snapshot().refused_total, 0);
    /// # let _ = chain;
    /// # }
    /// # Ok::<(), buttress::ConfigError>(())
    /// ```
    #[cfg(feature = "shed")]
    pub fn rate_limit(
        self,
        limit: impl crate::IntoPolicy<crate::RateLimit>,
    ) -> Scope<Stack<GateLayer<crate::RateLimit, P>, L>, P> {
        self.with(crate::RateLimitLayer::new(limit.into_policy()))
    }

    /// A client that sends less while the service says that it has too much: `.throttle(ThrottleConfig::default().build()?)`.
    ///
    /// Under [`Opaque`] nothing is "too much" unless it is told which results are: `.protocol(Opaque::new().classify(..))`. Without that it never acts.
    #[cfg(feature = "shed")]
    pub fn throttle(
        self,
        throttle: impl crate::IntoPolicy<crate::Throttle>,
    ) -> Scope<Stack<GateLayer<crate::Throttle, P>, L>, P> {
        self.with(crate::ThrottleLayer::new(throttle.into_policy()))
    }

    /// Sheds what is less important as the process comes under pressure:
    /// `.pressure(PressureGateConfig::default().build(&pressure)?)`. See [`shed::pressure`](crate::shed::pressure).
    ///
    /// To keep the handle make the layer first, and hand it to [`with`](Self::with):
    ///
    /// ```
    /// # #[cfg(feature = "shed")] {
    /// use buttress::{Handle, Mode, prelude::*, shed::pressure::{CpuPressure, PressureConfig}};
    /// use tower::ServiceBuilder;
    ///
    /// let pressure = PressureConfig::default().build()?;
    /// pressure.source("cpu", CpuPressure::new());
    /// let gate = PressureGateConfig::default().layer(&pressure)?;
    /// let handle = gate.handle();
    /// let chain = ServiceBuilder::new().opaque().with(gate); // in place of `.pressure(..)`
    ///
    /// handle.set_mode(Mode::OBSERVE_ONLY)?;
    /// assert_eq!(handle.snapshot().normal_refused_total, 0);
    /// # let _ = chain;
    /// # }
    /// # Ok::<(), buttress::ConfigError>(())
    /// ```
    #[cfg(feature = "shed")]
    pub fn pressure(
        self,
        gate: impl crate::IntoPolicy<crate::PressureGate>,
    ) -> Scope<Stack<GateLayer<crate::PressureGate, P>, L>, P> {
        self.with(crate::PressureLayer::new(gate.into_policy()))
    }

    /// A bulkhead that refuses at once when it is full; a number is its limit. It does not queue, whatever `max_queue` its
    /// config has: for that there is [`queued_bulkhead`](Self::queued_bulkhead).
    #[cfg(feature = "bulkhead")]
    pub fn bulkhead(
        self,
        bulkhead: impl crate::IntoPolicy<crate::Bulkhead>,
    ) -> Scope<Stack<GateLayer<crate::Bulkhead, P>, L>, P> {
        self.with(crate::BulkheadLayer::new(bulkhead.into_policy()))
    }

    /// A bulkhead with a bounded queue in front of it (`max_queue` of its config; a plain number has none); the service
    /// inside must be `Clone`.
    #[cfg(feature = "bulkhead")]
    pub fn queued_bulkhead(
        self,
        bulkhead: impl crate::IntoPolicy<crate::Bulkhead>,
    ) -> Scope<Stack<QueueLayer<crate::Bulkhead, P>, L>, P> {
        self.with(crate::QueuedBulkheadLayer::new(bulkhead.into_policy()))
    }

    /// Fault injection: `.chaos(Chaos::default())` injects nothing until its handle is told to. Innermost it imitates what is
    /// called, outermost what is built; the service inside is `Clone`.
    ///
    /// ```
    /// # #[cfg(feature = "chaos")] #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), buttress::ConfigError> {
    /// use buttress::{ChaosLayer, prelude::*};
    /// use tower::{ServiceBuilder, ServiceExt as _, service_fn};
    ///
    /// let faults = ChaosLayer::default();
    /// let chaos = faults.handle();
    /// let service = ServiceBuilder::new()
    ///     .opaque()
    ///     .bulkhead(8)
    ///     .with(faults) // or `.chaos(..)`, and the handle from a registry
    ///     .service(service_fn(|n: u64| async move { Ok::<_, Error<std::io::Error>>(n) }));
    ///
    /// chaos.inject(["reason=peer_closed percent=100".parse()?])?;
    /// assert_eq!(service.oneshot(7).await.unwrap_err().rejection().unwrap().reason, Reason::PeerClosed);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "chaos"))] fn main() {}
    /// ```
    #[cfg(feature = "chaos")]
    pub fn chaos(
        self,
        chaos: impl crate::IntoPolicy<crate::Chaos>,
    ) -> Scope<Stack<buttress_chaos::InjectLayer<P>, L>, P> {
        self.with(crate::ChaosLayer::new(chaos.into_policy()))
    }

    /// A canary beside the service inside: it gets the share of the calls that `policy` says, and none when it fails more often.
    ///
    /// ```
    /// # #[cfg(feature = "balance")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use buttress::prelude::*;
    /// use tower::{ServiceBuilder, ServiceExt as _, service_fn};
    ///
    /// let version = |name: &'static str| service_fn(move |_: u64| async move { Ok::<_, Error<std::io::Error>>(name) });
    /// let service = ServiceBuilder::new()
    ///     .opaque()
    ///     .canary(CanaryConfig::new(5.0).margin(0.02).build()?, version("1.1"))
    ///     .service(version("1.0"));
    /// assert!(["1.0", "1.1"].contains(&service.oneshot(7).await?));
    /// # Ok(()) }
    /// # #[cfg(not(feature = "balance"))] fn main() {}
    /// ```
    #[cfg(feature = "balance")]
    pub fn canary<C>(
        self,
        policy: impl crate::IntoPolicy<crate::Canary>,
        canary: C,
    ) -> Scope<Stack<buttress_balance::CanaryLayer<C, P>, L>, P> {
        self.with(crate::CanaryLayer::new(policy.into_policy(), canary))
    }

    /// A deadline; a [`Duration`](std::time::Duration) is the total time of a call.
    #[cfg(feature = "deadline")]
    pub fn deadline(
        self,
        deadline: impl crate::IntoPolicy<crate::Deadlines>,
    ) -> Scope<Stack<buttress_deadline::CutLayer<P>, L>, P> {
        self.with(crate::DeadlineLayer::new(deadline.into_policy()))
    }

    /// Retries, paid from a budget: `.retry(Retry::default())`, or a built [`RetryConfig`](crate::RetryConfig).
    ///
    /// What is no HTTP is repeated only if nothing of it was sent, or if a rule says that it may be:
    /// `.with(RetryLayer::new(retry).when(rule))`. (A plain `ServiceBuilder` has a `retry` of tower's own: say `.opaque()` first.)
    ///
    /// The service inside is `Clone`. Over HTTP it gets requests whose bodies can be sent again:
    /// [`http::Request<ReplayBody<B>>`](crate::http::ReplayBody); hyper's client takes any body, and where one type is asked for,
    /// `.layer(tower::util::MapRequestLayer::new(|req: http::Request<_>| req.map(Body::new)))` gives it.
    #[cfg(feature = "retry")]
    pub fn retry(
        self,
        retry: impl crate::IntoPolicy<crate::Retry>,
    ) -> Scope<Stack<buttress_retry::ResendLayer<P>, L>, P> {
        self.with(crate::RetryLayer::new(retry.into_policy()))
    }

    /// Measures calls and never refuses: `.telemetry(Telemetry::server())`, or a built
    /// [`TelemetryConfig`](crate::TelemetryConfig). It sees what stands inside of it, so it comes first.
    #[cfg(feature = "telemetry")]
    pub fn telemetry(
        self,
        telemetry: impl crate::IntoPolicy<crate::Telemetry>,
    ) -> Scope<Stack<GateLayer<crate::Telemetry, P>, L>, P> {
        self.with(crate::TelemetryLayer::new(telemetry.into_policy()))
    }

    /// The endpoints inside all layers, balanced: [`service`](Self::service) for a [`Balance`](crate::Balance), which gets the
    /// protocol, and its handle the registry.
    ///
    /// ```
    /// # #[cfg(all(feature = "retry", feature = "balance"))]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use buttress::prelude::*;
    /// use tower::{ServiceBuilder, ServiceExt as _, service_fn};
    ///
    /// let endpoint = |name: &'static str| {
    ///     Endpoint::new(name, service_fn(move |_: u64| async move { Ok::<_, Error<std::io::Error>>(name) }))
    /// };
    /// let client = ServiceBuilder::new()
    ///     .opaque()
    ///     .retry(Retry::default())
    ///     .balance(Balance::new([endpoint("a"), endpoint("b")])?);
    /// assert!(["a", "b"].contains(&client.oneshot(7).await?));
    /// # Ok(()) }
    /// # #[cfg(not(all(feature = "retry", feature = "balance")))] fn main() {}
    /// ```
    #[cfg(feature = "balance")]
    pub fn balance<S>(self, balance: crate::Balance<S>) -> L::Service
    where
        L: Layer<crate::Balance<S, P>>,
    {
        if let Some(registry) = &self.registry {
            registry.add(format!("{}balance", self.prefix), balance.handle());
        }
        let protocol = self.protocol.clone();
        self.service(balance.protocol(protocol))
    }

    /// The service inside all layers.
    pub fn service<S>(self, inner: S) -> L::Service
    where
        L: Layer<S>,
    {
        self.builder.service(inner)
    }

    /// [`service`](Self::service), which also asks the compiler whether the chain takes requests of type `Req`, and if not,
    /// why: `.service_for::<http::Request<Body>, _>(inner)`. The same as [`check`](crate::check) afterwards.
    pub fn service_for<Req, S>(self, inner: S) -> L::Service
    where
        L: Layer<S>,
        L::Service: Service<Req>,
    {
        self.builder.service(inner)
    }

    /// The plain builder, as tower knows it.
    pub fn into_builder(self) -> ServiceBuilder<L> {
        self.builder
    }
}

impl<S, L: Layer<S>, P> Layer<S> for Scope<L, P> {
    type Service = L::Service;

    fn layer(&self, inner: S) -> L::Service {
        self.builder.service(inner)
    }
}
