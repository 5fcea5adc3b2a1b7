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
