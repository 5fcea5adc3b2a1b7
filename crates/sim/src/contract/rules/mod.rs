//! The rules, by theme. Each holds one fresh layer per scenario to it and says what it saw.

mod bodies;
mod cancel;
mod ready;
mod refuse;
mod time;
mod wire;

pub(super) use bodies::*;
pub(super) use cancel::*;
pub(super) use ready::*;
pub(super) use refuse::*;
pub(super) use time::*;
pub(super) use wire::*;
