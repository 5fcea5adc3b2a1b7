//! The status codes of gRPC.

use ::http::{HeaderMap, StatusCode};

/// Where a response, or its trailers, say their code.
pub const STATUS: &str = "grpc-status";

/// `OK`
pub const OK: u8 = 0;
/// `CANCELLED`
pub const CANCELLED: u8 = 1;
/// `UNKNOWN`
pub const UNKNOWN: u8 = 2;
/// `DEADLINE_EXCEEDED`
pub const DEADLINE_EXCEEDED: u8 = 4;
/// `PERMISSION_DENIED`
pub const PERMISSION_DENIED: u8 = 7;
/// `RESOURCE_EXHAUSTED`
pub const RESOURCE_EXHAUSTED: u8 = 8;
/// `UNIMPLEMENTED`
pub const UNIMPLEMENTED: u8 = 12;
/// `INTERNAL`
pub const INTERNAL: u8 = 13;
/// `UNAVAILABLE`
pub const UNAVAILABLE: u8 = 14;
/// `DATA_LOSS`
pub const DATA_LOSS: u8 = 15;
/// `UNAUTHENTICATED`
pub const UNAUTHENTICATED: u8 = 16;

/// The code that a head or trailers say; `UNKNOWN` where what they say is no number.
pub fn said(headers: &HeaderMap) -> Option<u8> {
    let value = headers.get(STATUS)?;
    Some(std::str::from_utf8(value.as_bytes()).ok().and_then(|text| text.parse().ok()).unwrap_or(UNKNOWN))
}

/// The code of a response whose head tells it: a trailers-only response, or one of a proxy that speaks plain HTTP
/// ([the mapping](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md)). `None`: the code is in the
/// trailers.
pub fn code(status: StatusCode, headers: &HeaderMap) -> Option<u8> {
    said(headers).or(match status.as_u16() {
        200 => None,
        400 => Some(INTERNAL),
        401 => Some(UNAUTHENTICATED),
        403 => Some(PERMISSION_DENIED),
        404 => Some(UNIMPLEMENTED),
        429 | 502..=504 => Some(UNAVAILABLE),
        _ => Some(UNKNOWN),
    })
}
