//! Client-side throttling: calls that would be refused anyway are refused before they are sent.
//!
//! ```
//! use buttress_shed::throttle::{ThrottleConfig, ThrottleLayer};
//!
//! let layer = ThrottleConfig::default().layer()?;
//! let handle = layer.handle();
//! assert_eq!(handle.snapshot().probability, 0.0);
//! # let _: ThrottleLayer = layer;
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! A service that is overloaded still pays for each call that it refuses. A client that keeps sending ten times of what is accepted makes it
//! refuse nine times out of ten, and a retry storm is that with many clients. So the client itself refuses, by chance, what exceeds
//! [`k`](ThrottleConfig::k) times what is accepted: adaptive throttling
//! ([Site Reliability Engineering, ch. 21](https://sre.google/sre-book/handling-overload/)).
//!
//! # What it does
//!
//! * Over the last [`window`](ThrottleConfig::window), with `n` calls and `s` of them accepted, the next one is refused with the probability
//!   `max(0, (n - k s) / (n + 1))`. Every call counts in `n` from when it is made, also one that is refused here: else the share that is sent
//!   would not settle.
//! * **Only an explicit "too much" counts against the service**: [`Outcome::Overload`](buttress_core::Outcome::Overload) (429, 503 with
//!   `Retry-After`, `RESOURCE_EXHAUSTED` with a pushback: without one it may mean a message that is too large). It counts with its call, from when
//!   that was made, however late it comes. Any other answer means that the call was accepted, and so it is presumed of a call
//!   that has no answer yet: a slow service is no reason to send less. What says nothing
//!   ([`Ignored`](buttress_core::Outcome::Ignored), a call that is dropped) is not counted at all.
//! * **[`Opaque`](buttress_core::Opaque) knows no "too much"**, only success and failure: what is no HTTP is never throttled, unless its results are told apart by
//!   [`Opaque::classify`](buttress_core::Opaque::classify).
//! * **It refuses** with [`Reason::Shed`](buttress_core::Reason::Shed), which is not retried, and only where at least
//!   [`min_calls`](ThrottleConfig::min_calls) were made in the window: of few calls each is worth sending.
//! * **Clones share it**: the state is made once; [`fresh`](buttress_core::GateLayer::fresh) makes another.
//! * While nothing is refused a call costs one addition and reads no clock, but for one call in 16 (with many cores, in two). The probability is worked out anew when "too much" is heard, and with
//!   the calls that come while it is not 0, at most a thousand times per window.
//!
//! # Where it stands
//!
//! On a client, inside of retries and outside of a balancer, so that each attempt is counted: deadline > retry > **throttle** > balance > endpoint. One per
//! service that is called.
//!
//! # When not to use it
//!
//! * Where the service never says "too much" but fails or gets slow: take a breaker, or an adaptive limit.
//! * Where calls are few: it never acts.

mod config;
mod counts;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod permit;
#[expect(clippy::module_inception, reason = "the module is about more than the policy")]
mod throttle;

pub use config::ThrottleConfig;
pub use permit::ThrottlePermit;
pub use throttle::{Throttle, ThrottleLayer, ThrottleService, ThrottleSnapshot};
