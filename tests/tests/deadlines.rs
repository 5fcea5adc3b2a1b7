//! What a passed deadline says to the layers it cuts off.

use buttress::{BreakerLayer, State, prelude::*};
use std::{future::pending, time::Duration};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

async fn state_after_three_calls_that(total: Duration, per_try: Duration) -> State {
    let breaker = BreakerConfig::default().consecutive(3).open_for(Duration::from_secs(60)).build().unwrap();
    let layer = BreakerLayer::new(breaker);
    let breaker = layer.handle();
    let client = ServiceBuilder::new()
        .deadline(total)
        .with(layer)
        .deadline(DeadlineConfig::default().per_try(per_try).build().unwrap())
        .service(service_fn(|_: ()| pending::<Result<(), buttress::BoxError>>()));
    for _ in 0..3 {
        let late = client.clone().oneshot(()).await.unwrap_err();
        assert_eq!(Rejection::find(&*late).unwrap().reason, Reason::DeadlinePassed);
    }
    breaker.state()
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_ours_accuses_what_it_cuts_off_on_either_side_of_a_breaker() {
    let (short, long) = (Duration::from_millis(100), Duration::from_secs(2));
    assert_eq!(state_after_three_calls_that(long, short).await, State::Open, "the attempt's deadline, further in");
    assert_eq!(state_after_three_calls_that(short, long).await, State::Open, "the call's deadline, further out");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_early_accuses_nobody() {
    let layer = BreakerLayer::new(BreakerConfig::default().consecutive(1).build().unwrap());
    let breaker = layer.handle();
    let client =
        ServiceBuilder::new().layer(layer).service(service_fn(|_: ()| pending::<Result<(), buttress::BoxError>>()));
    for _ in 0..10 {
        let given_up = tokio::time::timeout(Duration::from_millis(100), client.clone().oneshot(())).await;
        assert!(given_up.is_err());
    }
    assert_eq!((breaker.state(), breaker.snapshot().failures), (State::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_cuts_a_stuck_body_accuses_the_service_behind_a_breaker_further_in() {
    use buttress::http::HttpServer;
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, StreamBody};
    use std::convert::Infallible;

    for declared in [None, Some("10")] {
        let layer = BreakerLayer::new(BreakerConfig::default().consecutive(1).build().unwrap());
        let breaker = layer.handle();
        let stuck = service_fn(move |_: Request<()>| async move {
            let body = StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
            let mut res = Response::new(body);
            if let Some(length) = declared {
                res.headers_mut().insert("content-length", length.parse().unwrap());
            }
            Ok::<_, Infallible>(res)
        });
        let server = ServiceBuilder::new()
            .protocol(HttpServer::new())
            .deadline(Duration::from_millis(100))
            .with(layer)
            .service(stuck);
        let res = server.oneshot(Request::new(())).await.unwrap();
        let error = res.into_body().collect().await.unwrap_err();
        assert_eq!(Rejection::find(&*error).unwrap().reason, Reason::DeadlinePassed);
        assert_eq!(breaker.state(), State::Open, "declared: {declared:?}");
    }
}
