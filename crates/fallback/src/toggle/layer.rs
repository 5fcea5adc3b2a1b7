use super::{SwitchFuture, Toggle, TogglePermit};
use crate::{Backup, mark::Degrade};
use buttress_core::{Call, NoCut, Opaque, Parked, Protocol};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// [`SwitchLayer`] for any request.
pub type ToggleLayer<B> = SwitchLayer<B, Opaque>;

/// Calls a service while a [`Toggle`] is on, and answers with a [`Backup`] while it is off.
///
/// `SwitchLayer<B, P>` is the layer for the protocol `P`; [`ToggleLayer`] is the one to begin with.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use buttress_core::Error;
/// use buttress_fallback::{Switch, ToggleConfig, ToggleLayer, backup};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// let recommender = service_fn(|_: u64| async { Ok::<_, Error<std::io::Error>>(vec!["more of it"]) });
/// let toggle = ToggleConfig::new("recommendations").first_failure(true).build()?;
/// let service = ToggleLayer::new(toggle.clone(), backup::value(vec![])).layer(recommender);
///
/// assert_eq!(service.clone().oneshot(7).await?, ["more of it"]);
/// toggle.set(Switch::Off);
/// assert!(service.oneshot(7).await?.is_empty());
/// # Ok(()) }
/// ```
pub struct SwitchLayer<B, P = Opaque> {
    toggle: Toggle,
    backup: B,
    protocol: P,
}

impl<B, P: Default> SwitchLayer<B, P> {
    /// A layer that heeds `toggle`, and answers with `backup` while it is off. With [`none`](crate::backup::none) such calls are
    /// refused ([`Reason::SwitchedOff`](buttress_core::Reason::SwitchedOff)).
    pub fn new(toggle: Toggle, backup: B) -> Self {
        Self { toggle, backup, protocol: P::default() }
    }
}

impl<B, P> SwitchLayer<B, P> {
    /// The toggle that it heeds.
    pub fn toggle(&self) -> &Toggle {
        &self.toggle
    }

    /// The same for a registry.
    pub fn handle(&self) -> Arc<Toggle> {
        Arc::new(self.toggle.clone())
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> SwitchLayer<B, Q> {
        SwitchLayer { toggle: self.toggle, backup: self.backup, protocol }
    }
}

impl<B: Clone, P: Clone> Clone for SwitchLayer<B, P> {
    fn clone(&self) -> Self {
        Self { toggle: self.toggle.clone(), backup: self.backup.clone(), protocol: self.protocol.clone() }
    }
}

impl<B, P> fmt::Debug for SwitchLayer<B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ToggleLayer").field(&self.toggle).finish()
    }
}

impl<S, B: Clone, P: Clone> Layer<S> for SwitchLayer<B, P> {
    type Service = SwitchService<S, B, P>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { toggle, backup, protocol } = self.clone();
        SwitchService { inner, toggle, backup, protocol, parked: Parked::default(), shut: false }
    }
}

/// The service of [`SwitchLayer`].
pub struct SwitchService<S, B, P = Opaque> {
    inner: S,
    toggle: Toggle,
    backup: B,
    protocol: P,
    parked: Parked,
    /// Said in `poll_ready`, kept in `call`: the inner service was not asked and must not be called.
    shut: bool,
}

impl<S, B, P> SwitchService<S, B, P> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone, B: Clone, P: Clone> Clone for SwitchService<S, B, P> {
    /// A clone has not been asked yet whether it is ready.
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            toggle: self.toggle.clone(),
            backup: self.backup.clone(),
            protocol: self.protocol.clone(),
            parked: Parked::default(),
            shut: false,
        }
    }
}

impl<S: fmt::Debug, B, P> fmt::Debug for SwitchService<S, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwitchService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, P, Req> Service<Req> for SwitchService<S, B, P>
where
    S: Service<Req>,
    P: Protocol<Req>,
    P::Call: Degrade<S::Response, S::Error>,
    B: Backup<Req, S::Response, <P::Call as Call<S::Response, S::Error>>::Answer>,
{
    type Response = <P::Call as Call<S::Response, S::Error>>::Response<TogglePermit, NoCut>;
    type Error = S::Error;
    type Future = SwitchFuture<S::Future, B::Future, P::Call>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.shut = !self.toggle.may_pass();
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        let readiness = self.inner.poll_ready(cx);
        if readiness.is_pending() {
            self.toggle.park(&mut self.parked, cx);
        }
        readiness
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let permit = if self.shut { None } else { self.toggle.admit() };
        if let Some(permit) = permit {
            let call = self.protocol.start(&req);
            return SwitchFuture::on(self.inner.call(req), permit, call);
        }
        if self.shut {
            self.toggle.turn_away();
        }
        let kept = self.backup.keep(&req);
        let call = self.protocol.start_refusable(&req);
        drop(req);
        SwitchFuture::off(self.backup.answer(kept, buttress_core::Cause::Switched), call)
    }
}
