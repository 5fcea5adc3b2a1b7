//! `RateLimit-Policy` and `RateLimit`: [draft-ietf-httpapi-ratelimit-headers-11](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/).

use super::{KeyedRateLimit, RateLimit, RateLimitConfig};
use buttress_core::{Clock, ConfigError, KeyedEntry, TokioClock};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    hash::Hash,
    io::Write,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// Tells clients how much of a rate limit is left to them, on every response, refusals included.
///
/// It stands outside of the limit's own layer and reads what is left when the response comes. It decides nothing.
///
/// ```
/// use buttress_core::http::HttpServer;
/// use buttress_shed::rate::{RateLimitConfig, RateLimitHeadersLayer};
/// # use std::convert::Infallible;
/// # use tower::{Layer, ServiceExt, service_fn};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let handler = service_fn(|_: http::Request<String>| async { Ok::<_, Infallible>(http::Response::new(String::new())) });
///
/// let limit = RateLimitConfig::per_minute(60).layer()?.protocol(HttpServer::new());
/// let service = RateLimitHeadersLayer::new(limit.handle()).layer(limit.layer(handler));
///
/// let response = service.oneshot(http::Request::new(String::new())).await?;
/// assert_eq!(response.headers()["ratelimit-policy"], "\"default\";q=60;w=60");
/// assert_eq!(response.headers()["ratelimit"], "\"default\";r=59;t=59");
/// # Ok(()) }
/// ```
///
/// # What it says
///
/// * `RateLimit-Policy: "default";q=60;w=60`: 60 calls (`q`) in 60 seconds (`w`). The window is the time in which the bucket fills, in whole seconds,
///   and the quota what comes anew in it: so a client that keeps to it keeps to the rate.
/// * `RateLimit: "default";r=59;t=59`: 59 calls are left (`r`), and come anew in 59 seconds (`t`): a client that spreads them over that time is never
///   refused. With none left, `t` is when the next one comes, which is what `Retry-After` says or earlier.
///
/// They are lists: several limits around one service each add their own item, so give each its [`name`](Self::name). It says to a stranger how much the
/// service takes; where that is a secret, leave it away.
///
/// While an operator keeps everybody out, or lets everybody in ([`Mode`](buttress_core::Mode)), nothing is said: nobody knows until when.
///
/// The policy's value is shared by all responses, until an update changes it; the other one is an allocation, and so is that of a policy that came later.
pub struct RateLimitHeadersLayer<A> {
    limit: Arc<A>,
    words: Arc<Words>,
}

struct Words {
    /// What goes in front of the parameters.
    name: String,
    /// The first policy that was written, and its value. One of another key's rate, or of an update, is written anew each time: no response waits for
    /// another.
    policy: OnceLock<(u64, HeaderValue)>,
}

impl<A> RateLimitHeadersLayer<A> {
    /// Reads `limit`: the handle of a [`RateLimitLayer`](super::RateLimitLayer), or of a [`KeyedRateLimitLayer`](super::KeyedRateLimitLayer). The policy's name is
    /// `default`.
    pub fn new(limit: Arc<A>) -> Self {
        Self { limit, words: Arc::new(Words::new("default")) }
    }

    /// Calls the policy `name`.
    ///
    /// # Errors
    ///
    /// A name that is empty, has more than 64 characters, or one that is no printable ASCII or is a quote or a backslash.
    pub fn name(self, name: &str) -> Result<Self, ConfigError> {
        let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(ConfigError::new(
                "name",
                name,
                "1 to 64 printable ASCII characters without quotes and backslashes",
            ));
        }
        Ok(Self { words: Arc::new(Words::new(name)), ..self })
    }

    /// Adds what is left of `limit`, one of those it reads, to `headers`: for whoever answers where no layer can stand.
    pub fn write(&self, limit: &RateLimit, headers: &mut HeaderMap) {
        self.words.write(limit, headers, &TokioClock);
    }
}

impl<A> Clone for RateLimitHeadersLayer<A> {
    fn clone(&self) -> Self {
        Self { limit: self.limit.clone(), words: self.words.clone() }
    }
}

impl<A> fmt::Debug for RateLimitHeadersLayer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitHeadersLayer").field("name", &self.words.name).finish_non_exhaustive()
    }
}

impl<S, A> Layer<S> for RateLimitHeadersLayer<A> {
    type Service = RateLimitHeaders<S, A>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitHeaders { inner, limit: self.limit.clone(), words: self.words.clone() }
    }
}

/// The service of [`RateLimitHeadersLayer`].
pub struct RateLimitHeaders<S, A> {
    inner: S,
    limit: Arc<A>,
    words: Arc<Words>,
}

impl<S: Clone, A> Clone for RateLimitHeaders<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), limit: self.limit.clone(), words: self.words.clone() }
    }
}

impl<S: fmt::Debug, A> fmt::Debug for RateLimitHeaders<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitHeaders").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, A, B, R> Service<Request<B>> for RateLimitHeaders<S, A>
where
    S: Service<Request<B>, Response = Response<R>>,
    A: HasRateLimit<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RateLimitHeadersFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Request<B>) -> Self::Future {
        let limit = A::limit_of(&self.limit, &req);
        RateLimitHeadersFuture { inner: self.inner.call(req), limit, words: self.words.clone() }
    }
}

pin_project! {
    /// The future of [`RateLimitHeaders`].
    pub struct RateLimitHeadersFuture<F> {
        #[pin]
        inner: F,
        // `None`: no number holds while an operator lets everybody pass, or nobody.
        limit: Option<Limit>,
        words: Arc<Words>,
    }
}

impl<F, R, E> Future for RateLimitHeadersFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map_ok(|mut res| {
            if let Some(limit) = this.limit {
                this.words.write(limit.get(), res.headers_mut(), &TokioClock);
            }
            res
        })
    }
}

impl<F> fmt::Debug for RateLimitHeadersFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitHeadersFuture").finish_non_exhaustive()
    }
}

/// What has a rate limit for each request: a [`RateLimit`], or a table of them. Sealed.
pub trait HasRateLimit<Req>: sealed::Sealed + Send + Sync + 'static {
    #[doc(hidden)]
    fn limit_of(this: &Arc<Self>, req: &Req) -> Option<Limit>;
}

/// The rate limit of one request; of a table it is held, so that it is still there when the response comes.
#[doc(hidden)]
#[derive(Debug)]
pub enum Limit {
    One(Arc<RateLimit>),
    Keyed(Arc<KeyedEntry<RateLimit>>),
}

impl Limit {
    fn get(&self) -> &RateLimit {
        match self {
            Self::One(limit) => limit,
            Self::Keyed(entry) => entry,
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::RateLimit {}
    impl<K, F> Sealed for super::KeyedRateLimit<K, F> {}
}

impl<Req> HasRateLimit<Req> for RateLimit {
    fn limit_of(this: &Arc<Self>, _: &Req) -> Option<Limit> {
        Some(Limit::One(this.clone()))
    }
}

impl<K, F, Req> HasRateLimit<Req> for KeyedRateLimit<K, F>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    F: Fn(&Req) -> K + Send + Sync + 'static,
{
    fn limit_of(this: &Arc<Self>, req: &Req) -> Option<Limit> {
        this.limit_of(req).entry().cloned().map(Limit::Keyed)
    }
}

const SECOND: u128 = 1_000_000_000;

impl Words {
    fn new(name: &str) -> Self {
        Self { name: format!("\"{name}\""), policy: OnceLock::new() }
    }

    /// Adds both to `headers`.
    fn write(&self, limit: &RateLimit, headers: &mut HeaderMap, clock: &impl Clock) {
        let Some(policy) = limit.policy() else { return };
        if let Some(policy) = self.policy(policy) {
            headers.append(POLICY, policy);
        }
        let quota = limit.quota_at(clock);
        let (left, none) = (quota.remaining, quota.remaining == 0);
        // A permit takes up to a sixteenth of a nanosecond longer than the config says: 60 of one second each are 60 seconds.
        let nanos =
            if none { quota.next.as_nanos() } else { limit.time_of(left).as_nanos().saturating_sub(left.into()) };
        if let Some(value) = self.value([("r", left.into()), ("t", nanos.div_ceil(SECOND).max(1))]) {
            headers.append(LEFT, value);
        }
    }

    fn policy(&self, policy: u64) -> Option<HeaderValue> {
        let write = || self.value([("q", u128::from(policy & QUOTA)), ("w", u128::from(policy >> QUOTA_BITS))]);
        match self.policy.get() {
            Some((of, value)) if *of == policy => Some(value.clone()),
            Some(_) => write(),
            None => {
                let value = write()?;
                // Somebody else's may come first.
                let _ = self.policy.set((policy, value.clone()));
                Some(value)
            }
        }
    }

    /// `"default";r=59;t=59`, which always fits.
    fn value(&self, parameters: [(&str, u128); 2]) -> Option<HeaderValue> {
        let mut text = [0; 128];
        let mut rest = &mut text[..];
        let [(a, a_is), (b, b_is)] = parameters;
        write!(rest, "{};{a}={a_is};{b}={b_is}", self.name).ok()?;
        let length = 128 - rest.len();
        HeaderValue::from_bytes(&text[..length]).ok()
    }
}

const QUOTA_BITS: u32 = 36;
const QUOTA: u64 = (1 << QUOTA_BITS) - 1;

/// The time in which a bucket fills, in whole seconds, and the permits that come in it: `[ seconds 28 | permits 36 ]`. A year of seconds has 25 bits; the
/// permits are less than the burst and those of one second, which have 33.
pub(super) fn policy(config: &RateLimitConfig) -> u64 {
    let (permits, period) = (u128::from(config.permits), config.period.as_nanos());
    let burst = u128::from(config.burst.unwrap_or(config.permits));
    let window = (burst * period).div_ceil(permits * SECOND).max(1);
    let quota = window * SECOND * permits / period;
    (window << QUOTA_BITS | quota.min(QUOTA.into())) as u64
}
