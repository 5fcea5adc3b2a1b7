use super::{state::Pick, word::Turn, *};
use crate::Trigger;
use buttress_core::{Clock, Handle, Mode, Outcome, Settle, TokioClock, Value, abandon};
use proptest::prelude::*;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);

fn policy(config: FailoverConfig, backups: usize) -> Failover {
    let backups = (1..=backups).map(|n| TierConfig::new(format!("b{n}"))).collect::<Vec<_>>();
    config.validate(&backups).unwrap();
    Failover::new(config, backups, None)
}

impl Failover {
    fn pick(&self, at: Instant) -> Pick {
        self.shared.pick(&at)
    }

    /// A call to the primary that ends so.
    fn tell(&self, pick: Pick, good: bool, at: Instant) {
        self.shared.told(0, 0, pick.measured.then_some(pick.generation), good, &at);
    }

    fn permit(&self, pick: Pick, tier: u8) -> Option<FailoverPermit> {
        state::Shared::admit(self.lease(), tier, pick)
    }

    fn is_over(&self) -> bool {
        self.snapshot().failed_over.is_some()
    }
}

/// The same machine, written as one would tell it.
#[derive(Debug)]
struct Model {
    over: bool,
    run: u32,
    /// Which period of being so or so it is: results of other periods say nothing.
    period: u32,
    due: Duration,
    preferred: Option<u8>,
    turns: Vec<Turn>,
}

#[derive(Clone, Debug)]
enum Step {
    Begin,
    /// One of the calls under way ends.
    End(usize, bool),
    Wait(u64),
    Prefer(Option<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Begin),
        8 => (any::<usize>(), prop::bool::weighted(0.4)).prop_map(|(which, good)| Step::End(which, good)),
        3 => (0u64..400).prop_map(Step::Wait),
        1 => prop::option::of(0u8..3).prop_map(Step::Prefer),
    ]
}

proptest! {
    #[test]
    fn it_is_the_naive_machine(
        steps in prop::collection::vec(step(), 0..300),
        fail_after in 1u32..4,
        return_after in 1u32..4,
    ) {
        let every = 250 * MS;
        let config = FailoverConfig::default().fail_after(fail_after).return_after(return_after).probe_every(every);
        let failover = policy(config, 2);
        let turns = Arc::new(Mutex::new(Vec::new()));
        let noted = turns.clone();
        failover.on_change(move |change| match change.why {
            FailoverWhy::Failed => noted.lock().unwrap().push(Turn::Over),
            FailoverWhy::Recovered => noted.lock().unwrap().push(Turn::Back),
            FailoverWhy::Operator => {}
        });
        let start = TokioClock.now();
        let mut at = Duration::ZERO;
        let mut model =
            Model { over: false, run: 0, period: 0, due: Duration::ZERO, preferred: None, turns: Vec::new() };
        // The calls under way, with the period in which the model says that their results count.
        let mut calls: Vec<(Pick, Option<u32>)> = Vec::new();
        for step in steps {
            match step {
                Step::Begin => {
                    let pick = failover.pick(start + at);
                    let (begins, counts) = match (model.preferred, model.over) {
                        (Some(tier), _) => (tier, false),
                        (None, false) => (0, true),
                        (None, true) if at >= model.due => {
                            model.due = at + every;
                            (0, true)
                        }
                        (None, true) => (1, false),
                    };
                    prop_assert_eq!((pick.start, pick.measured), (begins, counts), "{:?}", model);
                    calls.push((pick, counts.then_some(model.period)));
                }
                Step::End(which, good) => {
                    if calls.is_empty() {
                        continue;
                    }
                    let (pick, period) = calls.swap_remove(which % calls.len());
                    failover.tell(pick, good, start + at);
                    if period != Some(model.period) {
                        continue;
                    }
                    model.run = if good == model.over { model.run + 1 } else { 0 };
                    if model.run == if model.over { return_after } else { fail_after } {
                        model.over = !model.over;
                        model.run = 0;
                        model.period += 1;
                        model.turns.push(if model.over { Turn::Over } else { Turn::Back });
                        model.due = model.due.max(at + every);
                    }
                }
                Step::Wait(millis) => at += u32::try_from(millis).unwrap() * MS,
                Step::Prefer(tier) => {
                    match tier {
                        Some(tier) => failover.prefer(["primary", "b1", "b2"][usize::from(tier)]).unwrap(),
                        None => failover.auto(),
                    }
                    model = Model { over: false, run: 0, period: model.period + 1, preferred: tier, ..model };
                }
            }
            prop_assert_eq!(failover.is_over(), model.over);
        }
        prop_assert_eq!(&*turns.lock().unwrap(), &model.turns);
        let seen = failover.snapshot();
        let count = |turn| model.turns.iter().filter(|known| **known == turn).count() as u64;
        prop_assert_eq!((seen.failovers_total, seen.returns_total), (count(Turn::Over), count(Turn::Back)));
    }
}

#[test]
fn what_a_dropped_call_says() {
    let failover = policy(FailoverConfig::default().fail_after(1).return_after(1).probe_every(MS), 1);
    let now = TokioClock.now();
    let primary = || failover.permit(failover.pick(now), 0).unwrap();
    drop(primary());
    assert!(!failover.is_over(), "its caller went away: nothing");
    abandon(Outcome::Failure, || drop(primary()));
    assert!(failover.is_over(), "a deadline of ours passed: a failure");
    let probe = || failover.permit(failover.pick(now + 10 * MS), 0).unwrap();
    let mut call = probe();
    call.conclude(Outcome::Ignored, None);
    drop(call);
    assert!(failover.is_over());
    let mut call = failover.permit(failover.pick(now + 20 * MS), 0).unwrap();
    call.head_is_good();
    drop(call);
    assert!(!failover.is_over(), "a reader that leaves in the middle of a good answer");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _call = primary();
        panic!("in the primary");
    }));
    assert!(panicked.is_err() && failover.is_over());
    assert_eq!(failover.snapshot().in_flight, 0);
}

#[test]
fn what_an_outcome_says_follows_from_the_config() {
    for (on, failure) in [(Trigger::Failure, true), (Trigger::Overload, false), (Trigger::Refused, false)] {
        for (outcome, bad) in [(Outcome::Overload, false), (Outcome::Failure, failure), (Outcome::Success, false)] {
            let failover = policy(FailoverConfig::default().on([on]).fail_after(1), 1);
            failover.permit(failover.pick(TokioClock.now()), 0).unwrap().settle(outcome, None);
            assert_eq!(failover.is_over(), bad, "{outcome} on {on:?}");
        }
    }
}

#[test]
fn results_of_the_backup_move_nothing() {
    let failover = policy(FailoverConfig::default().fail_after(1), 1);
    let pick = failover.pick(TokioClock.now());
    failover.permit(pick, 1).unwrap().settle(Outcome::Failure, None);
    assert!(!failover.is_over());
    assert_eq!(failover.snapshot().tiers[1].failed_total, 1);
}

#[test]
fn observing_sends_nothing_elsewhere_and_sees_it_all() {
    let failover = policy(FailoverConfig::default().fail_after(2).return_after(1).probe_every(10 * MS), 1);
    failover.set_mode(Mode::OBSERVE_ONLY).unwrap();
    let now = TokioClock.now();
    (0..2).for_each(|_| failover.tell(failover.pick(now), false, now));
    assert!(failover.is_over());
    let pick = failover.pick(now);
    assert_eq!((pick.start, pick.measured, failover.snapshot().passed_total), (0, false, 1));
    failover.tell(pick, true, now);
    assert!(failover.is_over(), "a call that was let through moves nothing");
    failover.tell(failover.pick(now + 10 * MS), true, now);
    assert!(!failover.is_over());
    failover.set_mode(Mode::Disabled).unwrap();
    assert!(!failover.pick(now).measured);
    let error = failover.set_mode(Mode::ForcedOpen).unwrap_err();
    assert!(error.to_string().contains("prefer a backup"), "{error}");
}

#[test]
fn an_operator_hears_of_a_name_that_no_tier_has() {
    let failover = policy(FailoverConfig::default(), 2);
    assert_eq!(failover.prefer("b3").unwrap_err().to_string(), "`tier` is b3, allowed: primary, b1, b2");
    failover.prefer("b2").unwrap();
    let seen = failover.snapshot();
    assert!(seen.active == "b2" && seen.preferred && failover.pick(TokioClock.now()).start == 2);
}

#[test]
fn a_listener_may_use_the_handle() {
    let failover = Arc::new(policy(FailoverConfig::default().fail_after(1), 1));
    let (handle, seen) = (Arc::downgrade(&failover), Arc::new(Mutex::new(Vec::new())));
    let noted = seen.clone();
    failover.on_change(move |change| {
        let handle = handle.upgrade().unwrap();
        handle.on_change(|_| {});
        noted.lock().unwrap().push((change.clone(), handle.snapshot().active));
    });
    failover.tell(failover.pick(TokioClock.now()), false, TokioClock.now());
    let change = FailoverChange { from: "primary".into(), to: "b1".into(), why: FailoverWhy::Failed };
    assert_eq!(*seen.lock().unwrap(), [(change, "b1".into())]);
}

#[test]
fn readings_are_all_there_from_the_start() {
    let failover = policy(FailoverConfig::default(), 2);
    let mut names = Vec::new();
    failover.visit(&mut |name, value| names.push((name, value)));
    assert!(names.contains(&("state", Value::State("active", &["active", "failed_over", "preferred"]))));
    let mut series = 0;
    failover.measure(&mut |_| series += 1);
    assert_eq!(series, 6);
}
