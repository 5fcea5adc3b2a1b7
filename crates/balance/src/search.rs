//! A call whose first pick was not ready.

use crate::{
    Balancer,
    endpoints::Members,
    load::{Sample, Standing},
    node::{Node, State},
    now::Now,
};
use buttress_core::{Parked, TokioClock, Tried};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::Sleep;
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
    /// Since when it waits.
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
    pub(crate) counted: bool,
}

/// An endpoint that was asked and is not ready: it wakes the call when it is.
struct Waiting<S> {
    service: S,
    /// It was failing when it was asked: there was no better one.
    is_last: bool,
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
            since: None,
            alarm: None,
            counted: false,
        }
    }
}

/// A call waits for so many endpoints, and asks a few more that it would rather not use.
const SWEEP: usize = 64;
pub(crate) const ASKED: usize = SWEEP + 16;
/// Signals wake nobody: a call that waits while endpoints are shut looks again after this at the latest.
const AGAIN: Duration = Duration::from_secs(1);

impl<S, E> Search<S, E> {
    /// It was asked and failed.
    #[cold]
    pub(crate) fn fail(&mut self, node: &Node, error: E, now: &Now<TokioClock>) {
        node.load.skip();
        node.load.sample(now.exact_nanos(), now.exact_nanos(), 0, Sample::Failure, &node.tuning);
        self.failed.push(node.id);
        self.error = Some(error);
    }

    /// It was asked and is not ready.
    #[cold]
    pub(crate) fn wait(&mut self, service: S, node: Arc<Node>, now: &Now<TokioClock>) {
        let is_last = standing(&node, now) != Standing::Good;
        node.load.skip();
        node.load.park();
        self.asked.push(node.id);
        self.waiting.push(Waiting { service, is_last, spot: Spot(node) });
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
            Poll::Pending => self.wait(service, node.clone(), now),
        }
        None
    }

    /// Asks those that it waits for. Those that are gone, or shut or failing by now, are waited for no longer.
    pub(crate) fn ask_again<Req>(&mut self, cx: &mut Context<'_>, now: &Now<TokioClock>) -> Option<(S, Arc<Node>)>
    where
        S: Service<Req, Error = E>,
    {
        let mut place = 0;
        while let Some(Waiting { service, is_last, spot: Spot(node) }) = self.waiting.get_mut(place) {
            let node = node.clone();
            let is_out =
                node.is_gone() || node.state(now) == State::Shut || !*is_last && standing(&node, now) == Standing::Last;
            let polled = match is_out {
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

    /// Asks all others that are good, from `start` on, and waits for them as well.
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
        for (node, service) in nodes.clone().skip(start).chain(nodes.take(start)) {
            if self.asked.len() >= SWEEP {
                break;
            }
            let is_out = self.asked.contains(&node.id)
                || self.failed.contains(&node.id)
                || tried.is_some_and(|tried| tried.contains(node.id))
                || node.state(now) == State::Shut
                || standing(node, now) == Standing::Last;
            if !is_out && let Some(service) = self.ask(service.clone(), node, cx, now) {
                return Some((service, node.clone()));
            }
        }
        None
    }

    /// Whether it has waited for as long as a failure costs.
    pub(crate) fn is_impatient(&self, balancer: &Balancer, now: &Now<TokioClock>) -> bool {
        let patience = Duration::from_nanos(balancer.tuning.penalty() as u64);
        self.since.is_some_and(|since| now.exact().saturating_duration_since(since) >= patience)
    }

    /// It waits. Nobody tells it that a circuit's time has come, nor that a failing endpoint has had its rest: where there are
    /// such, an alarm does.
    pub(crate) fn doze(&mut self, members: &Members<S>, cx: &mut Context<'_>, now: &Now<TokioClock>) {
        let since = *self.since.get_or_insert_with(|| now.exact());
        let next = |node: &Arc<Node>| match node.state(now) {
            State::Shut => node.until(),
            State::Open if standing(node, now) == Standing::Last => {
                let tuning = &node.tuning;
                let patience = since + Duration::from_nanos(tuning.penalty() as u64);
                let trial = tuning.origin.at(node.load.next_trial(tuning));
                [patience, trial].into_iter().filter(|at| *at > now.exact()).min()
            }
            _ => None,
        };
        let others = members.roster.nodes.iter().filter(|node| !self.asked.contains(&node.id));
        let first = others.filter_map(next).min().map(|first| first.min(now.exact() + AGAIN));
        self.alarm = first.map(|first| Box::pin(tokio::time::sleep_until(first.into())));
        if self.alarm.as_mut().is_some_and(|alarm| alarm.as_mut().poll(cx).is_ready()) {
            cx.waker().wake_by_ref();
        }
    }
}

fn standing(node: &Node, now: &Now<TokioClock>) -> Standing {
    match node.state(now) == State::Open && node.load.is_suspect() {
        true => node.load.standing(now.exact_nanos(), &node.tuning),
        false => Standing::Good,
    }
}
