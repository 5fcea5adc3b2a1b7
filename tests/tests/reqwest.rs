//! reqwest through a chain with retries: what is sent again, and what is not.

use axum::{Router, http::StatusCode, response::IntoResponse, routing::post};
use buttress::{Reqwest, http::TransportError, prelude::*, stack};
use buttress_tests::serve;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};
use tokio::net::TcpListener;
use tower::{Layer as _, ServiceExt as _, util::MapErr};

async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn reqwest() -> reqwest::Client {
    reqwest::Client::builder().retry(reqwest::retry::never()).build().unwrap()
}

fn post_to(url: String) -> http::Request<reqwest::Body> {
    http::Request::post(url).body(reqwest::Body::from("order")).unwrap()
}

#[tokio::test]
async fn a_post_that_was_redirected_to_a_server_that_is_down_is_not_sent_again() {
    for code in [302, 303, 307] {
        let received = Arc::new(AtomicU32::new(0));
        let (count, location) = (received.clone(), format!("http://{}/", nobody().await));
        let redirect = async move || {
            count.fetch_add(1, SeqCst);
            (StatusCode::from_u16(code).unwrap(), [("location", location)]).into_response()
        };
        let server = serve(Router::new().route("/", post(redirect))).await;
        let client = stack::client().build().unwrap().layer(Reqwest(reqwest()).lift_errors());
        match client.oneshot(post_to(format!("http://{server}/"))).await {
            Err(Error::Inner(error)) => assert!(code != 307 && error.is_connect(), "{error:?}"),
            // It follows a 307 with a body that it can send again only.
            Ok(response) => assert_eq!((code, response.status().as_u16()), (307, 307)),
            Err(refused) => panic!("{refused}"),
        }
        assert_eq!(received.load(SeqCst), 1, "{code}");
    }
}

#[tokio::test]
async fn a_post_to_a_server_that_is_down_is_sent_to_another() {
    let server = serve(Router::new().route("/", post(async || "done"))).await;
    let origin = |address: SocketAddr| {
        let origin = format!("http://{address}");
        let layer = buttress::http::OriginLayer::new(&origin).unwrap();
        // It follows no redirects, so a connection that was refused means that nothing was sent.
        let direct = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let marked = MapErr::new(Reqwest(direct), |error: reqwest::Error| TransportError::unsent_if_refused(error));
        (origin, layer.layer(marked))
    };
    let stack = stack::client().build().unwrap();
    let client = stack.balanced([origin(nobody().await), origin(server)]).unwrap();
    for _ in 0..20 {
        assert_eq!(client.clone().oneshot(post_to("/".into())).await.unwrap().status(), 200);
    }
}
