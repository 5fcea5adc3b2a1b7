use buttress::prelude::*;

fn main() {
    let _ = tower::ServiceBuilder::new().http_client().breaker(BreakerConfig::default().consecutive(3));
}
