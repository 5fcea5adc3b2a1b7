use crate::sync::{Arc, AtomicU32, Ordering::Relaxed};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// How important a request is. Retries drop one level; an untrusted peer can only lower it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Where the request's body stands, if it comes from somebody else.
    #[cfg(feature = "http")]
    pub upload: Option<crate::http::Upload>,
    /// The endpoints that the attempts of this call were sent to. Made by whoever may send it again.
    pub tried: Option<Tried>,
}

/// The endpoints that the attempts of one call were sent to, by their numbers in the balancer. Clones share the list.
///
/// It keeps the last [`Tried::MOST`]: a call that was sent to more has been everywhere worth going. No lock, and no allocation
/// after [`new`](Self::new).
#[derive(Clone)]
pub struct Tried(Arc<Slots>);

struct Slots {
    endpoints: [AtomicU32; Tried::MOST],
    /// Which place the next endpoint takes once all are taken.
    next: AtomicU32,
}

/// A place that is free.
const FREE: u32 = u32::MAX;

impl Tried {
    /// How many endpoints it keeps.
    pub const MOST: usize = 15;

    /// An empty list.
    pub fn new() -> Self {
        let endpoints = std::array::from_fn(|_| AtomicU32::new(FREE));
        Self(Arc::new(Slots { endpoints, next: AtomicU32::new(0) }))
    }

    /// Adds `endpoint`, unless it is there. `u32::MAX` is no endpoint and is not kept.
    // Every place stands for itself, and an endpoint goes into the first that is free: of two threads that push the same one,
    // the second finds it in the place it lost. Nothing else is published through a place, hence the relaxed orderings.
    pub fn push(&self, endpoint: u32) {
        if endpoint == FREE {
            return;
        }
        for place in &self.0.endpoints {
            match place.compare_exchange(FREE, endpoint, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(there) if there == endpoint => return,
                Err(_) => {}
            }
        }
        let next = self.0.next.fetch_add(1, Relaxed) as usize % Self::MOST;
        self.0.endpoints[next].store(endpoint, Relaxed);
    }

    /// Whether `endpoint` is in it.
    #[inline]
    pub fn contains(&self, endpoint: u32) -> bool {
        self.iter().any(|there| there == endpoint)
    }

    /// How many endpoints are in it.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether nothing was tried yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The endpoints in it.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        // Places are taken in order and never given back.
        self.0.endpoints.iter().map(|place| place.load(Relaxed)).take_while(|&there| there != FREE)
    }
}

impl Default for Tried {
    fn default() -> Self {
        Self::new()
    }
}

/// By what is in them.
impl PartialEq for Tried {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.iter().eq(other.iter())
    }
}

impl Eq for Tried {}

impl fmt::Debug for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

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

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_shared_by_clones_and_kept_once() {
        let tried = Tried::new();
        assert!(tried.is_empty() && !tried.contains(0));
        let clone = tried.clone();
        for endpoint in [3, 0, 3, 7, 0] {
            clone.push(endpoint);
        }
        assert_eq!((tried.iter().collect::<Vec<_>>(), tried.len(), tried.is_empty()), (vec![3, 0, 7], 3, false));
        assert!(tried.contains(0) && tried.contains(7) && !tried.contains(1));
        assert_eq!(tried, clone);
        assert_ne!(tried, Tried::default());
        assert_eq!(format!("{tried:?}"), "[3, 0, 7]");
    }

    #[test]
    fn of_more_than_it_holds_it_keeps_the_last() {
        let tried = Tried::new();
        (0..100).for_each(|endpoint| tried.push(endpoint));
        assert_eq!(tried.len(), Tried::MOST);
        assert!((100 - Tried::MOST as u32..100).all(|endpoint| tried.contains(endpoint)));
        tried.push(u32::MAX);
        assert!(!tried.contains(u32::MAX));
    }
}

#[cfg(all(test, buttress_loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn loom_what_two_attempts_push_at_once_is_all_there_and_once() {
        loom::model(|| {
            let tried = Tried::new();
            let others = tried.clone();
            let other = loom::thread::spawn(move || [1, 2].into_iter().for_each(|endpoint| others.push(endpoint)));
            [2, 3].into_iter().for_each(|endpoint| tried.push(endpoint));
            other.join().unwrap();
            let mut all: Vec<_> = tried.iter().collect();
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3]);
        });
    }
}
