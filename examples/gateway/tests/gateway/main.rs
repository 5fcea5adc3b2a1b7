//! The gateway as a process, on loopback.

mod admin;
mod configs;
mod demo;
mod drain;
mod golden;
mod grpc;
mod malformed;
mod process;
mod proxying;
mod raw;
mod refusals;
mod retries;
mod uploads;
