//! A header of milliseconds: no bytes make the parser panic, and what it reads it writes back as it was, but for zero.
#![no_main]

use buttress_deadline::wire::{format_millis, parse_millis};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|value: &[u8]| {
    let Some(read) = parse_millis(value) else { return };
    let again = parse_millis(format_millis(read).as_bytes()).expect("what we write we read");
    assert_eq!(again, read.max(Duration::from_millis(1)));
});
