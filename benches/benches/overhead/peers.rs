//! The peers' layers, configured as their own presets do it.

use crate::{
    contest::{Field, Title, Who},
    traffic::{Reads, Traffic},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tower::{Layer, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer, timeout::TimeoutLayer};
use tower_resilience::{
    bulkhead::BulkheadLayer,
    circuitbreaker::{CircuitBreakerLayer, SlidingWindowType},
    timelimiter::TimeLimiterLayer,
};

/// tower 0.5: it has no breaker.
pub fn tower<T: Traffic + Reads<T::Response>>(field: &mut Field<'_, T>) {
    let title = |case| Title { case, config: "light", who: Who::Tower };
    field.admitted(title("bulkhead"), |inner| {
        let permits = Arc::new(Semaphore::new(100));
        let service = GlobalConcurrencyLimitLayer::with_semaphore(permits.clone()).layer(inner);
        (service, at_rest(move || permits.available_permits(), 100))
    });
    field.full(title("bulkhead-full"), |inner| {
        let permits = Arc::new(Semaphore::new(1));
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(permits.clone());
        let service = LoadShedLayer::new().layer(limit.layer(inner));
        (service, at_rest(move || permits.available_permits(), 1))
    });
    field.timed(title("deadline"), |inner, after| TimeoutLayer::new(after).layer(inner));
}

/// tower-resilience 0.13: `light` is what its builders give, `stack` its presets.
pub fn tower_resilience<T: Traffic + Reads<T::Response>>(field: &mut Field<'_, T>) {
    let title = |case, config| Title { case, config, who: Who::TowerResilience };
    field.admitted(title("breaker-closed", "light"), |inner| {
        (CircuitBreakerLayer::builder().build().expect("a valid breaker").layer(inner), || ())
    });
    field.admitted(title("breaker-closed", "time-window"), |inner| {
        // It keeps and scans a record per call of its window: at this bench's rate a window of seconds, as ours has, would
        // hold millions and cost milliseconds per call. A millisecond is a window that it can bear.
        let breaker = CircuitBreakerLayer::builder()
            .sliding_window_type(SlidingWindowType::TimeBased)
            .sliding_window_duration(Duration::from_millis(1));
        (breaker.build().expect("a valid breaker").layer(inner), || ())
    });
    field.admitted(title("breaker-closed", "stack"), |inner| {
        let breaker = CircuitBreakerLayer::standard().slow_call_duration_threshold(Duration::from_secs(2));
        (breaker.build().expect("a valid breaker").layer(inner), || ())
    });
    field.tripped(title("breaker-open", "light"), |inner| {
        let breaker = CircuitBreakerLayer::builder().wait_duration_in_open(HOUR);
        (breaker.build().expect("a valid breaker").layer(inner), || ())
    });
    for config in ["light", "stack"] {
        let builder = move || match config {
            "light" => BulkheadLayer::builder().max_concurrent_calls(100),
            _ => BulkheadLayer::large(),
        };
        field.admitted(title("bulkhead", config), move |inner| {
            let (layer, handle) = builder().build_with_handle().expect("a valid bulkhead");
            (layer.layer(inner), at_rest(move || handle.active_calls(), 0))
        });
    }
    field.full(title("bulkhead-full", "light"), |inner| {
        let builder = BulkheadLayer::builder().max_concurrent_calls(1).reject_when_full();
        let (layer, handle) = builder.build_with_handle().expect("a valid bulkhead");
        (layer.layer(inner), at_rest(move || handle.active_calls(), 0))
    });
    field.timed(title("deadline", "light"), |inner, after| {
        TimeLimiterLayer::builder().timeout_duration(after).build().layer(inner)
    });
    field.timed(title("deadline", "stack"), |inner, after| {
        TimeLimiterLayer::standard().timeout_duration(after).build().layer(inner)
    });
}

const HOUR: Duration = Duration::from_secs(3600);

/// An assertion that `permits` says `want`.
fn at_rest(permits: impl Fn() -> usize, want: usize) -> impl Fn() {
    move || assert_eq!(permits(), want, "every permit came back")
}
