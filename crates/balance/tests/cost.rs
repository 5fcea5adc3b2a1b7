//! What a pick and its settlement cost. A measurement, not a test:
//! `cargo test --release -p buttress-balance --test cost -- --ignored --nocapture`

use buttress_balance::{Balance, BalanceConfig, Endpoint};
use buttress_core::{Clock, Error, Signal, TokioClock};
use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};
use tower::service_fn;
use tower_service::Service;

type Answer = Ready<Result<u64, Error<Infallible>>>;

fn balance(
    endpoints: usize,
    signals: bool,
) -> Balance<impl Service<u64, Response = u64, Error = Error<Infallible>, Future = Answer> + Clone> {
    let endpoints = (0..endpoints).map(|i| {
        let endpoint = Endpoint::new(format!("{i}"), service_fn(|n: u64| ready(Ok(n))));
        if signals { endpoint.signal(Signal::new(TokioClock.now())) } else { endpoint }
    });
    BalanceConfig::default().endpoints(endpoints).unwrap()
}

#[test]
#[ignore = "a measurement"]
fn pick_and_settle() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    for (endpoints, signals) in [(1, false), (3, false), (10, false), (10, true), (1000, false), (1000, true)] {
        let mut service = balance(endpoints, signals);
        let mut cx = Context::from_waker(Waker::noop());
        let mut samples: Vec<f64> = (0..21)
            .map(|_| {
                let start = TokioClock.now();
                for n in 0..100_000 {
                    assert!(service.poll_ready(&mut cx).is_ready());
                    let call = pin!(service.call(n));
                    assert!(matches!(call.poll(&mut cx), Poll::Ready(Ok(_))));
                }
                TokioClock.now().duration_since(start).as_nanos() as f64 / 100_000.0
            })
            .collect();
        samples.sort_by(f64::total_cmp);
        let signals = if signals { "with signals" } else { "" };
        println!("{endpoints:>5} endpoints {signals:12} {:.0} ns (least {:.0})", samples[10], samples[0]);
        let size = size_of_val(&service.call(0));
        println!("future: {size} bytes");
    }
}
