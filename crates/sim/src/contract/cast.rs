//! Whole exchanges: a request, and the response to it.

use super::stack::get;
use crate::{AnyBody, Frames, grpc, wire::Version};
use buttress_core::Outcome;
use http::{Method, Request, Response, StatusCode};
use std::time::Duration;

/// One kind of exchange.
pub(super) struct Exchange {
    pub(super) name: &'static str,
    pub(super) request: fn() -> Request<AnyBody>,
    pub(super) response: fn() -> Response<AnyBody>,
    pub(super) outcome: Outcome,
    /// How many bytes of body arrive.
    pub(super) bytes: usize,
    pub(super) end: End,
}

/// How the end of a body shows: the permit is free from there on, though the body is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There is no body.
    Head,
    /// So many frames.
    Frames(usize),
    /// After so many frames it yields `None`.
    None(usize),
}

impl Exchange {
    /// Whether it can happen over a connection of this version: gRPC is HTTP/2.
    pub(super) fn speaks(&self, version: Version) -> bool {
        version == Version::H2 || (self.request)().method() != Method::POST
    }
}

fn head() -> Request<AnyBody> {
    let mut req = get();
    *req.method_mut() = Method::HEAD;
    req
}

fn call() -> Request<AnyBody> {
    grpc::request("/pkg.Service/Method")
}

fn with(status: StatusCode, frames: Frames) -> Response<AnyBody> {
    let mut res = Response::new(frames.into());
    *res.status_mut() = status;
    res
}

fn length(bytes: &'static str, frames: Frames) -> Response<AnyBody> {
    let mut res = Response::new(frames.into());
    res.headers_mut().insert("content-length", bytes.parse().expect("a number"));
    res
}

/// A body without an end that anyone can see before it comes.
fn streamed() -> Frames {
    Frames::new().wait(tick()).data("data: 1\n\n").wait(tick()).data("data: 2\n\n").wait(tick())
}

/// Long enough to be pending, whatever the clock.
async fn tick() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Exchanges that a peer finishes, each with the outcome it has.
pub(super) const FINISHED: &[Exchange] = &[
    Exchange {
        name: "plain, length known to the body",
        request: get,
        response: || with(StatusCode::OK, Frames::new().data("hello").declared().end_known()),
        outcome: Outcome::Success,
        bytes: 5,
        end: End::Frames(1),
    },
    Exchange {
        name: "plain, length declared by the size hint alone",
        request: get,
        response: || with(StatusCode::OK, Frames::new().data("hel").pause().data("lo").declared()),
        outcome: Outcome::Success,
        bytes: 5,
        end: End::Frames(2),
    },
    Exchange {
        name: "plain, length declared by Content-Length alone",
        request: get,
        response: || length("5", Frames::new().data("hel").pause().data("lo")),
        outcome: Outcome::Success,
        bytes: 5,
        end: End::Frames(2),
    },
    Exchange {
        name: "plain, end known after the last frame",
        request: get,
        response: || with(StatusCode::OK, Frames::new().data("hel").pause().data("lo").end_known()),
        outcome: Outcome::Success,
        bytes: 5,
        end: End::Frames(2),
    },
    Exchange {
        name: "streamed (SSE)",
        request: get,
        response: || {
            let mut res = with(StatusCode::OK, streamed());
            res.headers_mut().insert("content-type", "text/event-stream".parse().expect("a type"));
            res
        },
        outcome: Outcome::Success,
        bytes: 18,
        end: End::None(2),
    },
    Exchange {
        name: "trailers",
        request: get,
        response: || with(StatusCode::OK, Frames::new().data("hello").pause().trailers([("x-sum", "1")])),
        outcome: Outcome::Success,
        bytes: 5,
        end: End::Frames(2),
    },
    Exchange {
        name: "empty",
        request: get,
        response: || with(StatusCode::OK, Frames::new().declared().end_known()),
        outcome: Outcome::Success,
        bytes: 0,
        end: End::Head,
    },
    Exchange {
        name: "empty, end unknown",
        request: get,
        response: || with(StatusCode::OK, Frames::new().pause()),
        outcome: Outcome::Success,
        bytes: 0,
        end: End::None(0),
    },
    Exchange {
        name: "HEAD",
        request: head,
        response: || length("1000", Frames::new()),
        outcome: Outcome::Success,
        bytes: 0,
        end: End::Head,
    },
    Exchange {
        name: "204",
        request: get,
        response: || with(StatusCode::NO_CONTENT, Frames::new()),
        outcome: Outcome::Success,
        bytes: 0,
        end: End::Head,
    },
    Exchange {
        name: "304",
        request: get,
        response: || with(StatusCode::NOT_MODIFIED, Frames::new()),
        outcome: Outcome::Success,
        bytes: 0,
        end: End::Head,
    },
    Exchange {
        name: "404",
        request: get,
        response: || with(StatusCode::NOT_FOUND, Frames::new().data("gone").pause()),
        outcome: Outcome::Success,
        bytes: 4,
        end: End::None(1),
    },
    Exchange {
        name: "500",
        request: get,
        response: || with(StatusCode::INTERNAL_SERVER_ERROR, Frames::new().data("oh").pause()),
        outcome: Outcome::Failure,
        bytes: 2,
        end: End::None(1),
    },
    Exchange {
        name: "429",
        request: get,
        response: || with(StatusCode::TOO_MANY_REQUESTS, Frames::new().data("slow").declared().end_known()),
        outcome: Outcome::Overload,
        bytes: 4,
        end: End::Frames(1),
    },
    Exchange {
        name: "gRPC OK in trailers",
        request: call,
        response: || grpc::unary("0"),
        outcome: Outcome::Success,
        bytes: 11,
        end: End::Frames(2),
    },
    Exchange {
        name: "gRPC UNAVAILABLE in trailers",
        request: call,
        response: || grpc::unary("14"),
        outcome: Outcome::Failure,
        bytes: 11,
        end: End::Frames(2),
    },
    Exchange {
        name: "gRPC NOT_FOUND, trailers-only",
        request: call,
        response: || grpc::trailers_only("5"),
        outcome: Outcome::Success,
        bytes: 0,
        end: End::Head,
    },
    Exchange {
        name: "gRPC INTERNAL, trailers-only",
        request: call,
        response: || grpc::trailers_only("13"),
        outcome: Outcome::Failure,
        bytes: 0,
        end: End::Head,
    },
    Exchange {
        name: "gRPC that ends without trailers",
        request: call,
        response: grpc::cut_short,
        outcome: Outcome::Failure,
        bytes: 11,
        end: End::None(1),
    },
];
