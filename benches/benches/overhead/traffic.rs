//! What is sent, the service that answers it, and the loop that drives a service as a server's connection does.

use buttress::Error;
use bytes::Bytes;
use http::{Extensions, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Empty, Full};
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    hint::black_box,
    io,
    marker::PhantomData,
    pin::{Pin, pin},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tower::Service;

/// What the inner service does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Script {
    /// Answers when it is first polled.
    Ready,
    /// Is pending once, and woken at once.
    Suspends,
    /// Fails when it is first polled.
    Fails,
    /// Never answers.
    Hangs,
}

/// The switch of one contestant's inner services; leaked, so that cloning a service costs the same as for any plain value.
pub type Switch = &'static AtomicU8;

/// A switch that says `script`.
pub fn switch(script: Script) -> Switch {
    Box::leak(Box::new(AtomicU8::new(script as u8)))
}

/// What every inner service fails with: an error that a layer of ours can refuse with, and any other can pass on.
pub type Fault = Error<io::Error>;

/// A protocol of the table: how its requests are made, and what the inner service answers.
pub trait Traffic: Send + Sync + 'static {
    /// Its name in the table.
    const PROTOCOL: &'static str;
    /// What is sent.
    type Request: Clone + Send + 'static;
    /// What the inner service answers.
    type Response: Send + 'static;
    /// What the inner service keeps of a request until it is polled. As small as what a real transport keeps, which boxes the
    /// rest: otherwise the table would show how long that takes to move.
    type Kept: Copy + Send + 'static;

    /// The next request.
    fn request() -> Self::Request;
    /// Takes a request.
    fn take(request: Self::Request) -> Self::Kept;
    /// A good answer to it.
    fn answer(kept: Self::Kept) -> Self::Response;
}

/// Reads a response of a layered service to its end.
pub trait Reads<Res> {
    /// Whether it was a good one.
    fn read(response: Res, cx: &mut Context<'_>) -> bool;
}

/// A `u64` in, a `u64` out.
pub struct Plain;

impl Traffic for Plain {
    const PROTOCOL: &'static str = "opaque";
    type Request = u64;
    type Response = u64;
    type Kept = u64;

    #[inline]
    fn request() -> u64 {
        black_box(7)
    }
    #[inline]
    fn take(request: u64) -> u64 {
        request
    }
    #[inline]
    fn answer(request: u64) -> u64 {
        request + 1
    }
}

impl Reads<u64> for Plain {
    #[inline]
    fn read(response: u64, _: &mut Context<'_>) -> bool {
        black_box(response) == 8
    }
}

/// A GET with 8 headers in, a small `Full` body out.
pub struct Web;

const HEADERS: [(&str, &str); 8] = [
    ("host", "api.example.com"),
    ("user-agent", "overhead/1.0"),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, br"),
    ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
    ("x-request-id", "7f3c1c1e-8a43-4a0e-9d5b-3c7f0f6f2a11"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("cache-control", "no-cache"),
];

thread_local! {
    /// The request of the last call, to be sent again: building one takes ten times as long as the layers under test.
    static SPARE: Cell<Option<Request<Empty<Bytes>>>> = const { Cell::new(None) };
}

fn build_request() -> Request<Empty<Bytes>> {
    let mut request = Request::get("/users/7").body(Empty::new()).expect("a valid request");
    for (name, value) in HEADERS {
        request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    request
}

impl Traffic for Web {
    const PROTOCOL: &'static str = "http";
    type Request = Request<Empty<Bytes>>;
    type Response = Response<Full<Bytes>>;
    type Kept = ();

    #[inline]
    fn request() -> Self::Request {
        SPARE.take().unwrap_or_else(build_request)
    }
    #[inline]
    fn take(mut request: Self::Request) {
        // What a layer has added must be paid for by every call, so it goes.
        if !request.extensions().is_empty() {
            *request.extensions_mut() = Extensions::new();
        }
        if request.headers().len() == HEADERS.len() {
            SPARE.set(Some(request));
        }
    }
    #[inline]
    fn answer((): ()) -> Self::Response {
        Response::new(Full::new(Bytes::from_static(b"hello, world")))
    }
}

impl<B: Body<Data = Bytes>> Reads<Response<B>> for Web {
    /// As hyper does it: the body is not polled when it says that it is at its end.
    #[inline]
    fn read(response: Response<B>, cx: &mut Context<'_>) -> bool {
        let (head, body) = response.into_parts();
        let mut body = pin!(body);
        while !body.is_end_stream() {
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => drop(black_box(frame)),
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(_))) | Poll::Pending => unreachable!("the inner body neither fails nor waits"),
            }
        }
        black_box(&head).status == StatusCode::OK
    }
}

/// The inner service of every contestant.
pub struct Inner<T> {
    switch: Switch,
    traffic: PhantomData<fn() -> T>,
}

impl<T> Inner<T> {
    /// A service that does what `switch` says.
    pub fn new(switch: Switch) -> Self {
        Self { switch, traffic: PhantomData }
    }
}

impl<T> Clone for Inner<T> {
    fn clone(&self) -> Self {
        Self::new(self.switch)
    }
}

impl<T: Traffic> Service<T::Request> for Inner<T> {
    type Response = T::Response;
    type Error = Fault;
    type Future = Answer<T>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: T::Request) -> Answer<T> {
        Answer { kept: T::take(request), script: self.switch.load(Relaxed) }
    }
}

/// The future of [`Inner`].
pub struct Answer<T: Traffic> {
    kept: T::Kept,
    script: u8,
}

impl<T: Traffic> Unpin for Answer<T> {}

impl<T: Traffic> Future for Answer<T> {
    type Output = Result<T::Response, Fault>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const SUSPENDS: u8 = Script::Suspends as u8;
        const FAILS: u8 = Script::Fails as u8;
        const HANGS: u8 = Script::Hangs as u8;
        match self.script {
            SUSPENDS => {
                self.script = Script::Ready as u8;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            HANGS => Poll::Pending,
            FAILS => Poll::Ready(Err(Fault::Inner(io::ErrorKind::ConnectionReset.into()))),
            _ => Poll::Ready(Ok(T::answer(self.kept))),
        }
    }
}

/// What stands in for a refusing layer: the request is dropped, nothing is asked.
pub struct Nothing<T>(PhantomData<fn() -> T>);

impl<T> Nothing<T> {
    /// One of it.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for Nothing<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T: Traffic> Service<T::Request> for Nothing<T> {
    type Response = T::Response;
    type Error = ();
    type Future = std::future::Ready<Result<T::Response, ()>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }
    #[inline]
    fn call(&mut self, _: T::Request) -> Self::Future {
        std::future::ready(Err(()))
    }
}

/// Asserts that a call of `service`, whose inner one hangs, ends badly.
pub async fn assert_cut_off<T, S>(mut service: S)
where
    T: Traffic + Reads<S::Response>,
    S: Service<T::Request>,
{
    assert!(poll_fn(|cx| service.poll_ready(cx)).await.is_ok());
    let call = tokio::time::timeout(Duration::from_secs(5), service.call(T::request()));
    let result = call.await.expect("a call with a deadline ends");
    let good = result.is_ok_and(|response| T::read(response, &mut Context::from_waker(Waker::noop())));
    assert!(!good, "a call past its deadline is refused");
}

/// A service under test, behind one virtual call per batch.
pub trait Caller: Send {
    /// Makes `calls` calls one after the other, and says how many went well.
    fn run(&mut self, calls: u64) -> u64;
}

/// The [`Caller`] of a service. Alone on its cache lines: two threads' clones share a layer's state and nothing else.
#[repr(align(128))]
pub struct Calls<T, S> {
    service: S,
    traffic: PhantomData<fn() -> T>,
}

impl<T, S> Calls<T, S> {
    /// Calls `service`.
    pub fn new(service: S) -> Self {
        Self { service, traffic: PhantomData }
    }
}

impl<T, S> Caller for Calls<T, S>
where
    T: Traffic + Reads<S::Response>,
    S: Service<T::Request> + Send,
{
    fn run(&mut self, calls: u64) -> u64 {
        let mut cx = Context::from_waker(Waker::noop());
        let mut good = 0;
        for _ in 0..calls {
            while self.service.poll_ready(&mut cx).is_pending() {}
            let mut future = pin!(self.service.call(T::request()));
            let result = loop {
                if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
                    break result;
                }
            };
            good += u64::from(result.is_ok_and(|response| T::read(response, &mut cx)));
        }
        good
    }
}
