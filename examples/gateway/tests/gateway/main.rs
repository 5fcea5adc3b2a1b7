//! The gateway as a process, on loopback.

mod admin;
mod answers;
mod configs;
mod demo;
mod drain;
mod grpc;
mod limits;
mod malformed;
mod process;
mod proxying;
mod raw;
mod refusals;
mod retries;
mod smuggling;
mod strict;
mod uploads;
