//! What leaves the innermost layer that retries, whatever becomes of it further in.

use buttress_core::sync::lock;
use buttress_sim::world::{Call, World};
use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

/// When each attempt was made: by a layer that retries, or by clients where none is in the chain. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Attempts(Arc<Mutex<Vec<Duration>>>);

impl Attempts {
    /// Notes who passes.
    pub fn note(&self, world: &World) -> impl Fn(Call) -> Call + Clone + Send + Sync + 'static {
        let (attempts, world) = (self.clone(), world.clone());
        move |call| {
            lock(&attempts.0).push(world.now());
            call
        }
    }

    pub fn within(&self, span: &Range<Duration>) -> usize {
        lock(&self.0).iter().filter(|at| span.contains(at)).count()
    }

    /// How many there were in each piece of this width.
    pub fn series(&self, span: &Range<Duration>, width: Duration) -> Vec<u64> {
        let length = span.end.saturating_sub(span.start).as_nanos();
        let mut counts = vec![0; length.div_ceil(width.as_nanos()) as usize];
        for at in lock(&self.0).iter().filter(|at| span.contains(at)) {
            counts[((*at - span.start).as_nanos() / width.as_nanos()) as usize] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Site;
    use crate::{scenario::SCENARIOS, setup::Setup};
    use buttress_sim::world::{Load, Model};
    use std::collections::BTreeSet;
    use tower::ServiceExt;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn attempts_are_counted_where_they_pass() {
        let attempts = Attempts::default();
        World::play(1, async |world| {
            let upstream = world.upstream(Model::new(20));
            upstream.set_error_rate(1.0);
            let load = Load::new(100.0).attempts(3).until(3 * SECOND);
            world.load(load, upstream.map_request(attempts.note(&world)));
            world.run_until(5 * SECOND).await;
            assert_eq!(attempts.within(&(Duration::ZERO..5 * SECOND)), 3 * world.records().len());
        });
        let series = attempts.series(&(SECOND..5 * SECOND), Duration::from_millis(1_500));
        assert_eq!(series.len(), 3);
        assert_eq!(series.iter().sum::<u64>() as usize, attempts.within(&(SECOND..5 * SECOND)));
        assert!(series[0] > 350 && series[1] < series[0] / 2 && series[2] == 0, "{series:?}");
    }

    #[test]
    fn no_two_layers_draw_the_same_numbers() {
        let setup = Setup::default();
        let story = (SCENARIOS[0].story)(&setup);
        World::play(1, async |world| {
            let upstream = world.upstream(Model::new(1));
            let attempts = Attempts::default();
            let mut draws = BTreeSet::new();
            for (seed, gateway) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
                let site = Site {
                    world: &world,
                    upstream: &upstream,
                    setup: &setup,
                    story: &story,
                    seed,
                    gateway,
                    attempts: &attempts,
                };
                draws.extend(["inner", "middle", "shed"].map(|layer| site.draws(layer, 0)));
                draws.extend((0..1000).map(|client| site.draws("client", client)));
            }
            assert_eq!(draws.len(), 4 * 1003);
        });
    }
}
