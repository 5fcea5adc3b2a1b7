//! Helpers to test [Buttress](https://docs.rs/buttress) layers, and the contract that every layer keeps, as a test suite.
//!
//! | you test | you need |
//! |---|---|
//! | something that happens soon | [`eventually`] |
//! | a layer over an inner service that hangs, fails, panics, is unready | [`Script`], [`Latch`], [`pauses`], [`Probe`] |
//! | a layer over a response body | [`Frames`], [`grpc`] |
//! | what a layer at some place of a chain gets to see | [`Meter`] |
//! | what hyper makes of it | [`wire`] |

mod body;
pub mod contract;
mod eventually;
pub mod grpc;
mod meter;
mod script;
pub mod wire;

pub use body::{AnyBody, Frames, PANIC, any, headers};
pub use eventually::{BOUND, eventually};
pub use meter::{Meter, Metered, Step, Tally};
pub use script::{Latch, Probe, Readiness, ReadinessError, Script, Ticket, pauses, poll_once};
