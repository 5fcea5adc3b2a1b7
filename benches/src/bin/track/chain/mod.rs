//! What each contestant puts between clients and upstream.

mod attempts;
mod oracle;
mod ours;
mod storm;
mod tower;

pub use attempts::Attempts;

use crate::{contestant::Contestant, scenario::Story, setup::Setup};
use ::tower::ServiceExt;
use ::tower::util::BoxCloneSyncService;
use buttress_core::{Draw, Error};
use buttress_shed::limit::WallClock;
use buttress_sim::world::{Call, Fault, Reply, Upstream, World};
use std::time::Duration;

/// Everything between a client and the upstream.
pub type Chain = BoxCloneSyncService<Call, Reply, Error<Fault>>;

/// Where a chain is built.
pub struct Site<'a> {
    pub world: &'a World,
    pub upstream: &'a Upstream,
    pub setup: &'a Setup,
    pub story: &'a Story,
    pub seed: u64,
    /// Which of the story's gateways.
    pub gateway: u32,
    /// Where a chain notes what its innermost layer that retries sends on.
    pub attempts: &'a Attempts,
}

impl Site<'_> {
    /// The gateway's wall clock: the first one is right, the last one as wrong as the story says.
    fn wall_clock(&self) -> WallClock {
        let share = f64::from(self.gateway) / f64::from(self.story.gateways.max(2) - 1);
        WallClock::new(self.world.wall_clock(self.story.skew.as_secs_f64() * share))
    }

    /// Where the `n`-th layer of that name of this site draws from: no two of them draw the same numbers.
    fn draws(&self, layer: &str, n: usize) -> u64 {
        let mix = |hash: u64, next: u64| Draw::new(hash.rotate_left(23) ^ next).draw();
        let site = mix(mix(self.seed, self.gateway.into()), n as u64);
        layer.bytes().fold(site, |hash, byte| mix(hash, byte.into()))
    }

    /// Notes attempts that pass.
    fn note(&self) -> impl Fn(Call) -> Call + Clone + Send + Sync + 'static {
        self.attempts.note(self.world)
    }
}

/// A chain, and what is left for clients to do.
pub struct Entry {
    pub chain: Chain,
    /// How often a client tries by itself.
    pub attempts: u32,
    /// How long it waits for each.
    pub time_out: Duration,
}

impl Entry {
    /// Clients that make the story's attempts themselves.
    fn naive(site: &Site<'_>, chain: Chain) -> Self {
        let chain = Chain::new(chain.map_request(site.note()));
        Self { chain, attempts: site.story.attempts, time_out: site.setup.timeout }
    }

    /// Clients that call once and have the time of all attempts.
    fn patient(site: &Site<'_>, chain: Chain) -> Self {
        Self { chain, attempts: 1, time_out: site.setup.timeout * site.story.attempts }
    }
}

/// What `contestant` builds.
pub fn enter(contestant: Contestant, site: &Site<'_>) -> Entry {
    if let Some(storm) = site.story.storm {
        return storm::enter(contestant, storm, site);
    }
    match contestant {
        Contestant::None => Entry::naive(site, Chain::new(site.upstream.clone())),
        Contestant::Tower => tower::enter(site, 1.0),
        Contestant::TowerTimes4 => tower::enter(site, 4.0),
        Contestant::TowerBy4 => tower::enter(site, 0.25),
        Contestant::Oracle => oracle::enter(site),
        Contestant::Aimd | Contestant::Vegas | Contestant::Gradient2 | Contestant::Envoy => {
            ours::published(contestant, site)
        }
        Contestant::Breaker => ours::breaker(site),
        Contestant::Ours => ours::enter(site),
    }
}
