use crate::{
    Carry, DeadlineFuture, Deadlines,
    body::Cutoff,
    carry::private::WireRef,
    client::Client,
    policy::{Force, Limit, Plan, Shared},
    wire::Said,
};
use buttress_core::{Call, Clock, Deadline, Fresh, Mode, Opaque, Reason, TokioClock, sync::Ordering::Relaxed};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
use tower_layer::Layer;
use tower_service::Service;

/// [`CutLayer`] for any request: a refusal is an error.
pub type DeadlineLayer = CutLayer<Opaque>;

/// Bounds calls by deadlines. Every service, clone, route and connection of one layer shares its [`Deadlines`].
///
/// `CutLayer<P>` is the layer for the protocol `P`; [`DeadlineLayer`] is the one to begin with.
pub struct CutLayer<P = Opaque> {
    policy: Arc<Deadlines>,
    protocol: P,
}

impl<P: Default> CutLayer<P> {
    /// A layer of `deadlines`, or of one [`Duration`](std::time::Duration) for the whole call.
    pub fn new(deadlines: impl Into<Deadlines>) -> Self {
        Self::shared(Arc::new(deadlines.into()))
    }

    /// A layer of deadlines that others share.
    pub fn shared(policy: Arc<Deadlines>) -> Self {
        Self { policy, protocol: P::default() }
    }
}

impl<P> CutLayer<P> {
    /// What this layer's services share: read it, change it.
    pub fn handle(&self) -> Arc<Deadlines> {
        self.policy.clone()
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> CutLayer<Q> {
        CutLayer { policy: self.policy, protocol }
    }

    /// The same config with counts of its own, for another route or service.
    pub fn fresh(&self) -> Self
    where
        P: Clone,
    {
        Self { policy: Arc::new(self.policy.fresh()), protocol: self.protocol.clone() }
    }
}

impl<P: Clone> Clone for CutLayer<P> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

impl<P> fmt::Debug for CutLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeadlineLayer").field(&self.policy).finish()
    }
}

impl<S, P: Clone> Layer<S> for CutLayer<P> {
    type Service = DeadlineService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner, policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

/// The service of [`DeadlineLayer`].
pub struct DeadlineService<S, P = Opaque> {
    inner: S,
    policy: Arc<Deadlines>,
    protocol: P,
}

impl<S, P> DeadlineService<S, P> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone, P: Clone> Clone for DeadlineService<S, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

impl<S: fmt::Debug, P> fmt::Debug for DeadlineService<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, P, Req> Service<Req> for DeadlineService<S, P>
where
    S: Service<Req>,
    P: Carry<Req>,
    P::Call: Call<S::Response, S::Error>,
{
    type Response = <P::Call as Call<S::Response, S::Error>>::Response<(), Cutoff>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future, P::Call>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, mut req: Req) -> Self::Future {
        let lease = self.policy.lease();
        let planned = plan(&lease, &self.protocol, &mut req, &TokioClock);
        let call = self.protocol.start_refusable(&req);
        match planned {
            Ok(plan) => {
                let upload = Call::<S::Response, S::Error>::upload(&call);
                let client = upload.map(|upload| Box::new(Client::new(upload.clone())));
                DeadlineFuture::running(self.inner.call(req), plan, call, lease, client)
            }
            Err(reason) => DeadlineFuture::refused(lease.refuse(reason), call),
        }
    }
}

/// Decides what bounds `req`, and tells those further in. `Err`: its time has passed.
#[inline]
fn plan<Req, P: Carry<Req>>(shared: &Shared, protocol: &P, req: &mut Req, clock: &impl Clock) -> Result<Plan, Reason> {
    let force = match shared.mode.get() {
        Mode::Auto => Force::End,
        Mode::Disabled => return Ok(Plan::never(Force::Off)),
        _ if shared.mode.enforces() => Force::End,
        _ => Force::Observe,
    };
    if P::CONTEXT {
        let outer = protocol.context(req).map(|context| (context.deadline, context.enforced));
        let is_fixed = shared.tells()
            || shared.read.is_some()
            || shared.emit.is_some()
            || outer.is_some_and(|(deadline, _)| deadline.is_some());
        if is_fixed {
            return fixed(shared, protocol, req, outer, clock, force);
        }
    }
    match shared.relative() {
        Limit::In(span) if span.is_zero() => refuse(shared, Reason::DeadlinePassed, force),
        limit => Ok(Plan { limit, by_client: false, force }),
    }
}

/// The deadline of a context, and what is enforced of it.
type Outer = (Option<Deadline>, Option<Instant>);

/// The same where the start counts: the deadline is a moment.
fn fixed<Req, P: Carry<Req>>(
    shared: &Shared,
    protocol: &P,
    req: &mut Req,
    outer: Option<Outer>,
    clock: &impl Clock,
    force: Force,
) -> Result<Plan, Reason> {
    let said = shared.read.as_ref().map_or(Said::Nothing, |wire| protocol.read(req, WireRef(wire)).0);
    if said == Said::Garbage {
        shared.counts.malformed.fetch_add(1, Relaxed);
    }
    let has_context = outer.is_some();
    let (outer, enforced) = outer.unwrap_or_default();
    let now = clock.now();
    let bounds = shared.bounds(now, said, outer);
    let Some(Deadline { at, by_client }) = bounds.attempt else { return Ok(Plan::never(force)) };
    let plan = Plan { limit: Limit::At(at), by_client, force };
    if at <= now {
        return refuse(shared, plan.reason(None, None), force);
    }
    if force != Force::End {
        return Ok(plan);
    }
    let is_needless = enforced.is_some_and(|outer| outer <= at);
    let tells_whole = shared.propagate.load(Relaxed) && bounds.whole != outer;
    // Only a deadline for the whole call is worth making a context for.
    if (tells_whole || has_context)
        && let Some(context) = protocol.context_mut(req)
    {
        if tells_whole {
            context.deadline = bounds.whole;
        }
        if !is_needless {
            context.enforced = Some(at);
        }
    }
    if let Some(wire) = &shared.emit {
        protocol.write(req, WireRef(wire), at - now);
    }
    Ok(if is_needless { Plan::never(force) } else { plan })
}

#[cold]
fn refuse(shared: &Shared, reason: Reason, force: Force) -> Result<Plan, Reason> {
    if force == Force::End {
        return Err(reason);
    }
    shared.observe();
    Ok(Plan::never(force))
}
