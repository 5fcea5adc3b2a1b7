use super::{Measured, SpanFuture, SpanPermit, Telemetry, TraceContext, span::TARGET};
use crate::Speak;
use buttress_core::{Call, Context as CallContext, NoCut, Protocol, http::HttpClient};
use http::Request;
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Span, field::Empty};

/// Opens a span for each attempt to send a request, with a span id of its own in the request's `traceparent`. It never refuses;
/// it stands innermost, around the transport.
///
/// The trace is that of the request's extensions ([`RequestSpanLayer`](super::RequestSpanLayer) puts it there), else that of its
/// headers, else a new one; `tracestate` is passed on as it is. So a client of its own, whose attempts are to be one
/// trace, [puts](TraceContext::put) a new one into the extensions of its requests. The headers are written whether a subscriber wants the
/// span or not.
#[derive(Clone, Debug, Default)]
pub struct AttemptSpanLayer<P = HttpClient> {
    telemetry: Option<Arc<Telemetry>>,
    server: Option<Arc<Server>>,
    protocol: P,
}

impl AttemptSpanLayer {
    /// Speaks [`HttpClient`] until told otherwise.
    pub fn new() -> Self {
        Self { telemetry: None, server: None, protocol: HttpClient::new() }
    }
}

impl<P> AttemptSpanLayer<P> {
    /// Sets `server.address` and `server.port`, where a request's target does not name the server that it goes to.
    #[must_use]
    pub fn server(mut self, address: impl Into<String>, port: impl Into<Option<u16>>) -> Self {
        self.server = Some(Arc::new(Server { address: address.into(), port: port.into() }));
        self
    }

    /// Measures the attempts besides, as a [`TelemetryLayer`](super::TelemetryLayer) around it would; one layer costs less than two.
    #[must_use]
    pub fn telemetry(mut self, telemetry: Arc<Telemetry>) -> Self {
        self.telemetry = Some(telemetry);
        self
    }

    /// Speaks another protocol of HTTP.
    pub fn protocol<Q>(self, protocol: Q) -> AttemptSpanLayer<Q> {
        AttemptSpanLayer { telemetry: self.telemetry, server: self.server, protocol }
    }
}

impl<P> Speak<P> for AttemptSpanLayer {
    type Layer = AttemptSpanLayer<P>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
}

impl<S, P: Clone> Layer<S> for AttemptSpanLayer<P> {
    type Service = AttemptSpans<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        let (telemetry, server) = (self.telemetry.clone(), self.server.clone());
        AttemptSpans { inner, telemetry, server, protocol: self.protocol.clone() }
    }
}

/// The service of [`AttemptSpanLayer`].
#[derive(Clone, Debug)]
pub struct AttemptSpans<S, P = HttpClient> {
    inner: S,
    telemetry: Option<Arc<Telemetry>>,
    server: Option<Arc<Server>>,
    protocol: P,
}

/// Where requests go.
#[derive(Debug)]
struct Server {
    address: String,
    port: Option<u16>,
}

fn span<B>(req: &Request<B>, server: Option<&Server>, attempt: u32, trace: &TraceContext) -> Span {
    let (address, port) = match server {
        Some(Server { address, port }) => (Some(address.as_str()), *port),
        None => (req.uri().host(), req.uri().port_u16()),
    };
    tracing::debug_span!(
        target: TARGET,
        "attempt",
        http.request.method = req.method().as_str(),
        url.path = req.uri().path(),
        server.address = address,
        server.port = port,
        http.request.resend_count = (attempt > 0).then_some(attempt),
        trace_id = %format_args!("{:032x}", trace.trace_id()),
        span_id = %format_args!("{:016x}", trace.span_id()),
        http.response.status_code = Empty,
        rpc.grpc.status_code = Empty,
        error.type = Empty,
        outcome = Empty,
        degraded = Empty,
    )
}

impl<S, P, B> Service<Request<B>> for AttemptSpans<S, P>
where
    S: Service<Request<B>>,
    P: Protocol<Request<B>>,
    P::Call: Call<S::Response, S::Error>,
{
    type Response = <P::Call as Call<S::Response, S::Error>>::Response<SpanPermit, NoCut>;
    type Error = S::Error;
    type Future = SpanFuture<S::Future, P::Call>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut req: Request<B>) -> Self::Future {
        let measured = Measured::by(self.telemetry.as_deref());
        let trace = match TraceContext::of(req.extensions()) {
            Some(parent) => parent.child(),
            None => TraceContext::read(req.headers()).map_or_else(TraceContext::new, |parent| parent.child()),
        };
        trace.write(req.headers_mut());
        let context = CallContext::of(req.extensions());
        if let Some(attempts) = context.and_then(|context| context.attempts.as_ref()) {
            attempts.add();
        }
        let attempt = context.map_or(0, |context| context.attempt);
        let span = span(&req, self.server.as_deref(), attempt, &trace);
        let call = self.protocol.start(&req);
        let permit = SpanPermit::new(measured, &span, None);
        let inner = span.in_scope(|| self.inner.call(req));
        SpanFuture::new(inner, permit, call, span)
    }
}
