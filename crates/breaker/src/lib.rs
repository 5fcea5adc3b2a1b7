//! A circuit breaker for Tower services.
mod breaker;
mod config;
mod in_flight;
mod layer;
mod machine;
mod params;
mod permit;
mod probes;
mod snapshot;
mod state;

pub use breaker::Breaker;
pub use buttress_core::{ConfigError, Error, Mode, Outcome, Pushback, Reason, Rejection, Settle};
pub use config::{Admission, BreakerConfig, Window};
pub use layer::{BreakerLayer, BreakerTurn};
pub use permit::BreakerPermit;
pub use snapshot::{BreakerSnapshot, Cause, State, Transition};
