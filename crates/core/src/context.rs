use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How important a request is. Retries drop one level; an untrusted peer can only lower it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Priority {
    /// The first to be shed.
    Sheddable,
    /// What nobody says anything about.
    #[default]
    Normal,
    /// The last to be shed.
    Critical,
}

impl Priority {
    /// One level down.
    pub fn lowered(self) -> Self {
        match self {
            Self::Critical => Self::Normal,
            Self::Normal | Self::Sheddable => Self::Sheddable,
        }
    }

    /// The name in configs, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Sheddable => "sheddable",
        }
    }
}

/// The moment by which a call must be over, and whether the client made it earlier than we would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// Its expiry says nothing about the health of what is behind: the client chose it.
    pub by_client: bool,
}

impl Deadline {
    /// A deadline of our own.
    pub fn new(at: Instant) -> Self {
        Self { at, by_client: false }
    }

    /// The earlier of two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }

    /// What is left of it; zero when it has passed.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }
}

/// What travels with a request through the chain: one extension, inserted by whoever comes first and changed after.
///
/// The first insertion into a request's extensions allocates (three times), so it happens once per request and not once per
/// layer; layers that only read find nothing where nobody wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// By when the whole call must be over.
    pub deadline: Option<Deadline>,
    /// When a layer further out ends the call by itself: a timer of one's own for that moment, or a later one, is needless.
    /// Whoever detaches work from the caller (a task that outlives the call) clears it.
    pub enforced: Option<Instant>,
    /// How important it is.
    pub priority: Priority,
    /// How often it was sent before: 0 is the first attempt.
    pub attempt: u32,
    /// Which trace it belongs to.
    #[cfg(feature = "http")]
    pub trace: Option<crate::http::TraceContext>,
    /// Whom it is from: only who knows which proxies to believe knows that.
    pub client: Option<IpAddr>,
    /// Where attempts to send it on are counted, if anybody counts them.
    pub attempts: Option<Attempts>,
    /// Where the request's body stands, if it comes from somebody else.
    #[cfg(feature = "http")]
    pub upload: Option<crate::http::Upload>,
}

/// A count of attempts that clones share.
#[derive(Clone, Debug, Default)]
pub struct Attempts(Arc<AtomicU32>);

impl Attempts {
    /// Counts one more.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// The same count, not an equal one.
impl PartialEq for Attempts {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Attempts {}

#[cfg(feature = "http")]
impl Context {
    /// The context of a request's extensions, if anyone made one.
    #[inline]
    pub fn of(extensions: &http::Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The context of a request's extensions, made if it was not there.
    pub fn of_mut(extensions: &mut http::Extensions) -> &mut Self {
        extensions.get_or_insert_default()
    }
}
