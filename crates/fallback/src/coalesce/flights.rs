use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, HashMap},
    future::Future,
    hash::Hash,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

/// Calls that are under way, by their keys: who asks for one that is there joins it.
///
/// A flight's future is polled by one task, that of its leader. Who joins leaves a waker and is not polled again until the result is there, or
/// until he leads: a leader that is dropped hands the *same* future over to the one who waits for the longest time. When nobody is
/// left the future is dropped.
pub(crate) struct Flights<K>(Arc<Table<K>>);

struct Table<K> {
    /// By the type as well: services of different types may share a table.
    flights: Mutex<HashMap<(TypeId, K), Arc<dyn Any + Send + Sync>>>,
    counts: Arc<FlightCounts>,
}

/// What flights show of themselves.
#[derive(Default)]
pub(crate) struct FlightCounts {
    /// Under way now.
    pub(crate) flying: AtomicU64,
    /// Flights that began.
    pub(crate) led: AtomicU64,
    /// Calls that joined one.
    pub(crate) joined: AtomicU64,
    /// Leaders that left, and others who went on.
    pub(crate) handed_over: AtomicU64,
}

struct Flight<K, L, T> {
    key: K,
    state: Mutex<State<L, T>>,
}

/// What a flight does: the leader's result, and that of the others.
#[doc(hidden)]
pub(super) type Work<L, T> = Pin<Box<dyn Future<Output = (L, T)> + Send>>;

struct State<L, T> {
    /// `None`: it is being polled, or there is none yet, or it is over.
    work: Option<Work<L, T>>,
    leader: u64,
    next: u64,
    /// Those who wait, first come first. Some have not been polled yet.
    waiting: BTreeMap<u64, Option<Waker>>,
    end: Option<End<T>>,
    /// Nobody joins any more.
    closed: bool,
}

enum End<T> {
    /// Shared, so that nobody's `Clone` runs under the lock.
    Done(Arc<T>),
    Panicked,
}

/// What a member gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Landed<L, T> {
    /// Of the leader.
    Own(L),
    /// Of those who waited.
    Shared(Arc<T>),
    /// The future panicked, in another's task.
    Panicked,
}

impl<K: Eq + Hash + Clone + Send + Sync + 'static> Flights<K> {
    /// Flights that are counted there.
    pub(crate) fn new(counts: Arc<FlightCounts>) -> Self {
        Self(Arc::new(Table { flights: Mutex::new(HashMap::new()), counts }))
    }

    /// Joins the flight of `key`, or leads a new one: then its work is to be [launched](Member::launch).
    pub(crate) fn join<L, T>(&self, key: K) -> Member<K, L, T>
    where
        L: Send + 'static,
        T: Send + Sync + 'static,
    {
        let mut flights = lock(&self.0.flights);
        if let Some(flight) = flights.get(&Self::place::<L, T>(&key)).and_then(Self::flight) {
            let mut state = lock(&flight.state);
            if !state.closed {
                let id = state.next;
                state.next += 1;
                state.waiting.insert(id, None);
                drop((state, flights));
                self.0.counts.joined.fetch_add(1, Relaxed);
                return Member { table: self.0.clone(), flight, id, leads: false };
            }
        }
        let state = State { work: None, leader: 0, next: 1, waiting: BTreeMap::new(), end: None, closed: false };
        let flight = Arc::new(Flight { key: key.clone(), state: Mutex::new(state) });
        let before = flights.insert(Self::place::<L, T>(&key), flight.clone());
        drop(flights);
        drop(before);
        self.0.counts.led.fetch_add(1, Relaxed);
        self.0.counts.flying.fetch_add(1, Relaxed);
        Member { table: self.0.clone(), flight, id: 0, leads: true }
    }

    /// Leads a new flight; `None`: there is one.
    #[cfg(feature = "http")]
    pub(crate) fn lead<L, T>(&self, key: K) -> Option<Member<K, L, T>>
    where
        L: Send + 'static,
        T: Send + Sync + 'static,
    {
        Some(self.join(key)).filter(Member::leads)
    }

    fn place<L: 'static, T: 'static>(key: &K) -> (TypeId, K) {
        (TypeId::of::<(L, T)>(), key.clone())
    }

    fn flight<L: Send + 'static, T: Send + Sync + 'static>(
        any: &Arc<dyn Any + Send + Sync>,
    ) -> Option<Arc<Flight<K, L, T>>> {
        any.clone().downcast().ok()
    }
}

/// No section leaves what it guards half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K> Clone for Flights<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A place in a flight. It is a future; dropped, it leaves.
pub(crate) struct Member<K, L, T>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    L: Send + 'static,
    T: Send + Sync + 'static,
{
    table: Arc<Table<K>>,
    flight: Arc<Flight<K, L, T>>,
    id: u64,
    /// As far as it knows: one may be made the leader while it waits.
    leads: bool,
}

/// Lets the work of a flight know who is in it.
pub(crate) struct Crew<K, L, T>(Weak<Flight<K, L, T>>);

impl<K, L, T> Crew<K, L, T> {
    /// Whether nobody waits for the result. Then nobody joins any more: the leader may have all of it.
    pub(crate) fn close_if_alone(&self) -> bool {
        let Some(flight) = self.0.upgrade() else { return true };
        let mut state = lock(&flight.state);
        if state.waiting.is_empty() {
            state.closed = true;
        }
        state.closed
    }
}

impl<K, L, T> Member<K, L, T>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    L: Send + 'static,
    T: Send + Sync + 'static,
{
    /// Whether it is to [launch](Self::launch) the work.
    pub(crate) fn leads(&self) -> bool {
        self.leads
    }

    pub(crate) fn key(&self) -> &K {
        &self.flight.key
    }

    /// Who is in this flight. Held by the work, it does not hold the flight.
    pub(crate) fn crew(&self) -> Crew<K, L, T> {
        Crew(Arc::downgrade(&self.flight))
    }

    /// Gives a new flight its work.
    pub(crate) fn launch(&self, work: Work<L, T>) {
        lock(&self.flight.state).work = Some(work);
    }

    /// It is over: wakes everyone, and is found no more.
    fn land(&self, end: Option<End<T>>) {
        let mut state = lock(&self.flight.state);
        state.closed = true;
        state.end = end;
        let work = state.work.take();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        let place = (TypeId::of::<(L, T)>(), self.flight.key.clone());
        let mut flights = lock(&self.table.flights);
        let is_this =
            |found: &Arc<dyn Any + Send + Sync>| std::ptr::addr_eq(Arc::as_ptr(found), Arc::as_ptr(&self.flight));
        let removed = if flights.get(&place).is_some_and(is_this) { flights.remove(&place) } else { None };
        drop(flights);
        self.table.counts.flying.fetch_sub(1, Relaxed);
        // Anyone's code runs in these, and under no lock.
        drop((removed, work));
        waiting.into_values().flatten().for_each(Waker::wake);
    }

    fn poll_work(&self, mut work: Work<L, T>, cx: &mut Context<'_>) -> Poll<Landed<L, T>> {
        /// Whoever waits hears of a panic where it passes.
        struct Fuse<'a, K, L, T>(&'a Member<K, L, T>)
        where
            K: Eq + Hash + Clone + Send + Sync + 'static,
            L: Send + 'static,
            T: Send + Sync + 'static;
        impl<K, L, T> Drop for Fuse<'_, K, L, T>
        where
            K: Eq + Hash + Clone + Send + Sync + 'static,
            L: Send + 'static,
            T: Send + Sync + 'static,
        {
            fn drop(&mut self) {
                self.0.land(Some(End::Panicked));
            }
        }
        let fuse = Fuse(self);
        let polled = work.as_mut().poll(cx);
        std::mem::forget(fuse);
        match polled {
            Poll::Pending => {
                lock(&self.flight.state).work = Some(work);
                Poll::Pending
            }
            Poll::Ready((own, shared)) => {
                // What it held is free before anyone hears of its end.
                drop(work);
                self.land(Some(End::Done(Arc::new(shared))));
                Poll::Ready(Landed::Own(own))
            }
        }
    }
}

impl<K, L, T> Future for Member<K, L, T>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    L: Send + 'static,
    T: Send + Sync + 'static,
{
    type Output = Landed<L, T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landed<L, T>> {
        let this = self.get_mut();
        // A waker is cloned and dropped outside the lock: it may be anyone's code.
        let mine = (!this.leads).then(|| cx.waker().clone());
        let mut state = lock(&this.flight.state);
        if let Some(end) = &state.end {
            return Poll::Ready(match end {
                End::Done(shared) => Landed::Shared(shared.clone()),
                End::Panicked => Landed::Panicked,
            });
        }
        if state.leader == this.id {
            this.leads = true;
            let work = state.work.take();
            drop(state);
            return this.poll_work(work.expect("a flight was polled before it was launched"), cx);
        }
        let before = state.waiting.insert(this.id, mine);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl<K, L, T> Drop for Member<K, L, T>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    L: Send + 'static,
    T: Send + Sync + 'static,
{
    fn drop(&mut self) {
        let mut state = lock(&self.flight.state);
        if state.end.is_some() {
            return;
        }
        if state.leader != self.id {
            let left = state.waiting.remove(&self.id);
            drop(state);
            drop(left);
            return;
        }
        if state.work.is_none() {
            // It was not launched: what was to make its work panicked.
            drop(state);
            return self.land(Some(End::Panicked));
        }
        match state.waiting.pop_first() {
            Some((id, waker)) => {
                state.leader = id;
                drop(state);
                self.table.counts.handed_over.fetch_add(1, Relaxed);
                // One that was not polled yet will be.
                waker.into_iter().for_each(Waker::wake);
            }
            None => {
                drop(state);
                self.land(None);
            }
        }
    }
}
