//! gRPC messages as they look on the wire, without a gRPC library.

use crate::{AnyBody, Frames, headers};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, header};

/// One length-prefixed message.
pub fn message(payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(payload.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(payload.len() as u32);
    bytes.put_slice(payload);
    bytes.freeze()
}

/// A call of `path` with one message.
pub fn request(path: &str) -> Request<AnyBody> {
    let mut req = Request::new(Frames::new().data(message(b"ask")).end_known().into());
    *req.method_mut() = Method::POST;
    *req.uri_mut() = path.parse().expect("a path");
    req.headers_mut().extend(headers([("content-type", "application/grpc"), ("te", "trailers")]));
    req
}

/// A head, with `frames` as its body.
pub fn response(frames: Frames) -> Response<AnyBody> {
    let mut res = Response::new(frames.into());
    res.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    res
}

/// One message, then trailers with `status`.
pub fn unary(status: &'static str) -> Response<AnyBody> {
    response(Frames::new().data(message(b"answer")).pause().trailers([("grpc-status", status)]))
}

/// A head that has the status, and no body.
pub fn trailers_only(status: &'static str) -> Response<AnyBody> {
    let mut res = response(Frames::new().end_known());
    res.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
    res
}

/// One message, and then nothing: a server that died.
pub fn cut_short() -> Response<AnyBody> {
    response(Frames::new().data(message(b"answer")).pause())
}
