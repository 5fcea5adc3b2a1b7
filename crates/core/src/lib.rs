//! The vocabulary of [Buttress](https://docs.rs/buttress): what its resilience layers have in common.
//!
//! Use this crate to write a layer of your own; to *use* the layers, take the facade, `buttress`.
//!
//! | you write | you need |
//! |---|---|
//! | a policy that admits or refuses at once (breaker, limiter) | [`Gatekeeper`] + [`Admit`]: [`GateLayer`] is the layer, the service and the future |
//! | a policy whose callers may wait for their turn | [`Enqueue`] as well: [`QueueLayer`] |
//! | a layer that judges a response (retry, fallback) | [`Protocol`], [`Call::judge`], [`Call::answer`] |
//! | a layer that ends calls early (deadline) | [`Call::finish`] with a [`Cut`] |
//! | a policy per host, route or tenant | [`Keyed`] around it |
//!
//! The words: a call is admitted with a *permit* ([`Settle`]), ends with an [`Outcome`], or is refused with a [`Rejection`]
//! whose [`Reason`] decides the HTTP status, the gRPC code and every label. A [`Protocol`] says how a layer speaks:
//! [`Opaque`] (any request; a refusal is an error), or with the feature `http` `HttpServer` (a refusal is a response, the
//! error type is left alone) and `HttpClient` (a refusal is an error).
//!
//! # Features
//!
//! None is on by default. `http`: the HTTP and gRPC protocols. `h2`: recognise HTTP/2 stream errors. `tokio`: [`TokioClock`], [`Keyed`].
//! `serde`: configs and snapshots.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod abandon;
#[cfg(feature = "tokio")]
mod budget;
mod clock;
pub mod config;
mod context;
mod degraded;
mod draw;
mod error;
mod gate;
mod handle;
pub mod histogram;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "tokio")]
mod keyed;
mod mode;
mod outcome;
pub mod permits;
mod protocol;
mod queue;
mod reason;
mod release;
mod replay;
mod settle;
mod signal;
mod stripe;
#[doc(hidden)]
pub mod sync;
mod tried;
mod wakers;
pub mod window;

pub use abandon::{abandon, abandoned};
#[cfg(feature = "tokio")]
pub use budget::{Budget, BudgetConfig, BudgetSnapshot, Denied, Token};
#[cfg(feature = "tokio")]
pub use clock::TokioClock;
pub use clock::{Clock, Origin};
pub use config::ConfigError;
pub use context::{Attempts, Context, Deadline, Priority};
pub use degraded::{Cause, Degraded, DegradedBy};
pub use draw::Draw;
pub use error::{BoxError, ChainError, Error, Lift, LiftFuture};
pub use gate::{Admit, Fresh, Gate, GateFuture, GateLayer, Gatekeeper};
pub use handle::{Handle, Measure, Series, Value};
pub use histogram::{Histogram, HistogramSnapshot};
#[cfg(feature = "tokio")]
pub use keyed::{Keyed, KeyedConfig, KeyedEntry, KeyedSnapshot, Resting};
pub use mode::{Mode, ModeCell};
pub use outcome::{Outcome, Pushback};
pub use protocol::{ByResult, Call, ClassifyResult, Cut, NoCut, Opaque, OpaqueCall, Protocol, Verdict};
pub use queue::{Admission, Enqueue, Queue, QueueFuture, QueueLayer};
pub use reason::{Details, Reason, Rejection};
pub use release::Release;
pub use replay::{Lost, Replay};
pub use settle::{Settle, Status};
pub use signal::Signal;
pub use stripe::{Lease, Striped};
pub use tried::Tried;
pub use wakers::{Parked, Wakers};
