use super::{Description, build, describe, no_queue};
use crate::{
    Bulkhead, BulkheadConfig, ConfigError, DeadlineConfig, Registry, Shed, ShedConfig, deadline::Headers,
    http::HttpServer,
};
use buttress_bulkhead::BulkheadLayer;
use buttress_core::{Gate, GateLayer, Opaque, Queue, QueueLayer};
use buttress_deadline::{CutLayer, DeadlineLayer, DeadlineService, Deadlines};
use std::{sync::Arc, time::Duration};
use tower_layer::Layer;

/// The config of a standard server chain: deadline > shed > bulkhead > your service.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ServerConfig {
    /// How long a request may take, its body included. Default: 30 s, less where the client says so in `grpc-timeout`; a body
    /// without progress is dropped after 30 s. `None`: switched off.
    pub deadline: Option<DeadlineConfig>,
    /// Load shedding: as many requests at once as your service can use, which it finds out, and the important ones first; a short
    /// queue in front. Default: [`ShedConfig::default`]. `None`: switched off.
    pub shed: Option<ShedConfig>,
    /// How many requests may be under way, whatever happens. Default: 1024. `None`: switched off.
    pub bulkhead: Option<BulkheadConfig>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let deadline = DeadlineConfig::new(Duration::from_secs(30)).idle(Duration::from_secs(30)).read(Headers::new());
        Self { deadline: Some(deadline), shed: Some(ShedConfig::default()), bulkhead: Some(BulkheadConfig::new(1024)) }
    }
}

/// A standard server chain, to be configured and built.
pub fn server() -> ServerConfig {
    ServerConfig::default()
}

impl ServerConfig {
    /// Sets the total time of a request, and leaves the rest of the deadline's config as it is.
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

    /// Replaces the config of load shedding.
    #[must_use]
    pub fn shed(mut self, config: ShedConfig) -> Self {
        self.shed = Some(config);
        self
    }

    /// Switches load shedding off.
    #[must_use]
    pub fn without_shed(mut self) -> Self {
        self.shed = None;
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

    /// The chain, which speaks [`HttpServer`] until told otherwise.
    ///
    /// # Errors
    ///
    /// The first field that cannot be. The bulkhead refuses at once: a `max_queue` is an error.
    pub fn build(self) -> Result<ServerStack, ConfigError> {
        no_queue(&self.bulkhead)?;
        let deadline = build(&self.deadline, "deadline", DeadlineConfig::build)?;
        let shed = build(&self.shed, "shed", ShedConfig::build)?;
        let bulkhead = build(&self.bulkhead, "bulkhead", BulkheadConfig::build)?;
        Ok(ServerStack {
            protocol: HttpServer::new(),
            deadline: DeadlineLayer::new(deadline).protocol(HttpServer::new()),
            shed: QueueLayer::new(shed),
            bulkhead: BulkheadLayer::new(bulkhead).protocol(HttpServer::new()),
        })
    }
}

/// The layers of a standard server chain, which is a [`Layer`] itself.
#[derive(Clone, Debug)]
pub struct ServerStack<P = HttpServer> {
    /// What a layer around them speaks.
    #[cfg_attr(not(feature = "fallback"), expect(dead_code, reason = "there is none"))]
    pub(super) protocol: P,
    deadline: CutLayer<P>,
    shed: QueueLayer<Shed, P>,
    bulkhead: GateLayer<Bulkhead, P>,
}

impl<P> ServerStack<P> {
    /// Speaks another protocol.
    pub fn protocol<Q: Clone>(self, protocol: Q) -> ServerStack<Q> {
        ServerStack {
            deadline: self.deadline.protocol(protocol.clone()),
            shed: self.shed.protocol(protocol.clone()),
            bulkhead: self.bulkhead.protocol(protocol.clone()),
            protocol,
        }
    }

    /// Takes any request and judges results by `Ok` and `Err`: for services that are no HTTP.
    pub fn opaque(self) -> ServerStack<Opaque> {
        self.protocol(Opaque::new())
    }

    /// The deadline's handle.
    pub fn deadline(&self) -> Arc<Deadlines> {
        self.deadline.handle()
    }

    /// The handle of load shedding.
    pub fn shed(&self) -> Arc<Shed> {
        self.shed.handle()
    }

    /// The bulkhead's handle.
    pub fn bulkhead(&self) -> Arc<Bulkhead> {
        self.bulkhead.handle()
    }

    /// Adds the handles of all layers to `registry`, as `<name>.deadline` and so on.
    pub fn register(&self, registry: &Registry, name: &str) {
        registry.add(format!("{name}.deadline"), self.deadline());
        registry.add(format!("{name}.shed"), self.shed());
        registry.add(format!("{name}.bulkhead"), self.bulkhead());
    }

    /// The chain as it is now, outside in, with effective values.
    pub fn describe(&self) -> Description {
        Description::new([
            describe::deadline("deadline", &self.deadline.handle()),
            describe::shed("shed", &self.shed.handle()),
            describe::bulkhead("bulkhead", &self.bulkhead.handle()),
        ])
    }
}

/// The service of a [`ServerStack`] around `S`, which is `Clone`: a request that waits for room holds a service that is ready.
pub type ServerService<S, P = HttpServer> = DeadlineService<Queue<Gate<S, Bulkhead, P>, Shed, P>, P>;

impl<S, P: Clone> Layer<S> for ServerStack<P> {
    type Service = ServerService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        self.deadline.layer(self.shed.layer(self.bulkhead.layer(inner)))
    }
}
