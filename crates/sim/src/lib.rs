//! Helpers to test [Buttress](https://docs.rs/buttress) layers, and the contract that every layer keeps, as a test suite.
//!
//! | you test | you need |
//! |---|---|
//! | something that happens soon | [`eventually`] |
//! | a layer over an inner service that hangs, fails, panics, is unready | [`Script`], [`Latch`], [`pauses`], [`Probe`] |
//! | a layer over a response body | [`Frames`], [`grpc`] |
//! | what a layer at some place of a chain gets to see | [`Meter`] |
//! | what hyper makes of it | [`wire`] |
//! | how a chain fares under load, when its upstream fails, slows down, comes back | [`world`], with [an example](world#a-chain-of-ones-own): retries and a shedder while half of the capacity is gone |
//! | that a layer of yours is a good neighbour in a chain | [`contract`], [`contract_suite!`] |
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use buttress_core::{GateLayer, http::HttpServer};
//! use buttress_sim::{Frames, Meter, Script};
//! use http::{Request, Response};
//! use tower::{Layer, ServiceExt};
//!
//! // A server that hangs in the middle of its answer, and a client that gives up on it.
//! let script = Script::new(async |_: Request<()>| Ok(Response::new(Frames::new().data("so far").never())));
//! let meter = Meter::new();
//! let service = GateLayer::<Meter>::new(meter.clone()).protocol(HttpServer::new()).layer(script);
//! let response = service.oneshot(Request::new(())).await.unwrap();
//! assert_eq!(meter.in_flight(), 1);
//! drop(response);
//! assert_eq!((meter.in_flight(), meter.tally().ignored), (0, 1));
//! # }
//! ```
//!
//! A layer of your own is held to the contract in its `tests/contract.rs`, one test per rule, by
//!
//! ```
//! # use buttress_core::{GateLayer, http::{HttpClient, HttpServer}};
//! # use buttress_sim::{Meter, contract::Subject, contract_suite};
//! fn meter() -> Subject {
//!     let layer = GateLayer::<Meter>::new(Meter::new());
//!     let handle = layer.handle();
//!     Subject::new(layer.clone(), layer.clone().protocol(HttpServer::new()), layer.protocol(HttpClient::new()))
//!         .in_flight(move || handle.in_flight())
//! }
//!
//! contract_suite!(meter);
//! # fn main() {}
//! ```
//!
//! [`contract`] says which of its readings sharpens which rule.

mod body;
pub mod contract;
mod eventually;
pub mod grpc;
mod meter;
mod script;
pub mod wire;
pub mod world;

pub use body::{AnyBody, Frames, PANIC, any, headers};
pub use eventually::{BOUND, eventually};
pub use meter::{Meter, Metered, Step, Tally};
pub use script::{Latch, Probe, Readiness, ReadinessError, Script, Ticket, pauses, poll_once};
