use super::{
    Call, Model, World, lock, nanos,
    random::{self, Stream},
};
use buttress_core::Error;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tower_service::Service;

/// A service that behaves as its [`Model`] says, and worse when it is told to. Clones are the same upstream.
#[derive(Clone)]
pub struct Upstream {
    world: World,
    shared: Arc<Shared>,
}

struct Shared {
    model: Model,
    purpose: u64,
    state: Mutex<State>,
}

struct State {
    workers: u32,
    factor: f64,
    errors: f64,
    down: Option<Down>,
    busy: u32,
    queue: VecDeque<Arc<Job>>,
    running: BTreeMap<u64, Arc<Job>>,
    next: u64,
    /// Worker's time that rejections took and no job has paid yet.
    debt: u64,
    /// When each call came in.
    sent: Vec<u64>,
    /// What it could do from when on, in workers of the model's mean.
    capacity: Vec<(u64, f64)>,
}

/// How an upstream is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Down {
    /// Connections are refused, and what was inside has failed.
    Refusing,
    /// Nothing is answered any more, not even later.
    Hanging,
}

/// Why an upstream did not answer as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It failed.
    Failed,
    /// It is down.
    Down,
    /// It has too much to do.
    Busy,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// How long it would have taken a worker in good health.
    pub work: Duration,
}

struct Job {
    number: u64,
    work: u64,
    fails: bool,
    slot: Mutex<Slot>,
}

struct Slot {
    phase: Phase,
    result: Option<Result<Reply, Fault>>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waits,
    Runs,
    /// Answered, or given up by one who cancels.
    Over,
}

impl World {
    /// An upstream of this world.
    ///
    /// # Panics
    ///
    /// If the model's contention, or the sigma of its work, is negative, infinite or not a number.
    pub fn upstream(&self, model: Model) -> Upstream {
        model.check();
        let state = State {
            workers: model.workers,
            factor: 1.0,
            errors: 0.0,
            down: None,
            busy: 0,
            queue: VecDeque::new(),
            running: BTreeMap::new(),
            next: 0,
            debt: 0,
            sent: Vec::new(),
            capacity: vec![(nanos(self.now()), f64::from(model.workers))],
        };
        let shared = Shared { model, purpose: random::name("work"), state: Mutex::new(state) };
        Upstream { world: self.clone(), shared: Arc::new(shared) }
    }
}

impl Upstream {
    /// How it was meant to behave.
    pub fn model(&self) -> &Model {
        &self.shared.model
    }

    /// Changes how many calls it works on at once. Those that it works on stay.
    pub fn set_workers(&self, workers: u32) {
        self.change(|state| state.workers = workers);
    }

    /// Calls that begin from now on take `factor` times as long.
    ///
    /// # Panics
    ///
    /// If it is not a finite number above 0.
    pub fn set_latency_factor(&self, factor: f64) {
        assert!(factor.is_finite() && factor > 0.0, "a latency factor is finite and above 0: {factor}");
        self.change(|state| state.factor = factor);
    }

    /// This share of the calls that come from now on fails, after their work was done.
    ///
    /// # Panics
    ///
    /// If it is not a share from 0 to 1.
    pub fn set_error_rate(&self, rate: f64) {
        assert!((0.0..=1.0).contains(&rate), "an error rate is a share from 0 to 1: {rate}");
        self.change(|state| state.errors = rate);
    }

    /// Goes down, or up again.
    pub fn set_down(&self, down: Option<Down>) {
        let inside = {
            let mut state = lock(&self.shared.state);
            state.down = down;
            match down {
                Some(_) => {
                    state.busy = 0;
                    let running = std::mem::take(&mut state.running);
                    let waiting = std::mem::take(&mut state.queue);
                    running.into_values().chain(waiting).collect()
                }
                None => Vec::new(),
            }
        };
        self.change(|_| {});
        for job in inside {
            match down {
                Some(Down::Refusing) => job.answer(Err(Fault::Down)),
                _ => job.forget(),
            }
        }
    }

    /// How many calls are inside: worked on, and waiting.
    pub fn inside(&self) -> usize {
        let state = lock(&self.shared.state);
        state.busy as usize + state.queue.len()
    }

    /// How many calls have come so far, of whatever attempt.
    pub fn sent(&self) -> u64 {
        lock(&self.shared.state).sent.len() as u64
    }

    /// When each call came, in nanoseconds, in order.
    pub(super) fn sent_times(&self) -> Vec<u64> {
        lock(&self.shared.state).sent.clone()
    }

    /// The work of the `n`-th attempt of a call, in nanoseconds.
    pub(super) fn work_of(&self, id: u64, n: u32) -> (u64, f64) {
        let stream = Stream::of(self.world.0.seed, self.shared.purpose, id, u64::from(n));
        let luck = stream.uniform();
        let work = self.shared.model.work.draw(&stream) * self.shared.model.mean.as_secs_f64();
        (nanos(Duration::try_from_secs_f64(work).unwrap_or(Duration::MAX)), luck)
    }

    /// What it could do between two moments, in nanoseconds of one worker.
    pub(super) fn capacity(&self, from: u64, to: u64) -> f64 {
        let state = lock(&self.shared.state);
        let ends = state.capacity.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
        let spans = state.capacity.iter().zip(ends);
        spans.map(|(&(at, capacity), end)| end.min(to).saturating_sub(at.max(from)) as f64 * capacity).sum()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let now = nanos(self.world.now());
        let mut state = lock(&self.shared.state);
        change(&mut state);
        let capacity = match state.down {
            Some(_) => 0.0,
            None => f64::from(state.workers) / state.factor,
        };
        state.capacity.push((now, capacity));
        self.begin(&mut state);
    }

    fn accept(&self, call: &Call) -> Arc<Job> {
        let nth = call.sent.fetch_add(1, Relaxed);
        let (work, luck) = self.work_of(call.id, nth);
        let mut state = lock(&self.shared.state);
        state.sent.push(nanos(self.world.now()));
        let number = state.next;
        state.next += 1;
        let slot = Slot { phase: Phase::Waits, result: None, waker: None };
        let job = Arc::new(Job { number, work, fails: luck < state.errors, slot: Mutex::new(slot) });
        match state.down {
            Some(Down::Refusing) => job.answer(Err(Fault::Down)),
            Some(Down::Hanging) => job.forget(),
            None if self
                .shared
                .model
                .queue
                .is_some_and(|most| state.busy >= state.workers && state.queue.len() >= most as usize) =>
            {
                state.debt += nanos(self.shared.model.rejection);
                job.answer(Err(Fault::Busy));
            }
            None => {
                state.queue.push_back(job.clone());
                self.begin(&mut state);
            }
        }
        job
    }

    /// Workers that are free take what waits.
    fn begin(&self, state: &mut State) {
        while state.busy < state.workers
            && let Some(job) = state.queue.pop_front()
        {
            {
                let mut slot = lock(&job.slot);
                if slot.phase != Phase::Waits {
                    continue;
                }
                slot.phase = Phase::Runs;
            }
            state.busy += 1;
            let crowd = (state.busy as usize + state.queue.len()) as f64 / f64::from(state.workers.max(1)) - 1.0;
            let slower = 1.0 + self.shared.model.contention * crowd.max(0.0);
            let takes = (job.work as f64 * state.factor * slower) as u64;
            let takes = takes.saturating_add(std::mem::take(&mut state.debt));
            state.running.insert(job.number, job.clone());
            let upstream = self.clone();
            let over = nanos(self.world.now()).saturating_add(takes);
            self.world.0.kernel.run_at(over, Box::new(move || upstream.finish(&job)));
        }
    }

    fn finish(&self, job: &Job) {
        if self.leave(job) {
            let reply = Reply { work: Duration::from_nanos(job.work) };
            job.answer(if job.fails { Err(Fault::Failed) } else { Ok(reply) });
        }
    }

    /// Takes out a job that waits.
    fn forgo(&self, job: &Job) {
        let mut state = lock(&self.shared.state);
        // They wait in the order of their numbers.
        if let Ok(place) = state.queue.binary_search_by_key(&job.number, |waiting| waiting.number) {
            state.queue.remove(place);
        }
    }

    /// Frees the worker of a job that runs.
    fn leave(&self, job: &Job) -> bool {
        let mut state = lock(&self.shared.state);
        let ran = state.running.remove(&job.number).is_some();
        if ran {
            state.busy -= 1;
            self.begin(&mut state);
        }
        ran
    }
}

impl Job {
    fn answer(&self, result: Result<Reply, Fault>) {
        let mut slot = lock(&self.slot);
        slot.phase = Phase::Over;
        slot.result = Some(result);
        let waker = slot.waker.take();
        drop(slot);
        waker.into_iter().for_each(Waker::wake);
    }

    fn forget(&self) {
        lock(&self.slot).phase = Phase::Over;
    }
}

impl Service<Call> for Upstream {
    type Response = Reply;
    type Error = Error<Fault>;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Answer {
        Answer { job: self.accept(&call), upstream: self.clone() }
    }
}

/// The answer of an [`Upstream`].
pub struct Answer {
    job: Arc<Job>,
    upstream: Upstream,
}

impl Future for Answer {
    type Output = Result<Reply, Error<Fault>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = lock(&self.job.slot);
        match slot.result.take() {
            Some(result) => Poll::Ready(result.map_err(Error::Inner)),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.upstream.shared.model.cancels {
            return;
        }
        let phase = std::mem::replace(&mut lock(&self.job.slot).phase, Phase::Over);
        match phase {
            Phase::Waits => self.upstream.forgo(&self.job),
            Phase::Runs => drop(self.upstream.leave(&self.job)),
            Phase::Over => {}
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "the upstream failed",
            Self::Down => "the upstream is down",
            Self::Busy => "the upstream is busy",
        })
    }
}

impl std::error::Error for Fault {}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("model", &self.shared.model).finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("number", &self.job.number).finish_non_exhaustive()
    }
}
