use super::{ClientStack, Description, EndpointService, describe};
use crate::{Balance, Balancer, ConfigError, Endpoint, Registry, http::HttpClient};
use buttress_core::{Fresh, GateLayer, Handle};
use buttress_deadline::DeadlineService;
use buttress_retry::RetryService;
use std::{borrow::Cow, fmt, sync::Arc};
use tower_layer::Layer;

/// The service of a [`ClientStack`] over several endpoints: deadline > retry > balance > per endpoint: breaker > bulkhead >
/// per-try deadline.
pub type BalancedService<S, P = HttpClient> = DeadlineService<RetryService<Balance<EndpointService<S, P>, P>, P>, P>;

/// A standard client chain over several endpoints: its service, and what there is to see of it.
pub struct Balanced<S, P = HttpClient> {
    service: BalancedService<S, P>,
    balancer: Arc<Balancer>,
    stack: ClientStack<P>,
    endpoints: Vec<Watched>,
}

/// An endpoint's name, and the handles of its breaker and its bulkhead.
type Watched = (Cow<'static, str>, [Arc<dyn Handle>; 2]);

impl<P: Clone> ClientStack<P> {
    /// The chain over several endpoints, each a transport under a name of its own (its address, usually): deadline > retry >
    /// balance > per endpoint: breaker > bulkhead > per-try deadline.
    ///
    /// Every endpoint gets a breaker and a bulkhead of its own, with the configs of this stack and as they are switched now. An endpoint
    /// whose circuit is open is skipped, and a retry goes to one that was not tried before.
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
    /// let answer = orders.into_service().oneshot(7).await.unwrap();
    /// assert!(answer.starts_with("10.0.0."));
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
        let mut handles = Vec::new();
        let endpoints: Vec<_> = endpoints
            .into_iter()
            .map(|(name, transport)| {
                let name = name.into();
                let (breaker, bulkhead) = (again(&self.breaker)?, again(&self.bulkhead)?);
                let signal = breaker.handle().signal();
                handles.push((name.clone(), [breaker.handle() as Arc<dyn Handle>, bulkhead.handle()]));
                let service = breaker.layer(bulkhead.layer(self.per_try.layer(transport)));
                Ok(Endpoint::new(name, service).signal(signal))
            })
            .collect::<Result<_, ConfigError>>()?;
        let balance = self.balance.clone().endpoints(endpoints)?.protocol(self.protocol.clone());
        let balancer = balance.handle();
        let service = self.deadline.layer(self.retry.layer(balance));
        Ok(Balanced { service, balancer, stack: self.clone(), endpoints: handles })
    }
}

/// The same policy with a state of its own, switched as the first is now.
fn again<A: Fresh + Handle, P: Clone>(layer: &GateLayer<A, P>) -> Result<GateLayer<A, P>, ConfigError> {
    let fresh = layer.fresh();
    fresh.handle().set_mode(layer.handle().mode())?;
    Ok(fresh)
}

impl<S, P> Balanced<S, P> {
    /// The chain.
    pub fn into_service(self) -> BalancedService<S, P> {
        self.service
    }

    /// The balancer's handle: endpoints, their loads and calls.
    pub fn balancer(&self) -> Arc<Balancer> {
        self.balancer.clone()
    }

    /// Adds the handles of all layers to `registry`, as `<name>.deadline`, `<name>/<endpoint>.breaker` and so on.
    pub fn register(&self, registry: &Registry, name: &str) {
        registry.add(format!("{name}.deadline"), self.stack.deadline());
        registry.add(format!("{name}.retry"), self.stack.retry());
        registry.add(format!("{name}.balance"), self.balancer());
        registry.add(format!("{name}.per_try"), self.stack.per_try());
        for (endpoint, handles) in &self.endpoints {
            for handle in handles {
                registry.add(format!("{name}/{endpoint}.{}", handle.kind()), handle.clone());
            }
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
}

impl<S: Clone, P: Clone> Clone for Balanced<S, P> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            balancer: self.balancer.clone(),
            stack: self.stack.clone(),
            endpoints: self.endpoints.clone(),
        }
    }
}

impl<S, P> fmt::Debug for Balanced<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced").field("balancer", &self.balancer).finish_non_exhaustive()
    }
}
