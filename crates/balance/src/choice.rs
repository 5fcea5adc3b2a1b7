//! Which endpoint a call goes to.

use crate::{
    BalancePermit,
    endpoints::{Members, Shared},
    node::{Node, State},
    now::Now,
    pick::{Avoid, Picked},
    search::{ASKED, Search},
};
use buttress_core::{Lease, Rejection, TokioClock, Tried, sync::Ordering::Relaxed};
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
use tower_service::Service;

/// An endpoint that is ready, and the call's place at it; or why there is none.
pub(crate) enum Chosen<S, E> {
    Endpoint(S, BalancePermit),
    Refused(Rejection),
    /// Every endpoint that came into question failed when it was asked whether it is ready: what the last one said.
    Failed(E),
}

/// A call that looks for an endpoint.
pub(crate) struct Choice<S, E> {
    lease: Arc<Lease<Arc<Shared<S>>>>,
    /// Its search, once the first endpoint that was asked was not ready.
    search: Option<Box<Search<S, E>>>,
}

impl<S: Clone, E> Choice<S, E> {
    #[inline]
    pub(crate) fn new(lease: Arc<Lease<Arc<Shared<S>>>>) -> Self {
        Self { lease, search: None }
    }

    /// Looks for an endpoint that is ready.
    #[inline]
    pub(crate) fn poll<Req>(&mut self, cx: &mut Context<'_>, tried: &mut Option<&mut Tried>) -> Poll<Chosen<S, E>>
    where
        S: Service<Req, Error = E>,
    {
        let now = &self.lease.balancer.now(TokioClock);
        if self.search.is_some() || self.lease.balancer.is_shut() {
            return self.look_again(cx, tried, now);
        }
        // The usual case: the one that is picked is ready.
        let members = self.lease.members.load();
        let avoid = Avoid { tried: tried.as_deref(), ..Avoid::default() };
        let picked = self.lease.balancer.pick(&members.roster, self.lease.stripe(), now, avoid);
        let Picked::Node(place) = picked else { return self.look_on(cx, tried, now, Some(picked)) };
        let (mut service, node) = (members.services[place].clone(), members.roster.nodes[place].clone());
        drop(members);
        match service.poll_ready(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(self.endpoint(service, node, tried, now)),
            Poll::Ready(Err(error)) => self.search().fail(&node, error, now),
            Poll::Pending => self.search().wait(service, node, now),
        }
        self.look_on(cx, tried, now, None)
    }

    #[inline]
    fn endpoint(
        &self,
        service: S,
        node: Arc<Node>,
        tried: &mut Option<&mut Tried>,
        now: &Now<TokioClock>,
    ) -> Chosen<S, E> {
        if let Some(tried) = tried {
            let members = self.lease.members.load();
            let is_other = |other: &Node| other.id != node.id && !tried.contains(other.id);
            let mut nodes = members.roster.nodes.iter();
            let others = nodes.any(|other| is_other(other) && other.state(now) != State::Shut);
            tried.pick(node.id, others);
        }
        Chosen::Endpoint(service, BalancePermit::new(node, now.nanos(), self.lease.balancer.measures()))
    }

    fn search(&mut self) -> &mut Search<S, E> {
        self.search.get_or_insert_default()
    }

    /// Woken: asks those that were not ready, and others.
    #[inline(never)]
    fn look_again<Req>(
        &mut self,
        cx: &mut Context<'_>,
        tried: &mut Option<&mut Tried>,
        now: &Now<TokioClock>,
    ) -> Poll<Chosen<S, E>>
    where
        S: Service<Req, Error = E>,
    {
        if self.lease.balancer.is_shut() {
            return Poll::Ready(Chosen::Refused(self.lease.balancer.refuse(None, now.exact())));
        }
        match self.search().ask_again(cx, now) {
            Some((service, node)) => Poll::Ready(self.endpoint(service, node, tried, now)),
            None => self.look_on(cx, tried, now, None),
        }
    }

    /// Asks others than before, and waits for any of them. `picked`: what was picked already.
    #[inline(never)]
    fn look_on<Req>(
        &mut self,
        cx: &mut Context<'_>,
        tried: &mut Option<&mut Tried>,
        now: &Now<TokioClock>,
        mut picked: Option<Picked>,
    ) -> Poll<Chosen<S, E>>
    where
        S: Service<Req, Error = E>,
    {
        let lease = self.lease.clone();
        self.search().swept = false;
        loop {
            let was_opening = lease.is_opening();
            let members = lease.members.load_full();
            match self.ask_others(&lease, &members, cx, tried, now, picked.take()) {
                Look::Found(service, node) => return Poll::Ready(self.endpoint(service, node, tried, now)),
                Look::None(until) => {
                    let error = self.search().error.take();
                    return Poll::Ready(match (error, until) {
                        (Some(error), _) => Chosen::Failed(error),
                        (None, Nobody::Shut(until)) => Chosen::Refused(lease.balancer.refuse(until, now.exact())),
                        (None, Nobody::Empty) => Chosen::Refused(lease.balancer.refuse_empty()),
                    });
                }
                Look::Wait => {}
            }
            let search = self.search();
            if !search.counted {
                search.counted = true;
                lease.balancer.counts.waited.fetch_add(1, Relaxed);
            }
            search.parked.park(&lease.wakers, cx);
            search.doze(&members, cx, now);
            // A change between the look and the parking wakes nobody.
            if Arc::ptr_eq(&members, &lease.members.load()) && was_opening == lease.is_opening() {
                return Poll::Pending;
            }
            if let Some((service, node)) = search.ask_again(cx, now) {
                return Poll::Ready(self.endpoint(service, node, tried, now));
            }
        }
    }

    fn ask_others<Req>(
        &mut self,
        lease: &Lease<Arc<Shared<S>>>,
        members: &Members<S>,
        cx: &mut Context<'_>,
        tried: &mut Option<&mut Tried>,
        now: &Now<TokioClock>,
        mut picked: Option<Picked>,
    ) -> Look<S>
    where
        S: Service<Req, Error = E>,
    {
        let balancer = &*lease.balancer;
        let tried = tried.as_deref();
        let search = self.search();
        loop {
            let (swept, impatient) = (search.swept, search.is_impatient(balancer, now));
            let asked = Avoid { waiting: &search.asked, failed: &search.failed, ..Avoid::default() };
            let avoid = Avoid { tried, swept, impatient, ..asked };
            let next = picked.take();
            match next.unwrap_or_else(|| balancer.pick(&members.roster, lease.stripe(), now, avoid)) {
                Picked::Node(place) if search.asked.len() < if swept { ASKED } else { balancer.picks() } => {
                    let node = &members.roster.nodes[place];
                    if let Some(service) = search.ask(members.services[place].clone(), node, cx, now) {
                        return Look::Found(service, node.clone());
                    }
                }
                // Those who are never ready have nothing in flight: by load alone a call might meet nobody else.
                picked @ (Picked::Node(_) | Picked::Wait) if !swept => {
                    search.swept = true;
                    let start = if let Picked::Node(place) = picked { place } else { 0 };
                    if let Some((service, node)) = search.sweep(members, start, tried, cx, now) {
                        return Look::Found(service, node);
                    }
                }
                Picked::Node(_) | Picked::Wait => return Look::Wait,
                _ if !search.asked.is_empty() => return Look::Wait,
                Picked::Empty if lease.is_opening() => return Look::Wait,
                Picked::Empty | Picked::Failed => return Look::None(Nobody::Empty),
                Picked::Shut(until) => return Look::None(Nobody::Shut(until)),
            }
        }
    }
}

enum Look<S> {
    Found(S, Arc<Node>),
    /// Until one that was asked is ready, or others come.
    Wait,
    /// Nothing to wait for.
    None(Nobody),
}

/// Why there is nobody.
enum Nobody {
    Empty,
    Shut(Option<Instant>),
}
