//! Fault injection for [Tower](https://docs.rs/tower) services: what a dependency does on its worst day, done to a seeded share
//! of calls, while everything runs.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), buttress_core::ConfigError> {
//! use buttress_chaos::{ChaosConfig, Fault};
//! use buttress_core::{Error, Reason};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let layer = ChaosConfig::default().seed(7).layer()?;
//! let chaos = layer.handle();
//! let service = layer.layer(service_fn(|n: u64| async move { Ok::<_, Error<std::io::Error>>(n + 1) }));
//! assert_eq!(service.clone().oneshot(1).await.unwrap(), 2, "nothing is injected yet");
//!
//! chaos.inject([Fault::imitate(Reason::ConnectRefused)])?;
//! let error = service.clone().oneshot(1).await.unwrap_err();
//! assert_eq!(error.rejection().unwrap().reason, Reason::ConnectRefused);
//!
//! chaos.clear();
//! assert_eq!(service.oneshot(1).await.unwrap(), 2);
//! # Ok(()) }
//! ```
//!
//! Over HTTP there are statuses and cut bodies as well, and a fault is one line of text, as from a command line:
//!
//! ```
//! use buttress_chaos::{ChaosConfig, Fault};
//! use buttress_core::http::HttpServer;
//!
//! let layer = ChaosConfig::default().layer()?.protocol(HttpServer::new()); // `Router::layer` takes it
//! let texts = ["latency=200ms..500ms percent=50", "status=503 retry_after=2s percent=20 for=30s", "cut=1024 percent=1"];
//! let faults = texts.into_iter().map(str::parse).collect::<Result<Vec<Fault>, _>>()?;
//! layer.handle().inject(faults)?;
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! # What it does
//!
//! | fault | the call | layers further out see |
//! |---|---|---|
//! | `latency=200ms..500ms` | goes on after a delay | a slow service |
//! | `refuse` | fails with [`Reason::Injected`](buttress_core::Reason::Injected): 503, `UNAVAILABLE` | a failure |
//! | `reason=connect_refused`, any reason | fails with it: its status, its code | whatever the reason says: a failure, a local refusal, something to retry |
//! | `status=503` (HTTP) | is answered by a response of that status | what the service would have said by it |
//! | `hang` | is never answered | a hung call, until a deadline cuts it off |
//! | `cut=1024` (HTTP) | is answered, and the body fails after 1024 bytes (gRPC: `DATA_LOSS`) | a broken body |
//!
//! Several at once draw each for itself: delays add up, the first in the list that ends the call does, and what ends without the
//! service has no body to cut. [`Fault`] has the whole syntax. Whether an imitated refusal may be retried follows from
//! its reason: after `connect_refused` anything may, as nothing was sent.
//!
//! * **It is recognisable**: an injected refusal and a cut are [`Rejection`](buttress_core::Rejection)s whose `layer` is
//!   [`"chaos"`](LAYER), a response by status has the extension [`Injected`]. The layers decide by neither.
//! * **The same seed harms the same calls**: draws are numbered from each injection. Which call is the third is up to the callers.
//! * **It ends by itself** where a fault has a `for`; [`clear`](Chaos::clear) ends it at once. Calls that hang or are delayed stay so.
//! * **While nothing is injected it costs one relaxed load**: no lock, no clock, no allocation. A harmed call may allocate.
//! * **Under `Opaque` there are no statuses and no bodies**: a fault that needs them is refused by [`inject`](Chaos::inject); one that was in
//!   the config is told of in a `tracing` error, and passed over.
//! * **Clones share it**: every service, clone, route and connection of one layer; [`fresh`](InjectLayer::fresh) makes another.
//! * **Cancel** at any point leaves nothing behind.
//!
//! The inner service is `Clone`: a delayed call keeps the one that was ready. It is asked for its readiness before, also for a
//! call that never gets there. What counts as failure it does not ask.
//!
//! # Where it stands
//!
//! Where the fault would be. To imitate a dependency, innermost: deadline > retry > breaker > **chaos** > transport. To imitate a service of
//! ours to its clients, outermost. It is for tests and for exercises in production: whoever may change it may take the service down.
//!
//! # Features
//!
//! None is on by default. `serde`: configs and snapshots; a fault is its text.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod chaos;
mod config;
mod cut;
mod fault;
mod future;
mod imitate;
mod layer;
mod plan;
#[cfg(test)]
mod tests;

pub use chaos::{Chaos, ChaosSnapshot, FaultSnapshot};
pub use config::ChaosConfig;
pub use cut::{Cutting, Shortened};
pub use fault::{Fault, Harm};
pub use future::ChaosFuture;
pub use imitate::{Imitate, Imitated};
pub use layer::{ChaosLayer, ChaosService, InjectLayer};
pub use plan::{Decision, End, LAYER};

/// In the extensions of a response whose status was injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injected;
