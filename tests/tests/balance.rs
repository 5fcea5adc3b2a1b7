//! One of three endpoints fails fast: what callers see, through retries and a balancer of ours, and through tower's.

use buttress::{RetryLayer, prelude::*};
use std::{io, time::Duration};
use tokio::time::sleep;
use tower::{
    Service, ServiceBuilder, ServiceExt as _,
    balance::p2c,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
    service_fn,
};

const CALLS: usize = 30_000;

/// Takes 2 ms, or fails after a tenth of that.
fn endpoint(
    fails: bool,
) -> impl Service<u64, Response = u64, Error = Error<io::Error>, Future: Send> + Clone + Send + Sync + 'static {
    service_fn(move |n: u64| async move {
        sleep(Duration::from_micros(if fails { 200 } else { 2_000 })).await;
        if fails { Err(Error::Inner(io::Error::other("broken"))) } else { Ok(n) }
    })
}

/// How many of the calls go well, in percent, with one beginning every millisecond.
async fn share<S>(service: S) -> f64
where
    S: Service<u64, Response = u64, Error: Send + 'static> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut calls = tokio::task::JoinSet::new();
    let mut well = 0;
    for n in 0..CALLS {
        calls.spawn(service.clone().oneshot(n as u64));
        sleep(Duration::from_millis(1)).await;
        while let Some(call) = calls.try_join_next() {
            well += usize::from(call.unwrap().is_ok());
        }
    }
    while let Some(call) = calls.join_next().await {
        well += usize::from(call.unwrap().is_ok());
    }
    100.0 * well as f64 / CALLS as f64
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_fast_draws_no_calls() {
    let ours = || [("a", false), ("b", false), ("bad", true)].map(|(name, fails)| Endpoint::new(name, endpoint(fails)));
    let balance = Balance::new(ours()).unwrap();
    let alone = share(balance.clone()).await;
    let bad = balance.handle().snapshot().endpoint("bad").unwrap().picks_total;

    let retry = RetryLayer::new(Retry::default()).when(|result: Result<&u64, &Error<io::Error>>| result.is_err());
    let chain = ServiceBuilder::new().opaque().with(retry).balance(Balance::new(ours()).unwrap());
    let both = share(chain).await;

    let loads = [false, false, true]
        .map(|fails| PeakEwma::new(endpoint(fails), Duration::from_millis(30), 10e9, CompleteOnResponse::default()));
    let tower = p2c::Balance::new(ServiceList::new::<u64>(Vec::from(loads)));
    let tower = share(tower::buffer::Buffer::new(tower, 1024)).await;

    println!(
        "one of three endpoints fails fast: tower's balance {tower:.2} %, ours {alone:.3} %, with retries {both:.4} %"
    );
    assert!(bad < 100, "{bad} of {CALLS} calls went to the one that fails");
    assert!(both >= 99.9, "{both}");
    assert!(alone > tower, "{alone} and {tower}");
}
