//! The peers' layers, configured as their own presets do it.

use crate::{
    contest::{Field, Title, Who},
    traffic::{Fault, Inner, Reads, Traffic},
};
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::Semaphore;
use tower::{
    BoxError, Layer, Service,
    balance::p2c,
    discover::ServiceList,
    limit::GlobalConcurrencyLimitLayer,
    load::{CompleteOnResponse, PeakEwma},
    load_shed::LoadShedLayer,
    retry::{
        Policy,
        budget::{Budget, TpsBudget},
    },
    timeout::TimeoutLayer,
};
use tower_resilience::{
    adaptive::{AdaptiveLimiterLayer, Aimd},
    bulkhead::BulkheadLayer,
    circuitbreaker::{CircuitBreakerLayer, SlidingWindowType},
    retry::{RetryBudgetBuilder, RetryLayer},
    timelimiter::TimeLimiterLayer,
};

/// tower 0.5: it has no breaker.
pub fn tower<T: Traffic + Reads<T::Response>>(field: &mut Field<'_, T>) {
    // Clones every request, also one that may not be sent twice.
    let title = |case| Title { case, config: "light", who: Who::Tower };
    field.admitted(title("bulkhead"), |inner| {
        let permits = Arc::new(Semaphore::new(100));
        let service = GlobalConcurrencyLimitLayer::with_semaphore(permits.clone()).layer(inner);
        (service, at_rest(move || permits.available_permits(), 100))
    });
    // It adapts nothing: what a limit of calls in flight costs at least.
    field.admitted(title("shed"), |inner| {
        let permits = Arc::new(Semaphore::new(20));
        let service = GlobalConcurrencyLimitLayer::with_semaphore(permits.clone()).layer(inner);
        (service, at_rest(move || permits.available_permits(), 20))
    });
    field.full(title("bulkhead-full"), |inner| {
        let permits = Arc::new(Semaphore::new(1));
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(permits.clone());
        let service = LoadShedLayer::new().layer(limit.layer(inner));
        (service, at_rest(move || permits.available_permits(), 1))
    });
    field.timed(title("deadline"), |inner, after| TimeoutLayer::new(after).layer(inner));
    field.admitted(title("retry"), |inner| {
        // 10 s of deposits, 10 a second for nothing, 20 %.
        let budget = Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 0.2));
        (tower::retry::RetryLayer::new(Budgeted(budget)).layer(inner), || ())
    });
    for (case, endpoints) in [("balance-10", 10), ("balance-1000", 1000)] {
        field.admitted(title(case), move |inner| (OwnBalance::<T>::new(inner, endpoints), || ()));
    }
}

/// Retries errors that the budget pays for.
#[derive(Clone)]
struct Budgeted(Arc<TpsBudget>);

impl<Req: Clone, Res, E> Policy<Req, Res, E> for Budgeted {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Req, result: &mut Result<Res, E>) -> Option<Self::Future> {
        if result.is_ok() {
            self.0.deposit();
            return None;
        }
        self.0.withdraw().then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, req: &Req) -> Option<Req> {
        Some(req.clone())
    }
}

type Endpoint<T> = PeakEwma<Inner<T>>;
type TowerBalance<T> = p2c::Balance<ServiceList<Vec<Endpoint<T>>>, <T as Traffic>::Request>;

/// tower's balance by peak-EWMA. It is not `Clone`: used by many it has a `Buffer` in front, with a task and a channel. Here
/// each thread has one of its own, which costs less and shares nothing.
struct OwnBalance<T: Traffic> {
    inner: Inner<T>,
    endpoints: usize,
    balance: TowerBalance<T>,
}

impl<T: Traffic> OwnBalance<T> {
    fn new(inner: Inner<T>, endpoints: usize) -> Self {
        let load = || PeakEwma::new(inner.clone(), Duration::from_millis(30), 10e9, CompleteOnResponse::default());
        let loads: Vec<_> = (0..endpoints).map(|_| load()).collect();
        let balance = p2c::Balance::new(ServiceList::new::<T::Request>(loads));
        Self { inner, endpoints, balance }
    }
}

impl<T: Traffic> Clone for OwnBalance<T> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.endpoints)
    }
}

impl<T: Traffic> Service<T::Request> for OwnBalance<T> {
    type Response = <TowerBalance<T> as Service<T::Request>>::Response;
    type Error = BoxError;
    type Future = <TowerBalance<T> as Service<T::Request>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.balance.poll_ready(cx)
    }

    fn call(&mut self, request: T::Request) -> Self::Future {
        self.balance.call(request)
    }
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
    field.admitted(title("shed", "adaptive"), |inner| {
        let aimd = Aimd::builder().initial_limit(20).build().expect("a valid limit");
        (AdaptiveLimiterLayer::new(aimd).layer(inner), || ())
    });
    field.full(title("bulkhead-full", "light"), |inner| {
        let builder = BulkheadLayer::builder().max_concurrent_calls(1).reject_when_full();
        let (layer, handle) = builder.build_with_handle().expect("a valid bulkhead");
        (layer.layer(inner), at_rest(move || handle.active_calls(), 0))
    });
    for config in ["light", "stack"] {
        let builder = move || match config {
            "light" => RetryLayer::builder(),
            _ => RetryLayer::exponential_backoff()
                .budget(RetryBudgetBuilder::new().token_bucket().build().expect("a valid budget")),
        };
        field.admitted(title("retry", config), move |inner| {
            let layer: RetryLayer<T::Request, T::Response, Fault> = builder().build();
            (layer.layer(inner), || ())
        });
    }
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
