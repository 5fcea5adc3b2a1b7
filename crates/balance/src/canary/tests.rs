use super::*;
use buttress_core::{Clock, Handle, Mode, Outcome, Settle, TokioClock, Value, abandon};
use proptest::prelude::*;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn now() -> Instant {
    TokioClock.now()
}

/// Half of the calls, and a margin of a tenth, judged from the tenth call of each on.
fn config() -> CanaryConfig {
    CanaryConfig::new(50.0).margin(0.1).min_calls(10).window(secs(10)).seed(1)
}

impl Canary {
    /// A call to this side that ends so.
    fn sees(&self, side: Side, outcome: Outcome, at: Instant) {
        self.call(side).conclude_at(outcome, &at);
    }

    fn call(&self, side: Side) -> CanaryPermit {
        let mut permit = (0..1_000).map(|_| self.pick(0)).find(|permit| permit.side() == side).expect("a call to it");
        permit.pending();
        permit
    }

    fn sees_all(&self, side: Side, good: usize, bad: usize, at: Instant) {
        (0..good).for_each(|_| self.sees(side, Outcome::Success, at));
        (0..bad).for_each(|_| self.sees(side, Outcome::Failure, at));
    }

    fn is_tripped(&self) -> bool {
        self.snapshot().tripped
    }

    fn picks(&self, calls: usize) -> usize {
        (0..calls).filter(|_| self.pick(0).side() == Side::Canary).count()
    }
}

#[test]
fn calls_are_split_by_the_weight_and_the_seed_says_which() {
    for weight in [0.0, 0.5, 5.0, 33.3, 99.0, 100.0] {
        let calls = 200_000;
        let canary = CanaryConfig::new(weight).seed(11).build().unwrap();
        let (got, want) = (canary.picks(calls) as f64, calls as f64 * weight / 100.0);
        // Five standard deviations of a binomial distribution.
        let spread = 5.0 * (want * (1.0 - weight / 100.0)).sqrt();
        assert!((got - want).abs() <= spread, "{got} of {want} at {weight}");
        let seen = canary.snapshot();
        assert_eq!((seen.canary.picks_total as f64, seen.stable.picks_total as f64), (got, calls as f64 - got));
    }
    let sides = |seed| {
        let canary = CanaryConfig::new(30.0).seed(seed).build().unwrap();
        (0..200).map(|_| canary.pick(0).side()).collect::<Vec<_>>()
    };
    assert_eq!(sides(1), sides(1));
    assert_ne!(sides(1), sides(2));
}

#[test]
fn it_trips_above_the_margin_and_not_at_it() {
    let (t0, canary) = (now(), config().build().unwrap());
    canary.sees_all(Side::Stable, 80, 20, t0);
    canary.sees_all(Side::Canary, 70, 29, t0);
    assert!(!canary.is_tripped());
    canary.sees(Side::Canary, Outcome::Success, t0);
    assert!(!canary.snapshot().worse, "29 % against 20 %");
    canary.sees_all(Side::Canary, 0, 2, t0);
    assert!(canary.is_tripped() && canary.snapshot().worse, "31 of 102");
    assert_eq!((canary.picks(1_000), canary.snapshot().weight, canary.config().weight), (0, 0.0, 50.0));
}

#[test]
fn both_sides_must_have_been_seen() {
    let (t0, canary) = (now(), config().build().unwrap());
    canary.sees_all(Side::Stable, 9, 0, t0);
    canary.sees_all(Side::Canary, 0, 50, t0);
    assert!(!canary.is_tripped());
    canary.sees(Side::Stable, Outcome::Success, t0);
    assert!(!canary.is_tripped(), "it is judged when a call of its own fails");
    canary.sees(Side::Canary, Outcome::Failure, t0);
    assert!(canary.is_tripped());
    let canary = config().build().unwrap();
    canary.sees_all(Side::Stable, 50, 0, t0);
    canary.sees_all(Side::Canary, 0, 9, t0);
    assert!(!canary.is_tripped());
}

#[test]
fn what_the_window_has_left_behind_does_not_count() {
    let (t0, canary) = (now(), config().build().unwrap());
    canary.sees_all(Side::Stable, 50, 0, t0);
    canary.sees_all(Side::Canary, 0, 9, t0);
    canary.sees_all(Side::Canary, 30, 1, t0 + secs(12));
    assert!(!canary.is_tripped());
    assert_eq!(canary.snapshot_at(&(t0 + secs(12))).stable.calls, 0);
}

#[test]
fn ignored_and_overloaded_calls_count_for_nobody_and_abandoned_ones_as_why_they_were() {
    let (t0, canary) = (now(), config().build().unwrap());
    for side in [Side::Stable, Side::Canary] {
        canary.sees(side, Outcome::Ignored, t0);
        canary.sees(side, Outcome::Overload, t0);
        drop(canary.call(side));
        let permit = canary.call(side);
        abandon(Outcome::Failure, || drop(permit));
        canary.call(side).settle(Outcome::Success, None);
    }
    let seen = canary.snapshot();
    assert_eq!((seen.stable.calls, seen.stable.failures, seen.canary.calls, seen.canary.failures), (2, 1, 2, 1));
    assert_eq!(seen.in_flight, 0);
}

#[test]
fn a_further_attempt_goes_to_the_stable_side_and_says_nothing() {
    let canary = CanaryConfig::new(100.0).min_calls(1).build().unwrap();
    for attempt in 1..4 {
        let permit = canary.pick(attempt);
        assert_eq!(permit.side(), Side::Stable);
        permit.settle(Outcome::Failure, None);
    }
    assert_eq!((canary.pick(0).side(), canary.snapshot().stable.calls), (Side::Canary, 0));
    assert_eq!(canary.snapshot().retried_total, 3);
}

#[test]
fn an_operator_gives_the_weight_back_and_what_was_before_does_not_count() {
    let (t0, canary) = (now(), config().build().unwrap());
    let old = canary.call(Side::Canary);
    let trip = |at| {
        canary.sees_all(Side::Stable, 50, 0, at);
        canary.sees_all(Side::Canary, 0, 10, at);
    };
    trip(t0);
    assert!(canary.is_tripped());
    canary.reset_at(&t0);
    assert!(!canary.is_tripped() && canary.picks(1_000) > 400);
    old.settle(Outcome::Failure, None);
    let seen = canary.snapshot_at(&t0);
    assert_eq!((seen.canary.calls, seen.stable.calls, seen.trips_total), (0, 0, 1));
    trip(t0);
    assert!(canary.is_tripped(), "again");
    canary.set_weight_at(10.0, &t0).unwrap();
    assert!(!canary.is_tripped() && (50..200).contains(&canary.picks(1_000)));
    assert_eq!(canary.set_weight(-1.0).unwrap_err().to_string(), "`weight` is -1, allowed: 0 to 100 percent");
    assert_eq!(canary.config().weight, 10.0);
}

#[test]
fn an_update_keeps_what_was_seen_unless_the_weight_or_the_window_is_another() {
    let canary = config().build().unwrap();
    canary.sees_all(Side::Stable, 20, 0, now());
    canary.sees_all(Side::Canary, 0, 9, now());
    canary.update(canary.config().margin(0.5).min_calls(9)).unwrap();
    assert_eq!(canary.snapshot().canary.failures, 9);
    canary.sees(Side::Canary, Outcome::Failure, now());
    assert!(canary.is_tripped());
    canary.update(canary.config().margin(0.6)).unwrap();
    assert!(canary.is_tripped());
    canary.update(canary.config().weight(20.0)).unwrap();
    assert!(!canary.is_tripped() && canary.snapshot().canary.calls == 0);
    assert_eq!(canary.update(canary.config().seed(2)).unwrap_err().field, "seed");
    assert_eq!(canary.update(canary.config().margin(1.5)).unwrap_err().to_string(), "`margin` is 1.5, allowed: 0 to 1");
    for (config, field) in [
        (config().window(secs(0)), "window"),
        (config().min_calls(0), "min_calls"),
        (config().weight(f64::NAN), "weight"),
        (config().weight(100.5), "weight"),
    ] {
        assert_eq!(config.build().unwrap_err().field, field);
    }
}

#[test]
fn modes_override_it() {
    let (t0, canary) = (now(), config().build().unwrap());
    canary.set_mode(Mode::ForcedOpen).unwrap();
    assert_eq!((canary.picks(1_000), canary.snapshot().weight), (0, 0.0));
    canary.set_mode(Mode::OBSERVE_ONLY).unwrap();
    canary.sees_all(Side::Stable, 50, 0, t0);
    canary.sees_all(Side::Canary, 0, 50, t0);
    let seen = canary.snapshot();
    assert!(!seen.tripped && seen.worse && canary.picks(1_000) > 400, "judged, and never tripped");
    canary.set_mode(Mode::Auto).unwrap();
    canary.sees(Side::Canary, Outcome::Failure, t0);
    assert!(canary.is_tripped());
    canary.set_mode(Mode::Enforcing(80)).unwrap();
    let before = canary.snapshot();
    let passed = canary.picks(10_000);
    assert!((850..1_150).contains(&passed), "a fifth of a half: {passed}");
    assert_eq!(canary.snapshot().passed_total as usize, passed);
    canary.sees_all(Side::Canary, 5, 5, t0);
    assert_eq!(canary.snapshot().canary.calls, before.canary.calls, "calls that pass are not measured");
    canary.set_mode(Mode::Disabled).unwrap();
    assert!(canary.picks(1_000) > 400 && canary.snapshot().weight == 50.0, "the weight alone");
    canary.reset();
    canary.sees_all(Side::Stable, 50, 0, now());
    canary.sees_all(Side::Canary, 0, 50, now());
    assert_eq!((canary.snapshot().canary.calls, canary.is_tripped()), (0, false));
    canary.set_mode(Mode::Auto).unwrap();
    assert_eq!(canary.mode(), Mode::Auto);
}

#[test]
fn a_call_that_was_measured_before_it_was_disabled_trips_nothing() {
    let (t0, canary) = (now(), config().build().unwrap());
    canary.sees_all(Side::Stable, 50, 0, t0);
    let calls: Vec<_> = (0..20).map(|_| canary.call(Side::Canary)).collect();
    canary.set_mode(Mode::Disabled).unwrap();
    calls.into_iter().for_each(|call| call.settle(Outcome::Failure, None));
    assert!(!canary.is_tripped());
}

#[test]
fn peer_11_a_listener_may_use_the_canary_and_is_told_why() {
    let (t0, canary) = (now(), Arc::new(config().build().unwrap()));
    let trips = Arc::new(Mutex::new(Vec::new()));
    let (inside, heard) = (Arc::downgrade(&canary), trips.clone());
    canary.on_trip(move |trip| {
        let canary = inside.upgrade().unwrap();
        canary.on_trip(|_| ());
        canary.set_weight(1.0).unwrap();
        heard.lock().unwrap().push((trip.clone(), canary.config().weight));
    });
    canary.sees_all(Side::Stable, 40, 10, t0);
    canary.sees_all(Side::Canary, 5, 5, t0);
    let trip = Trip { canary_calls: 10, canary_rate: 0.5, stable_calls: 50, stable_rate: 0.2 };
    assert_eq!(*trips.lock().unwrap(), [(trip, 1.0)]);
    assert!(!canary.is_tripped());
}

#[test]
fn many_threads_lose_no_call_and_one_of_them_trips_it() {
    let canary = Arc::new(CanaryConfig::new(50.0).min_calls(100).build().unwrap());
    let told = Arc::new(Mutex::new(0));
    let heard = told.clone();
    canary.on_trip(move |_| *heard.lock().unwrap() += 1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let permit = canary.pick(0);
                    let outcome = if permit.side() == Side::Canary { Outcome::Failure } else { Outcome::Success };
                    permit.settle(outcome, None);
                }
            });
        }
    });
    let seen = canary.snapshot();
    assert!(seen.tripped && (seen.trips_total, *told.lock().unwrap(), seen.in_flight) == (1, 1, 0));
    assert_eq!(seen.stable.picks_total + seen.canary.picks_total, 20_000);
    assert_eq!((seen.stable.calls, seen.canary.calls), (seen.stable.picks_total, seen.canary.picks_total));
    assert!((100..200).contains(&seen.canary.calls), "{seen:?}");
}

#[test]
fn a_registry_can_show_it() {
    let canary = config().build().unwrap();
    let mut shown = Vec::new();
    canary.visit(&mut |name, value| shown.push((name, value)));
    assert_eq!(shown[0], ("state", Value::State("splitting", &["splitting", "tripped"])));
    assert!(shown.contains(&("weight", Value::Ratio(0.5))) && canary.kind() == "canary");
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_and_unknown_fields_are_errors() {
    let config: CanaryConfig = serde_json::from_str(r#"{"weight": 2.5, "window": "30s"}"#).unwrap();
    assert_eq!(config, CanaryConfig::new(2.5).window(secs(30)));
    assert!(serde_json::from_str::<CanaryConfig>(r#"{"wieght": 2.5}"#).is_err());
    let snapshot = serde_json::to_value(config.build().unwrap().snapshot()).unwrap();
    assert_eq!((&snapshot["mode"], &snapshot["canary"]["calls"]), (&"auto".into(), &0.into()));
}

/// What happens to a canary.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ends(Side, Outcome),
    /// A call that began before the last weight or reset.
    EndsLate,
    Passes(u64),
    Reset,
    SetWeight,
    Observe(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let side = || prop_oneof![Just(Side::Stable), Just(Side::Canary)];
    let outcome = || prop_oneof![4 => Just(Outcome::Success), 2 => Just(Outcome::Failure), 1 => Just(Outcome::Overload), 1 => Just(Outcome::Ignored)];
    proptest::collection::vec(
        prop_oneof![
            60 => (side(), outcome()).prop_map(|(side, outcome)| Event::Ends(side, outcome)),
            3 => Just(Event::EndsLate),
            10 => (0..3_000_u64).prop_map(Event::Passes),
            1 => Just(Event::Reset),
            1 => Just(Event::SetWeight),
            2 => any::<bool>().prop_map(Event::Observe),
        ],
        0..300,
    )
}

/// A list of all there was.
#[derive(Default)]
struct Naive {
    /// Bucket, generation, side, failed.
    calls: Vec<(u64, u32, Side, bool)>,
    generation: u32,
    /// The first bucket of the generation.
    start: u64,
    tripped: bool,
}

const BUCKET_MILLIS: u64 = 1_000;

impl Naive {
    fn rate(&self, side: Side, millis: u64) -> (usize, f64) {
        let newest = (millis / BUCKET_MILLIS).max(self.start);
        let of =
            |calls: &&(u64, u32, Side, bool)| calls.2 == side && calls.1 == self.generation && calls.0 + 10 > newest;
        let calls: Vec<_> = self.calls.iter().filter(of).collect();
        let failed = calls.iter().filter(|call| call.3).count();
        (calls.len(), if calls.is_empty() { 0.0 } else { failed as f64 / calls.len() as f64 })
    }

    fn renew(&mut self, millis: u64) {
        self.start = self.start.max(millis / BUCKET_MILLIS) + 1;
        self.generation += 1;
        self.tripped = false;
    }
}

proptest! {
    #[test]
    fn it_trips_exactly_when_a_naive_list_says(events in events(), min_calls in 1..8_u32, margin in 0.0..0.6_f64) {
        let t0 = now();
        let canary = Canary::new_at(config().min_calls(min_calls).margin(margin), &t0).unwrap();
        let (mut naive, mut millis, mut observed) = (Naive::default(), 0, false);
        let mut late = canary.call(Side::Canary);
        for event in events {
            let at = t0 + Duration::from_millis(millis);
            match event {
                Event::Ends(Side::Canary, _) if naive.tripped && !observed => {}
                Event::Ends(side, outcome) => {
                    let measured = !(naive.tripped && side == Side::Canary);
                    canary.sees(side, outcome, at);
                    let bucket = (millis / BUCKET_MILLIS).max(naive.start);
                    let failed = outcome == Outcome::Failure;
                    if measured && matches!(outcome, Outcome::Success | Outcome::Failure) {
                        naive.calls.push((bucket, naive.generation, side, failed));
                    }
                    let (stable, canary) = (naive.rate(Side::Stable, millis), naive.rate(Side::Canary, millis));
                    let is_known = stable.0 >= min_calls as usize && canary.0 >= min_calls as usize;
                    if measured && failed && side == Side::Canary && !observed && is_known && canary.1 > stable.1 + margin {
                        naive.tripped = true;
                    }
                }
                Event::EndsLate if naive.generation == 0 => {}
                Event::EndsLate => late.conclude_at(Outcome::Failure, &at),
                Event::Passes(span) => millis += span,
                Event::Reset | Event::SetWeight => {
                    if !naive.tripped || observed {
                        late = canary.call(Side::Canary);
                    }
                    match event {
                        Event::Reset => canary.reset_at(&at),
                        _ => canary.set_weight_at(50.0, &at).unwrap(),
                    }
                    naive.renew(millis);
                }
                Event::Observe(on) => {
                    canary.set_mode(if on { Mode::OBSERVE_ONLY } else { Mode::Auto }).unwrap();
                    observed = on;
                }
            }
            let seen = canary.snapshot_at(&(t0 + Duration::from_millis(millis)));
            prop_assert_eq!(seen.tripped, naive.tripped);
            for (side, seen) in [(Side::Stable, &seen.stable), (Side::Canary, &seen.canary)] {
                prop_assert_eq!((seen.calls as usize, seen.failure_rate), naive.rate(side, millis), "{:?}", side);
            }
        }
    }
}
