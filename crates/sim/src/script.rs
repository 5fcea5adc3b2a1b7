use buttress_core::BoxError;
use futures_util::future::BoxFuture;
use std::{
    fmt,
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::sync::Semaphore;
use tower_service::Service;

/// A service that does what an async closure says: answers, fails, hangs ([`std::future::pending`]), panics, waits for a
/// [`Latch`], is pending so many times ([`pauses`]).
///
/// It panics when it is called without having been ready, on this very clone, since its last call: the mistake that most
/// services let pass and `ConcurrencyLimit`, `Buffer` and others punish.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use buttress_sim::{Script, pauses};
/// use tower::ServiceExt;
///
/// let script = Script::new(async |n: u64| {
///     pauses(3).await;
///     Ok(n + 1)
/// });
/// assert_eq!(script.clone().oneshot(1).await.unwrap(), 2);
/// assert_eq!((script.probe().calls(), script.probe().peak()), (1, 1));
/// # }
/// ```
pub struct Script<Req, Res> {
    shared: Arc<Shared<Req, Res>>,
    /// Whether this clone may be called.
    ready: bool,
}

struct Shared<Req, Res> {
    answer: Box<dyn Fn(Req) -> BoxFuture<'static, Result<Res, BoxError>> + Send + Sync>,
    readiness: Mutex<(Readiness, Vec<Waker>)>,
    probe: Probe,
}

/// What a [`Script`] says when it is asked whether it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It is.
    Ready,
    /// Not before this is changed.
    Never,
    /// Not for so many polls; each of them wakes its task.
    After(u32),
    /// It fails with [`ReadinessError`].
    Fails,
}

/// The error of a [`Script`] whose readiness fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadinessError;

impl fmt::Display for ReadinessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the scripted service can never be ready")
    }
}

impl std::error::Error for ReadinessError {}

impl<Req, Res> Script<Req, Res> {
    /// A service that is always ready and answers with `answer`.
    pub fn new<F, Fut>(answer: F) -> Self
    where
        F: Fn(Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, BoxError>> + Send + 'static,
    {
        let answer = Box::new(move |req| Box::pin(answer(req)) as BoxFuture<'static, _>);
        let readiness = Mutex::new((Readiness::Ready, Vec::new()));
        Self { shared: Arc::new(Shared { answer, readiness, probe: Probe::default() }), ready: false }
    }

    /// Changes the readiness of every clone, and wakes whoever waits for it.
    pub fn set(&self, readiness: Readiness) {
        let wakers = {
            let mut state = self.state();
            state.0 = readiness;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The same service with another readiness.
    pub fn readiness(self, readiness: Readiness) -> Self {
        self.set(readiness);
        self
    }

    /// Counts the calls of every clone: a call lasts from `call` to the end or the drop of its future.
    pub fn probe(&self) -> &Probe {
        &self.shared.probe
    }

    fn state(&self) -> MutexGuard<'_, (Readiness, Vec<Waker>)> {
        self.shared.readiness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Req, Res> Clone for Script<Req, Res> {
    /// A clone has not been asked whether it is ready.
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), ready: false }
    }
}

impl<Req, Res> fmt::Debug for Script<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("ready", &self.ready).field("probe", self.probe()).finish_non_exhaustive()
    }
}

impl<Req: 'static, Res: Send + 'static> Service<Req> for Script<Req, Res> {
    type Response = Res;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Res, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.ready {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.state();
        match &mut state.0 {
            Readiness::Ready | Readiness::After(0) => {}
            Readiness::Fails => return Poll::Ready(Err(ReadinessError.into())),
            Readiness::Never => {
                state.1.push(cx.waker().clone());
                return Poll::Pending;
            }
            Readiness::After(polls) => {
                *polls -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        drop(state);
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Req) -> Self::Future {
        assert!(self.ready, "the inner service was called without being ready");
        self.ready = false;
        let ticket = self.shared.probe.enter();
        let answer = (self.shared.answer)(req);
        Box::pin(async move {
            let _ticket = ticket;
            answer.await
        })
    }
}

/// Counts what goes on at the same time.
#[derive(Clone, Debug, Default)]
pub struct Probe(Arc<Mutex<Counts>>);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    now: u64,
    peak: u64,
    calls: u64,
}

/// Something that goes on, until it is dropped.
#[derive(Debug)]
pub struct Ticket(Probe);

impl Probe {
    /// Begins something.
    pub fn enter(&self) -> Ticket {
        let mut counts = self.counts();
        counts.now += 1;
        counts.calls += 1;
        counts.peak = counts.peak.max(counts.now);
        Ticket(self.clone())
    }

    /// What goes on now.
    pub fn now(&self) -> u64 {
        self.counts().now
    }

    /// The most that went on at the same time.
    pub fn peak(&self) -> u64 {
        self.counts().peak
    }

    /// How often something began.
    pub fn calls(&self) -> u64 {
        self.counts().calls
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.counts().now -= 1;
    }
}

/// Holds tasks back until it is opened, once and for good.
#[derive(Clone, Debug)]
pub struct Latch(Arc<Semaphore>);

impl Default for Latch {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Latch {
    /// A closed latch. Its clones are the same latch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through.
    pub fn open(&self) {
        self.0.close();
    }

    /// Waits until it is open.
    pub async fn wait(&self) {
        // Nobody ever adds a permit: this ends when the semaphore is closed.
        let _ = self.0.acquire().await;
    }
}

/// Is pending for `polls` polls and wakes its task at each.
pub async fn pauses(mut polls: u32) {
    poll_fn(|cx| {
        if polls == 0 {
            return Poll::Ready(());
        }
        polls -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Polls `future` once.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
}
