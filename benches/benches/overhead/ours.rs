//! Buttress' layers: `light` is the least that each can be, `stack` what `buttress::stack` builds.

use crate::{
    contest::{Field, Title, Who},
    traffic::{Plain, Web},
};
use buttress_bulkhead::{BulkheadConfig, BulkheadLayer, QueuedBulkheadLayer};
use buttress_core::{Opaque, http::HttpServer};
use buttress_deadline::{DeadlineConfig, DeadlineLayer, Headers};
use std::time::Duration;
use tower::Layer;

/// The rows of a protocol. A macro, because that a service has a permit tied to its response is said in types that no
/// bound can say for all protocols at once.
macro_rules! rows {
    ($name:ident, $traffic:ty, $protocol:ty) => {
        pub fn $name(field: &mut Field<'_, $traffic>) {
            for (config, bulkhead) in bulkheads() {
                let layer = BulkheadLayer::<$protocol>::new(bulkhead.build().expect("a valid bulkhead"));
                field.admitted(title("bulkhead", config), |inner| (layer.layer(inner), at_rest(layer.handle())));
            }
            let layer = QueuedBulkheadLayer::<$protocol>::new(queued().build().expect("a valid bulkhead"));
            field.admitted(title("bulkhead", "queued"), |inner| (layer.layer(inner), at_rest(layer.handle())));

            let layer = BulkheadLayer::<$protocol>::new(BulkheadConfig::new(1).build().expect("a valid bulkhead"));
            field.full(title("bulkhead-full", "light"), |inner| (layer.layer(inner), at_rest(layer.handle())));

            for (config, deadline) in deadlines() {
                field.timed(title("deadline", config), |inner, after| {
                    let deadlines = deadline.clone().total(after).build().expect("valid deadlines");
                    DeadlineLayer::new(deadlines).protocol(<$protocol>::default()).layer(inner)
                });
            }
        }
    };
}

rows!(opaque, Plain, Opaque);
rows!(http, Web, HttpServer);

fn title(case: &'static str, config: &'static str) -> Title {
    Title { case, config, who: Who::Buttress }
}

fn at_rest(bulkhead: std::sync::Arc<buttress_bulkhead::Bulkhead>) -> impl Fn() {
    move || assert_eq!(bulkhead.snapshot().in_flight, 0, "every permit came back")
}

fn bulkheads() -> [(&'static str, BulkheadConfig); 2] {
    [("light", BulkheadConfig::new(100)), ("one-stripe", BulkheadConfig::new(100).stripes(1))]
}

fn queued() -> BulkheadConfig {
    BulkheadConfig::new(100).max_queue(100).max_wait(Duration::from_millis(200))
}

fn deadlines() -> [(&'static str, DeadlineConfig); 2] {
    let light = DeadlineConfig::new(Duration::from_secs(30)).propagate(false);
    [("light", light), ("stack", DeadlineConfig::new(Duration::from_secs(30)).read(Headers::new()))]
}
