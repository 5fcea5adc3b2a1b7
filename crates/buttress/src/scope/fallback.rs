//! The layers of degradation in a builder.

use super::{Scope, Speak};
use buttress_core::{Handle, Opaque};
#[cfg(feature = "http")]
use buttress_fallback::StaleLayer;
use buttress_fallback::{
    AnswerLayer, CoalesceLayer, FailoverLayer, FallbackConfig, FallbackLayer, SwitchLayer, VoteLayer,
    coalesce::CoalesceKey,
};
use std::sync::Arc;
use tower::layer::util::Stack;

impl<B, W, P> Speak<P> for AnswerLayer<B, Opaque, W> {
    type Layer = AnswerLayer<B, P, W>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

impl<B, P> Speak<P> for SwitchLayer<B> {
    type Layer = SwitchLayer<B, P>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

#[cfg(feature = "http")]
impl<P> Speak<P> for StaleLayer {
    type Layer = StaleLayer<P>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

impl<K: CoalesceKey, F, Q, P> Speak<P> for CoalesceLayer<K, F, Q> {
    type Layer = CoalesceLayer<K, F, P>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

impl<C, E, P> Speak<P> for VoteLayer<C, Opaque, E> {
    type Layer = VoteLayer<C, P, E>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

impl<C, R, P> Speak<P> for FailoverLayer<C, Opaque, R> {
    type Layer = FailoverLayer<C, P, R>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

impl<L, P: Clone> Scope<L, P> {
    /// A fallback: what `backup` answers in place of refusals, failures and overload. Its place is outermost, inside of telemetry alone, so
    /// that nothing fails without it. With a config of its own: `.with(FallbackConfig::default().on([Trigger::Failure]).layer(backup)?)`. Toggles
    /// (`.with(toggles.layer("reviews", backup)?)`), failovers, coalescing and votes are added by [`with`](Self::with), too.
    ///
    /// ```
    /// # #[cfg(feature = "fallback")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use buttress::{fallback::backup, prelude::*};
    /// use tower::{ServiceBuilder, ServiceExt as _, service_fn};
    ///
    /// let service = ServiceBuilder::new()
    ///     .opaque()
    ///     .fallback(backup::value("nothing today"))
    ///     .service(service_fn(|_: u64| async { Err::<&str, _>(Error::Inner(std::io::Error::other("down"))) }));
    /// assert_eq!(service.oneshot(7).await.unwrap(), "nothing today");
    /// # }
    /// # #[cfg(not(feature = "fallback"))] fn main() {}
    /// ```
    pub fn fallback<B: Clone>(self, backup: B) -> Scope<Stack<AnswerLayer<B, P>, L>, P> {
        self.with(FallbackLayer::new(FallbackConfig::default(), backup))
    }

    /// The last good answers, where there is none now: `.stale(StaleConfig::default().max(HOUR).build()?)`. HTTP only. Its place is
    /// inside of a [`fallback`](Self::fallback), outside of everything else.
    #[cfg(feature = "http")]
    pub fn stale(self, stale: impl crate::IntoPolicy<buttress_fallback::Stale>) -> Scope<Stack<StaleLayer<P>, L>, P> {
        self.with(StaleLayer::new(stale.into_policy()))
    }
}
