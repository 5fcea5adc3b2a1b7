//! The gate, with explicit times and through tower.

use super::{MS, S};
use crate::{Error, RampedGate, RampedGateConfig, RampedGateLayer, RampedGatePermit, RampedGateSnapshot};
use buttress_core::{
    Clock, Fresh, Handle, Mode, Outcome, Pushback, Reason, Rejection, Settle, Signal, Status, TokioClock, Value,
};
use std::{
    future::{Future, pending},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};
use tower::{Layer, Service, ServiceExt, service_fn};

struct Rig {
    gate: RampedGate,
    now: Instant,
}

impl Rig {
    fn new(config: RampedGateConfig) -> Self {
        let now = TokioClock.now();
        Self { gate: RampedGate::new_at(config.seed(1), &now).unwrap(), now }
    }

    fn acquire(&self) -> Result<RampedGatePermit, Rejection> {
        self.gate.try_acquire_at(&self.now)
    }

    fn hang(&self) -> RampedGatePermit {
        let mut permit = self.acquire().expect("admitted");
        permit.pending_at(&self.now);
        permit
    }

    /// As many calls as it takes for one to pass.
    fn sent(&self) -> RampedGatePermit {
        (0..100_000).find_map(|_| self.acquire().ok()).expect("a share passes")
    }

    fn call(&self, outcome: Outcome) {
        self.sent().settle_at(outcome, None, &self.now);
    }

    fn calls(&self, outcome: Outcome, count: usize) {
        (0..count).for_each(|_| self.call(outcome));
    }

    /// Fails until its share is `share` at most.
    fn narrow(&mut self, share: f64) {
        while self.gate.share() > share {
            self.now += 10 * MS;
            self.call(Outcome::Failure);
        }
    }

    fn snapshot(&self) -> RampedGateSnapshot {
        self.gate.snapshot_at(&self.now)
    }
}

#[test]
fn failures_narrow_it_by_halves_to_the_floor_and_two_successes_double_it() {
    let mut rig = Rig::new(RampedGateConfig::default());
    let moves = Arc::new(Mutex::new(Vec::new()));
    let told = moves.clone();
    rig.gate.on_change(move |change| told.lock().unwrap().push(change.to));
    rig.narrow(0.02);
    // At once, so that the rate at which calls come is as high as can be.
    rig.calls(Outcome::Failure, 20);
    let down: Vec<f64> = std::mem::take(&mut *moves.lock().unwrap());
    assert_eq!(down[..3], [0.5, 0.25, 0.125], "{down:?}");
    let floor = rig.gate.share();
    assert!((0.01..0.0101).contains(&floor), "{floor}");
    rig.call(Outcome::Success);
    assert_eq!(rig.gate.share(), floor, "one is no proof");
    rig.call(Outcome::Success);
    assert_eq!(rig.gate.share(), floor * 2.0);
    rig.calls(Outcome::Success, 12);
    assert_eq!((rig.gate.share(), rig.snapshot().narrowed_total, rig.snapshot().probe_in), (1.0, 1, None));
}

#[test]
fn it_takes_forty_failures_and_a_tenth_of_a_second() {
    let mut rig = Rig::new(RampedGateConfig::default());
    rig.calls(Outcome::Failure, 39);
    rig.now += 100 * MS;
    assert_eq!((rig.gate.share(), rig.snapshot().evidence), (1.0, 39));
    rig.call(Outcome::Failure);
    assert_eq!(rig.gate.share(), 0.5);

    let mut rig = Rig::new(RampedGateConfig::default());
    rig.calls(Outcome::Failure, 400);
    assert_eq!((rig.gate.share(), rig.snapshot().evidence), (1.0, 40), "all in one moment");
    rig.now += 99 * MS;
    rig.call(Outcome::Failure);
    assert_eq!(rig.gate.share(), 1.0);
    rig.now += MS;
    drop(rig.hang());
    assert_eq!(rig.gate.share(), 1.0, "nobody has answered since, and nobody hangs");
    rig.call(Outcome::Failure);
    assert_eq!(rig.gate.share(), 0.5);

    // A call that hangs says that it goes on.
    let mut rig = Rig::new(RampedGateConfig::default().hang_after(S));
    let _hung = rig.hang();
    rig.now += 1100 * MS;
    rig.calls(Outcome::Failure, 400);
    assert_eq!(rig.gate.share(), 1.0, "all in one moment");
    rig.now += 100 * MS;
    drop(rig.hang());
    assert_eq!(rig.gate.share(), 0.5, "whoever waits looks");
}

#[test]
fn what_each_outcome_means() {
    let cases = [
        (Outcome::Success, None, None, 9),
        (Outcome::Failure, None, None, 13),
        (Outcome::Ignored, None, None, 12),
        (Outcome::Overload, None, None, 13),
        (Outcome::Overload, Some(Pushback::after(S)), Some(Status::Http(503)), 13),
        // For one client, whether it says when he may come back or not.
        (Outcome::Overload, None, Some(Status::Http(429)), 12),
        (Outcome::Overload, Some(Pushback::after(S)), Some(Status::Http(429)), 12),
        // Too much, or a message that is too large.
        (Outcome::Overload, None, Some(Status::Grpc(8)), 12),
        (Outcome::Overload, Some(Pushback::after(S)), Some(Status::Grpc(8)), 13),
    ];
    for (outcome, pushback, status, evidence) in cases {
        let rig = Rig::new(RampedGateConfig::default());
        rig.calls(Outcome::Failure, 12);
        let mut permit = rig.acquire().unwrap();
        if let Some(status) = status {
            permit.status(status);
        }
        permit.settle_at(outcome, pushback, &rig.now);
        assert_eq!(rig.snapshot().evidence, evidence, "{outcome:?} {pushback:?} {status:?}");
    }
}

#[test]
fn results_of_before_it_moved_say_nothing() {
    let mut rig = Rig::new(RampedGateConfig::default());
    let old: Vec<_> = (0..20).map(|_| rig.hang()).collect();
    rig.narrow(0.25);
    let before = rig.snapshot();
    for (i, permit) in old.into_iter().enumerate() {
        permit.settle_at(if i < 10 { Outcome::Success } else { Outcome::Failure }, None, &rig.now);
    }
    assert_eq!((rig.gate.share(), rig.snapshot().evidence), (0.25, before.evidence));
}

#[test]
fn calls_that_hang_narrow_it_to_the_floor_and_those_that_hang_since_before_do_not_keep_it_there() {
    let mut rig = Rig::new(RampedGateConfig::default().hang_after(S));
    let mut hung = Vec::new();
    for _ in 0..1000 {
        hung.push(rig.hang());
        rig.now += MS;
    }
    assert_eq!((rig.gate.share(), rig.snapshot().in_flight), (1.0, 1000));
    for _ in 0..300 {
        rig.now += 5 * MS;
        if let Ok(mut permit) = rig.acquire() {
            permit.pending_at(&rig.now);
            hung.push(permit);
        }
    }
    assert!(rig.gate.share() < 0.02, "{}", rig.gate.share());
    assert!(rig.snapshot().hung_in_flight > 900);
    let before = rig.gate.share();
    rig.calls(Outcome::Success, 2);
    assert_eq!((rig.gate.share(), rig.snapshot().hung_in_flight), (2.0 * before, 0));
    for _ in 0..50 {
        rig.now += 100 * MS;
        rig.call(Outcome::Success);
    }
    assert_eq!(rig.gate.share(), 1.0);
    rig.now += 3600 * S;
    for permit in hung {
        permit.abandon_at(&rig.now);
    }
    assert_eq!((rig.snapshot().evidence, rig.snapshot().in_flight), (0, 0), "they say nothing any more");
}

#[test]
fn a_call_that_hung_is_counted_once_and_one_with_a_long_body_does_not_hang() {
    let mut rig = Rig::new(RampedGateConfig::default().hang_after(S));
    let (hung, mut long) = (rig.hang(), rig.hang());
    long.head();
    rig.now += 3 * S;
    assert_eq!(rig.snapshot().evidence, 1);
    hung.abandon_at(&rig.now);
    assert_eq!(rig.snapshot().evidence, 1);
    long.settle_at(Outcome::Failure, None, &rig.now);
    assert_eq!(rig.snapshot().evidence, 2, "its body was cut");
    let quiet = rig.hang();
    rig.now += 999 * MS;
    quiet.abandon_at(&rig.now);
    assert_eq!(rig.snapshot().evidence, 2, "its caller went away");
}

#[test]
fn a_stream_that_has_begun_well_opens_it_long_before_it_ends() {
    let mut rig = Rig::new(RampedGateConfig::default());
    rig.narrow(0.02);
    let narrow = rig.gate.share();
    let mut streams: Vec<_> = (0..2).map(|_| rig.sent()).collect();
    streams.iter_mut().for_each(|permit| permit.timed_at(Outcome::Failure, &rig.now));
    assert_eq!(rig.gate.share(), narrow, "what looks bad may end in another way");
    streams[0].timed_at(Outcome::Success, &rig.now);
    streams[0].timed_at(Outcome::Success, &rig.now);
    assert_eq!(rig.gate.share(), narrow, "one that says it twice");
    streams[1].timed_at(Outcome::Success, &rig.now);
    assert_eq!(rig.gate.share(), 2.0 * narrow);
    streams.clear();
    while rig.gate.share() < 1.0 {
        let mut permit = rig.sent();
        permit.timed_at(Outcome::Success, &rig.now);
        streams.push(permit);
    }
    assert!(streams.len() <= 12, "{}", streams.len());

    // Once each, whatever comes first; and its end, if that is bad.
    let rig = Rig::new(RampedGateConfig::default());
    rig.calls(Outcome::Failure, 12);
    for (end, evidence) in [(Outcome::Success, 9), (Outcome::Ignored, 6), (Outcome::Failure, 4)] {
        let mut permit = rig.sent();
        permit.timed_at(Outcome::Success, &rig.now);
        permit.settle_at(end, None, &rig.now);
        assert_eq!(rig.snapshot().evidence, evidence, "{end:?}");
    }
}

#[test]
fn a_call_a_minute_is_never_refused_and_opens_it() {
    let mut rig = Rig::new(RampedGateConfig::default());
    rig.narrow(0.05);
    for _ in 0..12 {
        rig.now += 60 * S;
        rig.acquire().expect("none has passed for long").settle_at(Outcome::Success, None, &rig.now);
    }
    assert_eq!(rig.gate.share(), 1.0);
}

#[test]
fn the_floor_lets_two_a_second_through() {
    for (every, floor) in [(50, 0.1), (25, 0.05), (400, 0.25)] {
        let mut rig = Rig::new(RampedGateConfig::default());
        for _ in 0..2000 {
            rig.now += every * MS;
            if let Ok(permit) = rig.acquire() {
                permit.settle_at(Outcome::Failure, None, &rig.now);
            }
        }
        let share = rig.gate.share();
        assert!((floor..floor * 1.03).contains(&share), "a call per {every} ms: {share}");
    }
}

#[test]
fn a_refusal_says_when_a_call_passes_for_certain() {
    let mut rig = Rig::new(RampedGateConfig::default());
    rig.narrow(0.02);
    rig.call(Outcome::Ignored);
    let refused = (0..100).find_map(|_| rig.acquire().err()).unwrap();
    assert_eq!((refused.reason, refused.layer), (Reason::BreakerOpen, "gate"));
    let wait = refused.retry_after.unwrap();
    assert_eq!(rig.snapshot().probe_in, Some(wait));
    assert!(wait <= 500 * MS);
    rig.now += wait;
    assert!(rig.acquire().is_ok());
    assert!(rig.snapshot().refused_total > 0);
}

#[test]
fn the_signal_shows_the_share_that_is_refused() {
    let mut rig = Rig::new(RampedGateConfig::default());
    let signal = rig.gate.signal();
    let shows = |pressure: f32, open: bool| {
        assert!((signal.pressure() - pressure).abs() < 0.001, "{signal:?}");
        assert_eq!(signal.is(Signal::OPEN), open);
    };
    shows(0.0, false);
    rig.narrow(0.5);
    shows(0.5, false);
    rig.narrow(0.25);
    rig.sent().settle_at(Outcome::Ignored, None, &rig.now);
    shows(0.75, true);
    let wait = signal.until() - rig.now;
    assert!(wait > 498 * MS && wait <= 500 * MS, "{wait:?}");
    rig.gate.set_mode(Mode::OBSERVE_ONLY).unwrap();
    shows(0.0, false);
    rig.gate.set_mode(Mode::ForcedOpen).unwrap();
    shows(1.0, true);
    rig.gate.set_mode(Mode::Auto).unwrap();
    shows(0.75, true);
    rig.calls(Outcome::Success, 4);
    shows(0.0, false);
}

#[test]
fn operator_modes_override_and_the_share_moves_on() {
    let mut rig = Rig::new(RampedGateConfig::default());
    rig.gate.set_mode(Mode::ForcedOpen).unwrap();
    assert_eq!(rig.acquire().unwrap_err().retry_after, None);
    rig.gate.set_mode(Mode::Disabled).unwrap();
    rig.calls(Outcome::Failure, 100);
    assert_eq!(rig.snapshot().evidence, 0);
    rig.gate.set_mode(Mode::OBSERVE_ONLY).unwrap();
    for _ in 0..2000 {
        rig.now += 10 * MS;
        rig.acquire().expect("it only observes").settle_at(Outcome::Failure, None, &rig.now);
    }
    let seen = rig.snapshot();
    assert!(seen.share < 0.03 && seen.let_through_total > 1000 && seen.refused_total == 1, "{seen:?}");
    rig.gate.set_mode(Mode::Enforcing(50)).unwrap();
    let refused = (0..1000).filter(|_| rig.acquire().is_err()).count();
    assert!((430..570).contains(&refused), "{refused}");
    assert!(rig.gate.set_mode(Mode::Enforcing(101)).is_err());
}

#[test]
fn an_update_keeps_the_share_and_a_reset_does_not() {
    let mut rig = Rig::new(RampedGateConfig::default());
    rig.narrow(0.05);
    let share = rig.gate.share();
    rig.gate.update_at(rig.gate.config().hang_after(S), &rig.now).unwrap();
    assert_eq!(rig.gate.share(), share);
    rig.gate.update_at(rig.gate.config().min_share(0.25), &rig.now).unwrap();
    assert_eq!(rig.gate.share(), 0.25);
    let before = rig.gate.config();
    assert!(rig.gate.update_at(before.clone().min_share(0.5), &rig.now).is_err());
    assert_eq!(rig.gate.config(), before);
    let waiting = rig.sent();
    rig.gate.reset_at(&rig.now);
    assert_eq!((rig.gate.share(), rig.snapshot().evidence), (1.0, 0));
    waiting.settle_at(Outcome::Failure, None, &rig.now);
    assert_eq!(rig.snapshot().evidence, 0, "a call from before");
    assert_eq!(rig.gate.fresh().config(), before);
}

#[test]
fn config_errors_name_field_value_and_what_is_allowed() {
    let config = RampedGateConfig::default;
    for (config, text) in [
        (config().hang_after(MS / 2), "`hang_after` is 500us, allowed: 1ms to 1h"),
        (config().min_share(0.0), "`min_share` is 0, allowed: 0.001 to 0.25"),
        (config().min_share(f64::NAN), "`min_share` is NaN, allowed: 0.001 to 0.25"),
        (config().min_share(0.3), "`min_share` is 0.3, allowed: 0.001 to 0.25"),
        (config().probe_every(MS), "`probe_every` is 1ms, allowed: 10ms to 1m"),
        (config().probe_every(61 * S), "`probe_every` is 61s, allowed: 10ms to 1m"),
    ] {
        assert_eq!(config.build().unwrap_err().to_string(), text);
    }
}

#[test]
#[cfg(feature = "serde")]
fn a_config_is_read_as_people_write_it() {
    let config: RampedGateConfig = serde_json::from_str(r#"{ "hang_after": "1s", "min_share": 0.02 }"#).unwrap();
    assert_eq!(config, RampedGateConfig::default().hang_after(S).min_share(0.02));
    let again: RampedGateConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    assert!(serde_json::from_str::<RampedGateConfig>(r#"{ "min_shar": 0.5 }"#).is_err());
}

#[test]
fn a_listener_may_use_the_gate() {
    let gate = Arc::new(RampedGate::default());
    let inside = Arc::downgrade(&gate);
    gate.on_change(move |change| {
        let gate = inside.upgrade().unwrap();
        if change.to < 1.0 {
            gate.on_change(|_| ());
            gate.update(gate.config()).unwrap();
            gate.reset();
        }
    });
    let mut now = TokioClock.now();
    for _ in 0..41 {
        now += 10 * MS;
        gate.try_acquire_at(&now).unwrap().settle_at(Outcome::Failure, None, &now);
    }
    assert_eq!((gate.share(), gate.snapshot().narrowed_total), (1.0, 1));
}

#[test]
fn its_readings_do_not_come_and_go() {
    let mut rig = Rig::new(RampedGateConfig::default());
    let read = |rig: &Rig| {
        let mut names = Vec::new();
        rig.gate.visit(&mut |name, value| names.push((name, matches!(value, Value::Count(_)))));
        names
    };
    let before = read(&rig);
    assert!(before.iter().all(|(name, is_count)| *is_count == name.ends_with("_total")));
    rig.narrow(0.1);
    assert_eq!(read(&rig), before);
    assert_eq!(rig.gate.kind(), "gate");
}

/// Fails its gate on the paused clock until its share is `share` at most.
async fn narrow(gate: &RampedGate, share: f64) {
    while gate.share() > share {
        tokio::time::sleep(10 * MS).await;
        if let Ok(permit) = gate.try_acquire() {
            permit.settle(Outcome::Failure, None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_refused_does_not_wait_for_a_fleet_that_is_never_ready() {
    let layer = RampedGateLayer::new(RampedGateConfig::default().seed(1).build().unwrap());
    let gate = layer.handle();
    narrow(&gate, 0.0625).await;
    let mut never = layer.layer(NeverReady);
    let mut cx = Context::from_waker(Waker::noop());
    let (mut refused, mut waits) = (0, 0);
    for _ in 0..1000 {
        match never.poll_ready(&mut cx) {
            Poll::Ready(Ok(())) => {
                let error = never.call(()).await.unwrap_err();
                assert_eq!(error.rejection().unwrap().reason, Reason::BreakerOpen);
                refused += 1;
            }
            // Drawn to pass, it stays so, and waits.
            _ => waits += 1,
        }
    }
    assert!(refused > 0 && waits > 900, "{refused} refused, {waits} looks at a call that waits");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_drawn_once_and_not_as_often_as_somebody_asks() {
    let layer = RampedGateLayer::new(RampedGateConfig::default().seed(1).build().unwrap());
    let gate = layer.handle();
    narrow(&gate, 0.5).await;
    gate.try_acquire().ok();
    let mut service = layer.layer(service_fn(|()| pending::<Result<(), Error<io::Error>>>()));
    let mut cx = Context::from_waker(Waker::noop());
    let refused_before = gate.snapshot().refused_total;
    let mut refused = 0;
    for _ in 0..200 {
        for _ in 0..20 {
            assert!(service.poll_ready(&mut cx).is_ready());
        }
        // One that passes is given up, and says nothing.
        let mut call = std::pin::pin!(service.call(()));
        refused += u64::from(call.as_mut().poll(&mut cx).is_ready());
    }
    assert!((70..=130).contains(&refused), "{refused}: half of the calls, however often it was asked");
    assert_eq!(gate.snapshot().refused_total - refused_before, refused);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_fails_before_it_is_called_narrows_it_by_every_failure() {
    let layer = RampedGateLayer::new(RampedGateConfig::default().seed(1).build().unwrap());
    let gate = layer.handle();
    narrow(&gate, 0.125).await;
    let (before, mut failed) = (gate.snapshot(), 0);
    let mut broken = layer.layer(Broken);
    let mut cx = Context::from_waker(Waker::noop());
    while failed < 9 {
        match broken.poll_ready(&mut cx) {
            Poll::Ready(Err(_)) => failed += 1,
            _ => drop(broken.call(())),
        }
    }
    let seen = gate.snapshot();
    assert_eq!((seen.evidence, seen.generation), (before.evidence + 9, before.generation));
    gate.set_mode(Mode::Disabled).unwrap();
    assert!(broken.poll_ready(&mut cx).is_ready());
    assert_eq!(gate.snapshot().evidence, seen.evidence);
}

#[derive(Clone)]
struct Broken;

impl Service<()> for Broken {
    type Response = ();
    type Error = Error<io::Error>;
    type Future = std::future::Pending<Result<(), Error<io::Error>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Err(Error::Inner(io::Error::other("gone"))))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        pending()
    }
}

#[derive(Clone)]
struct NeverReady;

impl Service<()> for NeverReady {
    type Response = ();
    type Error = Error<io::Error>;
    type Future = std::future::Pending<Result<(), Error<io::Error>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        pending()
    }
}

struct Count(AtomicUsize);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_parked_on_the_fleet_hears_that_the_gate_is_narrow() {
    let layer = RampedGateLayer::new(RampedGateConfig::default().seed(1).build().unwrap());
    let gate = layer.handle();
    let mut parked = layer.layer(NeverReady);
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = count.clone().into();
    assert!(parked.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(count.0.load(SeqCst), 0);
    narrow(&gate, 0.5).await;
    assert_eq!(count.0.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_calls_passes_through_tower() {
    let layer = RampedGateLayer::new(RampedGateConfig::default().seed(1).build().unwrap());
    let gate = layer.handle();
    narrow(&gate, 0.125).await;
    let reached = Arc::new(AtomicUsize::new(0));
    let counter = reached.clone();
    let service = layer.layer(service_fn(move |()| {
        counter.fetch_add(1, SeqCst);
        async { Err::<(), _>(Error::Inner(io::Error::other(Rejection::new(Reason::Shed, "inside")))) }
    }));
    let mut refused = 0;
    for _ in 0..4000 {
        let error = service.clone().oneshot(()).await.unwrap_err();
        refused += usize::from(error.rejection().is_some_and(|refusal| refusal.layer == "gate"));
    }
    let reached = reached.load(SeqCst);
    assert!((400..=600).contains(&reached) && reached + refused == 4000, "{reached} reached it, {refused} refused");
}
