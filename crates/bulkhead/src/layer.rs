use crate::{Bulkhead, BulkheadConfig, BulkheadPermit, Waiting, bulkhead::TARGET};
use buttress_core::{
    Admission, Admit, ConfigError, Enqueue, Gate, GateLayer, Gatekeeper, Keyed, Opaque, Queue, QueueLayer, Rejection,
    TokioClock, sync::Ordering::Relaxed,
};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// The layer that refuses at once: `BulkheadLayer::new(64)`, `BulkheadConfig::new(64).release(..).layer()?`.
///
/// It never waits in `call`: `max_queue` of a bulkhead that was put into it by hand means nothing here.
/// [`BulkheadConfig::layer`] is an error then; `BulkheadLayer::new` cannot be, and the first refusal is told with a `tracing`
/// warning.
pub type BulkheadLayer = GateLayer<Bulkhead>;

/// The service of [`BulkheadLayer`].
pub type BulkheadService<S, P = Opaque> = Gate<S, Bulkhead, P>;

/// The layer whose callers wait for a permit, as long and as many as the config says. The inner service is `Clone`.
pub type QueuedBulkheadLayer = QueueLayer<Bulkhead>;

/// The service of [`QueuedBulkheadLayer`].
pub type QueuedBulkheadService<S, P = Opaque> = Queue<S, Bulkhead, P>;

/// [`BulkheadLayer`] with a bulkhead per key (host, tenant, route): see the example in the [crate docs](crate#compartments-per-key).
pub type KeyedBulkheadLayer<K, F> = GateLayer<Keyed<K, Bulkhead, F>>;

/// [`QueuedBulkheadLayer`] with a bulkhead, and a queue, per key.
pub type KeyedQueuedBulkheadLayer<K, F> = QueueLayer<Keyed<K, Bulkhead, F>>;

impl BulkheadConfig {
    /// The layer that refuses at once (or pushes back, as `admission` says).
    ///
    /// # Errors
    ///
    /// A field out of its range, or a queue: that is for [`queued_layer`](Self::queued_layer).
    pub fn layer(self) -> Result<BulkheadLayer, ConfigError> {
        if self.max_queue > 0 {
            return Err(ConfigError::new(
                "max_queue",
                self.max_queue,
                "0, or a `QueuedBulkheadLayer` (`queued_layer`)",
            ));
        }
        self.build().map(GateLayer::new)
    }

    /// The layer whose callers wait.
    ///
    /// # Errors
    ///
    /// A field out of its range, or no queue: that is for [`layer`](Self::layer).
    pub fn queued_layer(self) -> Result<QueuedBulkheadLayer, ConfigError> {
        if self.max_queue == 0 {
            return Err(ConfigError::new("max_queue", 0, "1 to 2147483647, or a `BulkheadLayer` (`layer`)"));
        }
        self.build().map(QueueLayer::new)
    }
}

/// What one clone of a service has reserved in `poll_ready`, with [`Admission::BackPressure`](crate::AdmissionMode::BackPressure);
/// dropped, it is given back.
#[derive(Default)]
pub struct Turn(State);

#[derive(Default)]
enum State {
    #[default]
    Nothing,
    Waiting(Waiting),
    Reserved(BulkheadPermit),
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Nothing => "Turn(nothing)",
            State::Waiting(_) => "Turn(waiting)",
            State::Reserved(_) => "Turn(reserved)",
        })
    }
}

impl Bulkhead {
    /// Once: its config has a queue, and this layer refuses at once.
    #[cold]
    fn warn_of_a_queue_without_use(&self) {
        if !self.shared.warned.swap(true, Relaxed) {
            let name = &*self.config().name;
            tracing::warn!(target: TARGET, bulkhead = name, "a call was refused though `max_queue` is set: this layer does not queue, `QueuedBulkheadLayer` does");
        }
    }

    #[cold]
    fn reserve(&self, turn: &mut Turn, cx: &mut Context<'_>) -> Poll<Option<Rejection>> {
        loop {
            turn.0 = match &mut turn.0 {
                State::Reserved(_) => return Poll::Ready(None),
                State::Nothing => match self.enqueue_slowly(u32::MAX, || None) {
                    Ok(Admission::Now(permit)) => State::Reserved(permit),
                    Ok(Admission::Later(waiting)) => State::Waiting(waiting),
                    Err(refused) => return Poll::Ready(Some(refused)),
                },
                State::Waiting(waiting) => match Pin::new(waiting).poll(cx) {
                    Poll::Ready(Ok(permit)) => State::Reserved(permit),
                    Poll::Ready(Err(refused)) => {
                        turn.0 = State::Nothing;
                        return Poll::Ready(Some(refused));
                    }
                    Poll::Pending => return Poll::Pending,
                },
            };
        }
    }
}

impl Gatekeeper for Bulkhead {
    type Permit = BulkheadPermit;
    type Turn = Turn;

    #[inline]
    fn poll_ready(&self, turn: &mut Turn, cx: &mut Context<'_>) -> Poll<Option<Rejection>> {
        if !self.shared.back_pressure {
            return Poll::Ready(None);
        }
        self.reserve(turn, cx)
    }
}

impl<Req> Admit<Req> for Bulkhead {
    #[inline]
    fn admit(&self, turn: &mut Turn, _: &Req) -> Result<BulkheadPermit, Rejection> {
        if let State::Reserved(_) = turn.0
            && let State::Reserved(permit) = std::mem::take(turn).0
        {
            return Ok(permit);
        }
        let admitted = self.try_acquire();
        if admitted.is_err() && self.shared.queued {
            self.warn_of_a_queue_without_use();
        }
        admitted
    }
}

impl<Req> Enqueue<Req> for Bulkhead {
    type Queued = Waiting;

    #[inline]
    fn enqueue(&self, _: &mut Turn, _: &Req) -> Result<Admission<BulkheadPermit, Waiting>, Rejection> {
        self.enqueue(&TokioClock)
    }
}
