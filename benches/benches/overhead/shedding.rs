//! What sheds: the adaptive limit, rate limits, the throttle, the pressure gate, the ramped gate.
//!
//! What was aimed at, added to a ready opaque call, without an allocation: a limit 40 ns where few calls are timed and 80 where
//! all are; a breaker with a ramp what one without costs, 25.

use crate::{
    contest::{Field, Title, Who},
    traffic::{Plain, Web},
};
use buttress::{BreakerConfig, Opaque, http::HttpServer};
use buttress_breaker::{RampConfig, RampedGateConfig, RampedGateLayer};
use buttress_shed::{
    Algorithm, QueueConfig, Shed, ShedConfig, ShedLayer,
    limit::{Limit, Span, Window},
    pressure::{PressureConfig, PressureGateConfig},
    rate::RateLimitConfig,
    throttle::ThrottleConfig,
};
use std::{sync::Arc, time::Duration};
use tower::Layer;

/// A limit that wants to see every call.
#[derive(Debug)]
struct Every;

impl Limit for Every {
    fn limit(&self) -> u32 {
        20
    }

    fn span(&self) -> Span {
        Span { looks: [(u32::MAX, Duration::ZERO); 3], until: None }
    }

    fn observe(&mut self, _: &Window) {}

    fn name(&self) -> &'static str {
        "every"
    }
}

/// The rows of a protocol; a macro as in [`ours`](crate::ours).
macro_rules! rows {
    ($name:ident, $traffic:ty, $protocol:expr) => {
        pub fn $name(field: &mut Field<'_, $traffic>) {
            let every = || Shed::with_limit(ShedConfig::default(), |_| Box::new(Every));
            let sheds = [
                ("adaptive", ShedConfig::default().build()),
                ("no-queue", ShedConfig::default().queue(QueueConfig::none()).build()),
                ("every-call", every()),
            ];
            for (config, shed) in sheds {
                let layer = ShedLayer::new(shed.expect(VALID)).protocol($protocol);
                field.admitted(title("shed", config), |inner| (layer.layer(inner), at_rest(layer.handle())));
            }
            let one = ShedConfig::default().limit(Algorithm::Fixed(1)).queue(QueueConfig::none());
            let layer = ShedLayer::new(one.build().expect(VALID)).protocol($protocol);
            field.full(title("shed-full", "no-queue"), |inner| (layer.layer(inner), at_rest(layer.handle())));

            let gate = || RampedGateLayer::new(RampedGateConfig::default().build().expect(VALID)).protocol($protocol);
            let layer = gate();
            field.admitted(title("ramped-gate", "light"), |inner| {
                let handle = layer.handle();
                (layer.layer(inner), move || assert!(handle.share() > 0.99, "nothing failed"))
            });
            let layer = gate();
            field.failing(title("ramped-shut", "light"), |inner| {
                let handle = layer.handle();
                (layer.layer(inner), move || assert!(handle.share() < 0.1, "everything failed"))
            });

            let ramp = BreakerConfig::default().ramp(RampConfig::default());
            let layer = buttress::BreakerLayer::new(ramp.build().expect(VALID)).protocol($protocol);
            field.admitted(title("breaker-closed", "ramp"), |inner| (layer.layer(inner), || ()));

            // A permit each nanosecond.
            let wide = RateLimitConfig::new(1_000_000, Duration::from_millis(1)).burst(1_000_000);
            let layer = wide.layer().expect(VALID).protocol($protocol);
            field.admitted(title("rate-limit", "light"), |inner| (layer.layer(inner), || ()));
            let layer = RateLimitConfig::new(1, HOUR).layer().expect(VALID).protocol($protocol);
            layer.handle().check().expect("the first permit");
            field.tripped(title("rate-empty", "light"), |inner| (layer.layer(inner), || ()));

            let layer = ThrottleConfig::default().layer().expect(VALID).protocol($protocol);
            field.admitted(title("throttle", "light"), |inner| (layer.layer(inner), || ()));

            for (case, load) in [("pressure", 0.5), ("pressure-high", 1.0)] {
                let pressure = PressureConfig::default().build().expect(VALID);
                pressure.source("bench", move || load);
                let layer = PressureGateConfig::default().layer(&pressure).expect(VALID).protocol($protocol);
                if load < 1.0 {
                    field.admitted(title(case, "light"), |inner| (layer.layer(inner), || ()));
                } else {
                    field.tripped(title(case, "light"), |inner| (layer.layer(inner), || ()));
                }
            }
        }
    };
}

rows!(opaque, Plain, Opaque::new());
rows!(http, Web, HttpServer::new());

const VALID: &str = "a valid config";
const HOUR: Duration = Duration::from_secs(3600);

fn title(case: &'static str, config: &'static str) -> Title {
    Title { case, config, who: Who::Buttress }
}

fn at_rest(shed: Arc<Shed>) -> impl Fn() {
    move || assert_eq!(shed.snapshot().in_flight, 0, "every permit came back")
}
