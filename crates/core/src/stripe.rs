use std::{cell::Cell, fmt, ops::Deref, sync::Arc};

/// Shared state whose reference counts do not meet on one cache line: threads take leases from stripes of their own.
///
/// A permit that keeps its policy alive is an `Arc` clone and drop per call; with one `Arc` that count is the hottest word
/// of the whole layer. Here each stripe has an `Arc` of its own around the same state.
pub struct Striped<T> {
    leases: Box<[Arc<Lease<T>>]>,
}

/// What a permit holds: it keeps the state alive, and knows the stripe it was taken from.
#[repr(align(128))]
pub struct Lease<T> {
    stripe: usize,
    shared: Arc<T>,
}

impl<T> Striped<T> {
    /// `stripes` leases (a power of two; others are rounded up) of one state.
    pub fn new(shared: T, stripes: usize) -> Self {
        let shared = Arc::new(shared);
        let stripes = stripes.max(1).next_power_of_two();
        Self { leases: (0..stripes).map(|stripe| Arc::new(Lease { stripe, shared: shared.clone() })).collect() }
    }

    /// How many stripes a state that many threads share gets: one per core, at most 8.
    pub fn default_stripes() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from).next_power_of_two().min(8)
    }

    /// A lease from this thread's stripe.
    #[inline]
    pub fn lease(&self) -> Arc<Lease<T>> {
        self.leases[self.stripe()].clone()
    }

    /// A lease from `stripe`, for who asked for [`stripe`](Self::stripe) before it decided.
    #[inline]
    pub fn lease_of(&self, stripe: usize) -> Arc<Lease<T>> {
        self.leases[stripe & (self.leases.len() - 1)].clone()
    }

    /// This thread's stripe.
    #[inline]
    pub fn stripe(&self) -> usize {
        thread_number() & (self.leases.len() - 1)
    }

    /// How many stripes there are.
    pub fn stripes(&self) -> usize {
        self.leases.len()
    }

    /// How many leases are held.
    pub fn leased(&self) -> usize {
        self.leases.iter().map(|lease| Arc::strong_count(lease) - 1).sum()
    }
}

/// The state itself, without a lease.
impl<T> Deref for Striped<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.leases[0].shared
    }
}

impl<T: fmt::Debug> fmt::Debug for Striped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Lease<T> {
    /// The stripe it was taken from: where the call's counts belong, whatever thread ends it.
    #[inline]
    pub fn stripe(&self) -> usize {
        self.stripe
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.shared
    }
}

impl<T: fmt::Debug> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("stripe", &self.stripe).field("shared", &self.shared).finish()
    }
}

/// A small number per thread, in the order in which threads first ask.
#[inline]
pub(crate) fn thread_number() -> usize {
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) });
    NUMBER.with(|number| match number.get() {
        usize::MAX => {
            let next = next_thread();
            number.set(next);
            next
        }
        known => known,
    })
}

#[cold]
fn next_thread() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
