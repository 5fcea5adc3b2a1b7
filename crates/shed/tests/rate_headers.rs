//! What clients are told of a rate limit, over HTTP.
#![cfg(feature = "http")]

use buttress_core::{Handle, KeyedConfig, Mode, http::HttpServer};
use buttress_shed::rate::{KeyedRateLimitLayer, RateLimitConfig, RateLimitHeadersLayer};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use std::{convert::Infallible, time::Duration};
use tower::{Layer, Service, ServiceExt, service_fn};

type Req = Request<Full<Bytes>>;

async fn handler(_: Req) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::default()))
}

fn of(tenant: &'static str) -> Req {
    Request::builder().header("tenant", tenant).body(Full::default()).unwrap()
}

/// Status, policy, what is left, `Retry-After`.
async fn ask<S, B>(service: &S, req: Req) -> (u16, String, String, String)
where
    S: Service<Req, Response = Response<B>, Error = Infallible> + Clone,
{
    let res = service.clone().oneshot(req).await.unwrap_or_else(|never| match never {});
    let header = |name: &str| {
        let all = res.headers().get_all(name).iter().map(|value| value.to_str().unwrap());
        all.collect::<Vec<_>>().join(", ")
    };
    (res.status().as_u16(), header("ratelimit-policy"), header("ratelimit"), header("retry-after"))
}

fn said(status: u16, policy: &str, left: &str) -> (u16, String, String) {
    (status, policy.to_owned(), left.to_owned())
}

#[tokio::test(start_paused = true)]
async fn every_response_says_what_is_left() {
    let limit = RateLimitConfig::per_minute(2).layer().unwrap().protocol(HttpServer::new());
    let handle = limit.handle();
    let service = RateLimitHeadersLayer::new(limit.handle()).layer(limit.layer(service_fn(handler)));
    let policy = r#""default";q=2;w=60"#;

    let (status, is, left, _) = ask(&service, of("a")).await;
    assert_eq!((status, is, left), said(200, policy, r#""default";r=1;t=30"#));
    let (_, _, left, _) = ask(&service, of("a")).await;
    assert_eq!(left, r#""default";r=0;t=30"#);

    tokio::time::advance(Duration::from_millis(10_500)).await;
    let (status, is, left, after) = ask(&service, of("a")).await;
    assert_eq!((status, is, left), said(429, policy, r#""default";r=0;t=20"#), "a refusal, too");
    assert!(after.parse::<u32>().unwrap() >= 20, "not earlier than the window ends: {after}");

    handle.update(RateLimitConfig::per_second(10).burst(100)).unwrap();
    let (_, is, left, _) = ask(&service, of("a")).await;
    assert_eq!((is, left), (r#""default";q=100;w=10"#.to_owned(), r#""default";r=97;t=10"#.to_owned()));
    handle.set_mode(Mode::ForcedOpen).unwrap();
    let (status, is, left, _) = ask(&service, of("a")).await;
    assert_eq!((status, is, left), said(429, "", ""), "nobody knows until when");
    handle.set_mode(Mode::Disabled).unwrap();
    let (status, is, left, _) = ask(&service, of("a")).await;
    assert_eq!((status, is, left), said(200, "", ""), "there is no limit");
    handle.set_mode(Mode::OBSERVE_ONLY).unwrap();
    let (_, is, left, _) = ask(&service, of("a")).await;
    assert_eq!((is, left), (r#""default";q=100;w=10"#.to_owned(), r#""default";r=96;t=10"#.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn each_tenant_is_told_of_its_own_and_limits_around_each_other_add_up() {
    let config = RateLimitConfig::per_second(3);
    let tenant = |req: &Req| req.headers()["tenant"].clone();
    let keyed = config.keyed(KeyedConfig::new(10), tenant).unwrap();
    let inner = KeyedRateLimitLayer::<_, _>::new(keyed).protocol(HttpServer::new());
    let outer = RateLimitConfig::new(1, Duration::from_secs(2)).burst(5).layer().unwrap().protocol(HttpServer::new());
    let inner_headers = RateLimitHeadersLayer::new(inner.handle()).name("per tenant").unwrap();
    let outer_headers = RateLimitHeadersLayer::new(outer.handle()).name("all").unwrap();
    let service = outer_headers.layer(outer.layer(inner_headers.layer(inner.layer(service_fn(handler)))));

    let (_, policy, left, _) = ask(&service, of("a")).await;
    assert_eq!(policy, r#""per tenant";q=3;w=1, "all";q=5;w=10"#);
    assert_eq!(left, r#""per tenant";r=2;t=1, "all";r=4;t=8"#);
    let (_, _, left, _) = ask(&service, of("b")).await;
    assert_eq!(left, r#""per tenant";r=2;t=1, "all";r=3;t=6"#);
    for _ in 0..3 {
        ask(&service, of("c")).await;
    }
    let (status, policy, left, _) = ask(&service, of("d")).await;
    let alone = said(429, r#""all";q=5;w=10"#, r#""all";r=0;t=2"#);
    assert_eq!((status, policy, left), alone, "the inner one was not asked");
}

#[test]
fn a_policy_in_whole_seconds_keeps_the_rate() {
    for (config, policy) in [
        (RateLimitConfig::per_second(100), r#""default";q=100;w=1"#),
        (RateLimitConfig::new(1, Duration::from_secs(2)), r#""default";q=1;w=2"#),
        (RateLimitConfig::new(10, Duration::from_millis(100)), r#""default";q=100;w=1"#),
        (RateLimitConfig::per_second(10).burst(1), r#""default";q=10;w=1"#),
        (RateLimitConfig::new(1, Duration::from_millis(1500)), r#""default";q=1;w=2"#),
        (RateLimitConfig::new(1000, Duration::from_secs(86_400)), r#""default";q=1000;w=86400"#),
    ] {
        let limit = config.layer().unwrap().protocol(HttpServer::new());
        let service = RateLimitHeadersLayer::new(limit.handle()).layer(limit.layer(service_fn(handler)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(ask(&service, of("a"))).1, policy);
    }
}

#[test]
fn a_name_is_one_that_a_header_can_carry() {
    let limit = RateLimitConfig::default().layer().unwrap();
    let layer = || RateLimitHeadersLayer::new(limit.handle());
    for name in ["", "a\"b", "a\\b", "é", "a\nb", &"x".repeat(65)] {
        assert_eq!(layer().name(name).unwrap_err().field, "name");
    }
    assert!(layer().name(&"x".repeat(64)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_longest_values_fit() {
    let config = RateLimitConfig::new(u32::MAX, Duration::from_secs(365 * 86_400));
    let limit = config.layer().unwrap().protocol(HttpServer::new());
    let headers = RateLimitHeadersLayer::new(limit.handle()).name(&"x".repeat(64)).unwrap();
    let (status, policy, left, _) = ask(&headers.layer(limit.layer(service_fn(handler))), of("a")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(policy.ends_with(";q=4294967295;w=31536000") && left.contains(";r=4294967294;t=31535"), "{policy} {left}");
}
