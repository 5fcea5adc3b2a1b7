use super::{ClientStack, Description, ServerStack, describe, describe::Part};
use crate::{ConfigError, Registry, fallback::AnswerLayer};
use buttress_fallback::{Fallback, FallbackConfig, FallbackLayer, Stale, StaleConfig, StaleLayer};
use std::sync::Arc;
use tower_layer::Layer;

/// Degradation around a standard chain: stale answers, and outside of them a fallback.
///
/// ```
/// # fn main() -> Result<(), buttress::ConfigError> {
/// use buttress::{backup::StaticResponse, prelude::*};
/// use std::time::Duration;
///
/// // fallback > stale > deadline > shed > bulkhead > your service
/// let sorry = StaticResponse::new(503, "text/plain; charset=utf-8", "back soon")?;
/// let stack = buttress::stack::server()
///     .build()?
///     .stale(StaleConfig::default().max(Duration::from_secs(600)))?
///     .fallback(FallbackConfig::default(), sorry)?;
/// let layers: Vec<_> = stack.describe().layers().collect();
/// assert_eq!(layers, ["fallback", "stale", "deadline", "shed", "bulkhead"]);
/// # Ok(()) }
/// ```
///
/// Around a [`Balanced`](super::Balanced) chain, which is a service, stand the layers themselves.
pub trait Cover: Sized + sealed::Chain {
    /// Answers with `backup` in place of refusals, failures and overload: whatever is inside has failed then.
    ///
    /// # Errors
    ///
    /// The first field of the config that cannot be.
    fn fallback<B: Clone>(
        self,
        config: FallbackConfig,
        backup: B,
    ) -> Result<Covered<AnswerLayer<B, Self::Protocol>, Self>, ConfigError> {
        let fallback = config.build().map_err(|error| error.within("fallback"))?;
        let cover = FallbackLayer::new(fallback, backup).protocol(self.speaks());
        Ok(Covered { cover, stack: self })
    }

    /// Gives the last good answer in place of failures, as the answers and `config` allow; a `cache` pays for what it asks in the background from a
    /// budget of its own.
    ///
    /// # Errors
    ///
    /// The first field of the config that cannot be.
    fn stale(self, config: StaleConfig) -> Result<Covered<StaleLayer<Self::Protocol>, Self>, ConfigError> {
        let stale = config.build().map_err(|error| error.within("stale"))?;
        let cover = StaleLayer::new(stale).protocol(self.speaks());
        Ok(Covered { cover, stack: self })
    }

    /// The chain as it is now, outside in, with effective values.
    fn describe(&self) -> Description {
        Description::new(self.parts())
    }

    /// Adds the handles of all layers to `registry`, as `<name>.deadline` and so on.
    fn register(&self, registry: &Registry, name: &str) {
        self.add_to(registry, name);
    }
}

mod sealed {
    use super::{Part, Registry};

    pub trait Chain {
        type Protocol: Clone;

        fn speaks(&self) -> Self::Protocol;
        #[allow(private_interfaces, reason = "nobody outside can name this trait")]
        fn parts(&self) -> Vec<Part>;
        fn add_to(&self, registry: &Registry, name: &str);
    }
}

use sealed::Chain;

macro_rules! chains {
    ($($stack:ident),*) => {$(
        impl<P: Clone> Chain for $stack<P> {
            type Protocol = P;

            fn speaks(&self) -> P {
                self.protocol.clone()
            }
            #[allow(private_interfaces, reason = "as the trait says")]
            fn parts(&self) -> Vec<Part> {
                self.describe().into_parts()
            }
            fn add_to(&self, registry: &Registry, name: &str) {
                self.register(registry, name);
            }
        }

        impl<P: Clone> Cover for $stack<P> {}
    )*};
}
chains!(ServerStack, ClientStack);

/// A chain with a layer of degradation outside of it; a [`Layer`] itself.
#[derive(Clone, Debug)]
pub struct Covered<L, T> {
    cover: L,
    stack: T,
}

impl<L, T> Covered<L, T> {
    /// The chain inside, with the handles of its layers.
    pub fn stack(&self) -> &T {
        &self.stack
    }
}

impl<B, P, T> Covered<AnswerLayer<B, P>, T> {
    /// The fallback's handle.
    pub fn handle(&self) -> Arc<Fallback> {
        self.cover.handle()
    }
}

impl<P, T> Covered<StaleLayer<P>, T> {
    /// The handle of the stored answers.
    pub fn handle(&self) -> Arc<Stale> {
        self.cover.handle()
    }
}

macro_rules! covered {
    ($layer:ty, $name:literal $(, $param:ident)?) => {
        impl<$($param: Clone,)? P: Clone, T: Chain<Protocol = P>> Chain for Covered<$layer, T> {
            type Protocol = P;

            fn speaks(&self) -> P {
                self.stack.speaks()
            }
            #[allow(private_interfaces, reason = "as the trait says")]
            fn parts(&self) -> Vec<Part> {
                let mut parts = vec![describe::cover($name, &*self.handle())];
                parts.extend(self.stack.parts());
                parts
            }
            fn add_to(&self, registry: &Registry, name: &str) {
                registry.add(format!("{name}.{}", $name), self.handle());
                self.stack.add_to(registry, name);
            }
        }

        impl<$($param: Clone,)? P: Clone, T: Chain<Protocol = P>> Cover for Covered<$layer, T> {}
    };
}
covered!(AnswerLayer<B, P>, "fallback", B);
covered!(StaleLayer<P>, "stale");

impl<S, L: Layer<T::Service>, T: Layer<S>> Layer<S> for Covered<L, T> {
    type Service = L::Service;

    fn layer(&self, inner: S) -> Self::Service {
        self.cover.layer(self.stack.layer(inner))
    }
}

/// What a cover says of itself.
pub(super) trait Values: buttress_core::Handle {
    fn values(&self) -> Vec<(&'static str, Option<String>)>;
}

impl Values for Fallback {
    fn values(&self) -> Vec<(&'static str, Option<String>)> {
        let on = Vec::from(self.config().on).into_iter().map(|trigger| format!("{trigger:?}").to_lowercase());
        vec![("on", Some(on.collect::<Vec<_>>().join(",")))]
    }
}

impl Values for Stale {
    fn values(&self) -> Vec<(&'static str, Option<String>)> {
        let config = self.config();
        vec![
            ("max", describe::span(config.max)),
            ("max_bytes", Some(config.max_bytes.to_string())),
            ("max_body", Some(config.max_body.to_string())),
            ("cache", config.cache.then(|| "on".to_owned())),
        ]
    }
}
