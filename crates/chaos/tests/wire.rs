//! Injected faults over real connections: what a client that knows nothing of this crate gets.

use buttress_chaos::{ChaosConfig, Fault};
use buttress_core::{BoxError, http::HttpServer};
use buttress_sim::{
    AnyBody, any,
    wire::{HttpService, Server, Version},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};

async fn serve(version: Version, fault: &str) -> Server {
    let fault: Fault = fault.parse().unwrap();
    let layer = ChaosConfig::default().fault(fault).layer().unwrap().protocol(HttpServer::new());
    let handler = service_fn(async |_: Request<AnyBody>| {
        Ok::<_, BoxError>(Response::new(any(Full::from(Bytes::from(vec![b'x'; 100_000])))))
    });
    Server::start(version, HttpService::new(layer.layer(handler).map_response(|res: Response<_>| res.map(any))))
        .await
        .unwrap()
}

fn get() -> Request<AnyBody> {
    Request::get("/").body(any(Full::default())).unwrap()
}

#[tokio::test]
async fn a_cut_body_ends_with_an_error_at_the_client_and_not_with_its_end() {
    for version in Version::ALL {
        for cut in [0, 1, 5_000, 99_999] {
            let server = serve(version, &format!("cut={cut}")).await;
            let mut body = server.connect().await.unwrap().send(get()).await.map(Response::into_body);
            let (mut bytes, mut error) = (0, None);
            match &mut body {
                Ok(body) => {
                    while let Some(frame) = body.frame().await {
                        match frame {
                            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
                            Err(cut) => error = Some(cut),
                        }
                    }
                }
                // The connection may be gone before its head was written.
                Err(_) => continue,
            }
            assert!(error.is_some() && bytes <= cut, "{version:?}: {bytes} of {cut}");
        }
        let server = serve(version, "cut=100000").await;
        let body = server.connect().await.unwrap().send(get()).await.unwrap().into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 100_000, "it has no more than that");
    }
}

#[tokio::test]
async fn a_status_and_a_refusal_are_whole_answers_and_the_connection_goes_on() {
    for version in Version::ALL {
        for (fault, status, text) in [
            ("status=500", 500, "injected fault"),
            ("refuse", 503, "injected fault"),
            ("reason=connect_timeout", 504, "connection timed out"),
            ("reason=rate_limited", 429, "rate limited"),
        ] {
            let server = serve(version, fault).await;
            let client = server.connect().await.unwrap();
            for _ in 0..3 {
                let res = client.send(get()).await.unwrap();
                assert_eq!(res.status(), status, "{version:?} {fault}");
                assert_eq!(res.into_body().collect().await.unwrap().to_bytes(), text);
            }
        }
    }
}
