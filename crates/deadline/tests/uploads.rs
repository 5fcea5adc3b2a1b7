//! Deadlines of calls that wait for their own client.
mod common;

use buttress_core::{
    BoxError, Outcome, Reason, Rejection,
    http::{HttpServer, UploadBody},
};
use buttress_deadline::{DeadlineConfig, DeadlineLayer};
use buttress_sim::{AnyBody, Frames, any};
use bytes::Bytes;
use common::{MS, Meter};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use std::{future::pending, time::Duration};
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// No time at all.
const NOW: Duration = Duration::ZERO;

type Upload = Request<UploadBody<AnyBody>>;

/// A request whose body comes after `delay`, and then ends.
fn upload(delay: Duration) -> Upload {
    let frames = Frames::new().wait(async move { sleep(delay).await }).data("late");
    UploadBody::track(Request::post("/").body(any(frames)).unwrap())
}

/// The reason of a call that hangs once it has read its request, under 1 s, and what layers within and around count.
async fn reason_after(delay: Duration, work: Duration) -> (Reason, [Vec<Option<Outcome>>; 2]) {
    let (outer, inner) = (Meter::default(), Meter::default());
    let service = ServiceBuilder::new()
        .layer(outer.server())
        .layer(DeadlineLayer::new(1000 * MS).protocol(HttpServer::new()))
        .layer(inner.server())
        .service(service_fn(move |req: Upload| async move {
            sleep(work).await;
            let _ = req.into_body().collect().await;
            pending::<Result<Response<Empty<Bytes>>, BoxError>>().await
        }));
    let start = Instant::now();
    let res = service.oneshot(upload(delay)).await.unwrap();
    assert_eq!(start.elapsed(), 1000 * MS, "a deadline waits for no client");
    let reason = res.extensions().get::<Rejection>().expect("a refusal").reason;
    drop(res);
    (reason, [outer.outcomes(), inner.outcomes()])
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_while_the_client_is_waited_for_accuses_nobody() {
    let (reason, outcomes) = reason_after(5000 * MS, NOW).await;
    assert_eq!(reason, Reason::ClientDeadlinePassed);
    assert_eq!(outcomes, [vec![None], vec![None]], "a failure would be known");
}

#[tokio::test(start_paused = true)]
async fn whoever_took_most_of_the_time_is_accused() {
    assert_eq!(reason_after(600 * MS, NOW).await.0, Reason::ClientDeadlinePassed);
    assert_eq!(reason_after(400 * MS, NOW).await.0, Reason::DeadlinePassed);
    assert_eq!(reason_after(NOW, 900 * MS).await.0, Reason::DeadlinePassed, "it read late what was there");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_for_its_client_until_the_deadline_accuses_nobody_either() {
    for declared in [false, true] {
        let outer = Meter::default();
        let deadline = DeadlineConfig::new(1000 * MS).build().unwrap();
        let service = ServiceBuilder::new()
            .layer(outer.server())
            .layer(DeadlineLayer::new(deadline).protocol(HttpServer::new()))
            .service(service_fn(move |req: Upload| async move {
                let (send, receive) = tokio::sync::oneshot::channel::<()>();
                tokio::spawn(async move {
                    let _ = req.into_body().collect().await;
                    let _ = send.send(());
                });
                let frames = Frames::new().wait(async move { drop(receive.await) }).data("echo");
                let frames = if declared { frames.declared() } else { frames };
                Ok::<_, BoxError>(Response::new(any(frames)))
            }));
        let res = service.oneshot(upload(5000 * MS)).await.unwrap();
        let cut = res.into_body().collect().await.unwrap_err();
        assert_eq!(Rejection::find(&*cut).unwrap().reason, Reason::ClientDeadlinePassed, "declared: {declared}");
        assert_eq!(outer.outcomes(), [Some(Outcome::Ignored)]);
    }
}
