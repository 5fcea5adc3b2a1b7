use super::{AccessLog, Measured, SpanFuture, SpanPermit, Telemetry, TraceContext, access::Line, span::TARGET};
use crate::Speak;
use buttress_core::{Call, Handle, NoCut, Protocol, Value, http::HttpServer};
use http::Request;
use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Span, field::Empty};

/// What the services of a [`RequestSpanLayer`] share, and its handle.
pub struct RequestSpans {
    route: Cow<'static, str>,
    name: Cow<'static, str>,
    incoming: bool,
    access: AtomicU8,
}

impl RequestSpans {
    /// The label `http.route`; empty where there is none.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// What access records say besides; empty where they say nothing.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of which calls an access record is shown.
    pub fn access(&self) -> AccessLog {
        AccessLog::ALL.get(usize::from(self.access.load(Relaxed))).copied().unwrap_or_default()
    }

    /// Changes that while it runs. Calls that began while it was off have no record.
    pub fn set_access(&self, access: AccessLog) {
        self.access.store(access as u8, Relaxed);
    }

    fn span(&self, method: &str, path: &str, trace: &TraceContext, parent: Option<&TraceContext>) -> Span {
        tracing::debug_span!(
            target: TARGET,
            "request",
            http.request.method = method,
            url.path = path,
            http.route = (!self.route.is_empty()).then_some(&*self.route),
            trace_id = %format_args!("{:032x}", trace.trace_id()),
            span_id = %format_args!("{:016x}", trace.span_id()),
            parent_span_id = parent.map(|parent| tracing::field::display(format!("{:016x}", parent.span_id()))),
            http.response.status_code = Empty,
            rpc.grpc.status_code = Empty,
            error.type = Empty,
            outcome = Empty,
            degraded = Empty,
        )
    }
}

impl Clone for RequestSpans {
    fn clone(&self) -> Self {
        let (route, name) = (self.route.clone(), self.name.clone());
        Self { route, name, incoming: self.incoming, access: AtomicU8::new(self.access() as u8) }
    }
}

impl Handle for RequestSpans {
    fn kind(&self) -> &'static str {
        "request_span"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        show("access", Value::State(self.access().as_str(), &["off", "failed", "all"]));
    }
}

impl fmt::Debug for RequestSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSpans")
            .field("route", &self.route())
            .field("access", &self.access())
            .finish_non_exhaustive()
    }
}

/// Opens a span for each request that comes in, and shows its access record. It never refuses; it stands outermost, or just
/// inside of the telemetry layer.
///
/// The caller's [`TraceContext`] is taken over, or one begins; either way a span id of this call's own, and the request carries it
/// among its extensions from here on, whether a subscriber wants the span or not. The span is entered whenever the
/// call's future is polled; it closes at the end of the response body, whose polls it does not enter.
#[derive(Clone, Debug)]
pub struct RequestSpanLayer<P = HttpServer> {
    spans: Arc<RequestSpans>,
    telemetry: Option<Arc<Telemetry>>,
    protocol: P,
}

impl RequestSpanLayer {
    /// Without a route, without access records.
    pub fn new() -> Self {
        let spans = RequestSpans {
            route: Cow::Borrowed(""),
            name: Cow::Borrowed(""),
            incoming: true,
            access: AtomicU8::new(0),
        };
        Self { spans: Arc::new(spans), telemetry: None, protocol: HttpServer::new() }
    }
}

impl Default for RequestSpanLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> RequestSpanLayer<P> {
    /// Sets the label `http.route`: the route's template.
    #[must_use]
    pub fn route(mut self, route: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.spans).route = route.into();
        self
    }

    /// Sets what access records say besides, where several routes have one template: a name.
    #[must_use]
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.spans).name = name.into();
        self
    }

    /// Shows access records. Default: [`AccessLog::Off`].
    #[must_use]
    pub fn access(mut self, access: AccessLog) -> Self {
        Arc::make_mut(&mut self.spans).set_access(access);
        self
    }

    /// Begins a new trace for each request, whatever its headers say: for requests of strangers.
    #[must_use]
    pub fn new_traces(mut self) -> Self {
        Arc::make_mut(&mut self.spans).incoming = false;
        self
    }

    /// Measures the calls besides, as a [`TelemetryLayer`](super::TelemetryLayer) around it would; one layer costs less than two.
    #[must_use]
    pub fn telemetry(mut self, telemetry: Arc<Telemetry>) -> Self {
        self.telemetry = Some(telemetry);
        self
    }

    /// What its services share. [`route`](Self::route), [`access`](Self::access) and [`new_traces`](Self::new_traces) leave it as it
    /// is, and make another.
    pub fn handle(&self) -> Arc<RequestSpans> {
        self.spans.clone()
    }

    /// Speaks another protocol of HTTP.
    pub fn protocol<Q>(self, protocol: Q) -> RequestSpanLayer<Q> {
        RequestSpanLayer { spans: self.spans, telemetry: self.telemetry, protocol }
    }
}

impl<P> Speak<P> for RequestSpanLayer {
    type Layer = RequestSpanLayer<P>;

    fn speak(self, protocol: P) -> Self::Layer {
        self.protocol(protocol)
    }
    fn watch(&self) -> Option<Arc<dyn Handle>> {
        Some(self.handle())
    }
}

impl<S, P: Clone> Layer<S> for RequestSpanLayer<P> {
    type Service = RequestSpan<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        let (spans, telemetry) = (self.spans.clone(), self.telemetry.clone());
        RequestSpan { inner, spans, telemetry, protocol: self.protocol.clone() }
    }
}

/// The service of [`RequestSpanLayer`].
#[derive(Clone, Debug)]
pub struct RequestSpan<S, P = HttpServer> {
    inner: S,
    spans: Arc<RequestSpans>,
    telemetry: Option<Arc<Telemetry>>,
    protocol: P,
}

impl<S, P, B> Service<Request<B>> for RequestSpan<S, P>
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
        let parent = self.spans.incoming.then(|| TraceContext::read(req.headers())).flatten();
        let trace = parent.as_ref().map_or_else(TraceContext::new, TraceContext::child);
        let span = self.spans.span(req.method().as_str(), req.uri().path(), &trace, parent.as_ref());
        let record = Line::begin(&self.spans, &mut req, trace.trace_id());
        trace.put(req.extensions_mut());
        let call = self.protocol.start(&req);
        let permit = SpanPermit::new(measured, &span, record);
        let inner = span.in_scope(|| self.inner.call(req));
        SpanFuture::new(inner, permit, call, span)
    }
}
