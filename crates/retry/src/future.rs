use crate::{
    Cause, Course, Decision, Repeat, Resend, RetryRule, Wait, Why,
    decide::Again,
    resend::private::{Ask, Finding, RulesRef},
    retry::SharedLease,
};
use buttress_core::{Clock, Outcome, Protocol, Replay, Token, TokioClock, Tried, Verdict, sync::Ordering::Relaxed};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::time::{Instant as TokioInstant, Sleep, sleep_until};
use tower_service::Service;

pin_project! {
    /// The future of [`RetryService`](crate::RetryService).
    pub struct RetryFuture<S, P, R, Req>
    where
        P: Resend<Req, S::Response, S::Error>,
        S: Service<<P as Replay<Req>>::Attempt>,
    {
        #[pin]
        state: State<S::Future, P::Attempt, P::Remains, P::Peek>,
        // `None`: this is the only attempt.
        more: Option<More<S, P, R, Req>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, A, W, K> {
        Calling { #[pin] inner: F },
        // Boxed: only calls that fail come here, and the others need not carry a timer's size.
        Peeking { peek: Pin<Box<K>> },
        Waiting { waiting: Pin<Box<Waiting<A, W>>> },
        Done,
    }
}

pin_project! {
    /// The time until the next attempt.
    struct Waiting<A, W> {
        #[pin]
        timer: Option<Sleep>,
        until: Option<Instant>,
        // What is read meanwhile, so that its connection can be used again.
        remains: Option<W>,
        attempt: Option<A>,
    }
}

/// How long the rest of a failed response may take to come. It holds a connection, and permits of layers further in.
const DRAIN_FOR: Duration = Duration::from_millis(250);

/// A request that may be sent again.
struct Remembered<'a, P: Replay<Req>, Req> {
    protocol: &'a P,
    kept: &'a mut P::Kept,
}

impl<P: Replay<Req>, Req> Again for Remembered<'_, P, Req> {
    type Attempt = P::Attempt;

    fn lost(&self) -> Option<Why> {
        self.protocol.lost(self.kept).map(Why::from)
    }

    fn again(&mut self, attempt: u32) -> Option<P::Attempt> {
        self.protocol.again(self.kept, attempt)
    }
}

/// What makes further attempts.
pub(crate) struct More<S, P: Replay<Req>, R, Req> {
    inner: S,
    protocol: P,
    rule: R,
    ask: Ask,
    call: <P as Protocol<Req>>::Call,
    kept: P::Kept,
    tried: Tried,
    course: Course,
    /// What paid for the present attempt.
    token: Option<Token>,
    lease: SharedLease,
}

impl<S, P: Replay<Req>, R, Req> More<S, P, R, Req> {
    #[allow(clippy::too_many_arguments, reason = "its fields")]
    #[inline]
    pub(crate) fn new(
        inner: S,
        protocol: P,
        rule: R,
        ask: Ask,
        call: <P as Protocol<Req>>::Call,
        kept: P::Kept,
        tried: Tried,
        lease: SharedLease,
    ) -> Self {
        Self { inner, protocol, rule, ask, call, kept, tried, course: Course::new(), token: None, lease }
    }
}

impl<S, P, R, Req> RetryFuture<S, P, R, Req>
where
    P: Resend<Req, S::Response, S::Error>,
    S: Service<<P as Replay<Req>>::Attempt>,
{
    #[inline]
    pub(crate) fn once(inner: S::Future) -> Self {
        Self { state: State::Calling { inner }, more: None }
    }

    #[inline]
    pub(crate) fn replayable(inner: S::Future, more: More<S, P, R, Req>) -> Self {
        Self { state: State::Calling { inner }, more: Some(more) }
    }
}

impl<S, P, R, Req> fmt::Debug for RetryFuture<S, P, R, Req>
where
    P: Resend<Req, S::Response, S::Error>,
    S: Service<<P as Replay<Req>>::Attempt>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let course = self.more.as_ref().map(|more| &more.course);
        f.debug_struct("RetryFuture").field("course", &course).finish_non_exhaustive()
    }
}

const DONE: &str = "a future was polled after it had completed";

impl<S, P, R, Req> Future for RetryFuture<S, P, R, Req>
where
    P: Resend<Req, S::Response, S::Error>,
    S: Service<<P as Replay<Req>>::Attempt>,
    R: RetryRule<Req, S::Response, S::Error>,
{
    type Output = Result<P::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { inner } => {
                    let Some(more) = this.more else { return inner.poll(cx).map_ok(P::finish) };
                    let result = ready!(more.tried.scope(|| inner.poll(cx)));
                    let verdict = P::judge(&more.call, result.as_ref());
                    let said = more.rule.worth_it(result.as_ref());
                    // A gRPC head without a status is good for all that this layer may know, unless it is to look further.
                    let is_known = verdict.end || !more.lease.terms.grpc_peek.load(Relaxed);
                    if verdict.is_good() && is_known && said != Some(true) {
                        return Poll::Ready(more.deliver(result.map(P::finish), true));
                    }
                    match more.sift(result, &verdict, said) {
                        Next::Deliver(result) => return Poll::Ready(result),
                        Next::Peek(peek) => this.state.set(State::Peeking { peek }),
                        Next::Wait(waiting) => this.state.set(State::Waiting { waiting }),
                    }
                }
                StateProj::Peeking { peek } => {
                    let (res, finding) = ready!(peek.as_mut().poll(cx));
                    let more = this.more.as_mut().expect(DONE);
                    match more.sift_peeked(res, finding) {
                        Next::Wait(waiting) => this.state.set(State::Waiting { waiting }),
                        Next::Deliver(result) => return Poll::Ready(result),
                        Next::Peek(_) => unreachable!("one look is enough"),
                    }
                }
                StateProj::Waiting { waiting } => {
                    ready!(waiting.as_mut().poll_over::<P, Req, S>(cx));
                    let more = this.more.as_mut().expect(DONE);
                    if let Err(error) = ready!(more.tried.scope(|| more.inner.poll_ready(cx))) {
                        this.state.set(State::Done);
                        return Poll::Ready(more.deliver(Err(error), false));
                    }
                    let attempt = waiting.as_mut().project().attempt.take().expect(DONE);
                    let inner = more.tried.scope(|| more.inner.call(attempt));
                    this.state.set(State::Calling { inner });
                }
                StateProj::Done => panic!("{DONE}"),
            }
        }
    }
}

/// What follows a result.
enum Next<T, E, A, W, K> {
    Deliver(Result<T, E>),
    Peek(Pin<Box<K>>),
    Wait(Pin<Box<Waiting<A, W>>>),
}

type NextOf<S, P, Req> = Next<
    <P as Resend<
        Req,
        <S as Service<<P as Replay<Req>>::Attempt>>::Response,
        <S as Service<<P as Replay<Req>>::Attempt>>::Error,
    >>::Response,
    <S as Service<<P as Replay<Req>>::Attempt>>::Error,
    <P as Replay<Req>>::Attempt,
    <P as Resend<
        Req,
        <S as Service<<P as Replay<Req>>::Attempt>>::Response,
        <S as Service<<P as Replay<Req>>::Attempt>>::Error,
    >>::Remains,
    <P as Resend<
        Req,
        <S as Service<<P as Replay<Req>>::Attempt>>::Response,
        <S as Service<<P as Replay<Req>>::Attempt>>::Error,
    >>::Peek,
>;

impl<S, P, R, Req> More<S, P, R, Req>
where
    P: Resend<Req, S::Response, S::Error>,
    S: Service<<P as Replay<Req>>::Attempt>,
    R: RetryRule<Req, S::Response, S::Error>,
{
    /// To the caller.
    #[inline]
    fn deliver(&mut self, mut result: Result<P::Response, S::Error>, good: bool) -> Result<P::Response, S::Error> {
        if good && self.course.attempts() > 1 {
            self.lease.recovered();
        }
        if let Some(token) = self.token.take()
            && let Ok(res) = &mut result
        {
            P::hold(res, token);
        }
        result
    }

    /// A result that is not plainly good.
    #[cold]
    fn sift(
        &mut self,
        result: Result<S::Response, S::Error>,
        verdict: &Verdict,
        said: Option<bool>,
    ) -> NextOf<S, P, Req> {
        let rules = self.lease.rules();
        let found = P::find(verdict, &self.ask, RulesRef(&rules), result.as_ref());
        let found = match found {
            Finding::Elsewhere if self.tried.has_picked_another() => Finding::Again(Cause::Refused, Wait::Backoff),
            Finding::Elsewhere => Finding::Bad(Why::NotRetryable),
            // A client that still speaks may wait for the head before it goes on.
            Finding::Peek if !self.protocol.is_sent(&self.kept) => Finding::Good,
            found => found,
        };
        let result = match (overrule(found, said, verdict, &self.ask), result) {
            (Finding::Peek, Ok(res)) => return Next::Peek(Box::pin(P::peek(res, &self.ask, RulesRef(&rules)))),
            (Finding::Again(cause, wait), result) => {
                self.lease.failed(self.course.attempts());
                match self.decide(cause, wait) {
                    Some((after, attempt)) => {
                        return Next::Wait(Waiting::new(after, attempt, result.ok().and_then(P::remains)));
                    }
                    None => result,
                }
            }
            (Finding::Bad(why), result) => {
                self.lease.failed(self.course.attempts());
                self.lease.gave_up(why, self.course.attempts());
                result
            }
            (_, result) => return Next::Deliver(self.deliver(result.map(P::finish), verdict.is_good())),
        };
        Next::Deliver(self.deliver(result.map(P::finish), false))
    }

    /// A gRPC response that was looked into.
    #[cold]
    fn sift_peeked(&mut self, res: P::Response, found: Finding) -> NextOf<S, P, Req> {
        let (cause, wait) = match found {
            Finding::Again(cause, wait) => (cause, wait),
            Finding::Bad(why) => {
                self.lease.failed(self.course.attempts());
                self.lease.gave_up(why, self.course.attempts());
                return Next::Deliver(self.deliver(Ok(res), false));
            }
            _ => return Next::Deliver(self.deliver(Ok(res), true)),
        };
        self.lease.failed(self.course.attempts());
        match self.decide(cause, wait) {
            // It is at its end already.
            Some((after, attempt)) => Next::Wait(Waiting::new(after, attempt, None)),
            None => Next::Deliver(self.deliver(Ok(res), false)),
        }
    }

    fn decide(&mut self, cause: Cause, wait: Wait) -> Option<(Duration, P::Attempt)> {
        let Self { protocol, kept, course, lease, ask, .. } = self;
        match lease.decide(course, (cause, wait), ask.deadline, &TokioClock, Remembered { protocol, kept }) {
            Decision::Retry { after, token, attempt } => {
                // The last attempt's token goes, as that attempt is over.
                self.token = Some(token);
                self.tried.turn();
                Some((after, attempt))
            }
            Decision::GiveUp(_) => None,
        }
    }
}

/// What the user's rule makes of what the table says.
fn overrule(found: Finding, said: Option<bool>, verdict: &Verdict, ask: &Ask) -> Finding {
    match (said, found) {
        (Some(false), Finding::Again(..)) => Finding::Bad(Why::Declined),
        (Some(true), Finding::Good | Finding::Bad(Why::NotRetryable | Why::NotRepeatable))
            // Refusals and outcomes that say nothing are not the rule's business; nor is a gRPC call that is committed.
            if verdict.rejection.is_none() && verdict.outcome != Outcome::Ignored && verdict.end =>
        {
            let wait = match verdict.pushback.map(|pushback| pushback.delay()) {
                None => Wait::Backoff,
                Some(None) => Wait::Never,
                Some(Some(delay)) => Wait::AtLeast(delay),
            };
            match ask.repeat {
                Repeat::Safe | Repeat::Unknown => Finding::Again(Cause::Rule, wait),
                Repeat::Unsafe | Repeat::Never => Finding::Bad(Why::NotRepeatable),
            }
        }
        (_, found) => found,
    }
}

impl<A, W> Waiting<A, W> {
    fn new(after: Duration, attempt: A, remains: Option<W>) -> Pin<Box<Self>> {
        let until = (!after.is_zero()).then(|| TokioClock.now() + after);
        Box::pin(Self { timer: None, until, remains, attempt: Some(attempt) })
    }

    /// Ready when it is time for the next attempt.
    fn poll_over<P, Req, S>(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>
    where
        P: Resend<Req, S::Response, S::Error, Attempt = A, Remains = W>,
        S: Service<A>,
    {
        loop {
            let mut this = self.as_mut().project();
            if let Some(remains) = this.remains
                && P::poll_drained(remains, cx).is_ready()
            {
                *this.remains = None;
            }
            let Some(until) = *this.until else {
                *this.remains = None;
                return Poll::Ready(());
            };
            let Some(timer) = this.timer.as_mut().as_pin_mut() else {
                let first = if this.remains.is_some() { until.min(TokioClock.now() + DRAIN_FOR) } else { until };
                this.timer.set(Some(sleep_until(TokioInstant::from_std(first))));
                continue;
            };
            // Outside tokio's budget: a task that has used all of it up would wait for its next turn.
            ready!(pin!(tokio::task::unconstrained(timer)).poll(cx));
            *this.remains = None;
            if TokioClock.now() >= until {
                *this.until = None;
                this.timer.set(None);
            } else {
                this.timer.set(Some(sleep_until(TokioInstant::from_std(until))));
            }
        }
    }
}
