//! Three layers in a row that retry: the clients' own, and those of two services on the way.

use super::{Chain, Entry, Site, ours};
use crate::{contestant::Contestant, scenario::Storm};
use buttress_core::Error;
use buttress_sim::world::{Call, Fault, Reply};
use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt,
    retry::{
        Policy, RetryLayer,
        budget::{Budget, TpsBudget},
    },
    util::BoxCloneSyncServiceLayer,
};

/// One layer that retries.
type Retrying = BoxCloneSyncServiceLayer<Chain, Call, Reply, Error<Fault>>;

pub fn enter(contestant: Contestant, storm: Storm, site: &Site<'_>) -> Entry {
    let retry = |name, n| match contestant {
        Contestant::Ours => Retrying::new(ours::retry(site, name, n)),
        Contestant::Tower => towers(site, Some(TpsBudget::new(Duration::from_secs(10), 1, 0.1))),
        _ => towers(site, None),
    };
    let hop = |chain: Chain| match storm {
        Storm::Apart => Chain::new(site.world.hop(chain)),
        Storm::Marked => chain,
    };
    let inner = hop(retry("inner", 0).layer(Chain::new(site.upstream.clone().map_request(site.note()))));
    let middle = hop(retry("middle", 0).layer(inner));
    // Every client has a layer of its own.
    let clients = (0..site.story.tenants.len()).map(|n| retry("client", n).layer(middle.clone())).collect();
    let chain =
        ServiceBuilder::new().layer(ours::deadline(site.setup.timeout * site.story.attempts)).service(Clients(clients));
    Entry::patient(site, Chain::new(chain))
}

/// tower's retry of every error, at once.
fn towers(site: &Site<'_>, budget: Option<TpsBudget>) -> Retrying {
    let policy = Again { left: site.story.attempts - 1, budget: budget.map(Arc::new) };
    Retrying::new(RetryLayer::new(policy))
}

#[derive(Clone)]
struct Again {
    left: u32,
    budget: Option<Arc<TpsBudget>>,
}

impl Policy<Call, Reply, Error<Fault>> for Again {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Call, result: &mut Result<Reply, Error<Fault>>) -> Option<Ready<()>> {
        if result.is_ok() {
            if let Some(budget) = &self.budget {
                budget.deposit();
            }
            return None;
        }
        let is_paid = self.left > 0 && self.budget.as_ref().is_none_or(|budget| budget.withdraw());
        self.left = self.left.saturating_sub(1);
        is_paid.then(|| ready(()))
    }

    fn clone_request(&mut self, call: &Call) -> Option<Call> {
        Some(call.clone())
    }
}

/// One chain per client.
#[derive(Clone)]
struct Clients(Arc<[Chain]>);

impl Service<Call> for Clients {
    type Response = Reply;
    type Error = Error<Fault>;
    type Future = tower::util::Oneshot<Chain, Call>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error<Fault>>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        self.0[call.tenant as usize].clone().oneshot(call)
    }
}
