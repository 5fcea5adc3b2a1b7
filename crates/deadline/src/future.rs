use crate::{
    body::Cutoff,
    client::Client,
    policy::{Force, Limit, Plan, SharedLease},
};
use buttress_core::{Call, Rejection, abandon};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

pin_project! {
    /// The future of [`DeadlineService`](crate::DeadlineService).
    pub struct DeadlineFuture<F, K> {
        #[pin]
        state: State<F>,
        #[pin]
        timer: Option<Sleep>,
        plan: Plan,
        call: Option<K>,
        // Goes on with the body.
        lease: Option<SharedLease>,
        // Whom it may wait for.
        client: Option<Box<Client>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Running { #[pin] inner: F },
        Refused { rejection: Rejection },
        Done,
    }
}

impl<F, K> DeadlineFuture<F, K> {
    #[inline]
    pub(crate) fn running(inner: F, plan: Plan, call: K, lease: SharedLease, client: Option<Box<Client>>) -> Self {
        Self { state: State::Running { inner }, timer: None, plan, call: Some(call), lease: Some(lease), client }
    }

    #[cold]
    pub(crate) fn refused(rejection: Rejection, call: K) -> Self {
        Self {
            state: State::Refused { rejection },
            timer: None,
            plan: Plan::never(Force::Off),
            call: Some(call),
            lease: None,
            client: None,
        }
    }
}

impl<F, K> fmt::Debug for DeadlineFuture<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture").field("plan", &self.plan).finish_non_exhaustive()
    }
}

const DONE: &str = "a future was polled after it had completed";

impl<F, K, Res, Err> Future for DeadlineFuture<F, K>
where
    F: Future<Output = Result<Res, Err>>,
    K: Call<Res, Err>,
{
    type Output = Result<K::Response<(), Cutoff>, Err>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let rejection = match this.state.as_mut().project() {
            StateProj::Running { inner } => {
                // The response first: one that is there never loses to the time-out.
                let mut polled = inner.poll(cx);
                let result = match &mut polled {
                    Poll::Ready(Ok(res)) => Some(Ok(res)),
                    Poll::Ready(Err(error)) => Some(Err(&*error)),
                    Poll::Pending => None,
                };
                if let Some(result) = result {
                    let tie = this.call.take().expect(DONE).tie(result, &mut None);
                    let cut = Cutoff::new(*this.plan, this.lease.take().expect(DONE), this.client.take());
                    return polled.map_ok(|res| K::bind(res, tie, cut));
                }
                if let Some(client) = this.client {
                    client.look(cx);
                }
                if this.timer.is_none() {
                    let timer = match this.plan.limit {
                        Limit::Never => return Poll::Pending,
                        Limit::In(span) => sleep(span),
                        Limit::At(at) => sleep_until(Instant::from_std(at)),
                    };
                    // The body goes on under the same moment.
                    this.plan.limit = Limit::At(timer.deadline().into_std());
                    this.timer.set(Some(timer));
                }
                if !this.timer.as_mut().as_pin_mut().is_some_and(|timer| has_fired(timer, cx)) {
                    return Poll::Pending;
                }
                if this.plan.force != Force::End {
                    this.lease.as_ref().expect(DONE).observe();
                    *this.plan = Plan::never(this.plan.force);
                    this.timer.set(None);
                    return Poll::Pending;
                }
                let end = this.timer.as_ref().as_pin_ref().map(|timer| timer.deadline().into_std());
                this.lease.as_ref().expect(DONE).pass(this.plan.reason(this.client.as_deref(), end))
            }
            StateProj::Refused { rejection } => *rejection,
            StateProj::Done => panic!("{DONE}"),
        };
        // What the call holds is free before anyone hears of its end.
        abandon(rejection.reason.outcome(), || this.state.set(State::Done));
        Poll::Ready(this.call.take().expect(DONE).reject(rejection))
    }
}

/// Outside tokio's budget: a call that uses all of it at every poll would never see its timer.
pub(crate) fn has_fired(timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> bool {
    pin!(tokio::task::unconstrained(timer)).poll(cx).is_ready()
}
