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
    protocol: P,
}

impl AttemptSpanLayer {
    /// Speaks [`HttpClient`] until told otherwise.
    pub fn new() -> Self {
        Self { telemetry: None, protocol: HttpClient::new() }
    }
}

impl<P> AttemptSpanLayer<P> {
    /// Measures the attempts besides, as a [`TelemetryLayer`](super::TelemetryLayer) around it would; one layer costs less than two.
    #[must_use]
    pub fn telemetry(mut self, telemetry: Arc<Telemetry>) -> Self {
        self.telemetry = Some(telemetry);
        self
    }

    /// Speaks another protocol of HTTP.
    pub fn protocol<Q>(self, protocol: Q) -> AttemptSpanLayer<Q> {
        AttemptSpanLayer { telemetry: self.telemetry, protocol }
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
        AttemptSpans { inner, telemetry: self.telemetry.clone(), protocol: self.protocol.clone() }
    }
}

/// The service of [`AttemptSpanLayer`].
#[derive(Clone, Debug)]
pub struct AttemptSpans<S, P = HttpClient> {
    inner: S,
    telemetry: Option<Arc<Telemetry>>,
    protocol: P,
}

fn span<B>(req: &Request<B>, attempt: u32, trace: &TraceContext) -> Span {
    tracing::debug_span!(
        target: TARGET,
        "attempt",
        http.request.method = req.method().as_str(),
        url.path = req.uri().path(),
        server.address = req.uri().host(),
        server.port = req.uri().port_u16(),
        http.request.resend_count = (attempt > 0).then_some(attempt),
        trace_id = %format_args!("{:032x}", trace.trace_id()),
        span_id = %format_args!("{:016x}", trace.span_id()),
        http.response.status_code = Empty,
        rpc.grpc.status_code = Empty,
        error.type = Empty,
        outcome = Empty,
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
        let span = span(&req, attempt, &trace);
        let call = self.protocol.start(&req);
        let permit = SpanPermit::new(measured, &span, None);
        let inner = span.in_scope(|| self.inner.call(req));
        SpanFuture::new(inner, permit, call, span)
    }
}
