//! A breaker at an endpoint that was down and works again: while it makes up its mind, users are not refused.

use buttress_balance::{Balance, Endpoint};
use buttress_breaker::{BreakerConfig, BreakerLayer, State};
use buttress_core::{BoxError, ChainError};
use buttress_sim::Script;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceExt;
use tower_layer::Layer;

#[tokio::test(start_paused = true)]
async fn a_circuit_that_is_half_open_gets_its_probes_and_refuses_nobody() {
    for takes in [5_000, 200] {
        let broken = Arc::new(AtomicBool::new(false));
        let is_broken = broken.clone();
        let sick = Script::new(move |n: u64| {
            let is_broken = is_broken.load(SeqCst);
            async move {
                if is_broken {
                    return Err::<u64, BoxError>("it fails at once".into());
                }
                sleep(Duration::from_millis(takes)).await;
                Ok(n)
            }
        });
        let fine = Script::new(move |n: u64| async move {
            sleep(Duration::from_millis(takes)).await;
            Ok::<u64, BoxError>(n)
        });
        let layers = [(); 3].map(|()| {
            let config = BreakerConfig::default().consecutive(3).hang_after(Duration::from_secs(20));
            BreakerLayer::new(config.build().unwrap())
        });
        let endpoints =
            layers.iter().zip([("sick", &sick), ("b", &fine), ("c", &fine)]).map(|(layer, (name, script))| {
                Endpoint::new(name, layer.layer(script.clone())).signal(layer.handle().signal())
            });
        let balance = Balance::new(endpoints).unwrap();
        let (refused, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let send = async |seconds: u64| {
            let start = Instant::now();
            for n in 0..seconds * 100 {
                let (call, refused, failed) = (balance.clone().oneshot(n), refused.clone(), failed.clone());
                tokio::spawn(async move {
                    if let Err(error) = call.await {
                        let counter = if error.rejection().is_some() { refused } else { failed };
                        counter.fetch_add(1, SeqCst);
                    }
                });
                sleep_until(start + Duration::from_millis(10 * n)).await;
            }
        };
        send(10).await;
        broken.store(true, SeqCst);
        send(20).await;
        assert!(failed.load(SeqCst) >= 3, "it was noticed");
        let breaker = layers[0].handle();
        let is_closed = || breaker.state() == State::Closed;
        assert!(!is_closed());
        broken.store(false, SeqCst);
        let mut seconds = 0;
        while !is_closed() || seconds < 5 {
            send(1).await;
            seconds += 1;
            assert!(seconds < 60, "{takes} ms: {:?}", breaker.snapshot());
        }
        let before = sick.probe().calls();
        send(20).await;
        let share = (sick.probe().calls() - before) as f64 / 2_000.0;
        let (refused, failed) = (refused.load(SeqCst), failed.load(SeqCst));
        println!(
            "calls of {takes} ms: {refused} refused, {failed} failed, closed after {seconds} s, share then {share}"
        );
        assert_eq!(refused, 0, "{takes} ms");
        assert!(share > 0.2, "{takes} ms: {share}");
    }
}
