//! `grpc-retry-pushback-ms` of a trailers-only answer: no bytes make the parser panic, milliseconds are read as they are, and
//! what is no number says "never".
#![no_main]

use buttress_core::{
    Call, Error, Protocol, Pushback,
    http::{HttpClient, parse_grpc_pushback},
};
use http::{HeaderValue, Request, Response};
use http_body_util::Empty;
use libfuzzer_sys::fuzz_target;
use std::{convert::Infallible, time::Duration};

fuzz_target!(|value: &[u8]| {
    let Ok(header) = HeaderValue::from_bytes(value) else { return };
    let request = Request::post("/").header("content-type", "application/grpc").body(()).expect("it is well-formed");
    let mut answer = Response::new(Empty::<bytes::Bytes>::new());
    answer.headers_mut().insert("grpc-status", HeaderValue::from_static("14"));
    answer.headers_mut().insert("grpc-retry-pushback-ms", header);
    let call = HttpClient::new().start(&request);
    let verdict = Call::<_, Error<Infallible>>::judge(&call, Ok(&answer));
    let pushback = verdict.pushback.expect("it is there");
    assert_eq!(pushback, parse_grpc_pushback(value));
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        assert_eq!(pushback, Pushback::NEVER, "{value:?}");
    } else if let Some(millis) = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u32>().ok()) {
        assert_eq!(pushback, Pushback::after(Duration::from_millis(u64::from(millis))));
    }
});
