//! A registry as JSON.
#![cfg(feature = "serde")]

use buttress::prelude::*;
use tower::ServiceBuilder;

#[test]
fn a_snapshot_is_json_with_every_reading() {
    let registry = Registry::new();
    let _ = ServiceBuilder::new().opaque().registry(&registry).named("db").bulkhead(3);
    let json = serde_json::to_value(registry.snapshot()).unwrap();
    assert_eq!((&json[0]["name"], &json[0]["kind"]), (&"db.bulkhead".into(), &"bulkhead".into()));
    assert_eq!((&json[0]["limit"], &json[0]["mode"]), (&3.into(), &"auto".into()));
}

#[cfg(feature = "chaos")]
#[tokio::test]
async fn a_canary_and_injected_faults_are_shown_speak_the_protocol_and_can_be_changed_by_anyone() {
    use buttress::{CanaryLayer, ChaosLayer};
    use http_body_util::Full;
    use std::convert::Infallible;
    use tower::{Layer as _, ServiceExt as _, service_fn};
    type Req = http::Request<Full<bytes::Bytes>>;

    let registry = Registry::new();
    let version = |name: &'static str| {
        service_fn(move |_: Req| async move {
            Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from(name))))
        })
    };
    let service = ServiceBuilder::new()
        .http_server()
        .registry(&registry)
        .chaos(ChaosConfig::default().fault(Fault::status(418)).build().unwrap())
        .canary(CanaryConfig::new(100.0).build().unwrap(), version("1.1"))
        .service(version("1.0"));
    assert_eq!(service.clone().oneshot(Req::default()).await.unwrap().status(), 418);
    for (_, handle) in registry.handles() {
        handle.set_mode(Mode::Disabled).unwrap();
    }
    assert_eq!(service.oneshot(Req::default()).await.unwrap().status(), 200);
    let json = serde_json::to_value(registry.snapshot()).unwrap();
    assert_eq!((&json[0]["kind"], &json[0]["answered_total"]), (&"chaos".into(), &1.into()));
    assert_eq!((&json[1]["kind"], &json[1]["canary_picks_total"]), (&"canary".into(), &1.into()));

    let aliased = buttress::http::ChaosLayer::default().layer(version("1.0"));
    assert_eq!(aliased.oneshot(Req::default()).await.unwrap().status(), 200);
    let (_, _) = (ChaosLayer::default(), CanaryLayer::new(CanaryConfig::default().build().unwrap(), ()));
}
