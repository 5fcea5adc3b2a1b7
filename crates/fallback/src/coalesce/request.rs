use super::KeyOf;
use buttress_core::Context;
use http::{HeaderName, Request};
use std::{fmt, sync::Arc};

/// The key of HTTP requests: method, URI, [priority](Context::priority) and every header but those that change with every request and nothing else: `traceparent`,
/// `tracestate`, `x-request-id`, `x-correlation-id`, `x-envoy-attempt-count`, `x-envoy-expected-rq-timeout-ms`.
///
/// So requests with other credentials, cookies, conditions, ranges or languages are never the same. What a service knows of its client
/// *beside* the headers (his address, his certificate) is not in it: see [`CoalesceLayer::key`](crate::CoalesceLayer::key).
#[derive(Clone, Copy, Debug, Default)]
pub struct ByRequest;

/// A key of [`ByRequest`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestKey(Arc<[u8]>);

impl fmt::Debug for RequestKey {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestKey").finish_non_exhaustive()
    }
}

const NOISE: [HeaderName; 6] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-correlation-id"),
    HeaderName::from_static("x-envoy-attempt-count"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
];

impl<B> KeyOf<Request<B>, RequestKey> for ByRequest {
    fn key_of(&self, req: &Request<B>) -> Option<RequestKey> {
        let uri = req.uri();
        // A length before every part: no two lists of parts look the same.
        let mut key = Vec::with_capacity(256);
        let mut part = |bytes: &[u8]| {
            key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            key.extend_from_slice(bytes);
        };
        part(req.method().as_str().as_bytes());
        // Who may be shed would else be shed for those who may not.
        let priority = Context::of(req.extensions()).map(|context| context.priority).unwrap_or_default();
        part(priority.as_str().as_bytes());
        part(uri.scheme_str().unwrap_or_default().as_bytes());
        part(uri.authority().map_or("", |authority| authority.as_str()).as_bytes());
        part(uri.path().as_bytes());
        part(uri.query().unwrap_or_default().as_bytes());
        part(&[uri.query().is_some().into()]);
        let mut fields: Vec<_> = req.headers().iter().filter(|(name, _)| !NOISE.contains(name)).collect();
        // Stable: the values of one field stay in their order.
        fields.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        for (name, value) in fields {
            part(name.as_str().as_bytes());
            part(value.as_bytes());
        }
        Some(RequestKey(key.into()))
    }
}
