use crate::{Call, Details, NoCut, Opaque, Protocol, Reason, Rejection, Settle, settle::or_fail};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tower_layer::Layer;
use tower_service::Service;

/// The request-independent half of [`Admit`]: what a policy is asked in `poll_ready`.
pub trait Gatekeeper: Send + Sync + 'static {
    /// What an admitted call holds.
    type Permit: Settle;

    /// What one clone of a service keeps between `poll_ready` and `call`: nothing, or its place among parked tasks. It is made anew after a call
    /// that `poll_ready` has refused.
    type Turn: Default + Send;

    /// Whether it wants to see the [`Context`](crate::Context) of a request: its priority, its deadline. Nobody looks for one otherwise.
    const HEEDS_CONTEXT: bool = false;

    /// Asked before the inner service is: `Ready(None)`: go on. `Ready(Some(_))`: the inner service need not be ready, the
    /// next call will be refused with this. `Pending`: back-pressure, where the policy documents it.
    #[inline]
    fn poll_ready(&self, turn: &mut Self::Turn, cx: &mut Context<'_>) -> Poll<Option<Rejection>> {
        let _ = (turn, cx);
        Poll::Ready(None)
    }

    /// The inner service is not ready, and the task parks on it. A policy that may shut wakes it then.
    fn parked(&self, turn: &mut Self::Turn, cx: &mut Context<'_>) {
        let _ = (turn, cx);
    }

    /// The inner service failed before it was called: its `poll_ready` gave an error.
    fn unready(&self) {}
}

/// A policy that admits or refuses a request at once: breaker, bulkhead, rate limit. Everything else of such a layer (the
/// layer, the service, the future) is [`GateLayer`], written once.
///
/// ```
/// use buttress_core::{Admit, GateLayer, Gatekeeper, Outcome, Pushback, Reason, Rejection, Settle};
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
///
/// /// Admits so many calls, and then no more.
/// struct Ration(Arc<AtomicU32>);
/// struct Taken;
/// impl Settle for Taken {
///     fn conclude(&mut self, _: Outcome, _: Option<Pushback>) {}
/// }
/// impl Gatekeeper for Ration {
///     type Permit = Taken;
///     type Turn = ();
/// }
/// impl<Req> Admit<Req> for Ration {
///     fn admit(&self, _: &mut (), _: &Req) -> Result<Taken, Rejection> {
///         let left = self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
///         left.map(|_| Taken).map_err(|_| Rejection::new(Reason::RateLimited, "ration"))
///     }
/// }
/// let layer = GateLayer::<Ration>::new(Ration(Arc::new(AtomicU32::new(100))));
/// ```
pub trait Admit<Req>: Gatekeeper {
    /// Decides.
    ///
    /// # Errors
    ///
    /// The refusal, which the protocol turns into a response or an error.
    fn admit(&self, turn: &mut Self::Turn, req: &Req) -> Result<Self::Permit, Rejection>;

    /// Decides by what travels with the request, too, if the protocol has that: asked instead of [`admit`](Self::admit) where
    /// the policy [heeds it](Gatekeeper::HEEDS_CONTEXT).
    ///
    /// # Errors
    ///
    /// As [`admit`](Self::admit).
    #[inline]
    fn admit_in(
        &self,
        turn: &mut Self::Turn,
        req: &Req,
        context: Option<&crate::Context>,
    ) -> Result<Self::Permit, Rejection> {
        let _ = context;
        self.admit(turn, req)
    }
}

/// A policy that can be made again with the same config and a state of its own.
pub trait Fresh {
    /// The same config, nothing seen yet.
    fn fresh(&self) -> Self;
}

/// The layer of every policy that decides at once.
///
/// The state is made once, here: every service, clone, route and connection of this layer shares it.
/// [`fresh`](Self::fresh) makes another one.
pub struct GateLayer<A, P = Opaque> {
    policy: Arc<A>,
    protocol: P,
}

impl<A, P: Default> GateLayer<A, P> {
    /// A layer around `policy`, or what becomes one.
    ///
    /// Call it through a type that fixes the protocol, as the aliases of the layer crates do
    /// (`pub type FooLayer = GateLayer<Foo>;`), or as `GateLayer::<Foo>::new`: the protocol is [`Opaque`] then.
    pub fn new(policy: impl Into<A>) -> Self {
        Self::shared(Arc::new(policy.into()))
    }

    /// A layer around a policy that others share.
    pub fn shared(policy: Arc<A>) -> Self {
        Self { policy, protocol: P::default() }
    }
}

impl<A, P> GateLayer<A, P> {
    /// The policy that this layer's services share: read it, change it, drive it by hand.
    pub fn handle(&self) -> Arc<A> {
        self.policy.clone()
    }

    /// Speaks `protocol` instead.
    pub fn protocol<Q>(self, protocol: Q) -> GateLayer<A, Q> {
        GateLayer { policy: self.policy, protocol }
    }

    /// The same config with a state of its own, for another route or service.
    pub fn fresh(&self) -> Self
    where
        A: Fresh,
        P: Clone,
    {
        Self { policy: Arc::new(self.policy.fresh()), protocol: self.protocol.clone() }
    }
}

impl<A, P: Clone> Clone for GateLayer<A, P> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), protocol: self.protocol.clone() }
    }
}

impl<A: fmt::Debug, P> fmt::Debug for GateLayer<A, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GateLayer").field(&self.policy).finish()
    }
}

impl<S, A: Gatekeeper, P: Clone> Layer<S> for GateLayer<A, P> {
    type Service = Gate<S, A, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate {
            inner,
            policy: self.policy.clone(),
            protocol: self.protocol.clone(),
            turn: A::Turn::default(),
            shut: None,
        }
    }
}

/// The service of [`GateLayer`].
pub struct Gate<S, A: Gatekeeper, P = Opaque> {
    inner: S,
    policy: Arc<A>,
    protocol: P,
    turn: A::Turn,
    /// Said in `poll_ready`, kept in `call`: the inner service was not asked and must not be called.
    shut: Option<Shut>,
}

/// A refusal in whole words: half of one that was just written is waited for when it is moved with its neighbour.
struct Shut {
    reason: Reason,
    layer: &'static str,
    /// In nanoseconds; `u64::MAX`: nobody knows.
    retry_after: u64,
}

impl From<Rejection> for Shut {
    #[inline]
    fn from(rejection: Rejection) -> Self {
        let nanos = |after: Duration| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX - 1);
        let Details { reason, layer, retry_after } = *rejection;
        Self { reason, layer, retry_after: retry_after.map_or(u64::MAX, nanos) }
    }
}

impl From<Shut> for Rejection {
    #[inline]
    fn from(shut: Shut) -> Self {
        let rejection = Self::new(shut.reason, shut.layer);
        match shut.retry_after {
            u64::MAX => rejection,
            nanos => rejection.retry_after(Duration::from_nanos(nanos)),
        }
    }
}

impl<S, A: Gatekeeper, P> Gate<S, A, P> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone, A: Gatekeeper, P: Clone> Clone for Gate<S, A, P> {
    /// A clone shares the state and has not been asked yet whether it is ready.
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: self.policy.clone(),
            protocol: self.protocol.clone(),
            turn: A::Turn::default(),
            shut: None,
        }
    }
}

impl<S: fmt::Debug, A: Gatekeeper, P> fmt::Debug for Gate<S, A, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("inner", &self.inner).field("shut", &self.shut.is_some()).finish_non_exhaustive()
    }
}

impl<S, A, P, Req> Service<Req> for Gate<S, A, P>
where
    S: Service<Req>,
    A: Admit<Req>,
    P: Protocol<Req>,
    P::Call: Call<S::Response, S::Error>,
{
    type Response = <P::Call as Call<S::Response, S::Error>>::Response<A::Permit, NoCut>;
    type Error = S::Error;
    type Future = GateFuture<S::Future, A::Permit, P::Call>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Nothing is written where nothing is said: clearing the whole refusal costs every call.
        match self.policy.poll_ready(&mut self.turn, cx) {
            Poll::Ready(None) if self.shut.is_none() => {}
            Poll::Ready(None) => self.shut = None,
            Poll::Ready(shut) => {
                self.shut = shut.map(Shut::from);
                return Poll::Ready(Ok(()));
            }
            Poll::Pending => return Poll::Pending,
        }
        let readiness = self.inner.poll_ready(cx);
        match &readiness {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => self.policy.unready(),
            Poll::Pending => self.policy.parked(&mut self.turn, cx),
        }
        readiness
    }

    #[inline(always)]
    fn call(&mut self, req: Req) -> Self::Future {
        if let Some(shut) = self.shut.take() {
            // Said: what the policy keeps of it is not of the next call.
            self.turn = A::Turn::default();
            return GateFuture::refused(shut.into(), self.protocol.start_refusable(&req));
        }
        let admitted = if A::HEEDS_CONTEXT {
            self.policy.admit_in(&mut self.turn, &req, self.protocol.context(&req))
        } else {
            self.policy.admit(&mut self.turn, &req)
        };
        match admitted {
            Ok(permit) => {
                let call = self.protocol.start(&req);
                GateFuture::admitted(self.inner.call(req), permit, call)
            }
            Err(rejection) => GateFuture::refused(rejection, self.protocol.start_refusable(&req)),
        }
    }
}

pin_project! {
    /// The future of [`Gate`].
    // Plain fields and no enum, so that a permit is written once, where it stays.
    pub struct GateFuture<F, G, K> {
        #[pin]
        inner: Option<F>,
        permit: Option<G>,
        call: Option<K>,
        rejection: Option<Rejection>,
        // What the permit was told last.
        wait: Wait,
    }
}

/// Whom a call waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Not,
    Service,
    Client,
}

/// For layers of their own kind that hold a permit through one call as a gate does.
impl<F, G, K> GateFuture<F, G, K> {
    /// A call that was admitted: `inner` runs, `permit` is held to its end.
    #[inline]
    pub fn admitted(inner: F, permit: G, call: K) -> Self {
        Self { inner: Some(inner), permit: Some(permit), call: Some(call), rejection: None, wait: Wait::Not }
    }

    /// A call that is refused.
    #[inline]
    pub fn refused(rejection: Rejection, call: K) -> Self {
        Self { inner: None, permit: None, call: Some(call), rejection: Some(rejection), wait: Wait::Not }
    }
}

impl<F, G, K> fmt::Debug for GateFuture<F, G, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateFuture").finish_non_exhaustive()
    }
}

pub(crate) const DONE: &str = "a future was polled after it had completed";

impl<F, G, K, Res, Err> Future for GateFuture<F, G, K>
where
    F: Future<Output = Result<Res, Err>>,
    G: Settle,
    K: Call<Res, Err>,
{
    type Output = Result<K::Response<G, NoCut>, Err>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            let rejection = this.rejection.take().expect(DONE);
            return Poll::Ready(this.call.take().expect(DONE).reject(rejection));
        };
        // Judged where it lies: a response moves once, into what this returns.
        let mut polled = or_fail(this.permit, || inner.poll(cx));
        let result = match &mut polled {
            Poll::Ready(Ok(res)) => Ok(res),
            Poll::Ready(Err(error)) => Err(&*error),
            Poll::Pending => {
                let permit = this.permit.as_mut().expect(DONE);
                match this.call.as_ref().expect(DONE).waits_for_client(cx) {
                    true if *this.wait != Wait::Client => {
                        *this.wait = Wait::Client;
                        permit.pause();
                    }
                    false if *this.wait != Wait::Service => {
                        *this.wait = Wait::Service;
                        permit.pending();
                    }
                    _ => {}
                }
                return Poll::Pending;
            }
        };
        let call = this.call.take().expect(DONE);
        let tie = call.tie(result, this.permit);
        polled.map_ok(|res| K::bind(res, tie, NoCut))
    }
}
