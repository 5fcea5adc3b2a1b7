//! `grpc-timeout`: no bytes make the parser panic, and what it reads it writes back, never longer.
#![no_main]

use buttress_deadline::wire::{format_grpc_timeout, parse_grpc_timeout};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|value: &[u8]| {
    let Some(read) = parse_grpc_timeout(value) else { return };
    assert!(value.len() <= 10, "8 digits, a unit, a sign");
    let written = format_grpc_timeout(read);
    assert!((2..=9).contains(&written.len()), "{written}");
    let again = parse_grpc_timeout(written.as_bytes()).expect("what we write we read");
    assert!(again <= read.max(Duration::from_nanos(1)) && !again.is_zero(), "{written}");
});
