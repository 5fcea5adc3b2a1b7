//! What a module that builds chains imports: `use buttress::prelude::*;`.
//!
//! No layer types: `buttress::BulkheadLayer` refuses with an error, `buttress::http::BulkheadLayer` with a response, and which
//! one is meant should be seen.

#[cfg(feature = "deadline")]
pub use crate::DeadlineConfig;
#[cfg(all(feature = "fallback", feature = "http"))]
pub use crate::StaleConfig;
#[cfg(all(
    feature = "fallback",
    feature = "http",
    feature = "balance",
    feature = "breaker",
    feature = "bulkhead",
    feature = "deadline",
    feature = "retry",
    feature = "shed"
))]
pub use crate::stack::Cover as _;
#[cfg(feature = "shed")]
pub use crate::{
    Ask, Pressure, PressureGateConfig, QueueConfig, RateLimit, RateLimitConfig, Shed, ShedConfig, Throttle,
    ThrottleConfig,
};
#[cfg(feature = "fallback")]
pub use crate::{Back, FailoverConfig, FallbackConfig, LevelsConfig, Switch, ToggleConfig};
#[cfg(feature = "retry")]
pub use crate::{Backoff, BudgetConfig, Retry, RetryConfig};
#[cfg(feature = "balance")]
pub use crate::{Balance, BalanceConfig, Canary, CanaryConfig, Endpoint};
#[cfg(feature = "breaker")]
pub use crate::{Breaker, BreakerConfig, RampedGate, RampedGateConfig};
#[cfg(feature = "bulkhead")]
pub use crate::{Bulkhead, BulkheadConfig};
#[cfg(feature = "chaos")]
pub use crate::{Chaos, ChaosConfig, Fault};
pub use crate::{
    Error, Handle as _, KeyedConfig, Mode, Outcome, Priority, Reason, Registry, Rejection, ServiceBuilderExt as _,
    ServiceExt as _,
};
#[cfg(feature = "telemetry")]
pub use crate::{Telemetry, TelemetryConfig};
