//! Retries for Tower services that never make things worse.
//!
//! A request that fails for a moment deserves another attempt; a service that is down does not deserve three times the load. So every retry is
//! paid for from a [budget](buttress_core::Budget) that first attempts fill, waits with jitter or as long as the server asked for, and is
//! only made where the deadline leaves time for it.
//!
//! ```
//! # #[cfg(feature = "http")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use buttress_core::{BoxError, http::HttpClient};
//! use buttress_retry::{ResendLayer, RetryConfig};
//! use http::{Request, Response};
//! use http_body_util::{Empty, Full};
//! use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # let calls = Arc::new(AtomicU32::new(0));
//! // A server that is unavailable once.
//! let server = service_fn(move |_req| {
//!     let status = if calls.fetch_add(1, Relaxed) == 0 { 503 } else { 200 };
//!     async move { Ok::<_, BoxError>(Response::builder().status(status).body(Full::<bytes::Bytes>::default())?) }
//! });
//!
//! let layer = ResendLayer::<HttpClient>::new(RetryConfig::new(3).build().unwrap());
//! let retry = layer.handle();
//! let response = layer.layer(server).oneshot(Request::new(Empty::<bytes::Bytes>::new())).await.unwrap();
//!
//! assert_eq!(response.status(), 200);
//! assert_eq!((retry.snapshot().retries_total, retry.snapshot().recovered_total), (1, 1));
//! # }
//! # #[cfg(not(feature = "http"))] fn main() {}
//! ```
//!
//! Anything else that is `Clone` is retried as well: [`RetryLayer`] without a protocol takes any request. As nothing is known of it, it is sent
//! again only if nothing of it was processed, until a [rule](RetryRule) says more: [`Repeatable`], or a closure that looks at the result.
//!
//! # What it retries
//!
//! | seen | sent again |
//! |---|---|
//! | an error whose transport says that nothing was sent (`Unsent`, `TransportError` in `buttress_core::http`; the facade's `Hyper`), a stream that the peer refused | any request: nothing was processed |
//! | another error in place of a response | idempotent requests |
//! | 502, 503, 504 (configurable) | idempotent requests |
//! | 429, or 503, with `Retry-After` | idempotent requests, not before that time |
//! | gRPC `UNAVAILABLE` (configurable), `RESOURCE_EXHAUSTED` with a pushback, without a message before | any call: the list is the consent |
//! | the deadline of one attempt, set further in | idempotent requests |
//! | an open circuit or a full bulkhead *of one endpoint* of a balancer further in | any request: the next endpoint gets it |
//! | any other refusal of a layer further in: shed, rate limited, queued too long, no endpoint | nothing |
//! | 4xx, other 5xx, gRPC codes that say that the server understood; a request body that failed; a call that was cancelled | nothing |
//! | a response whose head went to the caller; gRPC response headers (but see [`grpc_peek`](RetryConfig::grpc_peek)) | nothing |
//!
//! Idempotent are GET, HEAD, OPTIONS, TRACE, PUT and DELETE ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2)), requests marked
//! as [`Idempotent`], and with [`idempotency_key`](RetryConfig::idempotency_key) POST and PATCH with that header. CONNECT and upgrades are never
//! sent twice.
//!
//! # When
//!
//! Full jitter by default ([`Backoff`]). `Retry-After` is a lower bound, with the back-off on top; `grpc-retry-pushback-ms` is obeyed exactly, and
//! a negative or unreadable one forbids a retry. What asks for more than [`max_retry_after`](RetryConfig::max_retry_after), and whatever does not end
//! before the deadline in the request's [`Context`](buttress_core::Context), is given up **at once**, without sleeping.
//!
//! The token is taken before the back-off and held to the end of that attempt, its body included. The call's body is kept while it is sent, up to
//! [`max_body`](RetryConfig::max_body); a larger one goes through all the same and only its retries are given up. That goes for any method: of
//! a POST whose stream was refused, some may have been read. A server may answer before it has read the request: where that leads to
//! another attempt, the upload of the one before ends with an error of its body; where it does not, it goes on beside the response.
//!
//! While the next attempt waits, the rest of the failed response is read (64 KiB, 64 frames, 250 ms at most), so that its connection can be
//! used again.
//!
//! # What the caller gets
//!
//! Always a real result: the last attempt's response or error, as it came; nothing is invented when attempts, budget or time are used up. The
//! error type is the inner service's. An event (target `buttress::retry`, level debug) and [`RetrySnapshot`] say why there was no further
//! attempt: [`Why`].
//!
//! # Where it stands
//!
//! Client: deadline (total) > **retry** > balancer > for each endpoint: breaker > bulkhead > per-try deadline > transport. Outside of it the total
//! deadline, so that it covers all attempts; inside of it what is to see each attempt. A breaker outside of it would count a recovered call as a
//! success; one of the whole cluster would shut out the good endpoints with the bad one, and its refusals lead nowhere else. Retry at one layer only: of several in one process the outermost pays, and those inside live on the floor of their budgets; what
//! arrives as somebody's further attempt (`x-envoy-attempt-count`, `grpc-previous-rpc-attempts`) is sent once. Its transport makes no attempts of its
//! own: switch off hyper-util's `retry_canceled_requests` and reqwest's retries.
//!
//! HTTP attempts carry a [`ReplayBody`](buttress_core::http::ReplayBody): an inner service that takes one body type only is adapted with
//! `MapRequest`, as `tonic::body::Body::new` does it.
//!
//! # Shared by clones
//!
//! Everything: counts, budget, mode and config are made in `RetryLayer::new`. [`fresh`](RetryLayer::fresh) makes others;
//! [`build_sharing`](RetryConfig::build_sharing) shares a budget between layers.
//!
//! # Cancel
//!
//! A call that is dropped, in an attempt or in a back-off, gives back its place in the budget; its token is spent. Nothing goes on in the background.
//!
//! # What it costs
//!
//! A first attempt that succeeds: no allocation and no lock for opaque requests, and one of 32 reads the clock, for the budget; for HTTP a copy of
//! the head, as every request may be sent again if its connection is refused, and where there is a body what it is kept in. It clones the inner service for every call that may be sent again.
//!
//! # Differences from `tower::retry`
//!
//! * A budget whose fractions are exact and that a clock is seldom read for; `TpsBudget` rounds 0.6 up to 1.0, and takes a lock.
//! * The token is taken before the back-off, so those who wait cannot all go at once.
//! * It knows HTTP and gRPC: which requests may be repeated, what a server asks for, which bodies can be sent again. There is no policy to write.
//! * Deadline and back-off know each other. Attempts are marked. The mode and the config can change while it runs.
//!
//! # Limits
//!
//! * A connection that was refused is no proof by itself that nothing was done: a client that follows redirects, or a service of several
//!   steps, may have done its work before. Without a mark only idempotent requests are sent again after it.
//! * Under a server's protocol (generated tonic clients) marks are seen in a `BoxError` and in a `TransportError`; a client whose error is a
//!   `BoxError` cannot be used in a spawned task there.
//! * The time that an attempt takes is not predicted: set [`min_attempt`](RetryConfig::min_attempt) where it is known.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
#[cfg(feature = "http")]
mod body;
mod config;
mod decide;
mod future;
#[cfg(feature = "http")]
mod http;
mod layer;
mod resend;
mod retry;
mod rule;
mod rules;

pub use backoff::{Backoff, Delays};
#[cfg(feature = "http")]
pub use body::RetryBody;
pub use config::RetryConfig;
pub use decide::{Cause, Course, Decision, Wait, Why};
pub use future::RetryFuture;
#[cfg(feature = "http")]
pub use http::Idempotent;
pub use layer::{ResendLayer, RetryLayer, RetryService};
pub use resend::{Repeat, Resend};
pub use retry::{Retry, RetrySnapshot};
pub use rule::{ByTable, Repeatable, RetryRule};

#[cfg(test)]
mod tests;
