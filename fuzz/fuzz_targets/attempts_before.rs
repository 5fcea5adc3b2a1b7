//! The headers that count attempts: no bytes make the parser panic, digits are read as they are, and anything else says nothing.
#![no_main]

use buttress_core::http::attempts_before;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|headers: (&[u8], &[u8])| {
    let (count, previous) = headers;
    let mut map = HeaderMap::new();
    for (name, value) in [("x-envoy-attempt-count", count), ("grpc-previous-rpc-attempts", previous)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            map.insert(name, value);
        }
    }
    let read = |name: &str| match map.get(name).map(HeaderValue::as_bytes) {
        Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            digits.iter().fold(0_u32, |number, digit| number.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
        }
        _ => 0,
    };
    let want = read("x-envoy-attempt-count").saturating_sub(1).max(read("grpc-previous-rpc-attempts"));
    assert_eq!(attempts_before(&map), want);
});
