//! The way of a call from tier to tier.

use super::{
    FailoverPermit, FailoverRule, Relay,
    relay::{
        is_unbegun,
        private::{Ask, Repeat},
    },
    state::{Pick, Shared},
};
use crate::Trigger;
use buttress_core::{Cause, Clock, Deadline, Lease, Replay, TokioClock, Verdict};
use std::{sync::Arc, time::Instant};
use tower_service::Service;

/// What takes a call to other tiers.
pub(super) struct More<S, C, P, R, Req>
where
    P: Replay<Req>,
    S: Service<P::Attempt>,
{
    protocol: P,
    rule: R,
    /// `None`: the first tier is the only one.
    kept: Option<P::Kept>,
    ask: Ask,
    pub(super) pick: Pick,
    /// The place of the present tier in the order that begins with the picked one.
    pub(super) place: u8,
    /// How often the request went on to another tier.
    moves: u32,
    pub(super) backups: Arc<Lease<Vec<C>>>,
    /// Where the primary is not the first.
    pub(super) primary: Option<S>,
    pub(super) end: Option<Deadline>,
    /// Nobody else ends the call then.
    pub(super) ends_here: bool,
    /// Why the first tier that was passed over was.
    pub(super) cause: Option<Cause>,
    /// The best of the bad answers.
    pub(super) spare: Option<Box<Spare<S::Response, S::Error>>>,
}

pub(super) struct Spare<Res, Err> {
    pub(super) result: Result<Res, Err>,
    /// A layer refused, no service answered.
    refused: bool,
}

/// What is wrong with a result.
pub(super) struct Finding {
    pub(super) cause: Cause,
    /// Another tier may be asked though the request is none that two may process.
    pub(super) free: bool,
}

/// The next tier of a call.
pub(super) struct Next<A> {
    pub(super) permit: FailoverPermit,
    pub(super) attempt: A,
}

impl<S, C, P, R, Req> More<S, C, P, R, Req>
where
    P: Replay<Req>,
    S: Service<P::Attempt>,
{
    #[inline]
    pub(super) fn new(
        protocol: P,
        rule: R,
        kept: Option<P::Kept>,
        ask: Ask,
        pick: Pick,
        backups: Arc<Lease<Vec<C>>>,
    ) -> Self {
        Self {
            protocol,
            rule,
            kept,
            ask,
            pick,
            place: 0,
            moves: 0,
            backups,
            primary: None,
            end: None,
            ends_here: false,
            cause: None,
            spare: None,
        }
    }

    /// Takes a place in the tier that comes first in the order, from this place in it on. The primary always has one.
    #[inline]
    pub(super) fn admit(&mut self, lease: &Arc<Lease<Shared>>, from: u8) -> Option<FailoverPermit> {
        // Nine at most.
        let tiers = lease.tiers.len() as u8;
        (from..tiers).find_map(|place| {
            let tier = (self.pick.start + place) % tiers;
            let permit = Shared::admit(lease.clone(), tier, self.pick)?;
            self.place = place;
            Some(permit)
        })
    }

    /// Until when the present tier may take, if that is to be watched. It begins now.
    pub(super) fn limit(&mut self, lease: &Shared, tier: u8) -> Option<Instant> {
        if self.ask.deadline.is_none() && lease.config.timeout.is_none() {
            return None;
        }
        let now = TokioClock.now();
        let end = *self.end.get_or_insert_with(|| {
            let own = lease.config.timeout.map(|timeout| Deadline::new(now + timeout));
            let outer = self.ask.deadline;
            self.ends_here = own.is_some_and(|own| outer.is_none_or(|outer| own.at < outer.at));
            own.filter(|_| self.ends_here).or(outer).expect("one of them is there")
        });
        let is_last = usize::from(self.place) + 1 >= lease.tiers.len();
        let may_go_on = self.kept.is_some() && self.ask.repeat == Repeat::Safe && lease.is_on(Trigger::Failure);
        if is_last || !may_go_on {
            return self.ends_here.then_some(end.at);
        }
        Some(now + end.remaining(now).mul_f64(lease.tiers[usize::from(tier)].share))
    }

    #[inline]
    pub(super) fn find<Res, Err>(
        &self,
        lease: &Shared,
        verdict: &Verdict,
        result: Result<&Res, &Err>,
    ) -> Option<Finding>
    where
        P: Relay<Req, Res, Err>,
        R: FailoverRule<Req, Res, Err>,
    {
        if let Some(rejection) = verdict.rejection {
            let is_bad = !rejection.reason.accuses_request() && lease.is_on(Trigger::Refused);
            let free = is_unbegun(rejection.reason);
            return is_bad.then_some(Finding { cause: Cause::Refused(rejection), free });
        }
        match Cause::of(verdict) {
            Some(cause) if lease.goes_on(verdict.outcome) => {
                Some(Finding { cause, free: P::is_free(self.ask, result) })
            }
            None if verdict.is_good() && !self.rule.accepts(result) => {
                Some(Finding { cause: Cause::Unwanted, free: false })
            }
            _ => None,
        }
    }

    /// Whether another tier would have any time left.
    pub(super) fn has_time(&self) -> bool {
        self.end.or(self.ask.deadline).is_none_or(|end| end.at > TokioClock.now())
    }

    /// The next tier, if there is one that takes the call.
    pub(super) fn next(&mut self, lease: &Arc<Lease<Shared>>, finding: &Finding) -> Option<Next<P::Attempt>> {
        let may = self.ask.repeat == Repeat::Safe || finding.free;
        let is_left = usize::from(self.place) + 1 < lease.tiers.len();
        let kept = self.kept.as_ref()?;
        if !may || !is_left || self.protocol.lost(kept).is_some() || !self.has_time() || !lease.enforces() {
            return None;
        }
        let mut permit = self.admit(lease, self.place + 1)?;
        let attempt = self.protocol.again(self.kept.as_mut()?, self.moves + 1);
        let Some(attempt) = attempt else {
            permit.excuse();
            return None;
        };
        self.moves += 1;
        self.cause.get_or_insert(finding.cause);
        Some(Next { permit, attempt })
    }

    pub(super) fn keep(&mut self, result: Result<S::Response, S::Error>, refused: bool) {
        if self.spare.as_ref().is_none_or(|spare| spare.refused || !refused) {
            self.spare = Some(Box::new(Spare { result, refused }));
        }
    }
}
