//! Deadlines for [Tower](https://docs.rs/tower) services: a call ends when nobody waits for it any more, to the end of its
//! body, and everyone further in knows how long it has.
//!
//! ```
//! use buttress_deadline::DeadlineLayer;
//! use std::time::Duration;
//! use tower::{BoxError, Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let hung = service_fn(|_: &str| std::future::pending::<Result<(), BoxError>>());
//! let service = DeadlineLayer::new(Duration::from_millis(250)).layer(hung);
//!
//! let error = service.oneshot("anyone there?").await.unwrap_err();
//! assert_eq!(error.to_string(), "refused by the deadline: deadline passed");
//! # }
//! ```
//!
//! # What it ends
//!
//! | [`DeadlineConfig`] | bounds | layers further in |
//! |---|---|---|
//! | `total` | the whole call, retries and body included | see it in the [`Context`](buttress_core::Context) |
//! | `per_try` | one attempt, body included, and never longer than what is left of the whole call | do not see it |
//! | `idle` | a response body between two frames | |
//! | `absolute` | a response body from the head on | |
//! | `read` | what the client says in `grpc-timeout` or a header of milliseconds; it can only lower `total` | see it, too |
//!
//! | ended | HTTP origin | HTTP gateway | gRPC | as an error |
//! |---|---|---|---|---|
//! | before the response head | 503 | 504 | trailers-only, status 4 | [`Rejection`](buttress_core::Rejection) |
//! | in the body | the body's error | the body's error | trailers, status 4 | a `BoxError` that holds the `Rejection` |
//!
//! A call whose time is already up (a client's zero, a context that has passed) is refused and the service inside is not
//! called.
//!
//! # What it says about health
//!
//! A deadline of ours that passes is a failure of what is behind it ([`DeadlinePassed`](buttress_core::Reason)). One that the
//! *client* made shorter than ours says nothing (`ClientDeadlinePassed`), so clients cannot open a breaker for others; nor
//! does a body that ends while its reader is not waiting for a frame: then the reader is slow. Nor does a deadline that passes
//! while the service waits for its client to send the rest of the request, or that the client used up by more than half, where an
//! [`UploadLayer`](buttress_core::http::UploadLayer) stands further out.
//!
//! # Where it stands
//!
//! `total` outside of everything that repeats or waits (retry, hedge, queue); `per_try` inside of it, and inside the breaker,
//! which learns from it. Server: fallback > **total** > shed > bulkhead > handler. Client: **total** > retry > balance >
//! breaker > bulkhead > **per try** > transport. [`emit`](DeadlineConfig::emit) belongs on the innermost one: what it writes is
//! what is left when the request leaves.
//!
//! # When it costs what
//!
//! A call that is ready at its first poll never makes a timer. One that is not makes one, inside its future, unless an outer
//! deadline layer ends the call no later anyway. The response is always polled before the timer: one that is there wins.
//!
//! The clock is read at the call where the start counts: with `read`, with `emit`, with a `total` that is
//! [`propagate`](DeadlineConfig::propagate)d, or where the context has a deadline. Otherwise, and always for
//! [`Opaque`](buttress_core::Opaque) requests, which carry no context, the time runs from the first poll that is not ready.
//! Opaque calls allocate nothing; over HTTP writing the context does, once per request, unless somebody wrote it before.
//!
//! # Bodies
//!
//! hyper does not poll a body while the socket is blocked, so a timer that is polled with the body never fires for a reader
//! that has stopped reading. A body that declares at most 64 KiB usually comes in one frame, and is watched while it is polled
//! for that. Every other one, and one that goes on after its first frame, is shared with a task that drops it when its time is
//! up, whether anybody polls or not, and gives back every permit inside; the task is gone as soon as the body is. That task needs a runtime with timers; outside of a
//! runtime such a body is watched while it is polled. What counts as progress is a frame delivered. A reader that waits when
//! time is up is woken first, and has 10 ms to take a frame that came in the same moment.
//!
//! # Headers that cannot be read
//!
//! A negative time has passed. Anything else that is no time (`grpc-timeout: soon`) is ignored and counted
//! (`malformed_total`), and our own deadline holds: a stranger cannot raise it. Let only servers you trust set yours, or
//! lower it: there is no header that raises a deadline.
//!
//! # Clones, cancel, panic
//!
//! Clones and services of one layer share one [`Deadlines`] ([`handle`](CutLayer::handle)): counts, live
//! [`update`](Deadlines::update), [`Mode`](buttress_core::Mode). A call or a body that is dropped takes its timer along. When
//! time is up the inner call is dropped before anyone hears of it. A panic inside passes through as it is.
//!
//! # Differences from `tower::timeout`
//!
//! * The error type stays: `tower::timeout::Timeout` boxes it. On an HTTP server a deadline is a response, so no
//!   `HandleErrorLayer`.
//! * The body is bounded, too; tower's time-out is over when the head is there.
//! * A call that is ready at once makes no timer.
//! * It knows an outer deadline and the client's, and tells those further in.
//! * A layer further out learns who is to blame.
//!
//! # Differences from `tower_http::timeout`
//!
//! * `TimeoutLayer` answers with a fixed status and an empty body, and leaves the body unbounded. Here gRPC gets its own
//!   status and a client that accepts JSON a problem document (RFC 9457).
//! * `ResponseBodyTimeoutLayer` bounds the time between two frames while somebody polls; here a body that nobody polls ends,
//!   too, and the whole of it can be bounded.
//!
//! # Features
//!
//! None is on by default. `serde`: configs and snapshots, durations as `"250ms"`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod carry;
mod client;
mod config;
mod future;
mod layer;
mod policy;
mod watch;
pub mod wire;

pub use body::{Covered, Cutoff};
pub use carry::Carry;
pub use config::{DeadlineConfig, Headers};
pub use future::DeadlineFuture;
pub use layer::{CutLayer, DeadlineLayer, DeadlineService};
pub use policy::{DeadlineSnapshot, Deadlines};
