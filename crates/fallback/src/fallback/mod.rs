//! The fallback: another answer in place of one that failed.
//!
//! A list of recommendations that is empty beats a page that is not there. [`FallbackLayer`] judges what comes back, and where that is bad gives
//! what its [backup](crate::backup) has instead: a value, a static page, what a function makes of the request, the answer of another
//! service. It says so: every such answer is marked as [`Degraded`](buttress_core::Degraded).
//!
//! ```
//! # #[cfg(feature = "http")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, body::Body, http::{Request, StatusCode}, routing::get};
//! use buttress_core::http::HttpServer;
//! use buttress_fallback::{AnswerLayer, FallbackConfig, StaticResponse};
//! use tower::ServiceExt;
//!
//! let none = StaticResponse::new(200, "application/json", r#"{"recommendations":[]}"#)?;
//! let router: Router = Router::new()
//!     .route("/recommendations", get(|| async { StatusCode::BAD_GATEWAY }))
//!     .layer(AnswerLayer::<_, HttpServer>::new(FallbackConfig::default(), none));
//!
//! let response = router.oneshot(Request::get("/recommendations").body(Body::empty())?).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.headers()["x-degraded"], "fallback; cause=failure");
//! # Ok(()) }
//! # #[cfg(not(feature = "http"))] fn main() {}
//! ```
//!
//! # What it answers in place of
//!
//! | seen | answered otherwise |
//! |---|---|
//! | a refusal of a layer further in: an open circuit, a full bulkhead, a passed deadline | yes: [`Trigger::Refused`](crate::Trigger::Refused) |
//! | a refusal that the request is at fault for: any 4xx (a rate limit, a body that is too large), a deadline that the client made short, a loop, what is not implemented, `only-if-cached` | no |
//! | a failure: an error, 5xx, a gRPC code that says so in a trailers-only response | yes: [`Trigger::Failure`](crate::Trigger::Failure) |
//! | "too much": 429, 503 with `Retry-After` | yes: [`Trigger::Overload`](crate::Trigger::Overload) |
//! | what the user does not want: [`when`](AnswerLayer::when) | yes |
//! | success, a client's mistake, a call that was cancelled | no |
//! | a body that breaks, gRPC trailers that say that it failed | no: the head has gone to the caller |
//! | an error of the inner service's `poll_ready` | no: it was not called |
//!
//! # What the caller gets
//!
//! The backup's answer, or what was there. A backup fails if it has nothing, is too late, or, being a service, gives a bad answer itself; then the original
//! result goes on as it came, body included. So it is kept while a backup that takes its time is asked, with the permits that its body holds: give such a
//! backup a short time-out, and no part of what failed. It is dropped before the answer is given.
//!
//! An answer made here that is an error itself (429, 5xx) and has no `Retry-After` gets that of the original result, if that said when to come
//! back: a page in place of an overloaded service is no reason to come at once.
//!
//! Over HTTP the answer has the header `x-degraded`, `fallback; cause=breaker_open`, and the mark in its
//! extensions; one that another layer has marked already keeps that mark. There is nowhere to put it for other requests: count with
//! [`FallbackSnapshot`].
//!
//! # Where it stands
//!
//! Outside of the deadline, so that a call that hangs gets its answer, too; a backup has its own time. On the request's side it needs nothing: requests need not be
//! `Clone`, and only what the backup asks for is kept of them.
//!
//! # Shared by clones
//!
//! Counts, mode and config: they are made in `FallbackLayer::new`. [`fresh`](AnswerLayer::fresh) makes others.
//!
//! # Cancel
//!
//! A call that is dropped drops what it waits for: the service's answer, or the backup's. Nothing goes on in the background.
//!
//! # What it costs
//!
//! A call that succeeds: a lease of its layer, no clock, no lock, no allocation, and what the backup's `keep` does.
//!
//! # When not to use it
//!
//! * Where a wrong answer is worse than none: balances, permissions, stock that is sold. An error is an honest answer.
//! * For writes: a fallback says that something was done which was not.
//! * Where the fallback is hardly ever used and does much: a code path that is exercised only when everything burns fails then, too, and a backup
//!   that shares the database with what failed takes it down. Prefer one that cannot fail.
//! * To repeat a request elsewhere: that is a failover, which keeps the body, and pays for it.
//! * To hide failures from callers that could do better themselves.

mod config;
mod future;
mod layer;
mod policy;

pub use config::FallbackConfig;
pub use future::AnswerFuture;
pub use layer::{AnswerLayer, AnswerService, FallbackLayer};
pub use policy::{Fallback, FallbackSnapshot};

/// The kind of layer, in refusals and for a registry.
const LAYER: &str = "fallback";

/// What a user knows better than the protocol: which results are not wanted, though they are no failures.
///
/// The values are [`ByVerdict`] (the default), and every closure `Fn(Result<&Res, &Err>) -> bool`.
pub trait FallbackRule<Res, Err>: Clone + Send + Sync + 'static {
    /// Whether a fallback is better than this result.
    fn unwanted(&self, result: Result<&Res, &Err>) -> bool;
}

/// What the protocol says of a result is all there is to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByVerdict;

impl<Res, Err> FallbackRule<Res, Err> for ByVerdict {
    #[inline]
    fn unwanted(&self, _: Result<&Res, &Err>) -> bool {
        false
    }
}

impl<Res, Err, F: Fn(Result<&Res, &Err>) -> bool + Clone + Send + Sync + 'static> FallbackRule<Res, Err> for F {
    #[inline]
    fn unwanted(&self, result: Result<&Res, &Err>) -> bool {
        self(result)
    }
}
