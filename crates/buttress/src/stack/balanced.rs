use super::{ClientStack, Description, EndpointService, describe};
use crate::{Balance, Balancer, Breaker, Bulkhead, ConfigError, Endpoint, Endpoints, Registry, http::HttpClient};
use buttress_core::{Fresh, GateLayer, Handle};
use buttress_deadline::DeadlineService;
use buttress_retry::RetryService;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// The service of a [`ClientStack`] over several endpoints: deadline > retry > balance > per endpoint: breaker > bulkhead >
/// per-try deadline.
pub type BalancedService<S, P = HttpClient> = DeadlineService<RetryService<Balance<EndpointService<S, P>, P>, P>, P>;

/// A standard client chain over several endpoints: a service, and what there is to see and to change of it. Clones share
/// everything.
pub struct Balanced<S, P = HttpClient> {
    service: BalancedService<S, P>,
    balancer: Arc<Balancer>,
    endpoints: Endpoints<EndpointService<S, P>>,
    stack: ClientStack<P>,
    guards: Arc<Mutex<BTreeMap<Cow<'static, str>, Guards>>>,
}

/// What an endpoint has of its own.
#[derive(Clone)]
struct Guards {
    breaker: Arc<Breaker>,
    bulkhead: Arc<Bulkhead>,
}

impl<P: Clone> ClientStack<P> {
    /// The chain over several endpoints, each a transport under a name of its own (its address, usually): deadline > retry >
    /// balance > per endpoint: breaker > bulkhead > per-try deadline.
    ///
    /// Every endpoint gets a breaker and a bulkhead of its own, with the configs of this stack and as they are switched now; the
    /// stack's [`breaker`](Self::breaker) and [`bulkhead`](Self::bulkhead) themselves guard nothing then. An endpoint whose circuit is open is
    /// skipped, and a retry goes to one that was not tried before.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), buttress::ConfigError> {
    /// use buttress::prelude::*;
    /// use tower::{ServiceExt as _, service_fn};
    ///
    /// let transport = |name: &'static str| {
    ///     (name, service_fn(move |_: u64| async move { Ok::<_, Error<std::io::Error>>(name) }))
    /// };
    /// let stack = buttress::stack::client().build()?.opaque();
    /// let orders = stack.balanced([transport("10.0.0.1:80"), transport("10.0.0.2:80")])?;
    /// println!("{}", orders.describe());
    /// let answer = orders.clone().oneshot(7).await.unwrap();
    /// assert!(answer.starts_with("10.0.0."));
    /// orders.breaker("10.0.0.1:80").unwrap().set_mode(Mode::ForcedOpen)?;
    /// assert_eq!(orders.oneshot(7).await.unwrap(), "10.0.0.2:80");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// No endpoint; two endpoints with one name.
    pub fn balanced<S: Clone>(
        &self,
        endpoints: impl IntoIterator<Item = (impl Into<Cow<'static, str>>, S)>,
    ) -> Result<Balanced<S, P>, ConfigError> {
        let mut guards = BTreeMap::new();
        let endpoints = endpoints.into_iter().map(|(name, transport)| {
            let name = name.into();
            let (endpoint, own) = self.endpoint(name.clone(), transport)?;
            guards.insert(name, own);
            Ok(endpoint)
        });
        let endpoints = endpoints.collect::<Result<Vec<_>, ConfigError>>()?;
        let balance = self.balance.clone().endpoints(endpoints)?.protocol(self.protocol.clone());
        let (balancer, endpoints) = (balance.handle(), balance.endpoints());
        let service = self.deadline.layer(self.retry.layer(balance));
        let guards = Arc::new(Mutex::new(guards));
        Ok(Balanced { service, balancer, endpoints, stack: self.clone(), guards })
    }

    fn endpoint<S>(
        &self,
        name: Cow<'static, str>,
        transport: S,
    ) -> Result<(Endpoint<EndpointService<S, P>>, Guards), ConfigError> {
        let (breaker, bulkhead) = (again(&self.breaker)?, again(&self.bulkhead)?);
        let guards = Guards { breaker: breaker.handle(), bulkhead: bulkhead.handle() };
        let service = breaker.layer(bulkhead.layer(self.per_try.layer(transport)));
        Ok((Endpoint::new(name, service).signal(guards.breaker.signal()), guards))
    }
}

/// The same policy with a state of its own, switched as the first is now.
fn again<A: Fresh + Handle, P: Clone>(layer: &GateLayer<A, P>) -> Result<GateLayer<A, P>, ConfigError> {
    let fresh = layer.fresh();
    fresh.handle().set_mode(layer.handle().mode())?;
    Ok(fresh)
}

impl<S, P> Balanced<S, P> {
    /// The chain alone, whose type has a name.
    pub fn into_service(self) -> BalancedService<S, P> {
        self.service
    }

    /// The balancer's handle: endpoints, their loads and calls.
    pub fn balancer(&self) -> Arc<Balancer> {
        self.balancer.clone()
    }

    /// The breaker of an endpoint.
    pub fn breaker(&self, endpoint: &str) -> Option<Arc<Breaker>> {
        self.guards().get(endpoint).map(|guards| guards.breaker.clone())
    }

    /// The bulkhead of an endpoint.
    pub fn bulkhead(&self, endpoint: &str) -> Option<Arc<Bulkhead>> {
        self.guards().get(endpoint).map(|guards| guards.bulkhead.clone())
    }

    /// Adds the handles of all layers to `registry`, as `<name>.deadline`, `<name>/<endpoint>.breaker` and so on. Endpoints that
    /// come later are not added.
    pub fn register(&self, registry: &Registry, name: &str) {
        registry.add(format!("{name}.deadline"), self.stack.deadline());
        registry.add(format!("{name}.retry"), self.stack.retry());
        registry.add(format!("{name}.balance"), self.balancer());
        registry.add(format!("{name}.per_try"), self.stack.per_try());
        for (endpoint, Guards { breaker, bulkhead }) in self.guards().iter() {
            registry.add(format!("{name}/{endpoint}.breaker"), breaker.clone());
            registry.add(format!("{name}/{endpoint}.bulkhead"), bulkhead.clone());
        }
    }

    /// The chain as it is now, outside in, with effective values; what each endpoint has is shown once, as the stack has it.
    pub fn describe(&self) -> Description {
        Description::new([
            describe::deadline("deadline", &self.stack.deadline()),
            describe::retry("retry", &self.stack.retry()),
            describe::balance("balance", &self.balancer),
            describe::breaker("breaker", &self.stack.breaker()),
            describe::bulkhead("bulkhead", &self.stack.bulkhead()),
            describe::deadline("per_try", &self.stack.per_try()),
        ])
    }

    fn guards(&self) -> MutexGuard<'_, BTreeMap<Cow<'static, str>, Guards>> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Clone, P: Clone> Balanced<S, P> {
    /// Adds an endpoint while calls run, with a breaker and a bulkhead of its own. One with the same name is replaced; its calls
    /// go on to their ends.
    ///
    /// # Errors
    ///
    /// None that this stack was not refused for before.
    pub fn insert(&self, name: impl Into<Cow<'static, str>>, transport: S) -> Result<(), ConfigError> {
        let name = name.into();
        let (endpoint, guards) = self.stack.endpoint(name.clone(), transport)?;
        self.guards().insert(name, guards);
        self.endpoints.insert(endpoint);
        Ok(())
    }

    /// Removes an endpoint; its calls go on to their ends. Whether there was one.
    pub fn remove(&self, name: &str) -> bool {
        self.guards().remove(name);
        self.endpoints.remove(name)
    }
}

impl<S, P, Req> Service<Req> for Balanced<S, P>
where
    BalancedService<S, P>: Service<Req>,
{
    type Response = <BalancedService<S, P> as Service<Req>>::Response;
    type Error = <BalancedService<S, P> as Service<Req>>::Error;
    type Future = <BalancedService<S, P> as Service<Req>>::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        self.service.call(req)
    }
}

impl<S: Clone, P: Clone> Clone for Balanced<S, P> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            balancer: self.balancer.clone(),
            endpoints: self.endpoints.clone(),
            stack: self.stack.clone(),
            guards: self.guards.clone(),
        }
    }
}

impl<S, P> fmt::Debug for Balanced<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced").field("balancer", &self.balancer).finish_non_exhaustive()
    }
}
