//! Spans, the context that travels, and access records, as a subscriber sees them.
#![cfg(all(feature = "telemetry", feature = "http", feature = "retry", feature = "bulkhead"))]

use buttress::{
    Error,
    http::HttpServer,
    prelude::*,
    telemetry::{AccessLog, AttemptSpanLayer, RequestSpanLayer, TraceContext},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Debug,
    sync::{Arc, Mutex, atomic::AtomicU32, atomic::Ordering::SeqCst},
    time::Duration,
};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

type Fields = BTreeMap<String, String>;

#[derive(Clone, Debug, Default)]
struct Shown {
    name: String,
    fields: Fields,
    parent: Option<String>,
    closed: bool,
    entered: u32,
}

/// Keeps all it is shown.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<BTreeMap<u64, Shown>>>, Arc<Mutex<Vec<Shown>>>);

struct Write<'a>(&'a mut Fields);

impl Visit for Write<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut shown = Shown { name: attributes.metadata().name().to_owned(), ..Shown::default() };
        attributes.record(&mut Write(&mut shown.fields));
        shown.parent = cx.span(id).and_then(|span| span.parent()).map(|parent| parent.name().to_owned());
        // A registry uses the ids of closed spans again.
        let mut spans = self.0.lock().unwrap();
        if let Some(earlier) = spans.remove(&id.into_u64()) {
            let free = u64::MAX - spans.len() as u64;
            spans.insert(free, earlier);
        }
        spans.insert(id.into_u64(), shown);
    }
    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        values.record(&mut Write(&mut self.0.lock().unwrap().get_mut(&id.into_u64()).unwrap().fields));
    }
    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        self.0.lock().unwrap().get_mut(&id.into_u64()).unwrap().entered += 1;
    }
    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.0.lock().unwrap().get_mut(&id.into_u64()).unwrap().closed = true;
    }
    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut shown = Shown { name: event.metadata().target().to_owned(), ..Shown::default() };
        event.record(&mut Write(&mut shown.fields));
        shown.parent = cx.event_span(event).map(|span| span.name().to_owned());
        self.1.lock().unwrap().push(shown);
    }
}

impl Log {
    fn here() -> (Self, DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
        (log, guard)
    }

    fn spans(&self, name: &str) -> Vec<Shown> {
        self.0.lock().unwrap().values().filter(|shown| shown.name == name).cloned().collect()
    }

    fn span(&self, name: &str) -> Shown {
        let [span] = self.spans(name).try_into().expect("one span");
        span
    }

    /// The access records, which are taken.
    fn records(&self) -> Vec<Fields> {
        let events = std::mem::take(&mut *self.1.lock().unwrap());
        events.into_iter().filter(|event| event.name == "access").map(|event| event.fields).collect()
    }
}

fn get<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name).map(String::as_str)
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("traceparent", PARENT).header("tracestate", "a=1,b=2").body(Full::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_has_a_span_that_knows_where_it_belongs_and_how_it_went() {
    let (log, _guard) = Log::here();
    let inner = service_fn(async |req: Request<Full<Bytes>>| {
        let trace = TraceContext::of(req.extensions()).unwrap().clone();
        // Elsewhere first: the span is entered again whenever the call is polled.
        tokio::time::sleep(Duration::from_millis(5)).await;
        tracing::info!("inside");
        let mut response = Response::new(Full::<Bytes>::from(trace.to_string()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        Ok::<_, Infallible>(response)
    });
    let service = RequestSpanLayer::new().route("/users/{id}").layer(inner);
    let response = tokio::spawn(service.oneshot(request("/users/7?token=secret"))).await.unwrap().unwrap();
    let open = log.span("request");
    assert!(!open.closed && open.entered >= 2, "{open:?}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let span = log.span("request");
    assert!(span.closed);
    for (field, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/users/7"),
        ("http.route", "/users/{id}"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("parent_span_id", "b7ad6b7169203331"),
        ("http.response.status_code", "502"),
        ("error.type", "502"),
        ("outcome", "failure"),
    ] {
        assert_eq!(get(&span.fields, field), Some(value), "{field}");
    }
    let inside = log.1.lock().unwrap().iter().find(|event| event.fields.contains_key("message")).cloned().unwrap();
    assert_eq!(inside.parent.as_deref(), Some("request"));
    let id = get(&span.fields, "span_id").unwrap();
    assert_eq!(body, format!("00-0af7651916cd43dd8448eb211c80319c-{id}-01"), "what the request carries");
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_a_span_id_of_its_own_in_its_headers_and_the_state_as_it_came() {
    let (log, _guard) = Log::here();
    let seen: Arc<Mutex<Vec<TraceContext>>> = Arc::default();
    let calls = AtomicU32::new(0);
    let record = Arc::clone(&seen);
    let transport = Arc::new(move |req: &Request<_>| {
        record.lock().unwrap().push(TraceContext::read(req.headers()).unwrap());
        let status = if calls.fetch_add(1, SeqCst) == 0 { 503 } else { 200 };
        Response::builder().status(status).body(Full::<Bytes>::default()).unwrap()
    });
    let transport = service_fn(move |req: Request<buttress::http::ReplayBody<Full<Bytes>>>| {
        let response = transport(&req);
        async move { Ok::<_, Infallible>(response) }
    });
    let retry = RetryConfig::default().build().unwrap();
    let service = ServiceBuilder::new()
        .http_server()
        .with(RequestSpanLayer::new().access(AccessLog::All))
        .retry(retry)
        .with(AttemptSpanLayer::new())
        .service(transport);
    let response = service.oneshot(request("/")).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();

    let [first, second] = seen.lock().unwrap().clone().try_into().unwrap();
    let trace = TraceContext::parse(PARENT.as_bytes()).unwrap().trace_id();
    assert_eq!((first.trace_id(), second.trace_id()), (trace, trace));
    assert_ne!(first.span_id(), second.span_id());
    assert!(first.state().is_some_and(|state| state == "a=1,b=2") && second.state() == first.state());

    let attempts = log.spans("attempt");
    let ids = |traces: &[&TraceContext]| {
        let mut ids: Vec<_> = traces.iter().map(|trace| format!("{:016x}", trace.span_id())).collect();
        ids.sort();
        ids
    };
    let mut shown: Vec<_> = attempts.iter().map(|span| get(&span.fields, "span_id").unwrap().to_owned()).collect();
    shown.sort();
    assert_eq!(shown, ids(&[&first, &second]));
    assert!(attempts.iter().all(|span| span.closed && span.parent.as_deref() == Some("request")), "{attempts:?}");
    let again = attempts.iter().find(|span| get(&span.fields, "http.request.resend_count") == Some("1")).unwrap();
    assert_eq!(get(&again.fields, "http.response.status_code"), Some("200"));
    assert_eq!(get(&log.records()[0], "attempts"), Some("2"));
}

#[tokio::test]
async fn an_attempt_says_which_server_it_goes_to() {
    let inner =
        service_fn(async |_: Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
    for (layer, address, port) in [
        (AttemptSpanLayer::new(), "a.test", Some("81")),
        (AttemptSpanLayer::new().server("10.0.0.1", 8080), "10.0.0.1", Some("8080")),
        (AttemptSpanLayer::new().server("b.test", None), "b.test", None),
    ] {
        let (log, _guard) = Log::here();
        layer.protocol(HttpServer::new()).layer(inner).oneshot(request("http://a.test:81/")).await.unwrap();
        let fields = log.span("attempt").fields;
        assert_eq!((get(&fields, "server.address"), get(&fields, "server.port")), (Some(address), port));
    }
}

#[tokio::test]
async fn without_a_subscriber_the_context_is_passed_on_all_the_same() {
    let inner = service_fn(async |req: Request<Full<Bytes>>| {
        let context = buttress::Context::of(req.extensions()).unwrap();
        assert!(context.attempts.is_none() && tracing::Span::current().is_none());
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(req.headers()["traceparent"].as_bytes().to_vec())))
    });
    let layers = ServiceBuilder::new()
        .http_server()
        .with(RequestSpanLayer::new().access(AccessLog::All))
        .with(AttemptSpanLayer::new());
    let service = layers.service(inner);
    let ask = async |req| service.clone().oneshot(req).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let passed_on = TraceContext::parse(&ask(request("/")).await).unwrap();
    let parent = TraceContext::parse(PARENT.as_bytes()).unwrap();
    assert_eq!(passed_on.trace_id(), parent.trace_id());
    assert_ne!(passed_on.span_id(), parent.span_id());
    let begun = TraceContext::parse(&ask(Request::new(Full::default())).await).unwrap();
    assert_ne!(begun.trace_id(), parent.trace_id());
}

#[tokio::test]
async fn a_stranger_does_not_choose_the_trace() {
    let inner = service_fn(async |req: Request<Full<Bytes>>| {
        let trace = TraceContext::of(req.extensions()).unwrap();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(trace.to_string())))
    });
    let service = RequestSpanLayer::new().new_traces().layer(inner);
    let body = service.oneshot(request("/")).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_ne!(TraceContext::parse(&body).unwrap().trace_id(), 0x0af7651916cd43dd8448eb211c80319c);
}

#[tokio::test(start_paused = true)]
async fn an_access_record_tells_all_of_a_call_at_its_real_end() {
    let (log, _guard) = Log::here();
    let inner = service_fn(async |_: Request<Full<Bytes>>| {
        tokio::time::sleep(Duration::from_millis(250)).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
    });
    let service = RequestSpanLayer::new().route("/users/{id}").access(AccessLog::All).layer(inner);
    let response = service.oneshot(request("/users/7?token=secret")).await.unwrap();
    assert!(log.records().is_empty(), "its body is not over");
    tokio::time::sleep(Duration::from_millis(250)).await;
    response.into_body().collect().await.unwrap();
    let [record] = log.records().try_into().unwrap();
    for (field, value) in [
        ("method", "GET"),
        ("path", "/users/7"),
        ("route", "/users/{id}"),
        ("priority", "normal"),
        ("status", "200"),
        ("outcome", "success"),
        ("head_seconds", "0.25"),
        ("seconds", "0.5"),
        ("attempts", "0"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
    ] {
        let seen = get(&record, field).unwrap();
        let number = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN);
        let close = || (number(seen) - number(value)).abs() < 0.003;
        assert!(seen == value || close(), "{field}: {seen}");
    }
    assert_eq!((get(&record, "reason"), get(&record, "layer")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn failed_shows_refusals_failures_and_those_who_went_away_and_off_shows_nothing() {
    let (log, _guard) = Log::here();
    let inner = service_fn(async |req: Request<Full<Bytes>>| match req.uri().path() {
        "/hang" => std::future::pending().await,
        path => {
            let status = if path == "/bad" { 500 } else { 200 };
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::from("x")).unwrap())
        }
    });
    let spans = RequestSpanLayer::new().access(AccessLog::Failed);
    let handle = spans.handle();
    let bulkhead = buttress::http::BulkheadLayer::new(8);
    let shut = bulkhead.handle();
    let service = spans.layer(bulkhead.protocol(HttpServer::new()).layer(inner));
    let ask = async |path: &str| {
        let body = service.clone().oneshot(request(path)).await.unwrap().into_body();
        body.collect().await.unwrap();
    };
    ask("/good").await;
    assert!(log.records().is_empty());

    ask("/bad").await;
    let record = log.records().remove(0);
    assert_eq!((get(&record, "outcome"), get(&record, "status")), (Some("failure"), Some("500")));

    shut.set_mode(Mode::ForcedOpen).unwrap();
    ask("/good").await;
    let record = log.records().remove(0);
    let of = ["outcome", "status", "reason", "layer"].map(|field| get(&record, field).unwrap());
    assert_eq!(of, ["ignored", "503", "at_capacity", "bulkhead"]);
    shut.set_mode(Mode::Auto).unwrap();

    let gone = tokio::time::timeout(Duration::from_millis(5), service.clone().oneshot(request("/hang"))).await;
    assert!(gone.is_err());
    drop(service.clone().oneshot(request("/good")).await.unwrap());
    let [before, after] = log.records().try_into().unwrap();
    let of = |record: &Fields| (get(record, "outcome").map(str::to_owned), get(record, "status").map(str::to_owned));
    let gone = |status: Option<&str>| (Some("abandoned".to_owned()), status.map(str::to_owned));
    assert_eq!((of(&before), of(&after)), (gone(None), gone(Some("200"))));

    handle.set_access(AccessLog::Off);
    ask("/bad").await;
    assert!(log.records().is_empty());
}

#[tokio::test]
async fn a_refusal_in_a_client_is_the_type_of_its_error() {
    let (log, _guard) = Log::here();
    let refused = service_fn(async |_: Request<Full<Bytes>>| {
        Err::<Response<Full<Bytes>>, _>(Error::<Infallible>::from(Rejection::new(Reason::ConnectRefused, "pool")))
    });
    AttemptSpanLayer::new().layer(refused).oneshot(Request::new(Full::default())).await.unwrap_err();
    let span = log.span("attempt");
    assert_eq!(
        (get(&span.fields, "error.type"), get(&span.fields, "outcome")),
        (Some("connect_refused"), Some("failure"))
    );
}

#[tokio::test]
async fn a_degraded_answer_is_told_apart_though_all_went_well() {
    use buttress::core::{Cause, Degraded, DegradedBy};
    let (log, _guard) = Log::here();
    let telemetry = std::sync::Arc::new(Telemetry::server());
    let layer = RequestSpanLayer::new().access(AccessLog::Failed).telemetry(telemetry.clone());
    let service = layer.layer(service_fn(async |_: Request<Full<Bytes>>| {
        let mut res = Response::new(Full::from("the last good answer"));
        Degraded::new(DegradedBy::Stale, Cause::Failure).mark(&mut res);
        Ok::<_, Infallible>(res)
    }));
    let Ok(res) = service.oneshot(request("/")).await;
    res.into_body().collect().await.unwrap();
    let [record] = &log.records()[..] else { panic!("a record") };
    assert_eq!((get(record, "degraded"), get(record, "cause")), (Some("stale"), Some("failure")));
    assert_eq!(get(record, "outcome"), Some("success"));
    assert_eq!(get(&log.span("request").fields, "degraded"), Some("stale"));
    let seen = telemetry.snapshot();
    assert_eq!(DegradedBy::ALL.map(|by| seen.degraded(by)), [0, 1, 0, 0]);
}
