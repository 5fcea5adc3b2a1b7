use crate::{Ask, Describe, FromContext, Shed, ShedPermit, Waiting, shared::Admits};
use buttress_core::{
    Admission, Admit, Context, Enqueue, Gatekeeper, Keyed, Opaque, Queue, QueueLayer, Rejection, TokioClock,
};

/// The layer: `ShedConfig::default().layer()?`. The inner service is `Clone`. How to [keep its handle](crate#its-handle): `let handle = layer.handle();`.
pub type ShedLayer = QueueLayer<Shed>;

/// [`ShedLayer`] whose calls are described by a closure: see [`ShedConfig::layer_by`](crate::ShedConfig::layer_by).
pub type ShedLayerBy<D> = QueueLayer<Shed<D>>;

/// The service of [`ShedLayer`].
pub type ShedService<S, P = Opaque, D = FromContext> = Queue<S, Shed<D>, P>;

/// [`ShedLayer`] with a limit, and a queue, per key.
pub type KeyedShedLayer<K, F, D = FromContext> = QueueLayer<Keyed<K, Shed<D>, F>>;

impl<D: Send + Sync + 'static> Gatekeeper for Shed<D> {
    type Permit = ShedPermit;
    type Turn = ();

    const HEEDS_CONTEXT: bool = true;
}

impl<Req, D: Describe<Req>> Admit<Req> for Shed<D> {
    #[inline]
    fn admit(&self, turn: &mut (), req: &Req) -> Result<ShedPermit, Rejection> {
        self.admit_in(turn, req, None)
    }

    /// Without waiting, though there be a queue.
    #[inline]
    fn admit_in(&self, (): &mut (), req: &Req, context: Option<&Context>) -> Result<ShedPermit, Rejection> {
        self.shared.refuse_at(|| self.ask(req, context), &TokioClock)
    }
}

impl<Req, D: Describe<Req>> Enqueue<Req> for Shed<D> {
    type Queued = Waiting;

    #[inline]
    fn enqueue(&self, turn: &mut (), req: &Req) -> Result<Admission<ShedPermit, Waiting>, Rejection> {
        self.enqueue_in(turn, req, None)
    }

    #[inline]
    fn enqueue_in(
        &self,
        (): &mut (),
        req: &Req,
        context: Option<&Context>,
    ) -> Result<Admission<ShedPermit, Waiting>, Rejection> {
        self.shared.enqueue_at(|| self.ask(req, context), &TokioClock)
    }
}

impl<D> Shed<D> {
    fn ask<Req>(&self, req: &Req, context: Option<&Context>) -> Ask
    where
        D: Describe<Req>,
    {
        self.describe.describe(req).or(context)
    }
}
