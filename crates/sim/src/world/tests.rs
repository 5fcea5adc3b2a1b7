use super::*;
use tower::{
    ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer, service_fn,
    timeout::TimeoutLayer,
};

const SECOND: Duration = Duration::from_secs(1);

fn seconds(n: u64) -> Duration {
    SECOND * u32::try_from(n).unwrap()
}

/// Calls at `rate`, straight to an upstream of 2000 a second.
fn plain(seed: u64, rate: f64, model: Model) -> Score {
    World::play(seed, async |world| {
        let upstream = world.upstream(model);
        world.load(Load::new(rate), upstream.clone());
        world.run_until(seconds(10)).await;
        world.score(&upstream, SECOND..seconds(9))
    })
}

#[test]
fn arrivals_are_poisson_and_finer_than_a_timer() {
    let arrived = World::play(3, async |world| {
        let upstream = world.upstream(Model::new(1_000));
        world.load(Load::new(4_000.0), upstream);
        world.run_until(seconds(30)).await;
        world.records().into_iter().map(|call| call.arrived as f64 / 1e3).collect::<Vec<_>>()
    });
    let gaps: Vec<f64> = arrived.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
    assert!((mean - 250.0).abs() < 2.5, "{mean} us");
    assert!((deviation / mean - 1.0).abs() < 0.02, "{}", deviation / mean);
}

#[test]
fn an_upstream_with_room_answers_as_fast_as_it_works() {
    let score = plain(1, 1_000.0, Model::new(20));
    assert!(score.good_share() > 0.999, "{}", score.good_share());
    assert!((score.offered - 80.0).abs() < 4.0, "1000 calls of 10 ms a second: {}", score.offered);
    assert!(
        (score.capacity - 160.0).abs() < 0.01 && (score.achievable - score.offered).abs() < 0.5,
        "{}",
        score.achievable
    );
    assert!((score.goodput() - 1.0).abs() < 0.01);
    let model = Model::new(20);
    for (q, within) in [(0.5, 0.05), (0.9, 0.08), (0.99, 0.15)] {
        let want = model.work.quantile(q) * 0.01;
        let got = score.latency(q).as_secs_f64();
        assert!((got / want - 1.0).abs() < within, "{q}: {got} for {want}");
    }
    assert!((score.amplification() - 1.0).abs() < 0.01);
}

#[test]
fn every_kind_of_work_has_the_mean_it_says() {
    for work in [Work::Fixed, Work::Exponential, Work::Lognormal(0.6), Work::Bimodal] {
        let score = plain(2, 500.0, Model::new(100).work(work));
        let mean = score.offered / score.calls.len() as f64;
        assert!((mean / 0.01 - 1.0).abs() < 0.05, "{work:?}: {mean}");
    }
}

#[test]
fn unprotected_overload_ends_in_nothing_at_all() {
    let score = plain(1, 4_000.0, Model::new(20));
    assert!(score.goodput() < 0.15, "all wait longer than anybody has time: {}", score.goodput());
    let cancelling = plain(1, 4_000.0, Model::new(20).cancels(true));
    assert!(cancelling.goodput() > 0.3, "an upstream that drops whom nobody waits for: {}", cancelling.goodput());
}

#[test]
fn the_same_seed_is_the_same_world_and_calls_do_not_depend_on_the_chain() {
    let play = |seed, limit: usize| {
        World::play(seed, async |world| {
            let upstream = world.upstream(Model::new(20));
            let chain = ServiceBuilder::new()
                .layer(LoadShedLayer::new())
                .layer(GlobalConcurrencyLimitLayer::new(limit))
                .service(upstream.clone());
            let load = Load::new(3_000.0).classes([1.0, 1.0, 1.0]).tenants(vec![1.0, 2.0]);
            world.load(load, chain);
            world.run_until(seconds(2)).await;
            world.records()
        })
    };
    let first = play(7, 24);
    assert_eq!(first, play(7, 24));
    let other = play(7, 12);
    let came = |calls: &[CallRecord]| calls.iter().map(|c| (c.arrived, c.priority, c.tenant)).collect::<Vec<_>>();
    assert_eq!(came(&first), came(&other));
    assert_ne!(first, other);
    assert_ne!(came(&first), came(&play(8, 24)));
}

#[test]
fn timers_of_layers_fire_in_step_with_the_world() {
    let score = World::play(1, async |world| {
        let upstream = world.upstream(Model::new(20));
        let chain = ServiceBuilder::new().layer(TimeoutLayer::new(Duration::from_millis(50))).service(upstream.clone());
        upstream.set_down(Some(Down::Hanging));
        world.load(Load::new(100.0), chain);
        world.run_until(seconds(5)).await;
        world.score(&upstream, SECOND..seconds(4))
    });
    assert_eq!(score.count(|end| end == End::Failed) as usize, score.calls.len());
    assert!(score.calls.iter().all(|call| (50_000_000..53_000_000).contains(&(call.ended - call.arrived))));
}

#[test]
fn an_outage_shows_in_the_series_and_recovery_is_when_it_is_over() {
    let (score, refused) = World::play(1, async |world| {
        let upstream = world.upstream(Model::new(20));
        world.load(Load::new(1_000.0), upstream.clone());
        for (at, down) in [(2, Some(Down::Refusing)), (4, None)] {
            let upstream = upstream.clone();
            world.at(seconds(at), move || upstream.set_down(down));
        }
        world.run_until(seconds(9)).await;
        (world.score(&upstream, SECOND..seconds(8)), world.score(&upstream, seconds(2)..seconds(4)))
    });
    assert_eq!(refused.good_share(), 0.0);
    assert_eq!((refused.capacity, refused.achievable), (0.0, 0.0));
    let recovered = score.recovery(seconds(2), Duration::from_millis(50)).unwrap();
    assert!((Duration::from_millis(1_900)..=Duration::from_millis(2_050)).contains(&recovered), "{recovered:?}");
    // What comes last before the end of an outage is refused, too: it is over at a moment, whatever the width.
    for width in [300, 700, 1_000, 3_000].map(Duration::from_millis) {
        assert_eq!(score.recovery(seconds(4), width), Some(Duration::ZERO), "{width:?}");
    }
    assert_eq!(score.detection(seconds(2), 0.5, Duration::from_millis(50)), None, "nobody notices");
    let bins = score.series(SECOND);
    assert_eq!(bins.len(), 7);
    assert!(bins[1].good == 0 && bins[1].arrived > 900 && bins[0].good_share() > 0.95 && bins[4].good_share() > 0.99);
    assert!(bins[4].p50 > 0.005 && bins[4].p50 < 0.007 && bins[4].p99 > 0.04);
}

#[test]
fn recovery_is_two_whole_seconds_and_detection_is_known_when_its_bin_is_over() {
    let millis = Duration::from_millis;
    let (long, short) = World::play(1, async |world| {
        let upstream = world.upstream(Model::new(20));
        // A layer that notices an outage after a quarter of a second.
        let spared = Arc::new(AtomicU32::new(0));
        let gate = {
            let (spared, upstream) = (spared.clone(), upstream.clone());
            service_fn(move |call: Call| {
                let pass = spared.load(std::sync::atomic::Ordering::Relaxed) == 0;
                let upstream = upstream.clone();
                async move {
                    if pass { upstream.oneshot(call).await } else { Err(buttress_core::Error::Inner(Fault::Down)) }
                }
            })
        };
        world.load(Load::new(1_000.0), gate);
        let down = upstream.clone();
        world.at(millis(2_030), move || down.set_down(Some(Down::Refusing)));
        world.at(millis(2_280), move || spared.store(1, std::sync::atomic::Ordering::Relaxed));
        world.run_until(seconds(9)).await;
        (world.score(&upstream, Duration::ZERO..seconds(6)), world.score(&upstream, Duration::ZERO..millis(2_020)))
    });
    // Bins that began with the span would say 270 ms, and the beginning of the bin 250 ms.
    assert_eq!(long.detection(millis(2_030), 0.5, millis(50)), Some(millis(300)));
    assert_eq!(long.recovery(millis(2_030), millis(50)), None);
    // Of two seconds of health at the end of a span not all are seen.
    assert_eq!(short.recovery(millis(10), millis(50)), Some(Duration::ZERO));
    assert_eq!(short.recovery(millis(30), millis(50)), None);
    assert_eq!(short.recovery(millis(20), millis(300)), None, "seven bins of 300 ms are more than there is");
}

#[test]
fn naive_clients_multiply_what_fails_by_their_attempts() {
    let score = World::play(1, async |world| {
        let upstream = world.upstream(Model::new(20));
        upstream.set_error_rate(1.0);
        world.load(Load::new(200.0).attempts(3), upstream.clone());
        world.run_until(seconds(5)).await;
        world.score(&upstream, SECOND..seconds(4))
    });
    assert!((score.amplification() - 3.0).abs() < 0.05, "{}", score.amplification());
    assert!(score.calls.iter().all(|call| call.sent == 3 && call.end == End::Failed));
}

#[test]
fn bursts_and_steps_bring_the_calls_they_say() {
    let bins = World::play(5, async |world| {
        let upstream = world.upstream(Model::new(1_000));
        let bursts = Bursts { every: SECOND, length: Duration::from_millis(100), factor: 5.0 };
        world.load(Load::new(1_000.0).step(seconds(5), 2_000.0).bursts(bursts), upstream.clone());
        world.run_until(seconds(10)).await;
        world.score(&upstream, Duration::ZERO..seconds(10)).series(Duration::from_millis(100))
    });
    let mean = |bins: Vec<&Bin>| bins.iter().map(|bin| bin.arrived as f64).sum::<f64>() / bins.len() as f64;
    let burst = mean(bins.iter().take(50).step_by(10).collect());
    let calm = mean(bins.iter().take(50).enumerate().filter(|(i, _)| i % 10 != 0).map(|(_, bin)| bin).collect());
    let later = mean(bins.iter().skip(50).step_by(10).collect());
    assert!(
        (burst - 500.0).abs() < 40.0 && (calm - 100.0).abs() < 5.0 && (later - 1_000.0).abs() < 60.0,
        "{burst} {calm} {later}"
    );
}

#[test]
fn a_hop_hides_threads_and_passes_answers_and_departures() {
    World::play(1, async |world| {
        let upstream = world.upstream(Model::new(1).cancels(true));
        let hop = world.hop(upstream.clone());
        world.load(Load::new(50.0), hop.clone());
        world.run_until(seconds(2)).await;
        assert!(world.score(&upstream, SECOND..seconds(2)).good_share() > 0.8);
        let never =
            world.hop(service_fn(|_: Call| std::future::pending::<Result<Reply, buttress_core::Error<Fault>>>()));
        world.load(Load::new(50.0), never);
        world.run_until(seconds(3)).await;
        assert!(upstream.inside() < 20);
    });
}

#[test]
fn an_upstream_with_contention_or_a_full_queue_is_worse_for_it() {
    let crowded = plain(1, 2_400.0, Model::new(20).contention(0.2).cancels(true));
    let calm = plain(1, 2_400.0, Model::new(20).cancels(true));
    assert!(crowded.goodput() < calm.goodput() - 0.1, "{} {}", crowded.goodput(), calm.goodput());
    let bounded = plain(1, 4_000.0, Model::new(20).queue(20));
    assert!(bounded.goodput() > 0.97, "{}", bounded.goodput());
    let costly = plain(1, 4_000.0, Model::new(20).queue(20).rejection(Duration::from_millis(2)));
    assert!(costly.goodput() < 0.85, "{}", costly.goodput());
}

#[test]
fn fairness_is_one_for_equals() {
    assert!((jain(&[2.0, 2.0, 2.0]) - 1.0).abs() < 1e-9);
    assert!((jain(&[3.0, 0.0, 0.0]) - 1.0 / 3.0).abs() < 1e-9);
}
