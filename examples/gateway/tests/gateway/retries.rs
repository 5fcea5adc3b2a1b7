//! Requests that are sent again, and the endpoints they are sent to.

use crate::{
    process::{Gateway, call, get, header, one},
    raw::Upstream,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;

/// What an upstream has got: method, attempt count, body.
type Ledger = Arc<Mutex<Vec<(Method, String, String)>>>;

/// An upstream that answers every other request, from the first on, with `status`; the others with 200.
async fn every_other(status: u16) -> (SocketAddr, Ledger) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ledger = Ledger::default();
    let book = ledger.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let book = book.clone();
            let service = service_fn(move |req: Request<Incoming>| {
                let book = book.clone();
                async move {
                    let (head, body) = req.into_parts();
                    let count = head.headers.get("x-envoy-attempt-count").map_or("", |value| value.to_str().unwrap());
                    let body = body.collect().await.unwrap().to_bytes();
                    let mut book = book.lock().unwrap();
                    book.push((head.method, count.to_owned(), String::from_utf8(body.to_vec()).unwrap()));
                    let status = if book.len() % 2 == 1 { status } else { 200 };
                    Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::from("x")).unwrap())
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, ledger)
}

fn request(gateway: &Gateway, method: Method, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(format!("http://{}/", gateway.address)).body(Full::from(body)).unwrap()
}

#[tokio::test]
async fn what_may_be_repeated_is_sent_again_and_what_may_not_is_not() {
    let (address, ledger) = every_other(503).await;
    let gateway = Gateway::start_with("", &one(address, "", "retry = { budget = { ratio = 1.0 } }"));
    for (method, body, http2) in [(Method::GET, "", false), (Method::PUT, "some", true), (Method::DELETE, "", false)] {
        let res = call(request(&gateway, method.clone(), body), http2).await;
        assert_eq!(res.status(), 200, "{method}");
        let got = std::mem::take(&mut *ledger.lock().unwrap());
        assert_eq!(got, [(method.clone(), String::new(), body.to_owned()), (method, "2".to_owned(), body.to_owned())]);
    }
    let res = call(request(&gateway, Method::POST, "some"), false).await;
    assert_eq!((res.status(), ledger.lock().unwrap().len()), (StatusCode::SERVICE_UNAVAILABLE, 1));

    let retry = &gateway.status().await["layers"]["route.r.retry"];
    let want =
        [("first_total", 4), ("retries_status_total", 3), ("recovered_total", 3), ("gave_up_not_repeatable_total", 1)];
    for (count, want) in want {
        assert_eq!(retry[count], want, "{count} in {retry:#}");
    }
}

#[tokio::test]
async fn without_a_token_the_last_answer_goes_through() {
    let upstream = Upstream::answering("HTTP/1.1 503 Oh\r\ncontent-length: 4\r\n\r\nlast").await;
    let retry = "retry = { budget = { ratio = 0.1, min_per_sec = 0.0 } }";
    let gateway = Gateway::start_with("", &one(upstream.address, "breaker = false", retry));
    for _ in 0..100 {
        let res = get(gateway.address, "/").await;
        assert_eq!((res.status().as_u16(), &res.body()[..]), (503, &b"last"[..]));
    }
    let sent = upstream.received().matches("GET ").count();
    assert!((101..=110).contains(&sent), "{sent}");
    let retry = &gateway.status().await["layers"]["route.r.retry"];
    assert!(retry["gave_up_budget_empty_total"].as_u64().unwrap() >= 80, "{retry:#}");
}

#[tokio::test]
async fn calls_go_to_the_endpoints_that_work_and_none_is_lost() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (a, b) = (Upstream::fine().await, Upstream::fine().await);
    let tables = format!(
        "[cluster.u]\nendpoints = [\"{nobody}\", \"{}\", \"{}\"]\nbreaker = {{ consecutive = 5, open_for = \"60s\" }}\n\
         [route.r]\nprefix = \"/\"\ncluster = \"u\"\n",
        a.address, b.address
    );
    let gateway = Gateway::start_with("", &tables);
    for n in 0..100 {
        let method = if n % 2 == 0 { Method::GET } else { Method::POST };
        assert_eq!(call(request(&gateway, method, "x"), false).await.status(), 200);
    }
    for up in [&a, &b] {
        // With one call at a time, whoever answered faster at first may get most.
        assert!(up.received().contains(" HTTP/1.1"), "every endpoint is tried");
    }
    let layers = &gateway.status().await["layers"];
    assert_eq!(layers["cluster.u.balance"]["endpoints"], 3, "{layers:#}");
    assert_eq!(layers[format!("cluster.u/{nobody}.breaker")]["refused_total"], 0, "whoever is open is not asked");
    let failed = layers["cluster.u.balance"]["failures_total"].as_u64().unwrap();
    assert!(failed <= 5 && layers["route.r.retry"]["retries_unsent_total"] == failed, "{layers:#}");
}

#[tokio::test]
async fn where_every_endpoint_is_down_the_refusal_says_when_to_come_back() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let tables = format!(
        "[cluster.u]\nendpoints = [\"{address}\", \"{other}\"]\nbreaker = {{ consecutive = 1, open_for = \"30s\" }}\n\
         [route.r]\nprefix = \"/\"\ncluster = \"u\"\n"
    );
    let gateway = Gateway::start_with("", &tables);
    assert_eq!(get(gateway.address, "/").await.status(), 502, "both were tried");
    let res = get(gateway.address, "/").await;
    assert_eq!((res.status().as_u16(), header(&res, "proxy-status")), (503, "buttress; error=destination_unavailable"));
    let after: u64 = header(&res, "retry-after").parse().unwrap();
    assert!((10..=36).contains(&after), "{after}");
}

#[tokio::test]
async fn retries_that_wait_leave_room_for_calls_that_work() {
    // A long wait on one path; the other works.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|req: Request<Incoming>| async move {
                let answer = match req.uri().path() {
                    "/bad" => Response::builder().status(503).header("retry-after", "20"),
                    _ => Response::builder(),
                };
                Ok::<_, Infallible>(answer.body(Full::<Bytes>::from("x")).unwrap())
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let route = "bulkhead = { limit = 8 }\nretry = { budget = { ratio = 2.0 } }";
    let gateway = Gateway::start_with("", &one(address, "", route));
    for _ in 0..20 {
        assert_eq!(get(gateway.address, "/").await.status(), 200);
    }
    let bad: Vec<_> = (0..8).map(|_| tokio::spawn(get(gateway.address, "/bad"))).collect();
    let waiting = async {
        while gateway.status().await["layers"]["route.r.retry"]["gave_up_budget_concurrent_total"].as_u64() < Some(6) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(buttress_sim::BOUND, waiting).await.expect("two wait, the others are answered");
    for _ in 0..20 {
        assert_eq!(get(gateway.address, "/").await.status(), 200);
    }
    assert_eq!(gateway.status().await["layers"]["route.r.bulkhead"]["in_flight"], 2);
    bad.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn what_a_client_says_about_its_attempts_is_not_believed() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    let req = Request::get(format!("http://{}/", gateway.address)).header("x-envoy-attempt-count", "9");
    assert_eq!(call(req.body(Full::default()).unwrap(), false).await.status(), 200);
    assert!(!upstream.received().to_ascii_lowercase().contains("x-envoy"), "{}", upstream.received());
    assert_eq!(gateway.status().await["layers"]["route.r.retry"]["first_total"], 1);
}
