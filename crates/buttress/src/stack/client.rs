use super::{Description, build, describe, no_queue, shorter};
use crate::{
    BalanceConfig, Breaker, BreakerConfig, Bulkhead, BulkheadConfig, ConfigError, DeadlineConfig, Registry, Retry,
    RetryConfig, deadline::Headers, http::HttpClient,
};
use buttress_breaker::{BreakerLayer, RampConfig};
use buttress_bulkhead::BulkheadLayer;
use buttress_core::{Gate, GateLayer, Opaque};
use buttress_deadline::{CutLayer, DeadlineLayer, DeadlineService, Deadlines};
use buttress_retry::{ResendLayer, RetryLayer, RetryService};
use std::{sync::Arc, time::Duration};
use tower_layer::Layer;

/// The config of a standard client chain: deadline > retry > breaker > bulkhead > per-try deadline > your transport, or
/// deadline > retry > balance > per endpoint: breaker > bulkhead > per-try deadline > your transport.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ClientConfig {
    /// How long a call may take, its body included; what is left of it travels on. Default: 30 s. `None`: switched off.
    pub deadline: Option<DeadlineConfig>,
    /// Retries, and the budget that pays for them. Default: up to 3 attempts, of at most a tenth of the calls. `None`: switched off.
    pub retry: Option<RetryConfig>,
    /// How calls are spread over endpoints, where there are several ([`ClientStack::balanced`]).
    pub balance: BalanceConfig,
    /// The circuit breaker. Default: opens when half of the calls of 10 s failed, with 90 % confidence, and after good probes
    /// lets calls in again by and by. `None`: switched off.
    pub breaker: Option<BreakerConfig>,
    /// How many calls may be under way. Default: 128. `None`: switched off.
    pub bulkhead: Option<BulkheadConfig>,
    /// How long one attempt may take. Default: 10 s. `None`: switched off.
    pub per_try: Option<DeadlineConfig>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            deadline: Some(DeadlineConfig::new(Duration::from_secs(30)).idle(Duration::from_secs(30))),
            retry: Some(RetryConfig::default()),
            balance: BalanceConfig::default(),
            breaker: Some(BreakerConfig::default().confidence(0.9).ramp(RampConfig::default())),
            bulkhead: Some(BulkheadConfig::new(128)),
            per_try: Some(DeadlineConfig::default().per_try(Duration::from_secs(10)).emit(Headers::new())),
        }
    }
}

/// A standard client chain, to be configured and built.
pub fn client() -> ClientConfig {
    ClientConfig::default()
}

impl ClientConfig {
    /// Sets the total time of a call, and leaves the rest of the deadline's config as it is.
    #[must_use]
    pub fn deadline(mut self, total: Duration) -> Self {
        self.deadline = Some(self.deadline.unwrap_or_default().total(total));
        self
    }

    /// Replaces the deadline's config.
    #[must_use]
    pub fn deadline_config(mut self, config: DeadlineConfig) -> Self {
        self.deadline = Some(config);
        self
    }

    /// Switches the deadline off.
    #[must_use]
    pub fn without_deadline(mut self) -> Self {
        self.deadline = None;
        self
    }

    /// Replaces the config of retries.
    #[must_use]
    pub fn retry(mut self, config: RetryConfig) -> Self {
        self.retry = Some(config);
        self
    }

    /// Switches retries off.
    #[must_use]
    pub fn without_retry(mut self) -> Self {
        self.retry = None;
        self
    }

    /// Replaces the balancer's config.
    #[must_use]
    pub fn balance(mut self, config: BalanceConfig) -> Self {
        self.balance = config;
        self
    }

    /// Replaces the breaker's config.
    #[must_use]
    pub fn breaker(mut self, config: BreakerConfig) -> Self {
        self.breaker = Some(config);
        self
    }

    /// Switches the breaker off.
    #[must_use]
    pub fn without_breaker(mut self) -> Self {
        self.breaker = None;
        self
    }

    /// Replaces the bulkhead's config; a number is its limit.
    #[must_use]
    pub fn bulkhead(mut self, config: impl Into<BulkheadConfig>) -> Self {
        self.bulkhead = Some(config.into());
        self
    }

    /// Switches the bulkhead off.
    #[must_use]
    pub fn without_bulkhead(mut self) -> Self {
        self.bulkhead = None;
        self
    }

    /// Sets the time of one attempt, and leaves the rest of its config as it is.
    #[must_use]
    pub fn per_try(mut self, per_try: Duration) -> Self {
        self.per_try = Some(self.per_try.unwrap_or_default().per_try(per_try));
        self
    }

    /// Switches the per-try deadline off.
    #[must_use]
    pub fn without_per_try(mut self) -> Self {
        self.per_try = None;
        self
    }

    /// The chain, which speaks [`HttpClient`] until told otherwise.
    ///
    /// # Errors
    ///
    /// The first field that cannot be, or that does not fit another layer's: `per_try.per_try` below `deadline.total`,
    /// `breaker.slow_after` below the time of an attempt. The bulkhead refuses at once: a `max_queue` is an error.
    pub fn build(self) -> Result<ClientStack, ConfigError> {
        let total = self.deadline.as_ref().and_then(|deadline| deadline.total);
        let attempt = self.per_try.as_ref().and_then(|deadline| deadline.per_try);
        shorter("per_try.per_try", attempt, "deadline.total", total)?;
        let slow_after = self.breaker.as_ref().and_then(|breaker| breaker.slow_after);
        shorter("breaker.slow_after", slow_after, "per_try.per_try", attempt)?;
        shorter("breaker.slow_after", slow_after, "deadline.total", total)?;
        no_queue(&self.bulkhead)?;
        let deadline = build(&self.deadline, "deadline", DeadlineConfig::build)?;
        let retry = build(&self.retry, "retry", RetryConfig::build)?;
        self.balance.clone().build().map_err(|error| error.within("balance"))?;
        let breaker = build(&self.breaker, "breaker", BreakerConfig::build)?;
        let bulkhead = build(&self.bulkhead, "bulkhead", BulkheadConfig::build)?;
        let per_try = build(&self.per_try, "per_try", DeadlineConfig::build)?;
        Ok(ClientStack {
            deadline: DeadlineLayer::new(deadline).protocol(HttpClient::new()),
            retry: RetryLayer::new(retry).protocol(HttpClient::new()),
            balance: self.balance,
            protocol: HttpClient::new(),
            breaker: BreakerLayer::new(breaker).protocol(HttpClient::new()),
            bulkhead: BulkheadLayer::new(bulkhead).protocol(HttpClient::new()),
            per_try: DeadlineLayer::new(per_try).protocol(HttpClient::new()),
        })
    }
}

/// The layers of a standard client chain, which is a [`Layer`] itself.
#[derive(Clone, Debug)]
pub struct ClientStack<P = HttpClient> {
    pub(super) deadline: CutLayer<P>,
    pub(super) retry: ResendLayer<P>,
    pub(super) balance: BalanceConfig,
    /// What a balance made later speaks.
    pub(super) protocol: P,
    pub(super) breaker: GateLayer<Breaker, P>,
    pub(super) bulkhead: GateLayer<Bulkhead, P>,
    pub(super) per_try: CutLayer<P>,
}

impl<P> ClientStack<P> {
    /// Speaks another protocol: `Opaque` for services that are no HTTP, `HttpServer` under a generated tonic client.
    pub fn protocol<Q: Clone>(self, protocol: Q) -> ClientStack<Q> {
        ClientStack {
            deadline: self.deadline.protocol(protocol.clone()),
            retry: self.retry.protocol(protocol.clone()),
            balance: self.balance,
            protocol: protocol.clone(),
            breaker: self.breaker.protocol(protocol.clone()),
            bulkhead: self.bulkhead.protocol(protocol.clone()),
            per_try: self.per_try.protocol(protocol),
        }
    }

    /// Takes any request that is `Clone` and judges results by `Ok` and `Err`: for services that are no HTTP. Nothing is read
    /// from or written to headers.
    pub fn opaque(self) -> ClientStack<Opaque> {
        self.protocol(Opaque::new())
    }

    /// The handle of the deadline for the whole call.
    pub fn deadline(&self) -> Arc<Deadlines> {
        self.deadline.handle()
    }

    /// The handle of the retries; its [`budget`](Retry::budget) may be shared.
    pub fn retry(&self) -> Arc<Retry> {
        self.retry.handle()
    }

    /// The breaker's handle.
    pub fn breaker(&self) -> Arc<Breaker> {
        self.breaker.handle()
    }

    /// The bulkhead's handle.
    pub fn bulkhead(&self) -> Arc<Bulkhead> {
        self.bulkhead.handle()
    }

    /// The handle of the deadline for one attempt.
    pub fn per_try(&self) -> Arc<Deadlines> {
        self.per_try.handle()
    }

    /// Adds the handles of all layers to `registry`, as `<name>.deadline` and so on.
    pub fn register(&self, registry: &Registry, name: &str) {
        registry.add(format!("{name}.deadline"), self.deadline());
        registry.add(format!("{name}.retry"), self.retry());
        registry.add(format!("{name}.breaker"), self.breaker());
        registry.add(format!("{name}.bulkhead"), self.bulkhead());
        registry.add(format!("{name}.per_try"), self.per_try());
    }

    /// The chain as it is now, outside in, with effective values.
    pub fn describe(&self) -> Description {
        Description::new([
            describe::deadline("deadline", &self.deadline.handle()),
            describe::retry("retry", &self.retry.handle()),
            describe::breaker("breaker", &self.breaker.handle()),
            describe::bulkhead("bulkhead", &self.bulkhead.handle()),
            describe::deadline("per_try", &self.per_try.handle()),
        ])
    }
}

/// The service of a [`ClientStack`] around `S`: what a struct that keeps a client writes. See
/// [Keeping a client in a struct](crate#keeping-a-client-in-a-struct).
pub type ClientService<S, P = HttpClient> = DeadlineService<RetryService<EndpointService<S, P>, P>, P>;

/// What stands around one endpoint: breaker > bulkhead > per-try deadline.
pub type EndpointService<S, P = HttpClient> = Gate<Gate<DeadlineService<S, P>, Bulkhead, P>, Breaker, P>;

impl<S, P: Clone> Layer<S> for ClientStack<P> {
    type Service = ClientService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        let endpoint = self.breaker.layer(self.bulkhead.layer(self.per_try.layer(inner)));
        self.deadline.layer(self.retry.layer(endpoint))
    }
}
