//! A breaker, a limiter and a compartment, small and right, that can be told to make one mistake each.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its part")]

use buttress_core::{
    Admission, Admit, Enqueue, Gatekeeper, Outcome, Parked, Pushback, QueueLayer, Reason, Rejection, Settle, Wakers,
    http::{HttpClient, HttpServer},
};
use buttress_sim::contract::{Role, Subject};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

mod wrap;
pub use wrap::Wrap;

/// One mistake each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    // The policy's.
    KeepsPermitWhenDropped,
    FreesAtTheHead,
    SettlesTwice,
    CountsIgnored,
    CountsNothing,
    CountsFailuresAsSuccesses,
    CountsAbandoned,
    PanicIsNoFailure,
    ForgetsTheParked,
    AsksInnerFirst,
    OffByOne,
    // The shell's.
    StateInLayer,
    CallsUnready,
    RefusesInPollReady,
    ForgetsShutBetween,
    HidesReadinessErrors,
    SaysReadyAlways,
    ReservesWhenReady,
    SwallowsPanics,
    SpawnsTheCall,
    SpawnsTheBody,
    ForgetsTheContext,
    Unmarked,
    MarksAnything,
    WrapsErrors,
    EatsEndOfStream,
    EatsSizeHint,
    EatsTrailers,
    EatsErrors,
    GathersTheBody,
    DelaysTheHead,
    ExpiresWhenIdle,
    ClosesBadConnections,
    // The tie's: permits tied to bodies by hand.
    TiesByHand,
    TieRefusesGrpcPlainly,
    TieForgetsTunnels,
    TieKnowsNoneOnly,
    TieKnowsNoLength,
    TieKnowsNoBodilessAnswer,
    TieIgnoresTrailers,
    TieForgetsBadHeads,
    TieMissesErrors,
    TieEndsAtTheHead,
    // The queue's.
    LeaksTheQueue,
    LosesTheTurn,
}

/// Counts calls in flight, successes and failures; limits; may be shut.
#[derive(Clone)]
pub struct Policy(Arc<State>);

struct State {
    fault: Fault,
    limit: u64,
    in_flight: AtomicU64,
    successes: AtomicU64,
    failures: AtomicU64,
    shut: AtomicBool,
    parked: Wakers,
}

impl Policy {
    pub fn new(fault: Fault, limit: u64) -> Self {
        Self(Arc::new(State {
            fault,
            limit,
            in_flight: AtomicU64::new(0),
            successes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            shut: AtomicBool::new(false),
            parked: Wakers::default(),
        }))
    }

    pub fn fresh(&self) -> Self {
        Self::new(self.0.fault, self.0.limit)
    }

    pub fn fault(&self) -> Fault {
        self.0.fault
    }

    pub fn is_shut(&self) -> Option<Rejection> {
        self.0.shut.load(SeqCst).then_some(Rejection::new(Reason::BreakerOpen, "test"))
    }

    pub fn take(&self) -> Result<Permit, Rejection> {
        let limit = self.0.limit + u64::from(self.0.fault == Fault::OffByOne);
        let taken = self.0.in_flight.fetch_update(SeqCst, SeqCst, |n| (n < limit).then_some(n + 1));
        match taken {
            Ok(_) => Ok(Permit { policy: self.clone(), told: false, freed: false }),
            Err(_) => Err(Rejection::new(Reason::AtCapacity, "test")),
        }
    }

    fn count(&self, outcome: Outcome) {
        match outcome {
            _ if self.0.fault == Fault::CountsNothing => {}
            Outcome::Failure if self.0.fault == Fault::CountsFailuresAsSuccesses => {
                _ = self.0.successes.fetch_add(1, SeqCst)
            }
            Outcome::Success => _ = self.0.successes.fetch_add(1, SeqCst),
            Outcome::Failure => _ = self.0.failures.fetch_add(1, SeqCst),
            _ => {}
        }
    }

    fn knobs(&self, subject: Subject) -> Subject {
        let (a, b, c, d) = (self.clone(), self.clone(), self.clone(), self.clone());
        let subject = subject
            .in_flight(move || a.0.in_flight.load(SeqCst))
            .at_rest("parked", move || d.0.parked.len() as u64)
            .outcomes(move || (b.0.successes.load(SeqCst), b.0.failures.load(SeqCst)))
            .shut(move |shut| {
                c.0.shut.store(shut, SeqCst);
                if shut && c.0.fault != Fault::ForgetsTheParked {
                    c.0.parked.wake_all();
                }
            });
        if self.0.limit < u64::MAX { subject.limit(self.0.limit) } else { subject.asks_first() }
    }
}

pub struct Permit {
    policy: Policy,
    told: bool,
    freed: bool,
}

impl Permit {
    fn free(&mut self) {
        if !self.freed {
            self.freed = true;
            self.policy.0.in_flight.fetch_sub(1, SeqCst);
        }
    }
}

impl Settle for Permit {
    fn head(&mut self) {
        if self.policy.fault() == Fault::FreesAtTheHead {
            self.free();
        }
    }

    fn conclude(&mut self, outcome: Outcome, _: Option<Pushback>) {
        self.told = true;
        self.policy.count(outcome);
        if self.policy.fault() == Fault::SettlesTwice {
            self.policy.count(outcome);
        }
        if self.policy.fault() == Fault::CountsIgnored && outcome == Outcome::Ignored {
            self.policy.count(Outcome::Failure);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let fault = self.policy.fault();
        if !self.told {
            match std::thread::panicking() {
                true if fault != Fault::PanicIsNoFailure => self.policy.count(Outcome::Failure),
                false if fault == Fault::CountsAbandoned => self.policy.count(Outcome::Failure),
                _ => {}
            }
            if fault == Fault::KeepsPermitWhenDropped {
                return;
            }
        }
        self.free();
    }
}

impl Gatekeeper for Policy {
    type Permit = Permit;
    type Turn = Parked;

    fn poll_ready(&self, _: &mut Self::Turn, _: &mut Context<'_>) -> Poll<Option<Rejection>> {
        if self.0.limit < u64::MAX || self.0.fault == Fault::AsksInnerFirst {
            return Poll::Ready(None);
        }
        Poll::Ready(self.is_shut())
    }

    fn parked(&self, turn: &mut Self::Turn, cx: &mut Context<'_>) {
        turn.park(&self.0.parked, cx);
        // Whoever shut it just now has woken nobody yet.
        if self.is_shut().is_some() {
            cx.waker().wake_by_ref();
        }
    }
}

impl<Req> Admit<Req> for Policy {
    fn admit(&self, _: &mut Self::Turn, _: &Req) -> Result<Permit, Rejection> {
        if let Some(shut) = self.is_shut() {
            return Err(shut);
        }
        self.take()
    }
}

/// A limiter whose callers wait without bound.
#[derive(Clone)]
pub struct Compartment {
    policy: Policy,
    room: Arc<Semaphore>,
    waiting: Arc<AtomicU64>,
}

impl Compartment {
    pub fn new(fault: Fault, limit: u64) -> Self {
        let room = Arc::new(Semaphore::new(limit as usize));
        Self { policy: Policy::new(fault, limit), room, waiting: Arc::default() }
    }
}

impl Gatekeeper for Compartment {
    type Permit = (Permit, Room);
    type Turn = ();
}

pub struct Room(#[allow(dead_code)] OwnedSemaphorePermit);

impl Settle for Room {
    fn conclude(&mut self, _: Outcome, _: Option<Pushback>) {}
}

impl<Req> Admit<Req> for Compartment {
    fn admit(&self, _: &mut (), _: &Req) -> Result<Self::Permit, Rejection> {
        let full = Rejection::new(Reason::AtCapacity, "test");
        let room = self.room.clone().try_acquire_owned().map_err(|_| full)?;
        Ok((self.policy.take()?, Room(room)))
    }
}

struct Waiting(Arc<AtomicU64>, Fault);

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.1 != Fault::LeaksTheQueue {
            self.0.fetch_sub(1, SeqCst);
        }
    }
}

impl<Req> Enqueue<Req> for Compartment {
    type Queued = Pin<Box<dyn Future<Output = Result<Self::Permit, Rejection>> + Send>>;

    fn enqueue(&self, turn: &mut (), req: &Req) -> Result<Admission<Self::Permit, Self::Queued>, Rejection> {
        if let Some(shut) = self.policy.is_shut() {
            return Err(shut);
        }
        if let Ok(permit) = self.admit(turn, req) {
            return Ok(Admission::Now(permit));
        }
        self.waiting.fetch_add(1, SeqCst);
        let waiting = Waiting(self.waiting.clone(), self.policy.fault());
        let (room, policy) = (self.room.clone(), self.policy.clone());
        let acquire = async move {
            let _waiting = waiting;
            let room = room.acquire_owned().await.expect("never closed");
            // The permit before this one is given back right after its room.
            loop {
                match policy.take() {
                    Ok(permit) => return Ok((permit, Room(room))),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        if self.policy.fault() != Fault::LosesTheTurn {
            return Ok(Admission::Later(Box::pin(acquire)));
        }
        let task = tokio::spawn(acquire);
        Ok(Admission::Later(Box::pin(async move { task.await.expect("no panic") })))
    }
}

/// The breaker: no limit, and it decides before the inner service is asked.
pub fn breaker(fault: Fault) -> Subject {
    subject(Policy::new(fault, u64::MAX))
}

/// The limiter: 4 calls at once, others are refused.
pub fn limiter(fault: Fault) -> Subject {
    subject(Policy::new(fault, 4))
}

fn subject(policy: Policy) -> Subject {
    let [o, s, c] = [Role::Opaque, Role::Server, Role::Client].map(|role| Wrap::new(policy.clone(), role));
    policy.knobs(Subject::new(o, s, c))
}

/// The compartment: 4 calls at once, others wait.
pub fn compartment(fault: Fault) -> Subject {
    let layer = QueueLayer::<Compartment>::new(Compartment::new(fault, 4));
    let handle = layer.handle();
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    let subject = handle.policy.knobs(Subject::new(layer, server, client));
    subject.at_rest("waiting", move || handle.waiting.load(SeqCst))
}
