//! Bodies that somebody must end even if nobody polls them.
//!
//! hyper does not poll a response body while its socket is blocked, so a timer inside `poll_frame` never fires for a reader
//! that has stopped reading, and the permits that the body holds stay taken. Here the body lies in a slot which its reader
//! and one task share. The lock is contended only at the moment of a cut.

use crate::{
    client::Client,
    policy::{Force, Plan, SharedLease, idle_reason},
};
use buttress_core::{
    Clock, Reason, Rejection, TokioClock, abandon,
    http::ResponseBody,
    sync::{Arc, Mutex, lock},
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant as TokioInstant, sleep, sleep_until},
};

/// How long a reader that waits for a frame has, once its time is up, to take one that has just come.
const GRACE: Duration = Duration::from_millis(10);

/// What bounds a watched body.
pub(crate) struct Watch {
    pub(crate) at: Option<Instant>,
    pub(crate) idle: Option<Duration>,
    pub(crate) plan: Plan,
    pub(crate) lease: SharedLease,
    pub(crate) client: Option<Box<Client>>,
}

struct Slot<B> {
    body: Option<Pin<Box<B>>>,
    /// When the last frame was delivered; at first, when the head was.
    progress: Instant,
    /// The reader has asked for a frame and there was none.
    is_waiting: bool,
    /// Its waker, kept from poll to poll.
    reader: Option<Waker>,
    fate: Fate,
}

#[derive(Clone, Copy)]
enum Fate {
    Running,
    /// Its time is up: the reader ends it at the next poll that finds no frame, the task after the grace.
    Due(Due),
    Cut(Rejection),
    /// It came to its own end.
    Over,
}

#[derive(Clone, Copy)]
struct Due {
    reason: Reason,
    idle: bool,
}

impl<B> Slot<B> {
    /// Takes the body out, so that it is dropped outside the lock.
    fn cut(&mut self, due: Due, lease: &SharedLease) -> (Rejection, Option<Pin<Box<B>>>) {
        let rejection = lease.cut(due.reason, due.idle);
        self.fate = Fate::Cut(rejection);
        (rejection, self.body.take())
    }
}

impl Watch {
    fn next_end(&self, progress: Instant) -> Option<Instant> {
        let idle = self.idle.and_then(|span| progress.checked_add(span));
        self.at.into_iter().chain(idle).min()
    }

    /// Whether the time of a body is up. Nobody is accused while nobody waits for a frame: the reader is slow.
    fn due<B>(&self, slot: &Slot<B>, now: Instant) -> Option<Due> {
        let is_late = self.at.is_some_and(|at| at <= now);
        let is_idle = self.idle.is_some_and(|idle| now.saturating_duration_since(slot.progress) >= idle);
        if !is_late && !is_idle {
            return None;
        }
        let reason = match (slot.is_waiting, is_late) {
            (false, _) => Reason::ClientDeadlinePassed,
            (true, true) => self.plan.reason(self.client.as_deref(), self.at),
            (true, false) => idle_reason(self.client.as_deref(), None),
        };
        Some(Due { reason, idle: !is_late })
    }

    /// The task: ends with the body, at the cut, or when the reader aborts it.
    async fn run<B: Send>(mut self, slot: Arc<Mutex<Slot<B>>>) {
        loop {
            let Some(end) = self.next_end(lock(&slot).progress) else { return };
            sleep_until(TokioInstant::from_std(end)).await;
            if self.plan.force != Force::End {
                self.observe(&slot);
                continue;
            }
            if let Some(waker) = self.warn(&slot) {
                waker.wake();
                sleep(GRACE).await;
            }
            if self.end(&slot) {
                return;
            }
        }
    }

    /// Time is up, perhaps. A reader that waits is to look once more.
    fn warn<B>(&self, slot: &Mutex<Slot<B>>) -> Option<Waker> {
        let mut slot = lock(slot);
        let due = self.due(&slot, TokioClock.now())?;
        if !slot.is_waiting {
            return None;
        }
        slot.fate = Fate::Due(due);
        slot.reader.take()
    }

    /// Ends the body if its time is up still. `false`: there was progress.
    fn end<B>(&self, shared: &Mutex<Slot<B>>) -> bool {
        let mut slot = lock(shared);
        let due = match slot.fate {
            Fate::Cut(_) | Fate::Over => return true,
            // What was known when it became due counts: the reader may have been woken since.
            Fate::Due(due) => self.due(&slot, TokioClock.now()).map(|_| due),
            Fate::Running => self.due(&slot, TokioClock.now()),
        };
        let Some(due) = due else {
            slot.fate = Fate::Running;
            return false;
        };
        let (rejection, body) = slot.cut(due, &self.lease);
        let reader = slot.reader.take();
        drop(slot);
        abandon(rejection.reason.outcome(), || drop(body));
        reader.into_iter().for_each(Waker::wake);
        true
    }

    fn observe<B>(&mut self, slot: &Mutex<Slot<B>>) {
        if let Some(due) = self.due(&lock(slot), TokioClock.now()) {
            self.lease.observe();
            // Once each.
            if due.idle {
                self.idle = None;
            } else {
                (self.at, self.idle) = (None, None);
            }
        }
    }
}

/// The reader's half of a watched body.
pub(crate) struct Reader<B> {
    slot: Arc<Mutex<Slot<B>>>,
    has_idle: bool,
    lease: SharedLease,
    task: AbortHandle,
}

impl<B: ResponseBody> Reader<B> {
    pub(crate) fn spawn(body: Pin<Box<B>>, watch: Watch, now: Instant, runtime: &Handle) -> Self {
        let slot = Slot { body: Some(body), progress: now, is_waiting: false, reader: None, fate: Fate::Running };
        let slot = Arc::new(Mutex::new(slot));
        let (has_idle, lease) = (watch.idle.is_some(), watch.lease.clone());
        let task = runtime.spawn(watch.run(slot.clone())).abort_handle();
        Self { slot, has_idle, lease, task }
    }

    #[allow(clippy::type_complexity, reason = "what `Body::poll_frame` returns")]
    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        cut: &mut Option<Rejection>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut slot = lock(&self.slot);
        let Slot { body, progress, is_waiting, reader, fate } = &mut *slot;
        let Some(body) = body else {
            if let Fate::Cut(rejection) = *fate {
                *cut = Some(rejection);
            }
            return Poll::Ready(None);
        };
        // The frame first: one that is ready never loses to the cut.
        match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => {
                *is_waiting = false;
                if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
                    *fate = Fate::Over;
                    self.task.abort();
                } else if self.has_idle {
                    *progress = TokioClock.now();
                    if matches!(fate, Fate::Due(due) if due.idle) {
                        *fate = Fate::Running;
                    }
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                if let Fate::Due(due) = *fate {
                    let (rejection, body) = slot.cut(due, &self.lease);
                    drop(slot);
                    abandon(rejection.reason.outcome(), || drop(body));
                    self.task.abort();
                    *cut = Some(rejection);
                    return Poll::Ready(None);
                }
                *is_waiting = true;
                match reader {
                    Some(waker) if waker.will_wake(cx.waker()) => {}
                    none_or_other => *none_or_other = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let slot = lock(&self.slot);
        match &slot.body {
            Some(body) => body.is_end_stream(),
            // A cut is still to be told.
            None => !matches!(slot.fate, Fate::Cut(_)),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        lock(&self.slot).body.as_ref().map(|body| body.size_hint()).unwrap_or_default()
    }
}

impl<B> Drop for Reader<B> {
    /// The body goes with its reader, and not when the task gets to hear of it.
    fn drop(&mut self) {
        self.task.abort();
        let body = lock(&self.slot).body.take();
        drop(body);
    }
}
