//! The gateway as a process, on loopback.

mod admin;
mod answers;
mod configs;
mod demo;
mod drain;
mod floods;
mod golden;
mod grpc;
mod limits;
mod malformed;
mod mutations;
mod process;
mod proxying;
mod raw;
mod refusals;
mod retries;
mod smuggling;
mod strict;
mod uploads;
