//! The adaptive limit in front of a service that queues, in virtual time: goodput under overload, and after what happens to services.

use buttress_core::{Error, Opaque, Outcome, Priority, Reason, Rejection};
use buttress_shed::{
    Algorithm, Ask, Shed, ShedConfig,
    limit::{AdaptiveConfig, WallClock},
};
use buttress_sim::world::{Call, Down, Fault, Load, Model, Reply, Upstream, Work, World};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tower::{Layer, Service, ServiceExt, service_fn};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ask(call: &Call) -> Ask {
    Ask::new().priority(call.priority).deadline(call.deadline).tenant_hash(call.tenant.into())
}

type Handle = Arc<Shed<fn(&Call) -> Ask>>;

/// Calls, through a shedder.
fn guard(world: &World, upstream: &Upstream, load: Load) -> Handle {
    guard_all(world, upstream.clone(), [load])
}

fn guard_all<S>(world: &World, service: S, loads: impl IntoIterator<Item = Load>) -> Handle
where
    S: Service<Call, Response = Reply, Error = Error<Fault>, Future: Send> + Clone + Send + Sync + 'static,
{
    let adaptive = AdaptiveConfig::default().wall_clock(WallClock::new(world.wall_clock(0.0)));
    let config = ShedConfig::default().limit(Algorithm::Adaptive(adaptive)).seed(1);
    let protocol = Opaque::new().classify(|reply: Result<&Reply, &Error<Fault>>| match reply {
        Ok(_) => Outcome::Success,
        Err(Error::Inner(Fault::Busy)) => Outcome::Overload,
        Err(_) => Outcome::Failure,
    });
    let layer = config.layer_by(ask as fn(&Call) -> Ask).unwrap().protocol(protocol);
    loads.into_iter().for_each(|load| world.load(load, layer.layer(service.clone())));
    layer.handle()
}

/// 1000 calls a second.
fn model(work: Work) -> Model {
    Model::new(10).work(work)
}

#[test]
fn twice_the_load_is_as_good_as_all_the_service_can_do() {
    let score = World::play(1, async |world| {
        let upstream = world.upstream(Model::new(20));
        guard(&world, &upstream, Load::new(4_000.0));
        world.run_until(seconds(8)).await;
        world.score(&upstream, seconds(3)..seconds(8))
    });
    assert!(score.goodput() >= 0.98, "{}", score.goodput());
    assert!(score.latency(0.5) < Duration::from_millis(250), "{:?}", score.latency(0.5));
}

#[test]
fn a_start_under_load_does_not_take_the_fastest_calls_for_the_usual_ones() {
    let goodput = |seed| {
        World::play(seed, async |world| {
            let upstream = world.upstream(Model::new(20));
            guard(&world, &upstream, Load::new(4_000.0));
            world.run_until(seconds(6)).await;
            world.score(&upstream, seconds(1)..seconds(6)).goodput()
        })
    };
    let of_seeds: Vec<_> = (1..=10).map(goodput).collect();
    assert!(of_seeds.iter().all(|goodput| *goodput >= 0.97), "{of_seeds:?}");
}

#[test]
fn peer_08_an_adaptive_limit_recovers() {
    for work in [Work::Fixed, Work::Lognormal(1.0)] {
        let spans = World::play(1, async |world| {
            let upstream = world.upstream(model(work));
            let load = Load::new(3_000.0).step(seconds(5), 300.0).step(seconds(25), 3_000.0);
            let handle = guard(&world, &upstream, load);
            for (at, factor) in [(5, 10.0), (25, 1.0)] {
                let upstream = upstream.clone();
                world.at(seconds(at), move || upstream.set_latency_factor(factor));
            }
            world.run_until(seconds(31)).await;
            let spans = [(2, 5), (7, 16), (16, 25), (27, 31)];
            let goodput = spans.map(|(from, to)| world.score(&upstream, seconds(from)..seconds(to)).goodput());
            (goodput, handle.snapshot())
        });
        let ([before, slow, later, after], snapshot) = &spans;
        assert!(*before > 0.9 && *slow > 0.6 && *later > 0.6 && *after > 0.9, "{work:?}: {spans:?}");
        assert!(snapshot.queued <= 1_000);
    }
}

#[test]
fn whoever_matters_most_is_served_first_through_the_limit() {
    let score = World::play(2, async |world| {
        let upstream = world.upstream(model(Work::Lognormal(1.0)));
        // Critical calls are two fifths of what it can do, normal ones as many, sheddable ones more than it has left.
        guard(&world, &upstream, Load::new(2_000.0).classes([0.6, 0.2, 0.2]));
        world.run_until(seconds(9)).await;
        world.score(&upstream, seconds(3)..seconds(9))
    });
    let [critical, normal, sheddable] =
        [Priority::Critical, Priority::Normal, Priority::Sheddable].map(|c| score.class(c));
    assert!(critical > 0.99 && normal > 0.97 && sheddable < 0.25, "{critical} {normal} {sheddable}");
    assert!(score.goodput() > 0.95, "{}", score.goodput());
}

#[test]
fn a_service_that_hung_is_used_in_full_again_as_soon_as_it_answers() {
    let (hung, recovered) = World::play(3, async |world| {
        let upstream = world.upstream(model(Work::Lognormal(1.0)));
        guard(&world, &upstream, Load::new(800.0));
        for (at, down) in [(3, Some(Down::Hanging)), (8, None)] {
            let upstream = upstream.clone();
            world.at(seconds(at), move || upstream.set_down(down));
        }
        world.run_until(seconds(15)).await;
        let hung = world.score(&upstream, seconds(4)..seconds(8)).good_share();
        (hung, world.score(&upstream, seconds(3)..seconds(15)).recovery(seconds(8), Duration::from_millis(50)))
    });
    assert!(hung < 0.1, "{hung}");
    assert!(recovered.is_some_and(|after| after < seconds(2)), "{recovered:?}");
}

#[test]
fn a_limit_far_too_high_for_what_is_left_of_a_service_comes_down_though_nobody_is_answered_in_time() {
    // Four of two hundred workers are left, and clients leave before their turn comes: no call says how long it takes.
    let shares = World::play(3, async |world| {
        let model = Model::new(200).mean(Duration::from_millis(25)).work(Work::Lognormal(0.6));
        let upstream = world.upstream(model);
        guard(&world, &upstream, Load::new(5_600.0).time_out(Duration::from_millis(150)));
        for (at, workers) in [(3, 4), (30, 200)] {
            let upstream = upstream.clone();
            world.at(seconds(at), move || upstream.set_workers(workers));
        }
        world.run_until(seconds(46)).await;
        let of_four_workers = world.score(&upstream, seconds(27)..seconds(30)).good_share() * 5_600.0 / 160.0;
        [of_four_workers, world.score(&upstream, seconds(42)..seconds(45)).good_share()]
    });
    assert!(shares[0] >= 0.9 && shares[1] >= 0.99, "{shares:?}");
}

/// 1000 calls a second, and more at once than a limit begins with.
fn roomy(work: Work) -> Model {
    Model::new(50).mean(Duration::from_millis(50)).work(work)
}

/// Of `rate` calls a second to a service from 3 s to 23 s `share` are odd: those go to another service. How many of all others were served:
/// in the first ten seconds of that, in the others, and afterwards.
fn others<S>(usual: Model, rate: f64, share: f64, odd: impl FnOnce(&World) -> S) -> [f64; 3]
where
    S: Service<Call, Response = Reply, Error = Error<Fault>, Future: Send> + Clone + Send + Sync + 'static,
{
    World::play(4, async |world| {
        let upstream = world.upstream(usual);
        let (usual, odd) = (upstream.clone(), odd(&world));
        let service = service_fn(move |call: Call| {
            let (usual, odd) = (usual.clone(), odd.clone());
            async move { if call.tenant == 0 { usual.oneshot(call).await } else { odd.oneshot(call).await } }
        });
        let strange = Load::new(0.0).step(seconds(3), rate * share).tenants(vec![0.0, 1.0]).until(seconds(23));
        let loads = [Load::new(rate * (1.0 - share)), strange].map(|load| load.time_out(seconds(2)));
        guard_all(&world, service, loads);
        world.run_until(seconds(34)).await;
        let spans = [(3, 13), (13, 23), (23, 32)];
        spans.map(|(from, to)| world.score(&upstream, seconds(from)..seconds(to)).share(|call| call.tenant == 0))
    })
}

/// Every call ends so, after so long.
fn ends(after: Duration, error: Error<Fault>) -> impl FnOnce(&World) -> Ends {
    move |world| Ends { world: world.clone(), after, error }
}

#[derive(Clone)]
struct Ends {
    world: World,
    after: Duration,
    error: Error<Fault>,
}

impl Service<Call> for Ends {
    type Response = Reply;
    type Error = Error<Fault>;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Error<Fault>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Self::Future {
        let Self { world, after, error } = self.clone();
        Box::pin(async move {
            world.sleep_until(world.now() + after).await;
            Err(error)
        })
    }
}

#[test]
fn limits_in_front_of_one_service_do_not_grow_with_each_others_queue() {
    let limits = World::play(1, async |world| {
        let upstream = world.upstream(Model::new(20).work(Work::Lognormal(1.0)));
        let handles = [(); 3].map(|()| guard(&world, &upstream, Load::new(4_000.0 / 3.0)));
        let mut limits = Vec::new();
        for at in 2..8 {
            world.run_until(seconds(10 * at)).await;
            limits.push(handles.iter().map(|handle| handle.snapshot().limit).sum::<u32>());
        }
        limits
    });
    assert!(limits.iter().all(|limit| *limit <= 60), "{limits:?}");
}

#[test]
fn what_never_comes_to_the_queue_does_not_hide_it() {
    // One in eight is an answer from a cache; all others come to ten workers of 20 ms, half as much again as those can do.
    let served = World::play(1, async |world| {
        let model = Model::new(10).mean(Duration::from_millis(20)).work(Work::Lognormal(0.5));
        let pool = world.upstream(model);
        let cache = world.upstream(Model::new(1_000).mean(Duration::from_millis(1)).work(Work::Fixed));
        let (through, beside) = (pool.clone(), cache.clone());
        let service = service_fn(move |call: Call| {
            let (pool, cache) = (through.clone(), beside.clone());
            async move { if call.tenant == 0 { pool.oneshot(call).await } else { cache.oneshot(call).await } }
        });
        let cached = Load::new(107.0).tenants(vec![0.0, 1.0]);
        guard_all(&world, service, [Load::new(750.0), cached].map(|load| load.time_out(seconds(1))));
        world.run_until(seconds(62)).await;
        [(10, 20), (20, 40), (40, 60)]
            .map(|(from, to)| world.score(&pool, seconds(from)..seconds(to)).share(|call| call.tenant == 0))
    });
    assert!(served.iter().all(|share| *share >= 0.6), "two thirds is what there is: {served:?}");
}

#[test]
fn a_limit_that_nobody_reaches_comes_down_if_nobody_is_answered() {
    // Two workers become three times slower: ten calls a second are in flight for as long as their clients wait, which is less than there is room for.
    let served = World::play(2, async |world| {
        let model = Model::new(2).mean(Duration::from_millis(100)).work(Work::Lognormal(0.3));
        let upstream = world.upstream(model);
        guard(&world, &upstream, Load::new(10.0).time_out(seconds(1)));
        for (at, factor) in [(20, 3.0), (80, 1.0)] {
            let upstream = upstream.clone();
            world.at(seconds(at), move || upstream.set_latency_factor(factor));
        }
        world.run_until(seconds(122)).await;
        [(0, 20), (40, 80), (90, 120)].map(|(from, to)| world.score(&upstream, seconds(from)..seconds(to)).good_share())
    });
    assert!(served[0] >= 0.9 && served[1] >= 0.4 && served[2] >= 0.95, "{served:?}");
}

#[test]
fn a_service_that_becomes_ten_times_slower_with_room_to_spare_is_used_again() {
    let served = World::play(4, async |world| {
        let upstream = world.upstream(Model::new(400).work(Work::Lognormal(0.6)));
        guard(&world, &upstream, Load::new(600.0).time_out(seconds(5)));
        let slow = upstream.clone();
        world.at(seconds(5), move || slow.set_latency_factor(10.0));
        world.run_until(seconds(36)).await;
        let spans = [(1, 5), (20, 30)];
        spans.map(|(from, to)| world.score(&upstream, seconds(from)..seconds(to)).good_share())
    });
    assert!(served[0] > 0.99 && served[1] >= 0.9, "{served:?}");
}

#[test]
fn fast_answers_that_come_and_go_take_nothing_from_others() {
    let fast = Model::new(1_000).mean(Duration::from_millis(1)).work(Work::Fixed);
    let served = others(roomy(Work::Lognormal(0.6)), 800.0, 0.2, |world| world.upstream(fast));
    assert!(served.iter().all(|share| *share >= 0.97), "{served:?}");
}

#[test]
fn a_few_refusals_by_the_service_take_nothing_from_others() {
    let served =
        others(roomy(Work::Lognormal(0.6)), 500.0, 0.05, ends(Duration::from_millis(1), Error::Inner(Fault::Busy)));
    assert!(served.iter().all(|share| *share >= 0.97), "{served:?}");
}

#[test]
fn a_few_calls_that_hang_take_nothing_from_others() {
    let time_out = Rejection::new(Reason::DeadlinePassed, "timeout");
    let served = others(model(Work::Lognormal(0.6)), 300.0, 0.12, ends(seconds(1), Error::Rejected(time_out)));
    // It has to find out that there is room for more.
    assert!(served[0] >= 0.9 && served[1] >= 0.97 && served[2] >= 0.97, "{served:?}");
}

#[test]
fn a_client_that_gives_up_early_takes_nothing_from_others() {
    let served = World::play(4, async |world| {
        let upstream = world.upstream(roomy(Work::Fixed));
        let hasty = Load::new(0.0).step(seconds(3), 180.0).until(seconds(13)).time_out(Duration::from_micros(27_500));
        guard_all(&world, upstream.clone(), [Load::new(720.0), hasty]);
        world.run_until(seconds(25)).await;
        [(3, 13), (13, 24)]
            .map(|(from, to)| world.score(&upstream, seconds(from)..seconds(to)).share(|call| call.load == 0))
    });
    assert!(served.iter().all(|share| *share >= 0.97), "{served:?}");
}
