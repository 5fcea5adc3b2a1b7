//! Our layers, as a user stacks them: with their defaults, and the numbers that only the user knows (time-outs, attempts).

use super::{Chain, Entry, Site, limited::Limited};
use crate::contestant::Contestant;
use buttress_breaker::{BreakerConfig, BreakerLayer};
use buttress_bulkhead::BulkheadLayer;
use buttress_core::{GateLayer, Opaque};
use buttress_deadline::{DeadlineConfig, DeadlineLayer};
use buttress_retry::{Repeatable, ResendLayer, RetryConfig, RetryLayer};
use buttress_shed::limit::{AimdConfig, EnvoyGradientConfig, Gradient2Config, VegasConfig};
use std::time::Duration;
use tower::ServiceBuilder;

const VALID: &str = "made of valid numbers";

/// deadline > retry > limit > gate > deadline of one attempt. What has not been built yet has a stand-in: a bulkhead for the
/// limiter, a breaker for the ramped gate.
pub fn enter(site: &Site<'_>) -> Entry {
    let several = site.story.attempts > 1;
    let chain = ServiceBuilder::new()
        .layer(deadline(site.setup.timeout * site.story.attempts))
        .option_layer(several.then(|| retry(site)))
        .layer(BulkheadLayer::new(64))
        .option_layer(several.then(|| circuit(site)))
        .option_layer(several.then(|| deadline(site.setup.timeout)))
        .service(site.upstream.clone());
    Entry::patient(site, Chain::new(chain))
}

/// A published limit in front of clients that retry by themselves.
pub fn published(contestant: Contestant, site: &Site<'_>) -> Entry {
    let limited = match contestant {
        Contestant::Aimd => Limited::new(AimdConfig::default().build().expect(VALID)),
        Contestant::Vegas => Limited::new(VegasConfig::default().seed(site.draws()).build().expect(VALID)),
        Contestant::Gradient2 => Limited::new(Gradient2Config::default().build().expect(VALID)),
        _ => Limited::new(EnvoyGradientConfig::default().seed(site.draws()).build().expect(VALID)),
    };
    let chain = ServiceBuilder::new()
        .layer(deadline(site.setup.timeout))
        .layer(GateLayer::<Limited>::new(limited))
        .service(site.upstream.clone());
    Entry::naive(site, Chain::new(chain))
}

/// A breaker in front of the upstream, and clients that retry by themselves.
pub fn breaker(site: &Site<'_>) -> Entry {
    let chain =
        ServiceBuilder::new().layer(circuit(site)).layer(deadline(site.setup.timeout)).service(site.upstream.clone());
    Entry::naive(site, Chain::new(chain))
}

/// What errors are worth another attempt is for the user to say: all of them.
pub fn retry(site: &Site<'_>) -> ResendLayer<Opaque, Repeatable> {
    let config = RetryConfig::new(site.story.attempts).seed(site.draws());
    RetryLayer::new(config.build().expect(VALID)).when(Repeatable)
}

fn circuit(site: &Site<'_>) -> BreakerLayer {
    BreakerLayer::new(BreakerConfig::default().seed(site.draws()).build().expect(VALID))
}

/// A little shorter than its client waits: or nobody would be there any more to be told.
pub fn deadline(patience: Duration) -> DeadlineLayer {
    DeadlineLayer::new(DeadlineConfig::new(patience.mul_f64(0.98)).build().expect(VALID))
}
