//! Our layers, as a user stacks them: with their defaults, and the numbers that only the user knows (time-outs, attempts).

use super::{Chain, Entry, Site};
use crate::contestant::Contestant;
use buttress_breaker::{BreakerConfig, BreakerLayer, RampedGateConfig, RampedGateLayer};
use buttress_core::Opaque;
use buttress_deadline::{DeadlineConfig, DeadlineLayer};
use buttress_retry::{Repeatable, ResendLayer, RetryConfig, RetryLayer};
use buttress_shed::{
    Algorithm, Ask, QueueConfig, Shed, ShedConfig, ShedLayer,
    limit::{AdaptiveConfig, AimdConfig, EnvoyGradientConfig, Gradient2Config, Limit, VegasConfig},
};
use buttress_sim::world::Call;
use std::time::Duration;
use tower::ServiceBuilder;

const VALID: &str = "made of valid numbers";

/// deadline > retry > shed > gate > deadline of one attempt.
///
/// The gate is always there, whatever the scenario: a cluster of several endpoints has it by default, and who stacks layers does not
/// know what will happen to his upstream.
pub fn enter(site: &Site<'_>) -> Entry {
    let several = site.story.attempts > 1;
    let adaptive = AdaptiveConfig::default().wall_clock(site.wall_clock());
    let shed = ShedConfig::default().limit(Algorithm::Adaptive(adaptive)).seed(site.draws("shed", 0));
    let gate = RampedGateConfig::default().seed(site.draws("gate", 0));
    let ask = |call: &Call| Ask::new().priority(call.priority).tenant_hash(call.tenant.into()).deadline(call.deadline);
    let chain = ServiceBuilder::new()
        .layer(deadline(site.setup.timeout * site.story.attempts))
        .option_layer(several.then(|| retry(site, "retry", 0)))
        .map_request(site.note())
        .layer(shed.layer_by(ask).expect(VALID))
        .layer(RampedGateLayer::new(gate.build().expect(VALID)))
        .option_layer(several.then(|| deadline(site.setup.timeout)))
        .service(site.upstream.clone());
    Entry::patient(site, Chain::new(chain))
}

/// A published limit without a queue, in front of clients that retry by themselves.
pub fn published(contestant: Contestant, site: &Site<'_>) -> Entry {
    let draws = site.draws("shed", 0);
    let make = move || -> Box<dyn Limit> {
        match contestant {
            Contestant::Aimd => Box::new(AimdConfig::default().build().expect(VALID)),
            Contestant::Vegas => Box::new(VegasConfig::default().seed(draws).build().expect(VALID)),
            Contestant::Gradient2 => Box::new(Gradient2Config::default().build().expect(VALID)),
            _ => Box::new(EnvoyGradientConfig::default().seed(draws).build().expect(VALID)),
        }
    };
    let config = ShedConfig::default().queue(QueueConfig::none()).seed(draws);
    let shed = Shed::with_limit(config, move |_| make()).expect(VALID);
    let chain = ServiceBuilder::new()
        .layer(deadline(site.setup.timeout))
        .layer(ShedLayer::new(shed))
        .service(site.upstream.clone());
    Entry::naive(site, Chain::new(chain))
}

/// A breaker in front of the upstream, and clients that retry by themselves.
pub fn breaker(site: &Site<'_>) -> Entry {
    let config = BreakerConfig::default().seed(site.draws("breaker", 0));
    let chain = ServiceBuilder::new()
        .layer(BreakerLayer::new(config.build().expect(VALID)))
        .layer(deadline(site.setup.timeout))
        .service(site.upstream.clone());
    Entry::naive(site, Chain::new(chain))
}

/// What errors are worth another attempt is for the user to say: all of them.
/// `name`, `n`: which of a site's it is.
pub fn retry(site: &Site<'_>, name: &str, n: usize) -> ResendLayer<Opaque, Repeatable> {
    let config = RetryConfig::new(site.story.attempts).seed(site.draws(name, n));
    RetryLayer::new(config.build().expect(VALID)).when(Repeatable)
}

/// A little shorter than its client waits: or nobody would be there any more to be told.
pub fn deadline(patience: Duration) -> DeadlineLayer {
    DeadlineLayer::new(DeadlineConfig::new(patience.mul_f64(0.98)).build().expect(VALID))
}
