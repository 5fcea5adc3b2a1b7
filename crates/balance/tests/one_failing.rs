//! One of three endpoints fails, and fails fast: to a balancer that goes by latency alone it looks like the best of them.
//! tower's own balance runs beside ours; `--nocapture` prints both.

use buttress_balance::{Balance, BalanceConfig, Endpoint};
use buttress_core::{BoxError, Clock, Draw, TokioClock, http::HttpClient};
use buttress_sim::Script;
use http::{Request, Response, StatusCode};
use std::time::Duration;
use tower::{
    ServiceExt,
    balance::p2c,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
};
use tower_service::Service;

type Upstream = Script<u64, u64>;

/// 1000 calls a second, for this long.
const CALLS: u64 = 60_000;

fn fine(draw: u64) -> Upstream {
    Script::new(move |n: u64| async move {
        // 5 to 15 ms.
        let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(draw) >> 40;
        tokio::time::sleep(Duration::from_micros(5_000 + spread % 10_000)).await;
        Ok(n)
    })
}

fn failing() -> Upstream {
    Script::new(async |_| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Err::<u64, BoxError>("it fails fast".into())
    })
}

fn upstreams() -> [Upstream; 3] {
    [fine(1), failing(), fine(2)]
}

/// The share of calls that succeed, and calls to the one that fails.
async fn run<S>(mut service: S, upstreams: &[Upstream; 3]) -> (f64, u64)
where
    S: Service<u64, Response = u64, Error: Into<BoxError> + Send, Future: Send + 'static>,
{
    let start = tokio::time::Instant::from_std(TokioClock.now());
    let mut calls = Vec::new();
    for n in 0..CALLS {
        let call = service.ready().await.map_err(Into::into).unwrap().call(n);
        calls.push(tokio::spawn(async move { call.await.is_ok() }));
        tokio::time::sleep_until(start + Duration::from_millis(n)).await;
    }
    let mut good = 0;
    for call in calls {
        good += u64::from(call.await.unwrap());
    }
    (good as f64 / CALLS as f64, upstreams[1].probe().calls())
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_fails_fast_gets_hardly_any_calls() {
    let scripts = upstreams();
    let endpoints = ["a", "b", "c"].into_iter().zip(&scripts).map(|(name, script)| Endpoint::new(name, script.clone()));
    let balance = BalanceConfig::default().seed(7).endpoints(endpoints).unwrap();
    let (ours, picks) = run(balance.clone(), &scripts).await;

    let peers = upstreams();
    let loads = peers
        .iter()
        .map(|script| PeakEwma::new(script.clone(), Duration::from_millis(30), 10e9, CompleteOnResponse::default()));
    let (tower, tower_picks) = run(p2c::Balance::new(ServiceList::new::<u64>(loads)), &peers).await;

    println!("one of three endpoints fails fast, {CALLS} calls, without retries:");
    println!("  buttress balance: {:.3} % succeed, {picks} calls to the one that fails", ours * 100.0);
    println!("  tower balance (peak-EWMA): {:.3} % succeed, {tower_picks} calls to the one that fails", tower * 100.0);
    assert!(ours >= 0.999, "{ours}");
    let seen = balance.handle().snapshot();
    assert_eq!((seen.in_flight, seen.failures_total, seen.picks_total), (0, picks, CALLS));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_works_again_gets_its_share_back() {
    let scripts = upstreams();
    let healed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sick: Upstream = {
        let healed = healed.clone();
        Script::new(move |n| {
            let is_healed = healed.load(std::sync::atomic::Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if is_healed { Ok(n) } else { Err("sick".into()) }
            }
        })
    };
    let endpoints =
        [Endpoint::new("a", scripts[0].clone()), Endpoint::new("sick", sick), Endpoint::new("c", scripts[2].clone())];
    let balance = BalanceConfig::default().seed(3).endpoints(endpoints).unwrap();
    let picks = || balance.handle().snapshot().endpoint("sick").unwrap().picks_total;
    run(balance.clone(), &scripts).await;
    assert!(picks() < 60, "{}", picks());
    healed.store(true, std::sync::atomic::Ordering::SeqCst);
    // Within two time constants it is asked again.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = picks();
    run(balance.clone(), &scripts).await;
    let share = (picks() - before) as f64 / CALLS as f64;
    assert!((0.25..0.45).contains(&share), "{share}");
}

#[tokio::test(start_paused = true)]
async fn a_few_failures_everywhere_do_not_drive_all_calls_to_one_endpoint() {
    let flaky = |seed: u64| -> Upstream {
        let draw = std::sync::Arc::new(Draw::new(seed));
        Script::new(move |n: u64| {
            let fails = draw.draw().is_multiple_of(100);
            async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if fails { Err("1 in 100".into()) } else { Ok(n) }
            }
        })
    };
    let scripts = [flaky(31), flaky(32), flaky(33)];
    let endpoints = ["a", "b", "c"].into_iter().zip(&scripts).map(|(name, script)| Endpoint::new(name, script.clone()));
    let balance = BalanceConfig::default().seed(7).endpoints(endpoints).unwrap();
    run(balance.clone(), &scripts).await;
    let shares: Vec<_> = scripts.iter().map(|script| script.probe().calls() as f64 / CALLS as f64).collect();
    assert!(shares.iter().all(|share| (0.25..0.42).contains(share)), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn bad_answers_with_bodies_count_as_much_as_errors() {
    let status = |status: StatusCode| {
        Script::new(move |_: Request<String>| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut res = Response::new("oh".to_owned());
            *res.status_mut() = status;
            Ok(res)
        })
    };
    let (bad, good) = (status(StatusCode::BAD_GATEWAY), status(StatusCode::OK));
    let endpoints = [Endpoint::new("bad", bad.clone()), Endpoint::new("good", good)];
    let balance = Balance::new(endpoints).unwrap().protocol(HttpClient::new());
    for _ in 0..1_000 {
        let answer = balance.clone().oneshot(Request::new(String::new())).await.unwrap();
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    }
    assert!(bad.probe().calls() <= 10, "{}", bad.probe().calls());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_fails_fast_gets_no_calls_though_the_others_are_busy() {
    for (per_second, takes) in [(2_000, 100), (100, 5_000), (60, 1_000)] {
        let fine = Upstream::new(move |n| async move {
            tokio::time::sleep(Duration::from_millis(takes)).await;
            Ok(n)
        });
        let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let is_broken = broken.clone();
        let sick = Upstream::new(move |n| {
            let is_broken = is_broken.load(std::sync::atomic::Ordering::SeqCst);
            async move {
                if is_broken {
                    return Err("it fails at once".into());
                }
                tokio::time::sleep(Duration::from_millis(takes)).await;
                Ok(n)
            }
        });
        let endpoints = [("a", &fine), ("sick", &sick), ("c", &fine)];
        let endpoints = endpoints.map(|(name, script)| Endpoint::new(name, script.clone()));
        let balance = BalanceConfig::default().seed(7).endpoints(endpoints).unwrap();
        let send = async |seconds: u64| {
            let (before, start) = (sick.probe().calls(), tokio::time::Instant::now());
            for n in 0..seconds * per_second {
                tokio::spawn(balance.clone().oneshot(n));
                tokio::time::sleep_until(start + Duration::from_micros(n * 1_000_000 / per_second)).await;
            }
            (sick.probe().calls() - before) as f64 / (seconds * per_second) as f64
        };
        let share = send(20).await;
        assert!((0.25..0.45).contains(&share), "{share}");
        broken.store(true, std::sync::atomic::Ordering::SeqCst);
        // Calls that began before succeed for a while.
        let breaking = send(60).await;
        let steady = send(200).await;
        println!(
            "{per_second} calls a second of {takes} ms: {:.2} % at first, {:.3} % then go to the one that fails",
            breaking * 100.0,
            steady * 100.0
        );
        assert!(breaking < 0.01 && steady < 0.001, "{per_second} x {takes} ms: {breaking} {steady}");
    }
}
