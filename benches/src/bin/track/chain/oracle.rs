//! Someone who was told everything.

use super::{Chain, Entry, Site, ours};
use crate::{scenario::Event, setup::Setup};
use buttress_core::{Admit, GateLayer, Gatekeeper, Priority, Reason, Rejection};
use buttress_sim::world::{Call, Upstream};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tower::ServiceBuilder;

/// Admits by how many calls are inside the upstream, whoever sent them, and by what its capacity is at the moment: to the last
/// class as many as there are workers and a few, to the next as many more as make a queue of the story's patience, and to the
/// first still a few more.
struct Oracle {
    upstream: Upstream,
    /// Sheddable, normal, critical.
    limits: Arc<[AtomicU32; 3]>,
    /// The first tenant is known to be noisy.
    noisy: bool,
}

pub fn enter(site: &Site<'_>) -> Entry {
    let story = site.story;
    let limits = Arc::<[AtomicU32; 3]>::default();
    let mut health = Health { workers: story.workers, latency: 1.0, up: true };
    health.set(&limits, site.setup, story.patience);
    for (at, event) in &story.events {
        health.change(*event);
        let (health, limits) = (health, limits.clone());
        let (setup, patience) = (site.setup.clone(), story.patience);
        site.world.at(*at, move || health.set(&limits, &setup, patience));
    }
    let noisy = story.tenants.len() > 1;
    let oracle = Oracle { upstream: site.upstream.clone(), limits, noisy };
    let chain = ServiceBuilder::new()
        .option_layer((story.attempts > 1).then(|| ours::retry(site, "retry", 0)))
        .map_request(site.note())
        .layer(GateLayer::<Oracle>::new(oracle))
        .service(site.upstream.clone());
    Entry::patient(site, Chain::new(chain))
}

#[derive(Clone, Copy)]
struct Health {
    workers: u32,
    latency: f64,
    up: bool,
}

impl Health {
    fn change(&mut self, event: Event) {
        match event {
            Event::Workers(workers) => self.workers = workers,
            Event::Latency(factor) => self.latency = factor,
            Event::Down(down) => self.up = down.is_none(),
            Event::Errors(_) => {}
        }
    }

    fn set(self, limits: &[AtomicU32; 3], setup: &Setup, patience: Duration) {
        let workers = f64::from(self.workers);
        let queue = workers * patience.as_secs_f64() / (setup.mean.as_secs_f64() * self.latency);
        let spare = (workers * 0.4).max(4.0);
        let last = workers * 1.05;
        for (limit, value) in limits.iter().zip([last, last + queue, last + queue + spare]) {
            limit.store(if self.up { value.ceil() as u32 } else { 0 }, Relaxed);
        }
    }
}

impl Gatekeeper for Oracle {
    type Permit = ();
    type Turn = ();
}

impl Admit<Call> for Oracle {
    fn admit(&self, _: &mut (), call: &Call) -> Result<(), Rejection> {
        let class = match call.priority {
            _ if self.noisy && call.tenant == 0 => 0,
            _ if self.noisy => 2,
            Priority::Sheddable => 0,
            Priority::Critical => 2,
            _ => 1,
        };
        let has_room = self.upstream.inside() < self.limits[class].load(Relaxed) as usize;
        if has_room { Ok(()) } else { Err(Rejection::new(Reason::Shed, "oracle")) }
    }
}
