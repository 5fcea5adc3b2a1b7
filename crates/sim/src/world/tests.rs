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
fn a_score_is_shown_in_a_line_however_many_calls_there_were() {
    let score = plain(1, 1_300.0, Model::new(20));
    let text = format!("{score:?}");
    assert!(score.calls.len() > 10_000 && text.len() < 500, "{} calls: {text:.1000}", score.calls.len());
    for part in ["span", "calls", "goodput", "good_share", "refused_share", "p50", "p99", "amplification"] {
        assert!(text.contains(&format!("{part}: ")), "{part}: {text}");
    }
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
        let bursts = Bursts::new(SECOND, Duration::from_millis(100), 5.0);
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
        world.load(Load::new(50.0), world.hop(upstream.clone()));
        world.run_until(seconds(2)).await;
        assert!(world.score(&upstream, SECOND..seconds(2)).good_share() > 0.8);
        let inside = Arc::new(());
        let never = {
            let inside = inside.clone();
            world.hop(service_fn(move |_: Call| {
                let held = inside.clone();
                async move {
                    std::future::pending::<()>().await;
                    drop(held);
                    Err::<Reply, _>(buttress_core::Error::Inner(Fault::Failed))
                }
            }))
        };
        world.load(Load::new(50.0).time_out(Duration::from_millis(100)).until(seconds(4)), never);
        world.run_until(seconds(4)).await;
        // The service and its clones hold one each, calls one more: of a hundred those of the last 100 ms.
        let held = Arc::strong_count(&inside);
        assert!((2..20).contains(&held), "{held}");
        world.run_until(seconds(5)).await;
        assert!(Arc::strong_count(&inside) <= 3, "all have left: {}", Arc::strong_count(&inside));
    });
}

#[test]
fn who_leaves_an_upstream_that_cancels_leaves_its_queue_as_well() {
    for (cancels, left) in [(true, 0), (false, 9)] {
        World::play(1, async |world| {
            let upstream =
                world.upstream(Model::new(1).mean(seconds(100)).work(Work::Fixed).queue(10).cancels(cancels));
            let load = Load::new(1_000.0).time_out(Duration::from_millis(10)).until(SECOND);
            world.load(load, upstream.clone());
            world.run_until(seconds(2)).await;
            let waiting = upstream.inside().saturating_sub(1);
            assert!(waiting >= left && (waiting == 0) == (left == 0), "cancels: {cancels}, inside: {waiting}");
            let busy = world.score(&upstream, Duration::ZERO..seconds(2)).count(|end| end == End::Failed);
            assert_eq!(busy < 600, cancels, "its room is free again: {busy}");
        });
    }
}

#[test]
fn a_latency_factor_makes_calls_slower_and_capacity_less() {
    let (slow, after) = World::play(1, async |world| {
        let upstream = world.upstream(Model::new(20).work(Work::Fixed));
        world.load(Load::new(100.0), upstream.clone());
        upstream.set_latency_factor(3.0);
        let healthy = upstream.clone();
        world.at(seconds(2), move || healthy.set_latency_factor(1.0));
        world.run_until(seconds(5)).await;
        (world.score(&upstream, Duration::ZERO..seconds(2)), world.score(&upstream, seconds(3)..seconds(4)))
    });
    assert_eq!((slow.latency(0.5), after.latency(0.5)), (Duration::from_millis(30), Duration::from_millis(10)));
    assert!((slow.capacity - 40.0 / 3.0).abs() < 1e-6 && (after.capacity - 20.0).abs() < 1e-6, "{}", slow.capacity);
}

#[test]
fn a_wall_clock_goes_with_the_world_and_is_as_wrong_as_it_is_told() {
    World::play(1, async |world| {
        let (right, wrong) = (world.wall_clock(0.0), world.wall_clock(-0.25));
        let began = right();
        assert!(began > seconds(1_600_000_000), "{began:?}");
        world.run_until(Duration::from_millis(1_500)).await;
        let near = |a: Duration, b: Duration| a.abs_diff(b) < Duration::from_micros(1);
        assert!(near(right() - began, Duration::from_millis(1_500)));
        assert!(near(right() - wrong(), Duration::from_millis(250)));
    });
}

#[test]
fn nobody_comes_any_more_after_the_end_of_a_load() {
    World::play(1, async |world| {
        let upstream = world.upstream(Model::new(20));
        world.load(Load::new(1_000.0).until(seconds(2)), upstream);
        world.run_until(seconds(4)).await;
        let last = world.records().last().unwrap().arrived;
        assert!((1_950_000_000..2_000_000_000).contains(&last), "{last}");
    });
}

#[test]
fn a_load_that_ends_in_a_step_to_nothing_lets_the_world_go_on() {
    World::play(1, async |world| {
        let upstream = world.upstream(Model::new(20));
        let bursts = Bursts::new(SECOND, Duration::from_millis(100), 5.0);
        world.load(Load::new(100.0).step(seconds(2), 0.0).step(seconds(8), 100.0).bursts(bursts), upstream);
        world.run_until(seconds(10)).await;
        let came = |from, to| world.records().iter().filter(|call| (from..to).contains(&call.arrived)).count();
        assert_eq!(came(2_000_000_000, 8_000_000_000), 0);
        assert!(came(0, 2_000_000_000) > 200 && came(8_000_000_000, 10_000_000_000) > 200);
    });
}

#[test]
fn who_waits_for_ever_and_looks_at_all_of_time_gets_what_there_is() {
    World::play(1, async |world| {
        let upstream = world.upstream(Model::new(20));
        world.load(Load::new(100.0).time_out(Duration::MAX), upstream.clone());
        world.run_until(seconds(3)).await;
        let score = world.score(&upstream, Duration::ZERO..Duration::MAX);
        assert_eq!(score.span, Duration::ZERO..seconds(3));
        assert!(score.good_share() > 0.95 && (score.capacity - 60.0).abs() < 1e-6, "{}", score.capacity);
    });
}

#[test]
fn what_cannot_be_is_said_where_it_is_given() {
    let upstream = |world: &World| world.upstream(Model::new(1));
    let load = |world: &World, load: Load| world.load(load, upstream(world));
    let burst = |every, length, factor| Load::new(1.0).bursts(Bursts::new(every, length, factor));
    type Wrong<'a> = (&'a str, Box<dyn Fn(&World) + 'a>);
    let wrong: Vec<Wrong<'_>> = vec![
        ("rate is finite", Box::new(|world| load(world, Load::new(f64::INFINITY)))),
        ("rate is finite", Box::new(|world| load(world, Load::new(f64::NAN)))),
        ("rate is finite", Box::new(|world| load(world, Load::new(-1.0)))),
        ("rate is finite", Box::new(|world| load(world, Load::new(1.0).step(SECOND, -1.0)))),
        ("length is less", Box::new(|world| load(world, burst(Duration::ZERO, Duration::ZERO, 2.0)))),
        ("length is less", Box::new(|world| load(world, burst(SECOND, SECOND, 0.0)))),
        ("factor is finite", Box::new(|world| load(world, burst(SECOND, SECOND / 2, f64::NAN)))),
        ("weights of classes", Box::new(|world| load(world, Load::new(1.0).classes([0.0; 3])))),
        ("weights of classes", Box::new(|world| load(world, Load::new(1.0).classes([f64::NAN, 1.0, 1.0])))),
        ("weights of tenants", Box::new(|world| load(world, Load::new(1.0).tenants(Vec::new())))),
        ("sigma is finite", Box::new(|world| drop(world.upstream(Model::new(1).work(Work::Lognormal(f64::NAN)))))),
        ("contention is finite", Box::new(|world| drop(world.upstream(Model::new(1).contention(-1.0))))),
        ("factor is finite and above 0", Box::new(|world| upstream(world).set_latency_factor(0.0))),
        ("share from 0 to 1", Box::new(|world| upstream(world).set_error_rate(f64::NAN))),
        (
            "needs a width",
            Box::new(|world| {
                world.score(&upstream(world), Duration::ZERO..SECOND).detection(Duration::ZERO, 0.5, Duration::ZERO);
            }),
        ),
    ];
    World::play(1, async |world| {
        for (said, wrong) in wrong {
            let heard = panic_of(|| wrong(&world));
            assert!(heard.contains(said), "{said}: {heard}");
        }
    });
    let endless = panic_of(|| World::play(1, async |world| world.run_until(Duration::MAX).await));
    assert!(endless.contains("a run has an end"), "{endless}");
}

#[test]
fn a_script_that_waits_for_tokio_is_told() {
    let heard = panic_of(|| {
        World::play(1, async |world| {
            world.run_until(SECOND).await;
            tokio::time::sleep(SECOND).await;
            world.run_until(seconds(2)).await;
        });
    });
    assert!(heard.contains("a script waits by `run_until` alone"), "{heard}");
}

/// What it says when it panics; nothing if it does not.
fn panic_of(run: impl FnOnce()) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).err();
    let text = |payload: Box<dyn std::any::Any + Send>| match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().map_or(String::new(), |text| (*text).to_owned()),
    };
    payload.map(text).unwrap_or_default()
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
