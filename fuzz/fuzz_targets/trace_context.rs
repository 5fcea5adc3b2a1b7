//! `traceparent` and `tracestate`: no bytes make the parsers panic, and what they read is written as it was.
#![no_main]

use buttress::telemetry::TraceContext;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], &[u8])| {
    let (parent, first, second) = input;
    let parsed = TraceContext::parse(parent);
    if let Some(context) = &parsed {
        assert!(context.trace_id() != 0 && context.span_id() != 0);
        let written = context.traceparent();
        assert_eq!(TraceContext::parse(written.as_bytes()).as_ref(), Some(context));
        assert_eq!(written.as_bytes()[2..53], parent[2..53]);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in [("traceparent", parent), ("tracestate", first), ("tracestate", second)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let Some(read) = TraceContext::read(&headers) else { return };
    let mut again = HeaderMap::new();
    read.write(&mut again);
    assert_eq!(TraceContext::read(&again), Some(read));
});
