use super::{End, RequestSpans};
use buttress_core::{Attempts, Clock, Context, Degraded, Priority, Rejection, TokioClock};
use http::{HeaderValue, Method, Request, Uri, header};
use std::{
    net::IpAddr,
    sync::Arc,
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
    /// Of all that did not end well, every [`End`] but [`End::Success`], and of degraded answers.
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

    fn wants(self, ended: &Ended) -> bool {
        match self {
            Self::Off => false,
            Self::Failed => ended.end != End::Success || ended.degraded.is_some(),
            Self::All => true,
        }
    }
}

/// What one call collects for its line in the access log.
pub(super) struct Line {
    spans: Arc<RequestSpans>,
    client: Option<IpAddr>,
    priority: Priority,
    method: Method,
    host: Option<HeaderValue>,
    uri: Uri,
    trace: u128,
    began: Instant,
    attempts: Attempts,
}

/// How it went.
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) status: Option<u16>,
    pub(super) grpc: Option<u8>,
    pub(super) rejection: Option<Rejection>,
    pub(super) degraded: Option<Degraded>,
    pub(super) head: Option<Duration>,
}

impl Line {
    /// One for a call that begins now, if anybody wants it.
    pub(super) fn begin<B>(spans: &Arc<RequestSpans>, req: &mut Request<B>, trace: u128) -> Option<Box<Self>> {
        if spans.access() == AccessLog::Off || !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return None;
        }
        let (method, uri) = (req.method().clone(), req.uri().clone());
        let host = req.headers().get(header::HOST).cloned();
        let context = Context::of_mut(req.extensions_mut());
        let (client, priority) = (context.client, context.priority);
        let attempts = context.attempts.get_or_insert_default().clone();
        Some(Box::new(Self {
            spans: spans.clone(),
            client,
            priority,
            method,
            host,
            uri,
            trace,
            began: TokioClock.now(),
            attempts,
        }))
    }

    pub(super) fn age(&self) -> Duration {
        TokioClock.now().saturating_duration_since(self.began)
    }

    /// Shows it, if the setting of this moment wants it.
    pub(super) fn show(&self, ended: &Ended) {
        if !self.spans.access().wants(ended) {
            return;
        }
        let (name, route) = (self.spans.name(), self.spans.route());
        tracing::info!(
            target: TARGET,
            client = self.client.map(tracing::field::display),
            method = self.method.as_str(),
            host = self.uri.host().or_else(|| self.host.as_ref()?.to_str().ok()),
            path = self.uri.path(),
            name = (!name.is_empty()).then_some(name),
            route = (!route.is_empty()).then_some(route),
            priority = self.priority.as_str(),
            status = ended.status,
            grpc_code = ended.grpc,
            outcome = ended.end.as_str(),
            reason = ended.rejection.map(|rejection| rejection.reason.as_str()),
            layer = ended.rejection.map(|rejection| rejection.layer),
            degraded = ended.degraded.map(|degraded| degraded.by.as_str()),
            cause = ended.degraded.map(|degraded| degraded.cause.as_str()),
            head_seconds = ended.head.map(|head| head.as_secs_f64()),
            seconds = self.age().as_secs_f64(),
            attempts = self.attempts.get(),
            trace_id = %format_args!("{:032x}", self.trace),
        );
    }
}
