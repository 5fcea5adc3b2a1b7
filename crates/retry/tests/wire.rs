//! Through hyper: bodies are sent again, and a connection survives a failed response.

mod common;

use buttress_core::http::{HttpClient, ReplayBody};
use buttress_retry::{Backoff, ResendLayer};
use buttress_sim::{
    AnyBody, Frames, any,
    wire::{Client, HttpService, Server, Version},
};
use common::{MS, config};
use http::{Request, Response};
use http_body_util::BodyExt;
use std::sync::{Arc, Mutex};
use tower::{Layer, ServiceExt, service_fn, util::MapRequest};

type Attempt = Request<ReplayBody<AnyBody>>;

/// Fails twice, with a body that takes some time, and then answers with what it was sent.
async fn server(version: Version, bodies: Arc<Mutex<Vec<usize>>>) -> Server {
    let service = service_fn(move |req: Request<AnyBody>| {
        let bodies = bodies.clone();
        async move {
            let body = req.into_body().collect().await?.to_bytes();
            let count = {
                let mut bodies = bodies.lock().unwrap();
                bodies.push(body.len());
                bodies.len()
            };
            let res = if count < 3 {
                let frames =
                    Frames::new().data(vec![b'-'; 20_000]).wait(tokio::time::sleep(5 * MS)).data(vec![b'-'; 20_000]);
                Response::builder().status(503).body(any(frames))?
            } else {
                Response::new(any(Frames::new().data(body)))
            };
            Ok::<_, buttress_core::BoxError>(res)
        }
    });
    Server::start(version, HttpService::new(service)).await.unwrap()
}

#[tokio::test]
async fn a_put_is_sent_three_times_over_one_connection() {
    for version in Version::ALL {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let server = server(version, bodies.clone()).await;
        // One connection, and no second one.
        let client: Client = server.connect().await.unwrap();
        let rebox: fn(Attempt) -> Request<AnyBody> = |req| req.map(any);
        let layer = ResendLayer::<HttpClient>::new(config().backoff(Backoff::constant(50 * MS)).build().unwrap());
        let service = layer.layer(MapRequest::new(client, rebox));
        let body = any(Frames::new().data(vec![b'a'; 10_000]).pause().data(vec![b'b'; 10_000]));
        let res = service.oneshot(Request::put("/").body(body).unwrap()).await.unwrap();
        assert_eq!(res.status(), 200);
        let echoed = res.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((echoed.len(), echoed[0], echoed[19_999]), (20_000, b'a', b'b'));
        assert_eq!(*bodies.lock().unwrap(), [20_000; 3], "{version:?}");
        assert_eq!(layer.handle().snapshot().budget.in_flight, 0);
    }
}
