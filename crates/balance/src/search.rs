//! A call whose first pick was not ready.

use crate::{
    endpoints::Members,
    load::Sample,
    node::{Node, State},
    now::Now,
};
use buttress_core::{Parked, TokioClock, Tried};
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tower_service::Service;

/// What it has asked so far.
pub(crate) struct Search<S, E> {
    waiting: Vec<Waiting<S>>,
    /// The numbers of those it waits for.
    pub(crate) asked: Vec<u32>,
    /// Those that failed when they were asked.
    pub(crate) failed: Vec<u32>,
    /// What the last of those said.
    pub(crate) error: Option<E>,
    pub(crate) parked: Parked,
    /// All others have been asked, too.
    pub(crate) swept: bool,
    pub(crate) counted: bool,
}

/// An endpoint that was asked and is not ready: it wakes the call when it is.
struct Waiting<S> {
    service: S,
    spot: Spot,
}

/// A place among the calls that wait for an endpoint; they are part of its load.
struct Spot(Arc<Node>);

impl Drop for Spot {
    fn drop(&mut self) {
        self.0.load.unpark();
    }
}

impl<S, E> Default for Search<S, E> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            asked: Vec::new(),
            failed: Vec::new(),
            error: None,
            parked: Parked::default(),
            swept: false,
            counted: false,
        }
    }
}

/// So many endpoints are asked in a row when none of those picked by load is ready.
const SWEEP: usize = 64;

impl<S, E> Search<S, E> {
    /// It was asked and failed.
    #[cold]
    pub(crate) fn fail(&mut self, node: &Node, error: E, now: &Now<TokioClock>) {
        node.load.skip();
        node.load.sample(now.exact_nanos(), 0, Sample::Failure, &node.tuning);
        self.failed.push(node.id);
        self.error = Some(error);
    }

    /// It was asked and is not ready.
    #[cold]
    pub(crate) fn wait(&mut self, service: S, node: Arc<Node>) {
        node.load.skip();
        node.load.park();
        self.asked.push(node.id);
        self.waiting.push(Waiting { service, spot: Spot(node) });
    }

    /// Asks one; `Some`: it is ready.
    pub(crate) fn ask<Req>(
        &mut self,
        mut service: S,
        node: &Arc<Node>,
        cx: &mut Context<'_>,
        now: &Now<TokioClock>,
    ) -> Option<S>
    where
        S: Service<Req, Error = E>,
    {
        match service.poll_ready(cx) {
            Poll::Ready(Ok(())) => return Some(service),
            Poll::Ready(Err(error)) => self.fail(node, error, now),
            Poll::Pending => self.wait(service, node.clone()),
        }
        None
    }

    /// Asks those that it waits for. Those that are gone, or shut by now, are waited for no longer.
    pub(crate) fn ask_again<Req>(&mut self, cx: &mut Context<'_>, now: &Now<TokioClock>) -> Option<(S, Arc<Node>)>
    where
        S: Service<Req, Error = E>,
    {
        let mut place = 0;
        while let Some(Waiting { service, spot: Spot(node) }) = self.waiting.get_mut(place) {
            let node = node.clone();
            let polled = match node.is_gone() || node.state(now) == State::Shut {
                true => None,
                false => Some(service.poll_ready(cx)),
            };
            if let Some(Poll::Pending) = polled {
                place += 1;
                continue;
            }
            let Waiting { service, .. } = self.waiting.swap_remove(place);
            self.asked.swap_remove(place);
            match polled {
                Some(Poll::Ready(Ok(()))) => return Some((service, node)),
                Some(Poll::Ready(Err(error))) => self.fail(&node, error, now),
                _ => {}
            }
        }
        None
    }

    /// Asks all others once, from `start` on, and waits for none of them.
    pub(crate) fn sweep<Req>(
        &mut self,
        members: &Members<S>,
        start: usize,
        tried: Option<&Tried>,
        cx: &mut Context<'_>,
        now: &Now<TokioClock>,
    ) -> Option<(S, Arc<Node>)>
    where
        S: Service<Req, Error = E> + Clone,
    {
        let nodes = members.roster.nodes.iter().zip(&members.services);
        for (node, service) in nodes.clone().skip(start).chain(nodes.take(start)).take(SWEEP) {
            let is_out = self.asked.contains(&node.id)
                || self.failed.contains(&node.id)
                || tried.is_some_and(|tried| tried.contains(node.id))
                || node.state(now) == State::Shut;
            if is_out {
                continue;
            }
            let mut service = service.clone();
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return Some((service, node.clone())),
                Poll::Ready(Err(error)) => self.fail(node, error, now),
                Poll::Pending => node.load.skip(),
            }
        }
        None
    }
}
