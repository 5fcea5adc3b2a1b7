//! The rate limits of a route: one for each client or tenant, in a bounded table.

use crate::{
    clients::network,
    config::{self, RateKey},
};
use buttress::{
    ConfigError, Context, Handle, Mode, RateLimit, Rejection, Value,
    core::KeyedEntry,
    shed::rate::{KeyedRateLimit, LimitOf, RateLimitHeadersLayer},
};
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

type KeyOf = Box<dyn Fn(&Request<Incoming>) -> u64 + Send + Sync>;
type Limits = KeyedRateLimit<u64, KeyOf>;

/// What is left to the client of a request, to be told in its answer.
pub(crate) struct Told<'a>(&'a RateLimitHeadersLayer<Limits>, Arc<KeyedEntry<RateLimit>>);

impl Told<'_> {
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        self.0.write(&self.1, headers);
    }
}

/// The limit of a request. Held, it keeps its place in the table.
pub(crate) struct Quota<'a> {
    limit: LimitOf<'a, u64, KeyOf>,
    words: Option<&'a RateLimitHeadersLayer<Limits>>,
}

impl<'a> Quota<'a> {
    /// Whether the request passes; it has a permit then.
    pub(crate) fn check(self) -> Result<(), Rejection> {
        self.limit.check()
    }

    /// What is to be told to the client, if anything is: no number holds while an operator lets everybody pass, or nobody.
    pub(crate) fn told(&self) -> Option<Told<'a>> {
        Some(Told(self.words?, self.limit.entry()?.clone()))
    }
}

/// Who has which limit, and what became of those who wanted more.
pub(crate) struct Quotas {
    limits: Arc<Limits>,
    /// Where clients are told.
    words: Option<RateLimitHeadersLayer<Limits>>,
}

impl Quotas {
    /// Those of the route at `scope`.
    pub(crate) fn new(config: &config::RateLimit, scope: &str) -> Result<Self, ConfigError> {
        let limits = Arc::new(config.config(scope).keyed(config.table(), key(config.by.clone()))?);
        Ok(Self { words: config.headers.then(|| RateLimitHeadersLayer::new(limits.clone())), limits })
    }

    /// The limit of `req`, looked up once.
    pub(crate) fn of(&self, req: &Request<Incoming>) -> Quota<'_> {
        Quota { limit: self.limits.limit_of(req), words: self.words.as_ref() }
    }
}

/// A hash of whom a request is from, which nobody outside can foresee: however long a header is, a key is eight bytes.
fn key(by: RateKey) -> KeyOf {
    let hasher = RandomState::new();
    let client =
        |req: &Request<Incoming>| Context::of(req.extensions()).and_then(|context| context.client).map(network);
    match by {
        RateKey::Route => Box::new(|_| 0),
        RateKey::Client => Box::new(move |req| hasher.hash_one(client(req))),
        RateKey::Header(name) => Box::new(move |req| match req.headers().get(&name) {
            Some(tenant) => hasher.hash_one(tenant.as_bytes()),
            None => hasher.hash_one(client(req)),
        }),
    }
}

impl Handle for Quotas {
    fn kind(&self) -> &'static str {
        self.limits.kind()
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        self.limits.visit(show);
    }

    fn mode(&self) -> Mode {
        self.limits.mode()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.limits.set_mode(mode)
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("limits", &self.limits).finish_non_exhaustive()
    }
}
