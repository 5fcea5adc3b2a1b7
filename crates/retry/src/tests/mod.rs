//! The decisions, with time as a value.

mod amplification;

use crate::{Backoff, Cause, Course, Decision, Retry, RetryConfig, Wait, Why};
use buttress_core::{BudgetConfig, Clock, Fresh, Handle, Mode, TokioClock, Value};
use proptest::prelude::*;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

fn t0() -> Instant {
    TokioClock.now()
}

/// Back-offs of 100 ms, tokens for everything.
fn config() -> RetryConfig {
    let budget = BudgetConfig::new(2.0).min_per_sec(1000.0);
    RetryConfig::new(4).budget(budget).backoff(Backoff::constant(100 * MS)).seed(1)
}

fn retry(config: RetryConfig) -> Retry {
    config.build().unwrap()
}

/// When the next attempt is made, or why not.
fn ask(
    retry: &Retry,
    course: &mut Course,
    wait: Wait,
    deadline: Option<Instant>,
    now: Instant,
) -> Result<Duration, Why> {
    match retry.decide(course, Cause::Status, wait, deadline, &now) {
        Decision::Retry { after, .. } => Ok(after),
        Decision::GiveUp(why) => Err(why),
    }
}

#[test]
fn a_call_is_sent_as_often_as_it_may_be() {
    let (retry, now) = (retry(config()), t0());
    let mut course = Course::new();
    for attempts in 1..4 {
        assert_eq!(course.attempts(), attempts);
        assert_eq!(ask(&retry, &mut course, Wait::Backoff, None, now), Ok(100 * MS));
    }
    assert_eq!(ask(&retry, &mut course, Wait::Backoff, None, now), Err(Why::Attempts));
    let seen = retry.snapshot();
    assert_eq!((seen.retries_total, seen.retries(Cause::Status), seen.gave_up(Why::Attempts)), (3, 3, 1));
}

#[test]
fn never_after_a_commit() {
    let (retry, mut course) = (retry(config()), Course::new());
    course.commit();
    assert_eq!(ask(&retry, &mut course, Wait::Exactly(Duration::ZERO), None, t0()), Err(Why::Committed));
    assert_eq!(retry.snapshot().budget.granted_total, 0);
}

#[test]
fn a_retry_after_is_a_lower_bound_and_the_back_off_comes_on_top() {
    let now = t0();
    let ask_once = |wait, deadline: Option<Duration>| {
        ask(&retry(config()), &mut Course::new(), wait, deadline.map(|left| now + left), now)
    };
    assert_eq!(ask_once(Wait::AtLeast(2 * SEC), None), Ok(2 * SEC + 100 * MS));
    assert_eq!(ask_once(Wait::AtLeast(Duration::ZERO), None), Ok(100 * MS));
    assert_eq!(ask_once(Wait::AtLeast(2 * SEC), Some(2 * SEC + 50 * MS)), Ok(2 * SEC), "what is on top gives way");
    assert_eq!(ask_once(Wait::AtLeast(2 * SEC), Some(2 * SEC)), Err(Why::Deadline));
    assert_eq!(ask_once(Wait::AtLeast(30 * SEC), None), Ok(30 * SEC + 100 * MS));
    assert_eq!(ask_once(Wait::AtLeast(30 * SEC + MS), None), Err(Why::TooLong));
    assert_eq!(ask_once(Wait::AtLeast(Duration::MAX), None), Err(Why::TooLong));
}

#[test]
fn a_grpc_pushback_is_exact_or_forbids() {
    let now = t0();
    let ask_once = |wait, deadline: Option<Duration>| {
        ask(&retry(config()), &mut Course::new(), wait, deadline.map(|left| now + left), now)
    };
    assert_eq!(ask_once(Wait::Exactly(250 * MS), None), Ok(250 * MS));
    assert_eq!(ask_once(Wait::Exactly(Duration::ZERO), None), Ok(Duration::ZERO));
    assert_eq!(ask_once(Wait::Exactly(250 * MS), Some(250 * MS)), Err(Why::Deadline));
    assert_eq!(ask_once(Wait::Exactly(31 * SEC), None), Err(Why::TooLong));
    assert_eq!(ask_once(Wait::Never, None), Err(Why::PushedBack));
}

#[test]
fn after_a_grpc_pushback_the_sequence_begins_anew() {
    let now = t0();
    let first_bound = 10 * MS;
    for seed in 0..50 {
        let backoff = Backoff::full_jitter(first_bound, 10 * SEC);
        let retry = retry(config().max_attempts(15).backoff(backoff).seed(seed));
        let mut course = Course::new();
        (0..8).for_each(|_| assert!(ask(&retry, &mut course, Wait::Backoff, None, now).is_ok()));
        assert_eq!(ask(&retry, &mut course, Wait::Exactly(SEC), None, now), Ok(SEC));
        assert!(ask(&retry, &mut course, Wait::Backoff, None, now).unwrap() <= first_bound);
    }
}

#[test]
fn an_attempt_that_does_not_fit_is_not_made_and_costs_nothing() {
    let now = t0();
    let retry = retry(config().min_attempt(20 * MS));
    let left = |left: Duration| ask(&retry, &mut Course::new(), Wait::Backoff, Some(now + left), now);
    assert_eq!(left(120 * MS), Err(Why::Deadline), "100 ms of back-off and 20 ms of attempt leave nothing to spare");
    assert_eq!(left(121 * MS), Ok(100 * MS));
    assert_eq!(left(Duration::ZERO), Err(Why::Deadline));
    assert_eq!(retry.snapshot().budget.granted_total, 1);
}

#[test]
fn the_budget_pays_and_its_refusals_are_told_apart() {
    let now = t0();
    let retry = retry(config().budget(BudgetConfig::new(0.5).min_per_sec(0.0).max_concurrent(1)));
    assert_eq!(ask(&retry, &mut Course::new(), Wait::Backoff, None, now), Err(Why::BudgetEmpty));
    (0..4).for_each(|_| retry.deposit(&now));
    let Decision::Retry { token, .. } = retry.decide(&mut Course::new(), Cause::Error, Wait::Backoff, None, &now)
    else {
        panic!("two tokens are there")
    };
    assert_eq!(ask(&retry, &mut Course::new(), Wait::Backoff, None, now), Err(Why::BudgetConcurrent));
    drop(token);
    retry.budget().set_mode(Mode::ForcedOpen).unwrap();
    assert_eq!(ask(&retry, &mut Course::new(), Wait::Backoff, None, now), Err(Why::BudgetClosed));
    let seen = retry.snapshot();
    assert_eq!((seen.first_total, seen.retries(Cause::Error), seen.budget.in_flight), (4, 1, 0));
}

#[test]
fn observing_counts_what_it_would_do() {
    let (retry, now) = (retry(config()), t0());
    retry.set_mode(Mode::OBSERVE_ONLY).unwrap();
    assert_eq!(ask(&retry, &mut Course::new(), Wait::Backoff, None, now), Err(Why::Observed));
    let seen = retry.snapshot();
    assert_eq!((seen.gave_up(Why::Observed), seen.retries_total, seen.budget.granted_total), (1, 0, 1));
    let error = retry.set_mode(Mode::ForcedOpen).unwrap_err().to_string();
    assert_eq!(error, "`mode` is forced_open, allowed: auto, disabled, enforcing: a retry refuses nothing");
}

#[test]
fn an_update_changes_what_comes_and_keeps_what_was_saved() {
    let (retry, now) = (retry(config().budget(BudgetConfig::new(1.0).min_per_sec(0.0))), t0());
    (0..3).for_each(|_| retry.deposit(&now));
    retry.update(retry.config().max_attempts(2).backoff(Backoff::constant(7 * MS))).unwrap();
    let mut course = Course::new();
    assert_eq!(ask(&retry, &mut course, Wait::Backoff, None, now), Ok(7 * MS));
    assert_eq!(ask(&retry, &mut course, Wait::Backoff, None, now), Err(Why::Attempts));
    assert!(retry.snapshot().budget.tokens > 1.9);
    retry.update(retry.config().budget(BudgetConfig::new(0.1).capacity(1))).unwrap();
    assert_eq!((retry.budget().config().ratio, retry.snapshot().budget.capacity), (0.1, 1));
    let before = retry.config();
    for (wrong, text) in [
        (before.clone().max_attempts(99), "`max_attempts` is 99, allowed: 1 (no retries) to 15"),
        (before.clone().budget(BudgetConfig::new(3.0)), "`budget.ratio` is 3, allowed: 0.000001 to 2"),
        (before.clone().seed(2), "`seed` is 2, allowed: 1: it cannot change while the layer runs"),
    ] {
        assert_eq!(retry.update(wrong).unwrap_err().to_string(), text);
        assert_eq!(retry.config(), before);
    }
}

#[test]
fn a_shared_budget_is_shared_and_a_fresh_one_is_not() {
    let budget = Arc::new(BudgetConfig::new(1.0).min_per_sec(0.0).build().unwrap());
    let [one, two] = [(); 2].map(|()| config().build_sharing(budget.clone()).unwrap());
    one.deposit(&TokioClock);
    assert!(
        ask(&two, &mut Course::new(), Wait::Backoff, None, t0()).is_ok(),
        "one's deposit pays for the other's retry"
    );
    budget.update(budget.config().ratio(0.7)).unwrap();
    two.update(two.config().max_attempts(2)).unwrap();
    assert_eq!(budget.config().ratio, 0.7, "what concerns one layer does not change what both share");
    let fresh = one.fresh();
    fresh.deposit(&TokioClock);
    assert_eq!((fresh.snapshot().first_total, budget.snapshot().tokens < 0.5), (1, true));
}

#[test]
fn every_wrong_field_is_named() {
    let error = |config: RetryConfig| config.build().unwrap_err().to_string();
    let default = RetryConfig::default;
    assert_eq!(error(default().max_attempts(0)), "`max_attempts` is 0, allowed: 1 (no retries) to 15");
    assert_eq!(error(default().budget(BudgetConfig::new(f64::NAN))), "`budget.ratio` is NaN, allowed: 0.000001 to 2");
    assert_eq!(error(default().max_retry_after(7200 * SEC)), "`max_retry_after` is 2h, allowed: 0s to 1h");
    assert_eq!(
        error(default().min_attempt(Duration::MAX)).split(',').next(),
        Some("`min_attempt` is 18446744073709551615999999999ns")
    );
    assert_eq!(
        error(default().max_body(usize::MAX)),
        format!("`max_body` is {}, allowed: 0 to 67108864 bytes", usize::MAX)
    );
    assert_eq!(error(default().statuses([503, 404])), "`statuses` is 404, allowed: 408, 429, 500 to 599");
    assert_eq!(error(default().grpc_codes([14, 5])), "`grpc_codes` is 5, allowed: 2, 4, 8, 13, 14, 15");
    assert!(default().max_attempts(1).statuses([]).grpc_codes([]).max_body(0).build().is_ok());
}

#[test]
fn the_handle_shows_every_reading_once_under_its_own_name() {
    let retry = retry(config());
    let now = t0();
    let causes_then = |cause| drop(retry.decide(&mut Course::new(), cause, Wait::Backoff, None, &now));
    Cause::ALL.into_iter().enumerate().for_each(|(i, cause)| (0..=i).for_each(|_| causes_then(cause)));
    let mut seen = Vec::new();
    retry.visit(&mut |name, value| seen.push((name, value)));
    for (i, cause) in Cause::ALL.into_iter().enumerate() {
        let name = format!("retries_{}_total", cause.as_str());
        assert!(seen.contains(&(&name, Value::Count(i as u64 + 1))), "{name}");
    }
    for why in Why::ALL {
        assert!(seen.iter().any(|(name, _)| *name == format!("gave_up_{}_total", why.as_str())), "{why}");
    }
    seen.iter().for_each(|(name, _)| assert_eq!(seen.iter().filter(|(other, _)| other == name).count(), 1, "{name}"));
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_as_it_is_written() {
    let config: RetryConfig = serde_json::from_str(
        r#"{"max_attempts": 2, "budget": {"ratio": 0.25, "window": "20s"}, "statuses": [503],
            "backoff": {"kind": "full_jitter", "base": "10ms", "cap": "1s"}, "max_retry_after": "5s"}"#,
    )
    .unwrap();
    assert_eq!((config.max_attempts, config.budget.ratio, config.max_retry_after), (2, 0.25, 5 * SEC));
    assert_eq!(config.backoff, Backoff::full_jitter(10 * MS, SEC));
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<RetryConfig>(&text).unwrap(), config);
    let error = serde_json::from_str::<RetryConfig>(r#"{"max_attempt": 2}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `max_attempt`"), "{error}");
}

fn waits() -> impl Strategy<Value = Wait> {
    let span = (0_u64..40_000_000).prop_map(Duration::from_micros);
    prop_oneof![
        4 => Just(Wait::Backoff),
        2 => span.clone().prop_map(Wait::AtLeast),
        2 => span.prop_map(Wait::Exactly),
        1 => Just(Wait::Never),
        1 => Just(Wait::AtLeast(Duration::MAX)),
    ]
}

fn backoffs() -> impl Strategy<Value = Backoff> {
    let span = || (1_u64..2_000_000).prop_map(Duration::from_micros);
    prop_oneof![
        (span(), span()).prop_map(|(base, more)| Backoff::full_jitter(base, base + more)),
        (span(), span()).prop_map(|(base, more)| Backoff::decorrelated_jitter(base, base + more)),
        span().prop_map(Backoff::constant),
    ]
}

proptest! {
    /// Attempts that the deadline cuts off, back-offs that nothing cuts off: both together end before it.
    #[test]
    fn attempts_and_back_offs_never_exceed_the_deadline(
        backoff in backoffs(),
        seed: u64,
        max_attempts in 1_u32..=15,
        min_attempt in 0_u64..50_000,
        left in 0_u64..60_000_000,
        attempts in prop::collection::vec((0_u64..5_000_000, waits(), prop::bool::weighted(0.1)), 1..20),
    ) {
        let start = t0();
        let deadline = start + Duration::from_micros(left);
        let min_attempt = Duration::from_micros(min_attempt);
        let retry = retry(config().max_attempts(max_attempts).backoff(backoff).seed(seed).min_attempt(min_attempt));
        let (mut now, mut course, mut made) = (start, Course::new(), 1);
        for (took, wait, committed) in attempts {
            now = (now + Duration::from_micros(took)).min(deadline);
            if committed {
                course.commit();
            }
            match ask(&retry, &mut course, wait, Some(deadline), now) {
                Ok(after) => {
                    prop_assert!(!committed, "a retry after the commit");
                    now += after;
                    made += 1;
                    prop_assert!(now + min_attempt < deadline, "no time for the attempt that was waited for");
                    match wait {
                        Wait::Exactly(asked) => prop_assert_eq!(after, asked),
                        Wait::AtLeast(asked) => prop_assert!(after >= asked),
                        Wait::Never => prop_assert!(false, "the server said never"),
                        Wait::Backoff => {}
                    }
                    prop_assert!(after <= 34 * SEC, "30 s of pushback and 4 s of back-off at most");
                }
                Err(why) => {
                    prop_assert!(!committed || why == Why::Committed);
                    break;
                }
            }
        }
        prop_assert!(now <= deadline && made <= max_attempts && course.attempts() == made);
    }
}
