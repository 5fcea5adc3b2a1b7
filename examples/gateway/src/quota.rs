//! The rate limits of a route: one for each client or tenant, in a bounded table.

use crate::{
    clients::network,
    config::{self, RateKey},
};
use buttress::{
    ConfigError, Context, Handle, Keyed, Mode, RateLimit, Reason, Rejection, Value,
    core::{KeyedEntry, ModeCell},
    shed::rate::RateLimitHeadersLayer,
};
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

type KeyOf = Box<dyn Fn(&Request<Incoming>) -> u64 + Send + Sync>;
type Table = Keyed<u64, RateLimit, KeyOf>;

/// What is left to the client of a request, to be told in its answer.
pub(crate) struct Told<'a>(&'a RateLimitHeadersLayer<Table>, Arc<KeyedEntry<RateLimit>>);

impl Told<'_> {
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        self.0.write(&self.1, headers);
    }
}

/// The limit of a request. Held, it keeps its place in the table.
pub(crate) struct Quota<'a> {
    all: &'a Quotas,
    /// `None`: an operator lets everybody pass, or nobody.
    limit: Option<Arc<KeyedEntry<RateLimit>>>,
}

impl<'a> Quota<'a> {
    /// Whether the request passes; it has a permit then.
    pub(crate) fn check(self) -> Result<(), Rejection> {
        let refusal = match &self.limit {
            None if self.all.mode.get() == Mode::ForcedOpen => CLOSED.retry_after(Duration::from_secs(1)),
            None => return Ok(()),
            Some(limit) => match limit.check() {
                Ok(()) => return Ok(()),
                Err(_) if !self.all.mode.enforces() => {
                    self.all.over_limit_total.fetch_add(1, Relaxed);
                    return Ok(());
                }
                Err(refusal) => refusal,
            },
        };
        self.all.refused_total.fetch_add(1, Relaxed);
        Err(refusal)
    }

    /// What is to be told to the client, if anything is: no number holds while an operator lets everybody pass, or nobody.
    pub(crate) fn told(&self) -> Option<Told<'a>> {
        Some(Told(self.all.words.as_ref()?, self.limit.clone()?))
    }
}

/// Who has which limit, and what became of those who wanted more.
pub(crate) struct Quotas {
    table: Arc<Table>,
    /// Where clients are told.
    words: Option<RateLimitHeadersLayer<Table>>,
    mode: ModeCell,
    refused_total: AtomicU64,
    over_limit_total: AtomicU64,
}

/// What is said while an operator keeps everybody out: nobody knows until when.
const CLOSED: Rejection = Rejection::new(Reason::RateLimited, "rate_limit");

impl Quotas {
    /// Those of the route at `scope`.
    pub(crate) fn new(config: &config::RateLimit, scope: &str) -> Result<Self, ConfigError> {
        let table = Arc::new(config.config(scope).keyed(config.table(), key(config.by.clone()))?);
        Ok(Self {
            words: config.headers.then(|| RateLimitHeadersLayer::new(table.clone())),
            table,
            mode: ModeCell::new(fastrand::u64(..)),
            refused_total: AtomicU64::new(0),
            over_limit_total: AtomicU64::new(0),
        })
    }

    /// The limit of `req`, looked up once.
    pub(crate) fn of(&self, req: &Request<Incoming>) -> Quota<'_> {
        let is_asked = !matches!(self.mode.get(), Mode::Disabled | Mode::ForcedOpen);
        Quota { all: self, limit: is_asked.then(|| self.table.entry_of(req)) }
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
        "rate_limit"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        show("refused_total", Value::Count(self.refused_total.load(Relaxed)));
        show("over_limit_total", Value::Count(self.over_limit_total.load(Relaxed)));
        self.table.visit(show);
    }

    fn mode(&self) -> Mode {
        self.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.mode.set(mode)
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("refused_total", &self.refused_total).finish_non_exhaustive()
    }
}
