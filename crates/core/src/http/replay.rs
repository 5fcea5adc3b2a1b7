//! Requests that can be sent again: [`KeptRequest`] makes the attempts, [`ReplayBody`] is their body.

mod body;
mod store;
#[cfg(all(test, not(buttress_loom)))]
mod tests;

use super::Http;
use crate::{BoxError, Context, Lost, Replay};
use ::http::{HeaderMap, HeaderName, HeaderValue, Request, request::Parts};
use body::Reader;
use bytes::Bytes;
use http_body::Body;
use std::fmt;
use store::Store;

pub use body::ReplayBody;

/// How often the request was sent, this time included ([Envoy](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter)).
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// How often the call was sent before ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md)).
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// What is kept of an HTTP request, to send it again: its head, and of its body what was sent of it.
///
/// Dropped, it stops the keeping: what an attempt that is still being sent has read is free at once.
pub struct KeptRequest<B> {
    head: Parts,
    /// Of `head.extensions`, where it is all there is: a map of one is four allocations.
    context: Option<Context>,
    /// `None`: there is no body.
    body: Option<Kept<B>>,
}

impl<B> KeptRequest<B> {
    /// How many bytes of the body are kept now.
    pub fn buffered(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.0.buffered())
    }

    /// Why the request cannot be sent again, as far as is known now. `None`: it can.
    pub fn lost(&self) -> Option<Lost> {
        self.body.as_ref()?.0.lost()
    }

    /// Whether the body was read to its end: there is nothing to come from whoever sends the request.
    pub fn is_sent(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.0.is_over())
    }
}

impl<B> fmt::Debug for KeptRequest<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRequest")
            .field("method", &self.head.method)
            .field("buffered", &self.buffered())
            .field("lost", &self.lost())
            .finish()
    }
}

/// The body of a request that may be sent again.
struct Kept<B>(std::sync::Arc<Store<B>>);

impl<B> Drop for Kept<B> {
    fn drop(&mut self) {
        self.0.keep_no_more();
    }
}

impl<M: Clone, C: Clone, B> Replay<Request<B>> for Http<M, C>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Attempt = Request<ReplayBody<B>>;
    type Kept = KeptRequest<B>;

    #[inline]
    fn once(&self, req: Request<B>) -> Request<ReplayBody<B>> {
        req.map(ReplayBody::own)
    }

    fn record(&self, req: Request<B>, cap: usize) -> (Request<ReplayBody<B>>, KeptRequest<B>) {
        let (sent, body) = req.into_parts();
        let (head, context) = keep(&sent);
        let (body, kept) = if body.is_end_stream() {
            (ReplayBody::own(body), None)
        } else {
            let store = Store::new(body, cap);
            (ReplayBody::shared(Reader::new(&store)), Some(Kept(store)))
        };
        (Request::from_parts(sent, body), KeptRequest { head, context, body: kept })
    }

    fn again(&self, kept: &mut KeptRequest<B>, attempt: u32) -> Option<Request<ReplayBody<B>>> {
        let body = match &kept.body {
            None => ReplayBody::empty(),
            Some(kept) => ReplayBody::shared(Reader::succeed(&kept.0)?),
        };
        let mut head = kept.head.clone();
        if let Some(context) = &kept.context {
            head.extensions.insert(context.clone());
        }
        let before = attempts_before(&head.headers);
        let context = Context::of_mut(&mut head.extensions);
        let before = before.max(context.attempt).saturating_add(attempt);
        context.attempt = before;
        context.priority = context.priority.lowered();
        head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(before.saturating_add(1)));
        if super::is_grpc(&head.headers) {
            head.headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(before));
        }
        Some(Request::from_parts(head, body))
    }

    fn lost(&self, kept: &KeptRequest<B>) -> Option<Lost> {
        kept.lost()
    }

    fn is_sent(&self, kept: &KeptRequest<B>) -> bool {
        kept.is_sent()
    }

    fn tried_before(&self, req: &Request<B>) -> u32 {
        let here = Context::of(req.extensions()).map_or(0, |context| context.attempt);
        if here > 0 { here } else { attempts_before(req.headers()) }
    }
}

/// A head as it is sent, to be sent again.
fn keep(sent: &Parts) -> (Parts, Option<Context>) {
    let context = Context::of(&sent.extensions);
    if context.is_none() || sent.extensions.len() > 1 {
        return (sent.clone(), None);
    }
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = sent.method.clone();
    head.uri = sent.uri.clone();
    head.version = sent.version;
    head.headers = sent.headers.clone();
    (head, context.cloned())
}

/// How often the request was sent before, by its headers: `x-envoy-attempt-count` less one, or
/// `grpc-previous-rpc-attempts`, whichever is more. What is no number says nothing; one that is too large is as large as can be.
pub fn attempts_before(headers: &HeaderMap) -> u32 {
    let read = |name: &HeaderName| {
        let digits = headers.get(name)?.as_bytes();
        // `parse` would take a sign.
        let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        all_digits.then(|| std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX))
    };
    let count = read(&ATTEMPT_COUNT).map_or(0, |count| count.saturating_sub(1));
    count.max(read(&PREVIOUS_ATTEMPTS).unwrap_or(0))
}
