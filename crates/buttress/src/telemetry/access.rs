use super::{End, RequestSpans, TraceContext};
use buttress_core::{Clock, Rejection, TokioClock};
use http::{Extensions, Method, Uri};
use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// The target of the events.
const TARGET: &str = "access";

/// Of which calls a record is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum AccessLog {
    /// Of none.
    #[default]
    Off,
    /// Of all that did not end well: every [`End`] but [`End::Success`].
    Failed,
    /// Of all.
    All,
}

impl AccessLog {
    /// Every setting, in the order of their discriminants.
    pub const ALL: [AccessLog; 3] = [Self::Off, Self::Failed, Self::All];

    /// The name in configs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Failed => "failed",
            Self::All => "all",
        }
    }

    fn wants(self, end: End) -> bool {
        match self {
            Self::Off => false,
            Self::Failed => end != End::Success,
            Self::All => true,
        }
    }
}

/// What one call collects for its line in the access log, among its request's extensions. Clones share it.
///
/// An [`AttemptSpanLayer`](super::AttemptSpanLayer) counts the attempts in it; who has no such layer does so by
/// [`attempt`](Self::attempt).
#[derive(Clone)]
pub struct AccessRecord(Arc<Line>);

struct Line {
    spans: Arc<RequestSpans>,
    method: Method,
    uri: Uri,
    trace: u128,
    began: Instant,
    attempts: AtomicU32,
    client: OnceLock<IpAddr>,
}

/// How it went.
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) status: Option<u16>,
    pub(super) grpc: Option<u8>,
    pub(super) rejection: Option<Rejection>,
    pub(super) head: Option<Duration>,
}

impl AccessRecord {
    /// One for a call that begins now, if anybody wants it.
    pub(super) fn begin(spans: &Arc<RequestSpans>, method: &Method, uri: &Uri, trace: &TraceContext) -> Option<Self> {
        if spans.access() == AccessLog::Off || !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return None;
        }
        Some(Self(Arc::new(Line {
            spans: spans.clone(),
            method: method.clone(),
            uri: uri.clone(),
            trace: trace.trace_id(),
            began: TokioClock.now(),
            attempts: AtomicU32::new(0),
            client: OnceLock::new(),
        })))
    }

    /// The record among a request's extensions.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// Counts an attempt to send the request on.
    pub fn attempt(&self) {
        self.0.attempts.fetch_add(1, Relaxed);
    }

    /// Says whom the request is from: only who knows which proxies to believe knows that. The first word counts.
    pub fn client(&self, address: IpAddr) {
        let _ = self.0.client.set(address);
    }

    pub(super) fn age(&self) -> Duration {
        TokioClock.now().saturating_duration_since(self.0.began)
    }

    /// Shows it, if the setting of this moment wants it.
    pub(super) fn show(&self, ended: &Ended) {
        let line = &*self.0;
        if !line.spans.access().wants(ended.end) {
            return;
        }
        let route = line.spans.route();
        tracing::info!(
            target: TARGET,
            client = line.client.get().map(tracing::field::display),
            method = line.method.as_str(),
            path = line.uri.path(),
            route = (!route.is_empty()).then_some(route),
            status = ended.status,
            grpc_code = ended.grpc,
            outcome = ended.end.as_str(),
            reason = ended.rejection.map(|rejection| rejection.reason.as_str()),
            layer = ended.rejection.map(|rejection| rejection.layer),
            head_seconds = ended.head.map(|head| head.as_secs_f64()),
            seconds = self.age().as_secs_f64(),
            attempts = line.attempts.load(Relaxed),
            trace_id = %format_args!("{:032x}", line.trace),
        );
    }
}

impl fmt::Debug for AccessRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = &*self.0;
        f.debug_struct("AccessRecord")
            .field("method", &line.method)
            .field("path", &line.uri.path())
            .finish_non_exhaustive()
    }
}
