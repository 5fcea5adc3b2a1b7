//! Rate limits, by an explicit clock.

use buttress_core::{Admit, Fresh, Handle, KeyedConfig, Mode, Reason, Resting, TokioClock, Value};
use buttress_shed::rate::{KeyedRateLimit, RateLimit, RateLimitConfig};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const NS: Duration = Duration::from_nanos(1);
const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn epoch() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn limit(config: RateLimitConfig, start: Instant) -> RateLimit {
    config.build_at(&start).unwrap()
}

/// How many of calls that come `step` after each other pass within `time`.
fn passed(limit: &RateLimit, start: Instant, time: Duration, step: Duration) -> u32 {
    let calls = (time.as_nanos() / step.as_nanos()) as u32;
    (0..calls).filter(|call| limit.check_at(&(start + step * *call)).is_ok()).count() as u32
}

/// A bucket in whole numbers: it holds `permits` for each nanosecond, and a call costs the period's nanoseconds.
struct Naive {
    level: u128,
    most: u128,
    permits: u128,
    period: u128,
    at: u128,
}

impl Naive {
    fn new(permits: u32, period: Duration, burst: u32) -> Self {
        let most = u128::from(burst) * period.as_nanos();
        Self { level: most, most, permits: permits.into(), period: period.as_nanos(), at: 0 }
    }

    /// `Err`: in how many nanoseconds.
    fn check(&mut self, now: u128) -> Result<(), u128> {
        self.level = (self.level + (now - self.at) * self.permits).min(self.most);
        self.at = now;
        match self.level.checked_sub(self.period) {
            Some(level) => {
                self.level = level;
                Ok(())
            }
            None => Err((self.period - self.level).div_ceil(self.permits)),
        }
    }
}

proptest! {
    #[test]
    fn it_decides_as_a_bucket_of_whole_numbers_does(
        permits in 1_u32..50, unit in 1_u32..100_000, burst in 1_u32..20,
        steps in prop::collection::vec(0_u64..3_000_000, 1..200),
    ) {
        // A period that the permits divide: nothing is rounded.
        let period = NS * permits * unit;
        let start = epoch();
        let limit = limit(RateLimitConfig::new(permits, period).burst(burst), start);
        let mut naive = Naive::new(permits, period, burst);
        let mut now = 0;
        for step in steps {
            now += step % (u64::from(unit) * 3);
            let at = start + Duration::from_nanos(now);
            let left = limit.quota_at(&at).remaining;
            match naive.check(now.into()) {
                Ok(()) => {
                    prop_assert!(left > 0);
                    prop_assert!(limit.check_at(&at).is_ok());
                }
                Err(wait) => {
                    prop_assert_eq!(left, 0);
                    let refused = limit.check_at(&at).unwrap_err();
                    prop_assert_eq!(refused.retry_after, Some(Duration::from_nanos(wait as u64)));
                    prop_assert_eq!(limit.quota_at(&at).next, Duration::from_nanos(wait as u64));
                }
            }
        }
    }

    #[test]
    fn no_rate_lets_more_pass_than_it_says_and_who_comes_back_as_told_passes(
        permits in 1_u32..10_000_000, micros in 1_000_u64..10_000_000, burst in 1_u32..100,
    ) {
        let period = Duration::from_micros(micros).max(NS * permits);
        let start = epoch();
        let limit = limit(RateLimitConfig::new(permits, period).burst(burst), start);
        let mut naive = Naive::new(permits, period, burst);
        let (mut at, mut passed) = (start, 0);
        for _ in 0..1000 {
            let Err(refused) = limit.check_at(&at) else {
                prop_assert!(naive.check((at - start).as_nanos()).is_ok(), "call {}", passed);
                passed += 1;
                continue;
            };
            let wait = refused.retry_after.unwrap();
            if wait > NS {
                prop_assert!(limit.check_at(&(at + wait - NS)).is_err());
            }
            at += wait;
            prop_assert!(limit.check_at(&at).is_ok(), "call {}, after {:?}", passed, wait);
            prop_assert!(naive.check((at - start).as_nanos()).is_ok());
            passed += 1;
        }
        // As many as were due by then, but for the one that comes next and what is rounded: a wait to a nanosecond, a permit to a part of one.
        let certain = (at - start).saturating_sub(2 * NS * passed).as_nanos();
        let due = certain * u128::from(permits) / period.as_nanos() + u128::from(burst);
        prop_assert!(u128::from(passed) + 1 >= due, "{} of {}", passed, due);
    }
}

#[test]
fn half_a_call_per_second_is_one_in_two() {
    let start = epoch();
    let slow = limit(RateLimitConfig::new(1, 2 * S), start);
    assert_eq!(passed(&slow, start, 1000 * S, 10 * MS), 500);
    let odd = limit(RateLimitConfig::new(5, 2 * S).burst(1), start);
    assert_eq!(passed(&odd, start, 1000 * S, 10 * MS), 2500, "2.5 a second");
}

#[test]
fn a_rate_that_divides_no_nanosecond_is_not_cut_to_one_that_does() {
    // Cut to whole nanoseconds: 142 instead of 142.86, and so 70 423 instead of 70 000 in 10 ms.
    let start = epoch();
    let fast = limit(RateLimitConfig::per_second(7_000_000).burst(10), start);
    let passed = passed(&fast, start, 10 * MS, 20 * NS);
    assert!((69_990..=70_010).contains(&passed), "{passed}");
}

#[test]
fn a_burst_passes_at_once_and_then_the_rate() {
    let start = epoch();
    let limit = limit(RateLimitConfig::per_second(10).burst(3), start);
    assert_eq!(passed(&limit, start, 10 * NS, NS), 3);
    assert_eq!(passed(&limit, start + MS, 1000 * MS, MS), 10);
    assert_eq!(passed(&limit, start + 60 * S, 10 * NS, NS), 3, "no more is saved than the burst");
}

#[test]
fn a_clock_that_lags_gives_no_permit_back() {
    let start = epoch();
    let limit = limit(RateLimitConfig::per_second(1).burst(1), start);
    assert!(limit.check_at(&(start + S)).is_ok());
    let late = limit.check_at(&start).unwrap_err();
    assert_eq!(late.retry_after, Some(2 * S));
    assert!(limit.check_at(&(start + S)).is_err(), "it was taken");
    assert!(limit.check_at(&(start + 2 * S)).is_ok());
}

#[test]
fn an_update_keeps_what_was_taken_and_loses_no_caller() {
    let start = epoch();
    let limit = limit(RateLimitConfig::new(2, 3600 * S), start);
    assert_eq!(passed(&limit, start, 10 * NS, NS), 2);
    // Nobody waits for the half hour that a permit took.
    limit.update_at(RateLimitConfig::per_second(10).burst(2), &(start + NS)).unwrap();
    let refused = limit.check_at(&(start + NS)).unwrap_err();
    assert!(refused.retry_after.unwrap() <= 100 * MS, "{refused:?}");
    assert!(limit.check_at(&(start + NS + 100 * MS)).is_ok());
    // And the way back: one of two was taken, one is left, and half an hour the next.
    limit.update_at(RateLimitConfig::new(2, 3600 * S), &(start + 250 * MS)).unwrap();
    let left = limit.quota_at(&(start + 250 * MS));
    assert_eq!((left.remaining, left.next.as_secs()), (1, 900), "half of a permit is half of a permit");
    let refused = limit.update_at(RateLimitConfig::per_second(0), &start).unwrap_err();
    assert_eq!((&*refused.field, limit.config().permits), ("permits", 2), "nothing is changed by what is wrong");
    limit.update_at(RateLimitConfig::per_second(1).burst(1), &(start + 300 * MS)).unwrap();
    assert_eq!(limit.snapshot_at(&(start + 300 * MS)).burst, 1, "more were taken than it holds: none is left");
    assert!(limit.check_at(&(start + 1300 * MS)).is_ok());
}

#[test]
fn an_operator_shuts_it_opens_it_and_looks_on() {
    let start = epoch();
    let limit = limit(RateLimitConfig::per_second(1).burst(1), start);
    let counts = |limit: &RateLimit| {
        let seen = limit.snapshot_at(&start);
        (seen.remaining, seen.refused_total, seen.over_limit_total)
    };
    limit.set_mode(Mode::Disabled).unwrap();
    assert_eq!(passed(&limit, start, 5 * NS, NS), 5);
    assert_eq!(counts(&limit), (1, 0, 0), "nothing is taken");
    limit.set_mode(Mode::OBSERVE_ONLY).unwrap();
    assert_eq!(passed(&limit, start, 5 * NS, NS), 5);
    assert_eq!(counts(&limit), (0, 0, 4));
    limit.set_mode(Mode::Enforcing(50)).unwrap();
    let passed_half = passed(&limit, start, 1000 * NS, NS);
    assert!((400..600).contains(&passed_half), "{passed_half}");
    limit.set_mode(Mode::ForcedOpen).unwrap();
    let refused = limit.check_at(&(start + 60 * S)).unwrap_err();
    assert_eq!((refused.reason, refused.layer), (Reason::RateLimited, "rate_limit"));
    assert!(limit.set_mode(Mode::Enforcing(101)).is_err());
    let mut names = Vec::new();
    limit.visit(&mut |name, value| names.push((name, matches!(value, Value::Count(_)))));
    assert!(names.iter().all(|(name, is_count)| *is_count == name.ends_with("_total")), "{names:?}");
    assert_eq!(Handle::mode(&limit), Mode::ForcedOpen);
    assert!(limit.fresh().check().is_ok(), "a fresh one has a full bucket and no mode");
}

#[test]
fn a_wrong_config_says_what_is_wrong() {
    let said = |config: RateLimitConfig| config.build().unwrap_err().to_string();
    assert_eq!(said(RateLimitConfig::per_second(0)), "`permits` is 0, allowed: 1 to 4294967295");
    let period = "`period` is 0s, allowed: more than 0 and at most 8760h";
    assert_eq!(said(RateLimitConfig::new(1, Duration::ZERO)), period);
    assert!(said(RateLimitConfig::new(1, Duration::MAX)).starts_with("`period`"));
    assert_eq!(
        said(RateLimitConfig::new(11, 10 * NS)),
        "`period` is 10ns, allowed: at least 1ns for each of 11 permits"
    );
    assert_eq!(said(RateLimitConfig::per_second(1).burst(0)), "`burst` is 0, allowed: 1 to 4294967295");
    let day = RateLimitConfig::new(1, 86_400 * S).burst(366);
    assert_eq!(said(day), "`burst` is 366, allowed: 1 to 365: what comes anew in 365 days");
    // The widest that are right do not overflow.
    for config in [
        RateLimitConfig::new(1, 365 * 86_400 * S),
        RateLimitConfig::new(u32::MAX, 5 * S),
        RateLimitConfig::new(u32::MAX, 365 * 86_400 * S),
        RateLimitConfig::new(1, NS).burst(u32::MAX),
    ] {
        let start = epoch();
        let limit = limit(config, start);
        assert!(limit.check_at(&start).is_ok() && limit.check_at(&(start + 3_000_000_000 * S)).is_ok());
    }
    let keyed =
        |config: RateLimitConfig, table| config.keyed(table, |key: &u64| *key).map(drop).unwrap_err().to_string();
    assert_eq!(
        keyed(RateLimitConfig::per_second(0), KeyedConfig::default()),
        "`permits` is 0, allowed: 1 to 4294967295"
    );
    assert_eq!(keyed(RateLimitConfig::default(), KeyedConfig::new(0)), "`capacity` is 0, allowed: 1 to 16777216");
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_and_written() {
    let read: RateLimitConfig = serde_json::from_str(r#"{"permits": 1, "period": "2s"}"#).unwrap();
    assert_eq!(read, RateLimitConfig::new(1, 2 * S));
    assert!(serde_json::from_str::<RateLimitConfig>(r#"{"permit": 1}"#).is_err());
    let shown = serde_json::to_value(read.build().unwrap().snapshot()).unwrap();
    assert_eq!((&shown["every"], &shown["mode"]), (&"2s".into(), &"auto".into()));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_rests_when_it_is_full() {
    let limit = RateLimitConfig::per_second(10).build().unwrap();
    assert!(limit.is_resting());
    limit.check().unwrap();
    assert!(!limit.is_resting());
    tokio::time::advance(100 * MS).await;
    assert!(limit.is_resting());
    limit.set_mode(Mode::Disabled).unwrap();
    assert!(!limit.is_resting());
    limit.set_mode(Mode::Auto).unwrap();
    limit.update(RateLimitConfig::per_second(11)).unwrap();
    assert!(!limit.is_resting(), "another one would not have its rate");
}

/// So many tenants, one after the other, through a table of 10 000.
async fn many(tenants: u64) {
    let config = RateLimitConfig::per_second(1000).burst(2);
    let keyed = config.keyed(KeyedConfig::new(10_000), |tenant: &u64| *tenant).unwrap();
    let admit = |tenant| keyed.admit(&mut (), &tenant);
    assert!(admit(1).is_ok() && admit(1).is_ok() && admit(1).is_err());
    assert!(admit(2).is_ok());
    for tenant in 0..tenants {
        if tenant % 10 == 0 {
            tokio::time::advance(MS).await;
        }
        let _ = admit(tenant + 10);
        assert!(tenant % 1000 != 0 || keyed.snapshot().keys <= 10_000);
    }
    let seen = keyed.snapshot();
    assert!(seen.keys <= 10_000 && seen.evicted_total > tenants * 8 / 10 && seen.overflow_total == 0, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn each_tenant_has_its_own_bucket_and_many_of_them_stay_bounded() {
    many(100_000).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes most of a minute without optimisation"]
async fn a_million_tenants_stay_bounded() {
    many(1_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn who_invents_tenants_gets_no_new_bucket() {
    let config = RateLimitConfig::new(1, 3600 * S);
    let keyed = config.keyed(KeyedConfig::new(100), |tenant: &u64| *tenant).unwrap();
    assert!(keyed.admit(&mut (), &0).is_ok());
    let admitted = (1..10_000).filter(|tenant| keyed.admit(&mut (), tenant).is_ok()).count();
    assert!(admitted <= 101, "{admitted}");
    assert!(keyed.admit(&mut (), &0).is_err(), "his bucket is still empty");
}

#[tokio::test(start_paused = true)]
async fn what_a_table_is_told_holds_for_all_keys_those_to_come_included() {
    let config = RateLimitConfig::per_second(10).burst(2);
    let keyed = config.clone().keyed(KeyedConfig::new(64), |tenant: &u64| *tenant).unwrap();
    let fresh = keyed.fresh();
    let passed = |keyed: &KeyedRateLimit<u64, _>, tenant| (0..100).filter(|_| keyed.check(&tenant).is_ok()).count();
    (0..63).for_each(|tenant| assert_eq!(passed(&keyed, tenant), 2));
    // One of them has been promised more.
    keyed.entry(&7).update(RateLimitConfig::per_second(1000).burst(40)).unwrap();

    keyed.update(config.clone().burst(5)).unwrap();
    tokio::time::advance(S).await;
    assert_eq!((passed(&keyed, 1), passed(&keyed, 63), passed(&keyed, 7)), (5, 5, 40));
    assert_eq!((passed(&fresh, 1), keyed.config().burst), (2, Some(5)), "another table is not told");
    let error = keyed.update(config.clone().permits(0)).unwrap_err();
    assert_eq!((error.to_string(), keyed.config().burst), ("`permits` is 0, allowed: 1 to 4294967295".into(), Some(5)));

    // What was told to all keeps nobody in the table.
    tokio::time::advance(60 * S).await;
    for tenant in 100..300 {
        assert_eq!(passed(&keyed, tenant), 5);
        tokio::time::advance(S).await;
    }
    let seen = keyed.snapshot();
    assert!(seen.keys <= 64 && seen.evicted_total >= 100, "{seen:?}");
    assert_eq!(passed(&keyed, 7), 40, "but who was told something else stays");
    keyed.entry(&7).update(config.clone().burst(5)).unwrap();
    keyed.update(config.burst(5)).unwrap();
    tokio::time::advance(S).await;
    assert!(keyed.entry(&7).is_resting(), "until that is what all are told");
}

#[tokio::test(start_paused = true)]
async fn a_table_counts_for_all_its_keys_and_is_overridden_as_one() {
    let config = RateLimitConfig::per_second(1);
    let keyed = config.keyed(KeyedConfig::new(10), |tenant: &u64| *tenant).unwrap();
    let passed = |n: u64| (0..n).filter(|tenant| keyed.check(tenant).is_ok()).count();
    assert_eq!((passed(5), passed(5)), (5, 0));
    keyed.set_mode(Mode::OBSERVE_ONLY).unwrap();
    assert_eq!(passed(7), 7, "five of them too many");
    keyed.set_mode(Mode::ForcedOpen).unwrap();
    assert_eq!((passed(1), keyed.limit_of(&0).entry().is_none()), (0, true));
    let refusal = keyed.check(&99).unwrap_err();
    assert_eq!((refusal.reason, refusal.retry_after), (Reason::RateLimited, Some(S)));
    keyed.set_mode(Mode::Disabled).unwrap();
    assert_eq!(passed(50), 50);
    let seen = keyed.snapshot();
    assert_eq!((seen.refused_total, seen.over_limit_total, seen.keys, seen.mode), (5 + 1 + 1, 5, 7, Mode::Disabled));
    keyed.set_mode(Mode::Auto).unwrap();
    // What an operator says of one key holds where nothing is said of all.
    keyed.entry(&3).set_mode(Mode::ForcedOpen).unwrap();
    tokio::time::advance(S).await;
    assert!(keyed.check(&3).is_err() && keyed.check(&4).is_ok());
    keyed.set_mode(Mode::Disabled).unwrap();
    assert!(keyed.check(&3).is_ok());
}

#[test]
fn a_key_that_comes_up_while_its_table_changes_has_the_new_rate_in_the_end() {
    let config = RateLimitConfig::new(1, 3600 * S);
    for round in 0..50 {
        let keyed = config.clone().burst(1).keyed(KeyedConfig::new(10_000), |tenant: &u64| *tenant).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..200).for_each(|tenant| drop(keyed.entry(&(round * 1000 + tenant)))));
            scope.spawn(|| keyed.update(config.clone().burst(2)).unwrap());
        });
        (0..200).for_each(|tenant| {
            let entry = keyed.entry(&(round * 1000 + tenant));
            assert_eq!((entry.snapshot().burst, entry.config().burst), (2, Some(2)));
        });
    }
}

#[test]
fn many_threads_get_what_one_would() {
    let start = epoch();
    let limit = limit(RateLimitConfig::per_second(1).burst(1000), start);
    let passed: u32 = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| passed(&limit, start, 1000 * NS, NS)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((passed, limit.snapshot_at(&start).refused_total), (1000, 3000));
}

/// `cargo test --release -p buttress-shed --test rate -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn what_a_decision_costs() {
    let per_call = |name: &str, call: &dyn Fn() -> bool| {
        const CALLS: u32 = 5_000_000;
        let best = (0..5).map(|_| {
            let from = epoch();
            let passed = (0..CALLS).filter(|_| std::hint::black_box(call())).count();
            std::hint::black_box(passed);
            (epoch() - from).as_secs_f64() * 1e9 / f64::from(CALLS)
        });
        println!("{name}: {:.1} ns", best.fold(f64::MAX, f64::min));
    };
    let wide = RateLimitConfig::new(u32::MAX, 5 * S).build().unwrap();
    let narrow = RateLimitConfig::new(1, 3600 * S).build().unwrap();
    let _ = narrow.check();
    let (start, clock) = (epoch(), TokioClock);
    per_call("admitted, tokio's clock", &|| wide.check_at(&clock).is_ok());
    per_call("refused, tokio's clock", &|| narrow.check_at(&clock).is_ok());
    per_call("admitted, no clock", &|| wide.check_at(&(start + S)).is_ok());
    per_call("refused, no clock", &|| narrow.check_at(&(start + S)).is_ok());
    per_call("the clock", &|| buttress_core::Clock::now(&clock) > start);
}
