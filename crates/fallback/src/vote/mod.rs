//! Several versions of a service, and the answer that most of them give.

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
