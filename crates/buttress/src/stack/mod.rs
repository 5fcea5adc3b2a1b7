//! Standard chains: the layers of this crate in the order that works, with defaults that fit together, checked across layers.
//!
//! ```
//! use buttress::prelude::*;
//! use std::time::Duration;
//!
//! // deadline > retry > breaker > bulkhead > per-try deadline > your transport
//! let stack = buttress::stack::client()
//!     .deadline(Duration::from_secs(5))
//!     .per_try(Duration::from_secs(1))
//!     .bulkhead(32)
//!     .build()?;
//! println!("{}", stack.describe());
//! # Ok::<(), buttress::ConfigError>(())
//! ```
//!
//! It is a [`Layer`](tower_layer::Layer): `stack.layer(transport.lift_errors())`, `Router::layer(server_stack)`. `.opaque()` and
//! `.protocol(..)` let it speak something else than HTTP. One breaker and one bulkhead per upstream: build a stack for each; over
//! several endpoints of one upstream, [`balanced`](ClientStack::balanced) gives each its own.
//!
//! Retries send requests again, so the transport of a client stack is `Clone` and takes
//! [`http::Request<ReplayBody<B>>`](crate::http::ReplayBody) (hyper's client takes any body); under [`opaque`](ClientStack::opaque)
//! requests are `Clone`. Only what may be sent twice is: see [`retry`](crate::retry).
//!
//! With the feature `fallback` a chain is covered by stale answers and a fallback: see `Cover`.
//!
//! A server is deadline > shed > bulkhead > your service, which is `Clone`.
//!
//! Each part can be switched off (`without_breaker()`), and switched on again while it runs: it is there, disabled.

mod balanced;
mod client;
#[cfg(feature = "fallback")]
mod cover;
mod describe;
mod server;

pub use balanced::{Balanced, BalancedService};
pub use client::{ClientConfig, ClientService, ClientStack, EndpointService, client};
#[cfg(feature = "fallback")]
pub use cover::{Cover, Covered};
pub use describe::{Change, Description};
pub use server::{ServerConfig, ServerService, ServerStack, server};

use crate::{BulkheadConfig, ConfigError, Handle, Mode};
use std::time::Duration;

/// A part that was switched off is built from its default and disabled.
fn build<C: Clone + Default, T>(
    part: &Option<C>,
    name: &'static str,
    build: impl FnOnce(C) -> Result<T, ConfigError>,
) -> Result<T, ConfigError>
where
    T: Handle,
{
    let built = build(part.clone().unwrap_or_default()).map_err(|error| error.within(name))?;
    if part.is_none() {
        built.set_mode(Mode::Disabled)?;
    }
    Ok(built)
}

/// `inner` must end before `outer` does, or `outer` always comes first.
fn shorter(
    field: &'static str,
    inner: Option<Duration>,
    outer_field: &str,
    outer: Option<Duration>,
) -> Result<(), ConfigError> {
    match (inner, outer) {
        (Some(inner), Some(outer)) if inner >= outer => {
            let outer = buttress_core::config::format_duration(outer);
            Err(ConfigError::duration(field, inner, format!("less than `{outer_field}`, which is {outer}")))
        }
        _ => Ok(()),
    }
}

/// A queue holds requests while they wait, so it is a layer of another kind.
fn no_queue(bulkhead: &Option<BulkheadConfig>) -> Result<(), ConfigError> {
    match bulkhead {
        Some(config) if config.max_queue > 0 => Err(ConfigError::new(
            "bulkhead.max_queue",
            config.max_queue,
            "0: a stack refuses at once; a chain of your own may take `.queued_bulkhead(..)`",
        )),
        _ => Ok(()),
    }
}
