//! Several versions of a service are asked at once, and the answer that enough of them agree on is given.
//!
//! Versions that were written apart rarely fail alike in the same call: N-version programming (A. Avizienis, *The N-Version Approach to
//! Fault-Tolerant Software*, 1985). Of replicas that agree among themselves although some lie (Lamport, Shostak and Pease, *The Byzantine Generals Problem*, 1982),
//! a client takes the answer that `f + 1` of `3 f + 1` give: one of those is no liar (Castro and Liskov, *Practical Byzantine Fault Tolerance*,
//! 1999). That is `Need::Count(f + 1)`; the agreement is theirs, this layer only masks who departs from it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress_core::Error;
//! use buttress_fallback::VoteConfig;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! type Answer = Result<u32, Error<std::io::Error>>;
//! let first = service_fn(|n: u32| async move { Answer::Ok(n * n) });
//! let off_by_one: fn(u32) -> Answer = |n| Ok(n * n + n / 3);
//! let by_sums: fn(u32) -> Answer = |n| Ok((0..n).map(|i| 2 * i + 1).sum());
//! let version = |square: fn(u32) -> Answer| service_fn(move |n: u32| async move { square(n) });
//!
//! let layer = VoteConfig::default().build([("off by one", version(off_by_one)), ("by sums", version(by_sums))])?;
//! let vote = layer.handle();
//! assert_eq!(layer.layer(first).oneshot(3).await?, 9);
//!
//! let seen = vote.snapshot();
//! assert_eq!((seen.need, seen.elected_total), (2, 1));
//! # Ok(()) }
//! ```
//!
//! # What votes
//!
//! A good answer: opaque, what the protocol finds good; over HTTP 2xx, 3xx and 4xx, gRPC codes that are no failures. Two are one answer if they are equal, over HTTP with
//! status, body, gRPC status, `Content-Type`, `Content-Encoding`, `Location` and `Set-Cookie`; or if a [key](VoteLayer::by) of them is. Errors, refusals and bodies that break off or are
//! larger than [`max_response`](VoteConfig::max_response) do not vote, bad answers only [if they may](VoteConfig::failures_vote).
//!
//! As soon as enough are equal the first of them is given, and the versions that have not ended are dropped. Those that ended otherwise are the dissenters: an event (target `buttress::fallback`, level warn) names them,
//! over HTTP the extension `Dissent` of the response does, and [`VoteSnapshot`] counts them. As soon as no answer can get enough, the call is refused ([`Reason::NoMajority`](buttress_core::Reason::NoMajority),
//! 502), as one answer of many that differ would be a guess. If all that have ended were refused for one reason, that is passed on, and so is what says nothing of any version (its client went away).
//!
//! # Over HTTP
//!
//! The request's body is read to its end first, up to [`max_body`](VoteConfig::max_body) (beyond: 413), and every version gets all of it, as
//! `VoteBody` (a service that takes one body type only is adapted with tower's `MapRequest`). Answers are read to their ends as well. So nothing streams, and what is upgraded is no answer. Any method goes to all: see below.
//!
//! # Where it stands
//!
//! Outermost of what belongs to one version; a deadline outside of it ends them all. Its versions run in the task of their caller, and hold what they hold until
//! they are dropped.
//!
//! # Shared by clones
//!
//! Counts and mode, made in [`VoteConfig::build`]. The service is always ready; each version is waited for by the call.
//!
//! # Cancel
//!
//! A call that is dropped drops its versions' calls; nothing goes on in the background.
//!
//! # When not to use it
//!
//! * Where executing a request n times does harm: every call is, for every method. Versions of a service that writes need stores of their own, or an agreement among themselves.
//! * Where load matters: it is n calls for each, and the time of the `need`-th fastest of those that agree.
//! * Against failures that can be seen (errors, time-outs): a retry or a failover does with one call what this does with n. A vote is for answers that may be *wrong*.
//! * Where versions are copies of one program: the same input meets the same fault in all of them (Knight and Leveson, 1986, found it even in versions written apart).

mod ballot;
mod config;
mod future;
#[cfg(feature = "http")]
mod http;
mod layer;
mod policy;
mod same;
mod tally;

pub use ballot::{Ask, Ballot};
pub use config::{Need, VoteConfig};
pub use future::VoteFuture;
#[cfg(feature = "http")]
pub use http::{Dissent, VoteBody, WholeResponse};
pub use layer::{VoteLayer, VoteService};
pub use policy::{VersionSnapshot, Vote, VoteSnapshot};
pub use same::{By, ByAnswer, Same};
