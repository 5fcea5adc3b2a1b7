use crate::{BalanceConfig, BalanceFuture, BalancePermit, Balancer, Endpoint, Endpoints, endpoints::Shared};
use buttress_core::{Call, ConfigError, NoCut, Opaque, Protocol, Striped};
use std::{
    collections::HashSet,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tower_service::Service;

/// A service that sends each call to one of several endpoints: of two drawn at random, the one with the lower load.
///
/// **It speaks [`Opaque`] until [`protocol`](Self::protocol) says otherwise**: over HTTP every response would be a success then, a 503 as well.
/// The facade's builder tells it, by `.balance(..)`.
///
/// It is always ready. Which endpoint a call goes to, and whether that is ready, is asked by the call's future, when the request
/// is known. Clones share everything.
///
/// Endpoint services are `Clone`, and `Sync` where the balance is to be `Send` (`tower::util::BoxCloneSyncService` is).
pub struct Balance<S, P = Opaque> {
    shared: Arc<Striped<Arc<Shared<S>>>>,
    protocol: P,
}

impl<S: Clone> Balance<S> {
    /// Over these endpoints, with the default config.
    ///
    /// # Errors
    ///
    /// As [`BalanceConfig::endpoints`].
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint<S>>) -> Result<Self, ConfigError> {
        BalanceConfig::default().endpoints(endpoints)
    }

    /// Over no endpoint yet: [`endpoints`](Self::endpoints) adds them. Until the first is there, calls wait for it.
    pub fn empty(balancer: impl Into<Arc<Balancer>>) -> Self {
        let shared = Arc::new(Shared::new(balancer.into()));
        Self { shared: Arc::new(Striped::new(shared, Striped::<()>::default_stripes())), protocol: Opaque::new() }
    }
}

impl BalanceConfig {
    /// A balance over these endpoints.
    ///
    /// # Errors
    ///
    /// The first field of the config that is out of its range; no endpoint; two endpoints with one name.
    pub fn endpoints<S: Clone>(
        self,
        endpoints: impl IntoIterator<Item = Endpoint<S>>,
    ) -> Result<Balance<S>, ConfigError> {
        let balance = Balance::empty(self.build()?);
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        let mut names = HashSet::new();
        if let Some(twice) = endpoints.iter().find(|endpoint| !names.insert(&endpoint.name)) {
            return Err(ConfigError::new("endpoints", format!("{:?} twice", twice.name), "each name once"));
        }
        if endpoints.is_empty() {
            return Err(ConfigError::new("endpoints", "empty", "at least one"));
        }
        balance.endpoints().set(endpoints);
        Ok(balance)
    }
}

impl<S, P> Balance<S, P> {
    /// What it goes by: read it, change it, override it.
    pub fn handle(&self) -> Arc<Balancer> {
        self.shared.balancer.clone()
    }

    /// Its endpoints: add, replace and remove them while calls run.
    pub fn endpoints(&self) -> Endpoints<S> {
        Endpoints(Arc::clone(&self.shared))
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> Balance<S, Q> {
        Balance { shared: self.shared, protocol }
    }
}

impl<S, P: Clone> Clone for Balance<S, P> {
    #[inline]
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), protocol: self.protocol.clone() }
    }
}

impl<S, P> fmt::Debug for Balance<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Balance").field(&self.shared.balancer).finish()
    }
}

impl<S, P, Req> Service<Req> for Balance<S, P>
where
    S: Service<Req> + Clone,
    P: Protocol<Req> + Clone,
    P::Call: Call<S::Response, S::Error>,
{
    type Response = <P::Call as Call<S::Response, S::Error>>::Response<BalancePermit, NoCut>;
    type Error = S::Error;
    type Future = BalanceFuture<S, P, Req>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        BalanceFuture::new(self.shared.lease(), self.protocol.clone(), req)
    }
}
