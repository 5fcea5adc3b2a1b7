//! What the limit learns from which end of a call.
use super::{Scribe, ms};
use crate::{Release, Shed, ShedConfig, limit::Span, permit::ShedPermit, shared::Admits};
use buttress_core::{Clock, Outcome, Pushback, Reason, Rejection, Settle, Status, TokioClock};
use std::{sync::Mutex, time::Instant};

/// A clock that a test sets.
struct Hands(Mutex<Instant>);

impl Clock for Hands {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }
}

struct Bench {
    shed: Shed,
    scribe: Scribe,
    clock: Hands,
}

/// Samples, their time in milliseconds, those that were cut off, those by a deadline, overloads.
type Seen = (u32, u128, u32, u32, u32);

const NOTHING: Seen = (0, 0, 0, 0, 0);

impl Bench {
    fn new() -> Self {
        Self::with(ShedConfig::default())
    }

    /// Calls usually take 100 ms. The present window ends after a second.
    fn with(config: ShedConfig) -> Self {
        let scribe = Scribe::new(100, 10);
        let its = scribe.clone();
        let shed = Shed::with_limit(config, move |_| Box::new(its.clone())).unwrap();
        let bench = Self { shed, scribe, clock: Hands(Mutex::new(TokioClock.now() + ms(1))) };
        bench.scribe.set_span(Span { looks: [(100, ms(0)), (20, ms(900)), (0, ms(900))], until: None });
        let permits: Vec<_> = (0..10).map(|_| bench.admit()).collect();
        bench.pass(100);
        permits.into_iter().for_each(|permit| bench.end(permit, Outcome::Success));
        assert_eq!(bench.scribe.windows().len(), 1);
        bench
    }

    fn admit(&self) -> ShedPermit {
        self.shed.shared.try_acquire_at(&self.clock).unwrap()
    }

    fn pass(&self, millis: u64) {
        *self.clock.0.lock().unwrap() += ms(millis);
    }

    fn end(&self, mut permit: ShedPermit, outcome: Outcome) {
        permit.conclude_at(outcome, &self.clock);
    }

    /// A call that takes so long.
    fn call(&self, millis: u64, outcome: Outcome) -> Seen {
        let permit = self.admit();
        self.pass(millis);
        self.end(permit, outcome);
        self.seen()
    }

    /// What was in this window. A call that fails at once ends it, and says nothing itself.
    fn seen(&self) -> Seen {
        self.pass(1_000);
        let before = self.scribe.windows().len();
        self.end(self.admit(), Outcome::Failure);
        let windows = self.scribe.windows();
        assert_eq!(windows.len(), before + 1);
        let window = windows[before];
        (window.samples, window.total.as_millis(), window.censored, window.timed_out, window.overloads)
    }
}

#[test]
fn each_outcome_teaches_what_the_table_says() {
    for (millis, outcome, seen) in [
        (1, Outcome::Success, (1, 1, 0, 0, 0)),
        (200, Outcome::Success, (1, 200, 0, 0, 0)),
        (49, Outcome::Failure, NOTHING),
        (50, Outcome::Failure, (1, 50, 0, 0, 0)),
        (1, Outcome::Overload, (0, 0, 0, 0, 1)),
        (200, Outcome::Overload, (0, 0, 0, 0, 1)),
        (49, Outcome::Ignored, NOTHING),
        (50, Outcome::Ignored, (1, 50, 1, 0, 0)),
    ] {
        assert_eq!(Bench::new().call(millis, outcome), seen, "{outcome} after {millis} ms");
    }
}

#[test]
fn what_grpc_calls_exhausted_is_too_much_only_with_a_pushback() {
    let ended = |status: Status, pushback: Option<Pushback>| {
        let bench = Bench::new();
        let mut permit = bench.admit();
        bench.pass(80);
        permit.pause_at(&bench.clock);
        permit.status(Status::Http(200));
        permit.status(status);
        permit.settle(Outcome::Overload, pushback);
        bench.seen()
    };
    let (too_much, answered) = ((0, 0, 0, 0, 1), (1, 80, 0, 0, 0));
    assert_eq!(ended(Status::Grpc(8), Some(Pushback::NEVER)), too_much);
    assert_eq!(ended(Status::Grpc(8), None), answered, "as a failure does");
    assert_eq!(ended(Status::Http(429), None), too_much);
    assert_eq!(ended(Status::Http(503), Some(Pushback::after(ms(1_000)))), too_much);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_cut_off_and_a_deadline_of_ours_says_so_however_early() {
    fn dropped(millis: u64, drop_it: impl FnOnce(ShedPermit)) -> Seen {
        let bench = Bench::new();
        let mut permit = bench.admit();
        bench.pass(millis);
        // A drop reads tokio's clock, which stands: the time is over before.
        permit.pause_at(&bench.clock);
        drop_it(permit);
        bench.seen()
    }
    assert_eq!(dropped(80, drop), (1, 80, 1, 0, 0));
    assert_eq!(dropped(10, drop), NOTHING);
    let by_deadline = |permit| buttress_core::abandon(Outcome::Failure, || drop(permit));
    assert_eq!(dropped(10, by_deadline), (1, 10, 1, 1, 0));
    let panics = |permit| {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _permit = permit;
            panic!("inside");
        }));
        assert!(caught.is_err());
    };
    assert_eq!(dropped(10, panics), NOTHING, "a failure, and a fast one");
    assert_eq!(dropped(80, panics), (1, 80, 0, 0, 0));
}

#[test]
fn a_deadline_further_in_that_passes_is_a_time_out() {
    for (reason, seen) in [(Reason::DeadlinePassed, (1, 20, 1, 1, 0)), (Reason::BreakerOpen, NOTHING)] {
        let bench = Bench::new();
        let mut permit = bench.admit();
        bench.pass(20);
        permit.refused(Rejection::new(reason, "test"));
        bench.end(permit, reason.outcome());
        assert_eq!(bench.seen(), seen, "{reason}");
    }
}

#[test]
fn time_is_over_at_the_head_stands_still_in_a_pause_and_runs_again_for_the_first_message() {
    let bench = Bench::with(ShedConfig::default().release(Release::BodyEnd));
    let mut permit = bench.admit();
    bench.pass(10);
    permit.pause_at(&bench.clock);
    bench.pass(1_000);
    permit.pending_at(&bench.clock);
    bench.pass(20);
    permit.pending_at(&bench.clock);
    bench.pass(30);
    permit.head_at(&bench.clock);
    bench.pass(700);
    permit.pending_at(&bench.clock);
    bench.pass(40);
    permit.head_at(&bench.clock);
    bench.pass(5_000);
    assert_eq!(bench.shed.snapshot().in_flight, 1, "the body goes on");
    bench.end(permit, Outcome::Success);
    let windows = bench.scribe.windows();
    assert_eq!((windows[1].samples, windows[1].total), (1, ms(100)));
}

#[test]
fn who_leaves_after_the_head_has_had_his_answer() {
    for outcome in [Outcome::Ignored, Outcome::Failure] {
        let bench = Bench::new();
        let mut permit = bench.admit();
        bench.pass(70);
        permit.head_at(&bench.clock);
        buttress_core::abandon(outcome, || drop(permit));
        assert_eq!(bench.seen(), (1, 70, 0, 0, 0));
    }
}

#[test]
fn a_permit_goes_back_at_its_drop_or_at_the_head_as_the_config_says() {
    for (release, after_head) in [(Release::BodyEnd, 1), (Release::Head, 0)] {
        let bench = Bench::with(ShedConfig::default().release(release));
        let mut permit = bench.admit();
        permit.pause_at(&bench.clock);
        assert_eq!(bench.shed.snapshot().in_flight, 1);
        permit.head_at(&bench.clock);
        assert_eq!(bench.shed.snapshot().in_flight, after_head);
        permit.conclude_at(Outcome::Success, &bench.clock);
        assert_eq!(bench.shed.snapshot().in_flight, after_head);
        drop(permit);
        assert_eq!(bench.shed.snapshot().in_flight, 0);
        assert_eq!(bench.shed.snapshot().admitted_total, 11);
    }
}

#[test]
fn calls_above_the_limit_teach_nothing() {
    use buttress_core::{Handle, Mode};
    let bench = Bench::new();
    bench.scribe.set_limit(1);
    assert_eq!(bench.seen(), NOTHING);
    bench.shed.set_mode(Mode::OBSERVE_ONLY).unwrap();
    let within = bench.shed.shared.refuse_at(crate::Ask::new, &bench.clock).unwrap();
    let above = bench.shed.shared.refuse_at(crate::Ask::new, &bench.clock).unwrap();
    assert_eq!((bench.shed.snapshot().over_limit, bench.shed.snapshot().in_flight), (1, 2));
    bench.pass(300);
    bench.end(above, Outcome::Overload);
    bench.end(within, Outcome::Success);
    bench.shed.set_mode(Mode::Auto).unwrap();
    assert_eq!(bench.seen(), (1, 300, 0, 0, 0));
    let last = *bench.scribe.windows().last().unwrap();
    assert!(last.limited && last.completed == 2, "one ended the window before: {last:?}");
}

#[test]
fn a_window_ends_though_nothing_does() {
    let bench = Bench::new();
    bench.scribe.set_limit(1);
    assert_eq!(bench.seen(), NOTHING);
    let held = bench.admit();
    bench.pass(950);
    let before = bench.scribe.windows().len();
    bench.scribe.set_limit(2);
    assert!(bench.shed.shared.refuse_at(crate::Ask::new, &bench.clock).is_err());
    assert_eq!(bench.scribe.windows().len(), before + 1, "a refusal looks at the clock");
    assert_eq!(bench.shed.snapshot().limit, 2);
    assert!(bench.shed.shared.try_acquire_at(&bench.clock).is_some());
    drop(held);
}
