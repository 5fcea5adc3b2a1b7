use super::{
    FailoverPermit, FailoverRule, Relay,
    more::{Finding, More, Next},
    relay::is_of_limit,
    state::Shared,
};
use crate::Trigger;
use buttress_core::{
    Call, Cause, Degraded, DegradedBy, Lease, NoCut, Outcome, Protocol, Reason, Rejection, Replay, abandon,
    sync::Ordering::Relaxed,
};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};
use tokio::time::{Instant as TokioInstant, Sleep, sleep_until};
use tower_service::Service;

pin_project! {
    /// The future of [`FailoverService`](super::FailoverService).
    pub struct FailoverFuture<S, C, P, R, Req>
    where
        P: Replay<Req>,
        S: Service<<P as Replay<Req>>::Attempt>,
        C: Service<<P as Replay<Req>>::Attempt>,
    {
        #[pin]
        state: State<S, C, S::Future, C::Future, P::Attempt>,
        #[pin]
        timer: Option<Sleep>,
        // When the present tier has had its share, or all of them theirs.
        limit: Option<Instant>,
        // It was looked up: calls that are ready at once need no clock.
        watched: bool,
        permit: Option<FailoverPermit>,
        call: Option<<P as Protocol<Req>>::Call>,
        more: More<S, C, P, R, Req>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, C, F, G, A> {
        Readying { service: Chosen<S, C>, attempt: Option<A> },
        Primary { #[pin] future: F },
        Backup { #[pin] future: G },
        Done,
    }
}

enum Chosen<S, C> {
    Primary(S),
    Backup(C),
}

const DONE: &str = "a future was polled after it had completed";

impl<S, C, A> State<S, C, S::Future, C::Future, A>
where
    S: Service<A>,
    C: Service<A, Response = S::Response, Error = S::Error>,
{
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>> {
        loop {
            let called = match self.as_mut().project() {
                StateProj::Primary { future } => return future.poll(cx),
                StateProj::Backup { future } => return future.poll(cx),
                StateProj::Readying { service: Chosen::Primary(service), attempt } => {
                    ready!(service.poll_ready(cx))?;
                    State::Primary { future: service.call(attempt.take().expect(DONE)) }
                }
                StateProj::Readying { service: Chosen::Backup(service), attempt } => {
                    ready!(service.poll_ready(cx))?;
                    State::Backup { future: service.call(attempt.take().expect(DONE)) }
                }
                StateProj::Done => panic!("{DONE}"),
            };
            self.set(called);
        }
    }
}

impl<S, C, P, R, Req> FailoverFuture<S, C, P, R, Req>
where
    P: Relay<Req, S::Response, S::Error>,
    S: Service<<P as Replay<Req>>::Attempt> + Clone,
    C: Service<<P as Replay<Req>>::Attempt, Response = S::Response, Error = S::Error> + Clone,
{
    #[inline]
    pub(super) fn start(
        lease: Arc<Lease<Shared>>,
        mut more: More<S, C, P, R, Req>,
        call: P::Call,
        attempt: P::Attempt,
        primary: &mut S,
        is_ready: &mut bool,
    ) -> Self {
        let permit = match more.pick.start {
            0 => Shared::admit(lease, 0, more.pick),
            _ => more.admit(&lease, 0),
        };
        let permit = permit.expect("the primary always has a place");
        let tier = permit.tier();
        if more.pick.start != 0 {
            more.cause = Some(if more.pick.chosen { Cause::Switched } else { Cause::FailedOver });
        }
        let state = match tier {
            0 if mem::take(is_ready) => State::Primary { future: primary.call(attempt) },
            0 => {
                // The one that was asked goes on being asked; its clone stays for the next call.
                let clone = primary.clone();
                let asked = mem::replace(primary, clone);
                State::Readying { service: Chosen::Primary(asked), attempt: Some(attempt) }
            }
            backup => {
                more.primary = Some(primary.clone());
                let service = more.backups[usize::from(backup) - 1].clone();
                State::Readying { service: Chosen::Backup(service), attempt: Some(attempt) }
            }
        };
        Self { state, timer: None, limit: None, watched: false, permit: Some(permit), call: Some(call), more }
    }

    /// Goes on with the next tier. What went before is over.
    #[cold]
    fn go(self: Pin<&mut Self>, next: Next<P::Attempt>) {
        let mut this = self.project();
        let Next { permit, attempt } = next;
        let tier = permit.tier();
        *this.watched = false;
        let service = match usize::from(tier).checked_sub(1) {
            Some(backup) => Chosen::Backup(this.more.backups[backup].clone()),
            None => Chosen::Primary(this.more.primary.take().expect("kept for its turn")),
        };
        this.state.set(State::Readying { service, attempt: Some(attempt) });
        this.timer.set(None);
        *this.permit = Some(permit);
    }

    /// The time of the present tier is over. `Some`: so is that of the call.
    #[cold]
    #[allow(clippy::type_complexity, reason = "what the future returns")]
    fn time_out(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Option<Result<<P::Call as Call<S::Response, S::Error>>::Response<FailoverPermit, NoCut>, S::Error>> {
        let mut this = self.as_mut().project();
        let permit = this.permit.as_mut().expect(DONE);
        let lease = permit.lease().clone();
        let call = this.call.as_ref().expect(DONE);
        let end = this.more.end.expect("it has passed");
        let ends = this.more.ends_here.then_some(end.at);
        // Who waits for its client, or has what its client made too short, is not to blame.
        let waits = call.waits_for_client(cx);
        let outcome = if end.by_client || waits { Outcome::Ignored } else { Outcome::Failure };
        if outcome == Outcome::Failure && lease.is_on(Trigger::Failure) {
            lease.tiers[usize::from(permit.tier())].timed_out.fetch_add(1, Relaxed);
            permit.tell(false);
        }
        let rejection = Rejection::new(Reason::DeadlinePassed, "failover");
        if *this.limit != ends {
            let finding = Finding { cause: Cause::Refused(rejection), free: false };
            let next = if waits { None } else { this.more.next(&lease, &finding) };
            if let Some(next) = next {
                permit.excuse();
                abandon(outcome, || this.state.set(State::Done));
                self.go(next);
            } else {
                // It is the last one that there is, and has all the time there is.
                *this.limit = ends;
                this.timer.set(None);
            }
            return None;
        }
        abandon(outcome, || {
            this.state.set(State::Done);
            *this.permit = None;
        });
        let call = this.call.take().expect(DONE);
        Some(match this.more.spare.take() {
            Some(spare) => call.finish(spare.result, &mut None, NoCut),
            None => call.reject(rejection),
        })
    }
}

impl<S, C, P, R, Req> Future for FailoverFuture<S, C, P, R, Req>
where
    P: Relay<Req, S::Response, S::Error>,
    S: Service<<P as Replay<Req>>::Attempt> + Clone,
    C: Service<<P as Replay<Req>>::Attempt, Response = S::Response, Error = S::Error> + Clone,
    R: FailoverRule<Req, S::Response, S::Error>,
{
    type Output = Result<<P::Call as Call<S::Response, S::Error>>::Response<FailoverPermit, NoCut>, S::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            // Out of its place, so that a panic settles the permit where it passes.
            let permit = this.permit.take();
            let polled = this.state.as_mut().poll(cx);
            *this.permit = permit;
            let Poll::Ready(mut result) = polled else {
                if !mem::replace(this.watched, true) {
                    let permit = this.permit.as_ref().expect(DONE);
                    *this.limit = this.more.limit(permit.lease(), permit.tier());
                }
                let Some(limit) = *this.limit else { return Poll::Pending };
                if this.timer.is_none() {
                    this.timer.set(Some(sleep_until(TokioInstant::from_std(limit))));
                }
                // Outside tokio's budget: a call that uses all of it at every poll would never see its timer.
                let timer = this.timer.as_mut().as_pin_mut().expect("just made");
                ready!(pin!(tokio::task::unconstrained(timer)).poll(cx));
                match self.as_mut().time_out(cx) {
                    Some(result) => return Poll::Ready(result),
                    None => continue,
                }
            };
            let call = this.call.as_ref().expect(DONE);
            let permit = this.permit.as_mut().expect(DONE);
            let verdict = call.judge(result.as_ref());
            if permit.tier() != 0
                && let Ok(res) = &mut result
            {
                P::mark(res, Degraded::new(DegradedBy::Failover, this.more.cause.unwrap_or(Cause::Switched)));
            }
            match this.more.find(permit.lease(), &verdict, result.as_ref()) {
                None if verdict.is_good() && verdict.end => permit.head_is_good(),
                None => {}
                Some(finding) => {
                    match finding.cause {
                        Cause::Overload => permit.excuse(),
                        Cause::Refused(rejection) if is_of_limit(rejection.reason) => permit.excuse(),
                        _ => permit.tell(false),
                    }
                    let lease = permit.lease().clone();
                    let next = this.more.next(&lease, &finding);
                    this.more.keep(result, verdict.rejection.is_some());
                    if let Some(next) = next {
                        self.as_mut().go(next);
                        continue;
                    }
                    result = this.more.spare.take().expect("just kept").result;
                }
            }
            let call = this.call.take().expect(DONE);
            return Poll::Ready(call.finish(result, this.permit, NoCut));
        }
    }
}

impl<S, C, P, R, Req> fmt::Debug for FailoverFuture<S, C, P, R, Req>
where
    P: Replay<Req>,
    S: Service<<P as Replay<Req>>::Attempt>,
    C: Service<<P as Replay<Req>>::Attempt>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverFuture")
            .field("place", &self.more.place)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
