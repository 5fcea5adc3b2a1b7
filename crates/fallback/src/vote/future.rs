use super::{
    Ask, Ballot, Same,
    policy::{Shared, TARGET},
    tally::{Decision, Tally},
};
use buttress_core::{Lease, Outcome, Reason, Rejection, Verdict, sync::Ordering::Relaxed};
use futures_util::stream::{FuturesUnordered, Stream};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tower_service::Service;

pin_project! {
    /// The future of [`VoteService`](super::VoteService).
    pub struct VoteFuture<S, C, P, E, Req>
    where
        P: Ballot<Req, S::Response, S::Error>,
        S: Service<<P as Ask<Req>>::Copy>,
        C: Service<<P as Ask<Req>>::Copy, Response = S::Response, Error = S::Error>,
    {
        // While the request is being read; then all versions are asked.
        #[pin]
        gather: Option<P::Gather>,
        versions: Option<(S, Vec<C>)>,
        asked: FuturesUnordered<Asked<S, C, P, Req>>,
        round: Round<P::Answer, S::Error>,
        call: Option<P::Call>,
        same: E,
    }
}

/// The votes of one call.
struct Round<A, Err> {
    lease: Arc<Lease<Shared>>,
    tally: Option<Tally<A>>,
    /// The first version is the only one that is asked.
    alone: bool,
    /// Which versions were asked and have not ended.
    pending: Vec<usize>,
    /// The first bad result.
    bad: Option<Result<A, Err>>,
    /// What all that have ended came to.
    all: All,
}

#[derive(Clone, Copy)]
enum All {
    NoneYet,
    /// They were refused, for one reason.
    Refused(Rejection),
    /// They say nothing about any version: the client went away.
    Excused,
    Mixed,
}

pin_project! {
    /// One version's call.
    struct Asked<S, C, P, Req>
    where
        P: Ballot<Req, S::Response, S::Error>,
        S: Service<<P as Ask<Req>>::Copy>,
        C: Service<<P as Ask<Req>>::Copy, Response = S::Response, Error = S::Error>,
    {
        version: usize,
        cap: usize,
        #[pin]
        state: State<S, C, P::Copy, S::Future, C::Future, P::Collect>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, C, A, F, G, K> {
        First { service: S, copy: Option<A> },
        Other { service: C, copy: Option<A> },
        CallingFirst { #[pin] future: F },
        CallingOther { #[pin] future: G },
        Collecting { #[pin] collect: K },
    }
}

const DONE: &str = "a future was polled after it had completed";

impl<S, C, P, Req> Future for Asked<S, C, P, Req>
where
    P: Ballot<Req, S::Response, S::Error>,
    S: Service<<P as Ask<Req>>::Copy>,
    C: Service<<P as Ask<Req>>::Copy, Response = S::Response, Error = S::Error>,
{
    /// `None`: the response could not be read.
    type Output = (usize, Option<Result<P::Answer, S::Error>>);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let result = match this.state.as_mut().project() {
                StateProj::First { service, copy } => ready!(service.poll_ready(cx)).map(|()| {
                    let copy = copy.take().expect(DONE);
                    State::CallingFirst { future: service.call(copy) }
                }),
                StateProj::Other { service, copy } => ready!(service.poll_ready(cx)).map(|()| {
                    let copy = copy.take().expect(DONE);
                    State::CallingOther { future: service.call(copy) }
                }),
                StateProj::CallingFirst { future } => {
                    ready!(future.poll(cx)).map(|res| State::Collecting { collect: P::collect(res, *this.cap) })
                }
                StateProj::CallingOther { future } => {
                    ready!(future.poll(cx)).map(|res| State::Collecting { collect: P::collect(res, *this.cap) })
                }
                StateProj::Collecting { collect } => {
                    return Poll::Ready((*this.version, ready!(collect.poll(cx)).map(Ok)));
                }
            };
            match result {
                Ok(next) => this.state.set(next),
                Err(error) => return Poll::Ready((*this.version, Some(Err(error)))),
            }
        }
    }
}

impl<S, C, P, E, Req> VoteFuture<S, C, P, E, Req>
where
    P: Ballot<Req, S::Response, S::Error>,
    S: Service<<P as Ask<Req>>::Copy>,
    C: Service<<P as Ask<Req>>::Copy, Response = S::Response, Error = S::Error>,
{
    pub(super) fn new(
        lease: Arc<Lease<Shared>>,
        call: P::Call,
        same: E,
        gather: P::Gather,
        first: S,
        others: Vec<C>,
    ) -> Self {
        let versions = others.len() + 1;
        let need = if versions == 1 { 1 } else { lease.need };
        let round = Round {
            tally: Some(Tally::new(need, versions)),
            alone: versions == 1,
            pending: Vec::new(),
            bad: None,
            all: All::NoneYet,
            lease,
        };
        Self {
            gather: Some(gather),
            versions: Some((first, others)),
            asked: FuturesUnordered::new(),
            round,
            call: Some(call),
            same,
        }
    }
}

impl<S, C, P, E, Req> Future for VoteFuture<S, C, P, E, Req>
where
    P: Ballot<Req, S::Response, S::Error>,
    S: Service<<P as Ask<Req>>::Copy>,
    C: Service<<P as Ask<Req>>::Copy, Response = S::Response, Error = S::Error>,
    E: Same<P::Answer>,
{
    type Output = Result<P::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(gather) = this.gather.as_mut().as_pin_mut() {
            let gathered = ready!(gather.poll(cx));
            this.gather.set(None);
            let (first, others) = this.versions.take().expect(DONE);
            let copy = match gathered {
                Ok(copy) => copy,
                Err(reason) => {
                    let call = this.call.take().expect(DONE);
                    return Poll::Ready(P::reject(call, Rejection::new(reason, "vote")));
                }
            };
            let cap = this.round.lease.config.max_response;
            this.round.pending = (0..=others.len()).collect();
            for (version, service) in (1..).zip(others) {
                let state = State::Other { service, copy: Some(copy.clone()) };
                this.asked.push(Asked { version, cap, state });
            }
            this.asked.push(Asked { version: 0, cap, state: State::First { service: first, copy: Some(copy) } });
        }
        loop {
            let (version, result) = ready!(Pin::new(&mut *this.asked).poll_next(cx)).expect(DONE);
            let call = this.call.as_ref().expect(DONE);
            let verdict = result.as_ref().map(|result| P::judge(call, result.as_ref()));
            if let Some(decision) = this.round.cast(version, result, verdict, this.same) {
                this.asked.clear();
                this.round.cancel();
                return Poll::Ready(this.round.end::<P, Req, S::Response>(this.call.take().expect(DONE), decision));
            }
        }
    }
}

impl<A, Err> Round<A, Err> {
    fn cast(
        &mut self,
        version: usize,
        result: Option<Result<A, Err>>,
        verdict: Option<Verdict>,
        same: &impl Same<A>,
    ) -> Option<Decision> {
        self.pending.retain(|pending| *pending != version);
        let rejection = verdict.and_then(|verdict| verdict.rejection);
        let outcome = verdict.map_or(Outcome::Failure, |verdict| verdict.outcome);
        self.all = match (rejection, self.all) {
            (Some(now), All::NoneYet) => All::Refused(now),
            (Some(now), All::Refused(then)) if now.reason == then.reason => All::Refused(then),
            (None, All::NoneYet | All::Excused) if outcome == Outcome::Ignored => All::Excused,
            _ => All::Mixed,
        };
        let votes = match outcome {
            Outcome::Success => true,
            Outcome::Failure | Outcome::Overload => rejection.is_none() && self.lease.config.failures_vote,
            _ => false,
        };
        let answer = match result {
            Some(Ok(answer)) if votes => Some(answer),
            Some(bad) => {
                self.bad.get_or_insert(bad);
                None
            }
            None => None,
        };
        if answer.is_none() && !self.alone {
            self.lease.versions[version].failed.fetch_add(1, Relaxed);
        }
        self.tally.as_mut()?.cast(version, answer, |one, other| same.same(one, other))
    }

    /// Those that have not ended are not waited for.
    fn cancel(&mut self) {
        for version in self.pending.drain(..) {
            self.lease.versions[version].cancelled.fetch_add(1, Relaxed);
        }
    }

    fn end<P, Req, Res>(&mut self, call: P::Call, decision: Decision) -> Result<P::Response, Err>
    where
        P: Ballot<Req, Res, Err, Answer = A>,
    {
        let tally = self.tally.take().expect(DONE);
        if self.alone {
            // Nobody votes: what it gave is what there is, if it could be read.
            return match tally.first().map(Ok).or_else(|| self.bad.take()) {
                Some(result) => P::give(call, result, Vec::new()),
                None => P::reject(call, Rejection::new(Reason::BodyCut, "vote")),
            };
        }
        let lease = &*self.lease;
        let place = match decision {
            Decision::Elected(place) => Some(place),
            Decision::Hung => None,
        };
        let names: Vec<_> = tally.dissenters(place).map(|version| lease.versions[version].name.clone()).collect();
        tally.answered_otherwise(place).for_each(|version| {
            lease.versions[version].dissented.fetch_add(1, Relaxed);
        });
        let name = &*lease.config.name;
        if let Some(place) = place {
            lease.elected.fetch_add(1, Relaxed);
            for version in tally.voters(place) {
                lease.versions[*version].agreed.fetch_add(1, Relaxed);
            }
            if !names.is_empty() {
                tracing::warn!(target: TARGET, vote = name, dissenters = %names.join(", "), "versions dissented");
            }
            return P::give(call, Ok(tally.take(place)), names);
        }
        lease.hung.fetch_add(1, Relaxed);
        tracing::warn!(target: TARGET, vote = name, versions = %names.join(", "), "no majority");
        if !lease.mode.enforces()
            && let Some(result) = tally.first().map(Ok).or_else(|| self.bad.take())
        {
            lease.passed.fetch_add(1, Relaxed);
            return P::give(call, result, Vec::new());
        }
        match (self.all, self.bad.take()) {
            (All::Refused(rejection), _) => P::reject(call, rejection),
            (All::Excused, Some(result)) => P::give(call, result, Vec::new()),
            _ => P::reject(call, Rejection::new(Reason::NoMajority, "vote")),
        }
    }
}

impl<A, Err> Drop for Round<A, Err> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<S, C, P, E, Req> fmt::Debug for VoteFuture<S, C, P, E, Req>
where
    P: Ballot<Req, S::Response, S::Error>,
    S: Service<<P as Ask<Req>>::Copy>,
    C: Service<<P as Ask<Req>>::Copy, Response = S::Response, Error = S::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VoteFuture").field("pending", &self.round.pending).finish_non_exhaustive()
    }
}
