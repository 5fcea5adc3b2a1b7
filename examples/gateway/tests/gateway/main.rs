//! The gateway as a process, on loopback.

mod admin;
mod answers;
mod authority;
mod configs;
mod demo;
mod drain;
mod floods;
mod golden;
mod grpc;
mod killed;
mod limits;
mod malformed;
mod mutations;
mod process;
mod proxying;
mod raw;
mod refusals;
mod restart;
mod retries;
mod smuggling;
mod streams;
mod strict;
mod tls;
mod tunnels;
mod unwanted;
mod uploads;
