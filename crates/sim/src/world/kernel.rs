//! Time: a heap of events in nanoseconds, tasks that are polled until none is ready, and tokio's paused clock kept in step.

use super::{World, lock};
use buttress_core::{Clock, TokioClock};
use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

/// Tokio's timers are looked at this often where nothing else happens: finer than their own granularity is of no use.
const TICK: u64 = 1_000_000;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) struct Kernel {
    origin: Instant,
    state: Mutex<State>,
    ready: Arc<Mutex<Vec<usize>>>,
}

struct State {
    now: u64,
    sequence: u64,
    events: BinaryHeap<Reverse<Event>>,
    /// A task that is being polled is not in its slot.
    tasks: Vec<Option<Task>>,
    wakers: Vec<Arc<Bell>>,
    free: Vec<usize>,
}

struct Event {
    at: u64,
    /// Of events at one moment the one that was made first comes first.
    sequence: u64,
    what: What,
}

enum What {
    Fire(Arc<Alarm>),
    Run(Box<dyn FnOnce() + Send>),
}

/// A task's waker.
struct Bell {
    task: usize,
    rung: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

#[derive(Default)]
struct Alarm {
    fired: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Kernel {
    /// A world in which nothing has happened; made in the runtime that it is to run in.
    pub(super) fn new() -> Self {
        let state = State {
            now: 0,
            sequence: 0,
            events: BinaryHeap::new(),
            tasks: Vec::new(),
            wakers: Vec::new(),
            free: Vec::new(),
        };
        Self { origin: TokioClock.now(), state: Mutex::new(state), ready: Arc::default() }
    }

    pub(super) fn origin(&self) -> Instant {
        self.origin
    }

    pub(super) fn now(&self) -> u64 {
        lock(&self.state).now
    }

    pub(super) fn run_at(&self, at: u64, run: Box<dyn FnOnce() + Send>) {
        self.schedule(at, What::Run(run));
    }

    pub(super) fn sleep_until(&self, at: u64) -> Sleep {
        let alarm = Arc::new(Alarm::default());
        self.schedule(at, What::Fire(alarm.clone()));
        Sleep(alarm)
    }

    fn schedule(&self, at: u64, what: What) {
        let mut state = lock(&self.state);
        let sequence = state.sequence;
        state.sequence += 1;
        let at = at.max(state.now);
        state.events.push(Reverse(Event { at, sequence, what }));
    }

    pub(super) fn spawn(&self, task: Task) {
        let mut state = lock(&self.state);
        let slot = match state.free.pop() {
            Some(slot) => {
                state.tasks[slot] = Some(task);
                slot
            }
            None => {
                let slot = state.tasks.len();
                let bell = Bell { task: slot, rung: AtomicBool::new(false), ready: self.ready.clone() };
                state.tasks.push(Some(task));
                state.wakers.push(Arc::new(bell));
                slot
            }
        };
        let bell = state.wakers[slot].clone();
        drop(state);
        bell.wake();
    }

    /// Lets the world go on until `end`.
    pub(super) async fn run_until(&self, end: u64) {
        let (ours, tokios) = (Duration::from_nanos(self.now()), TokioClock.now().duration_since(self.origin));
        assert!(
            ours == tokios,
            "the world's clock says {ours:?} and tokio's {tokios:?}: a script waits by `run_until` alone"
        );
        loop {
            self.poll_ready();
            let (now, next) = {
                let state = lock(&self.state);
                (state.now, state.events.peek().map_or(u64::MAX, |Reverse(event)| event.at))
            };
            if now >= end && next > end {
                return;
            }
            let then = next.min(now + TICK).min(end);
            if then > now {
                tokio::time::advance(Duration::from_nanos(then - now)).await;
                lock(&self.state).now = then;
                // What tokio's timers woke comes before what happens at this very moment.
                self.poll_ready();
            }
            self.happen();
        }
    }

    /// Everything that is due.
    fn happen(&self) {
        loop {
            let mut state = lock(&self.state);
            let now = state.now;
            let Some(Reverse(event)) = state.events.peek() else { return };
            if event.at > now {
                return;
            }
            let Some(Reverse(event)) = state.events.pop() else { return };
            drop(state);
            match event.what {
                What::Fire(alarm) => alarm.fire(),
                What::Run(run) => run(),
            }
            self.poll_ready();
        }
    }

    fn poll_ready(&self) {
        loop {
            let ready = std::mem::take(&mut *lock(&self.ready));
            if ready.is_empty() {
                return;
            }
            ready.into_iter().for_each(|task| self.poll(task));
        }
    }

    fn poll(&self, slot: usize) {
        let mut state = lock(&self.state);
        let bell = state.wakers[slot].clone();
        bell.rung.store(false, std::sync::atomic::Ordering::Release);
        let Some(mut task) = state.tasks[slot].take() else { return };
        drop(state);
        let waker = Waker::from(bell);
        match task.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => lock(&self.state).tasks[slot] = Some(task),
            Poll::Ready(()) => {
                // Dropped first: what it holds may come back into the world.
                drop(task);
                lock(&self.state).free.push(slot);
            }
        }
    }

    /// Drops every task and event: they hold the world, which holds them.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        let tasks = std::mem::take(&mut state.tasks);
        let events = std::mem::take(&mut state.events);
        state.wakers.clear();
        state.free.clear();
        drop(state);
        drop((tasks, events));
        lock(&self.ready).clear();
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, AcqRel) {
            lock(&self.ready).push(self.task);
        }
    }
}

impl Alarm {
    fn fire(&self) {
        self.fired.store(true, std::sync::atomic::Ordering::Release);
        let waker = lock(&self.waker).take();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Waits for a moment of a [`World`], to the nanosecond.
pub struct Sleep(Arc<Alarm>);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.fired.load(Acquire) {
            return Poll::Ready(());
        }
        let mut waker = lock(&self.0.waker);
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Sleep").field(&self.0.fired).finish()
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now()).finish_non_exhaustive()
    }
}
