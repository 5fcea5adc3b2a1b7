//! A primary and a backup behind real sockets: the primary hangs, and comes back.
#![cfg(feature = "http")]

use buttress_breaker::{Breaker, BreakerConfig, State};
use buttress_core::{
    BoxError, Context, Deadline, Degraded, GateLayer,
    http::{HttpClient, ReplayBody},
};
use buttress_fallback::FailoverConfig;
use buttress_sim::{
    AnyBody, Script, any,
    wire::{Server, Version},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneService};

/// Says its name and what it was sent, or hangs.
async fn server(version: Version, name: &'static str, hangs: Arc<AtomicBool>) -> Arc<Server> {
    let service = Script::new(move |req: Request<AnyBody>| {
        let hangs = hangs.load(SeqCst);
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            let sent = req.into_body().collect().await?.to_bytes();
            Ok(Response::new(any(Full::<Bytes>::from([name.as_bytes(), &sent].concat()))))
        }
    });
    Arc::new(Server::start(version, BoxCloneService::new(service)).await.unwrap())
}

/// A client with a connection for every call.
fn client(
    server: Arc<Server>,
) -> impl tower::Service<Request<ReplayBody<AnyBody>>, Response = Response<AnyBody>, Error = BoxError> + Clone {
    service_fn(move |req: Request<ReplayBody<AnyBody>>| {
        let server = server.clone();
        async move { server.connect().await?.send(req.map(any)).await }
    })
}

fn put(within: Duration) -> Request<AnyBody> {
    let mut req = Request::put("/").body(any(Full::<Bytes>::from(", body"))).unwrap();
    Context::of_mut(req.extensions_mut()).deadline = Some(Deadline::new(Instant::now().into_std() + within));
    req
}

#[tokio::test]
async fn calls_leave_a_primary_that_hangs_and_return_when_it_does_not() {
    for version in Version::ALL {
        let hangs = Arc::new(AtomicBool::new(false));
        let primary = client(server(version, "primary", hangs.clone()).await);
        let backup = client(server(version, "backup", Arc::default()).await);

        let breaker: Breaker =
            BreakerConfig::default().consecutive(2).open_for(Duration::from_millis(1)).build().unwrap();
        let gate = GateLayer::<Breaker, HttpClient>::new(breaker);
        let breaker = gate.handle();
        let layer = FailoverConfig::default()
            .fail_after(2)
            .return_after(2)
            .share(0.1)
            .probe_every(Duration::from_millis(1))
            .backup(
                "backup",
                GateLayer::<Breaker, HttpClient>::new(BreakerConfig::default().build().unwrap()).layer(backup),
            )
            .build()
            .unwrap()
            .protocol(HttpClient::new());
        let failover = layer.handle();
        let service = layer.layer(gate.layer(primary));
        let ask = |within| {
            let call = service.clone().oneshot(put(Duration::from_secs(within)));
            async move {
                let res = call.await.unwrap();
                let is_marked = Degraded::of(&res).is_some();
                (res.into_body().collect().await.unwrap().to_bytes(), is_marked)
            }
        };

        assert_eq!(ask(5).await, (Bytes::from("primary, body"), false));
        hangs.store(true, SeqCst);
        for _ in 0..2 {
            assert_eq!(ask(5).await, (Bytes::from("backup, body"), true), "after a tenth of the time");
        }
        assert_eq!(failover.snapshot().active, "backup");
        assert_eq!(
            breaker.state(),
            State::Open,
            "{version:?}: the calls that were given up count as failures further in"
        );

        hangs.store(false, SeqCst);
        let start = Instant::now();
        while failover.snapshot().failed_over.is_some() {
            assert!(ask(5).await.0.ends_with(b", body"));
            assert!(Instant::now() - start < buttress_sim::BOUND, "{:?}", failover.snapshot());
        }
        assert_eq!(ask(5).await, (Bytes::from("primary, body"), false));
        let seen = failover.snapshot();
        assert_eq!((seen.failovers_total, seen.returns_total, seen.in_flight), (1, 1, 0), "{version:?}");
    }
}
