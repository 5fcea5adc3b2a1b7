use super::{ledger::BOOK_AT, *};
use proptest::prelude::*;
use std::{thread, time::Instant};

const SEC: Duration = Duration::from_secs(1);

fn t0() -> Instant {
    TokioClock.now()
}

/// Without a floor.
fn budget(ratio: f64, now: Instant) -> Arc<Budget> {
    Arc::new(BudgetConfig::new(ratio).min_per_sec(0.0).build_at(&now).unwrap())
}

fn drain(budget: &Arc<Budget>, now: Instant) -> u64 {
    (0..).take_while(|_| budget.withdraw(&now).is_ok()).count() as u64
}

#[test]
fn fractions_are_exact() {
    let now = t0();
    for (ratio, first_attempts, retries) in
        [(0.6, 100, 60), (0.9, 100, 90), (0.4, 100, 40), (0.1, 100, 10), (2.0, 50, 100), (0.000_001, 1_000_000, 1)]
    {
        let budget = budget(ratio, now);
        (0..first_attempts).for_each(|_| budget.deposit(&now));
        assert_eq!(drain(&budget, now), retries, "{ratio}");
    }
}

#[test]
fn deposits_fade_over_the_window() {
    let now = t0();
    let budget = budget(1.0, now);
    (0..100).for_each(|_| budget.deposit(&now));
    assert!(budget.withdraw(&now).is_ok());
    assert_eq!(budget.snapshot_at(&now).tokens, 99.0);
    let left = budget.snapshot_at(&(now + 10 * SEC)).tokens;
    assert!((36.0..37.0).contains(&left), "a window later 37 % are left: {left}");
    assert!(budget.withdraw(&(now + 600 * SEC)).is_err(), "and then nothing");
}

#[test]
fn what_came_after_a_quiet_spell_is_paid_in_full() {
    for quiet in [0, 1, 60, 3600, 30 * 24 * 3600] {
        let began = t0();
        let budget = budget(0.1, began);
        let now = began + SEC * quiet;
        (0..1000).for_each(|_| budget.deposit(&now));
        assert_eq!(drain(&budget, now), 100, "{quiet} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_after_a_quiet_spell_loses_nothing_that_came_after_it() {
    let budget = budget(0.1, t0());
    tokio::time::advance(SEC * 3600).await;
    (0..31).for_each(|_| budget.deposit(&TokioClock));
    budget.update(budget.config().ratio(0.2)).unwrap();
    assert_eq!(drain(&budget, t0()), 3);
}

#[test]
fn deposits_of_long_ago_have_faded_but_for_the_last_few() {
    let began = t0();
    let budget = budget(0.1, began);
    (0..1000 + 31).for_each(|_| budget.deposit(&began));
    // 1024 were booked when they were made; 7 are taken to be new.
    let tokens = |after| budget.snapshot_at(&(began + SEC * after)).tokens;
    assert!((37.0..37.6).contains(&tokens(10)), "{}", tokens(10));
    assert_eq!(drain(&budget, began + SEC * 3600), 0);
}

#[test]
fn no_more_is_saved_than_the_capacity() {
    let now = t0();
    let budget = budget(1.0, now);
    (0..100_000).for_each(|_| budget.deposit(&now));
    assert_eq!((budget.snapshot_at(&now).tokens, drain(&budget, now)), (100.0, 100));
}

#[test]
fn a_clock_that_is_behind_makes_and_loses_nothing() {
    let now = t0() + 60 * SEC;
    let budget = budget(1.0, now - 60 * SEC);
    (0..200).for_each(|_| budget.deposit(&now));
    assert!(budget.withdraw(&now).is_ok());
    let before = budget.snapshot_at(&now).tokens;
    assert!(budget.withdraw(&(now - 30 * SEC)).is_ok());
    assert!((budget.snapshot_at(&now).tokens - (before - 1.0)).abs() < 1e-5);
}

#[test]
fn a_quiet_client_lives_on_the_floor() {
    let now = t0();
    let budget = |per_sec| Arc::new(BudgetConfig::new(0.1).min_per_sec(per_sec).build_at(&now).unwrap());
    let one = budget(1.0);
    assert_eq!((drain(&one, now), drain(&one, now + SEC / 2), drain(&one, now + SEC)), (1, 0, 1));
    assert_eq!(drain(&one, now + 60 * SEC), 1, "an idle minute saves up no more than a second's worth");
    let ten = budget(10.0);
    assert_eq!((drain(&ten, now), drain(&ten, now + SEC / 2)), (10, 5));
    let rare = budget(0.1);
    assert_eq!((drain(&rare, now), drain(&rare, now + 9 * SEC), drain(&rare, now + 10 * SEC)), (1, 0, 1));
    assert_eq!(drain(&budget(0.0), now), 0);
}

#[test]
fn deposits_are_spent_before_the_floor() {
    let now = t0();
    let budget = Arc::new(BudgetConfig::new(1.0).min_per_sec(1.0).build_at(&now).unwrap());
    budget.deposit(&now);
    assert_eq!(drain(&budget, now), 2);
}

#[test]
fn a_token_holds_a_place_until_it_is_dropped() {
    let now = t0();
    let config = BudgetConfig::new(1.0).min_per_sec(0.0).max_concurrent(2);
    let budget = Arc::new(config.build_at(&now).unwrap());
    (0..10).for_each(|_| budget.deposit(&now));
    let (first, second) = (budget.withdraw(&now).unwrap(), budget.withdraw(&now).unwrap());
    assert_eq!(budget.withdraw(&now).unwrap_err(), Denied::Concurrent);
    assert_eq!(budget.snapshot_at(&now).tokens, 8.0, "a denied one pays nothing");
    drop(first);
    let third = budget.withdraw(&now).unwrap();
    assert_eq!(budget.snapshot_at(&now).in_flight, 2);
    drop((second, third));
    let seen = budget.snapshot_at(&now);
    assert_eq!(
        (seen.in_flight, seen.tokens, seen.granted_total),
        (0, 7.0, 3),
        "the place comes back, the token does not"
    );
    assert_eq!((seen.denied_concurrent_total, seen.denied_empty_total), (1, 0));
}

#[test]
fn without_tokens_no_place_is_kept() {
    let now = t0();
    let budget = Arc::new(BudgetConfig::new(1.0).min_per_sec(0.0).max_concurrent(1).build_at(&now).unwrap());
    assert_eq!(budget.withdraw(&now).unwrap_err(), Denied::Empty);
    budget.deposit(&now);
    assert!(budget.withdraw(&now).is_ok());
}

#[test]
fn an_update_keeps_what_was_saved_and_changes_what_comes() {
    let now = t0();
    let budget = budget(0.5, now);
    (0..20).for_each(|_| budget.deposit(&now));
    budget.update(budget.config().ratio(0.1).capacity(8)).unwrap();
    (0..10).for_each(|_| budget.deposit(&now));
    assert_eq!((drain(&budget, now), budget.snapshot_at(&now).capacity), (8, 8));
    let before = budget.config();
    assert!(budget.update(BudgetConfig::new(0.0)).is_err());
    assert_eq!(budget.config(), before);
    (0..10).for_each(|_| budget.deposit(&now));
    assert_eq!(drain(&budget, now), 1);
}

#[test]
fn an_operator_closes_opens_and_observes_it() {
    let now = t0();
    let budget = budget(1.0, now);
    budget.deposit(&now);
    budget.set_mode(Mode::ForcedOpen).unwrap();
    assert_eq!(budget.withdraw(&now).unwrap_err(), Denied::ForcedOpen);
    for mode in [Mode::Disabled, Mode::OBSERVE_ONLY] {
        budget.set_mode(mode).unwrap();
        let held: Vec<_> = (0..5).map(|_| budget.withdraw(&now).unwrap()).collect();
        assert_eq!(budget.snapshot_at(&now).in_flight, 5);
        drop(held);
    }
    budget.set_mode(Mode::Auto).unwrap();
    assert_eq!(budget.withdraw(&now).unwrap_err(), Denied::Empty);
    let seen = budget.snapshot_at(&now);
    assert_eq!((seen.in_flight, seen.granted_total, seen.unpaid_total, seen.denied_forced_total), (0, 10, 9, 1));
}

#[test]
fn a_wrong_config_is_told_what_is_allowed() {
    let error = |config: BudgetConfig| config.build().unwrap_err().to_string();
    for ratio in [0.0, -0.1, 2.000_001, f64::NAN, f64::INFINITY] {
        assert_eq!(error(BudgetConfig::new(ratio)), format!("`ratio` is {ratio}, allowed: 0.000001 to 2"));
    }
    let config = BudgetConfig::default;
    assert_eq!(error(config().min_per_sec(-1.0)), "`min_per_sec` is -1, allowed: 0 (none), or 0.001 to 1000");
    assert!(error(config().min_per_sec(f64::NAN)).starts_with("`min_per_sec` is NaN"));
    assert_eq!(error(config().capacity(0)), "`capacity` is 0, allowed: 1 to 4000");
    assert_eq!(error(config().capacity(4001)), "`capacity` is 4001, allowed: 1 to 4000");
    assert_eq!(error(config().window(SEC / 2)), "`window` is 500ms, allowed: 1s to 1h");
    assert_eq!(
        error(config().max_concurrent(0)),
        "`max_concurrent` is 0, allowed: 1 to 4294967294, or nothing: no cap"
    );
    assert_eq!(config().build().unwrap().config(), BudgetConfig::default());
}

#[test]
fn the_largest_balance_fits_its_half_of_the_word() {
    let now = t0();
    let budget = Arc::new(BudgetConfig::new(2.0).capacity(4000).min_per_sec(0.0).build_at(&now).unwrap());
    (0..10_000).for_each(|_| budget.deposit(&now));
    assert_eq!((budget.snapshot_at(&now).tokens, drain(&budget, now)), (4000.0, 4000));
    // Two years and a bit: the ticks have wrapped.
    assert!(budget.withdraw(&(now + SEC * 3600 * 24 * 835)).is_err());
}

/// `requests` first attempts in all, a retry for each failure while the budget pays, at most so many. What was sent.
fn load(
    budget: &Arc<Budget>,
    threads: u64,
    requests: u64,
    fail_percent: u64,
    clock: impl Clock + Copy + 'static,
) -> u64 {
    let threads: Vec<_> = (0..threads)
        .map(|seed| {
            let budget = budget.clone();
            thread::spawn(move || {
                let draw = crate::Draw::new(seed);
                let mut sent = 0;
                for _ in 0..requests / threads {
                    budget.deposit(&clock);
                    sent += 1;
                    for _ in 0..4 {
                        if draw.draw() % 100 >= fail_percent {
                            break;
                        }
                        let Ok(_token) = budget.withdraw(&clock) else { break };
                        sent += 1;
                    }
                }
                sent
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

const RATIOS: [f64; 10] = [0.000_1, 0.05, 0.1, 0.25, 1.0 / 3.0, 0.6, 0.9, 1.0, 1.5, 2.0];
const REQUESTS: u64 = 100_000;

#[test]
fn amplification_is_at_most_one_and_the_ratio() {
    for threads in [1, 8] {
        for fail_percent in [50, 100] {
            for ratio in RATIOS {
                let now = t0();
                let budget = budget(ratio, now);
                let sent = load(&budget, threads, REQUESTS, fail_percent, now);
                let retries = sent - REQUESTS;
                let paid = (ratio * 1e6).round() as u64 * REQUESTS / 1_000_000;
                assert!(
                    retries <= paid,
                    "{threads} threads, {fail_percent} %, {ratio}: {retries} retries, {paid} paid for"
                );
                let seen = budget.snapshot();
                assert_eq!((seen.deposits_total, seen.granted_total, seen.in_flight), (REQUESTS, retries, 0));
                if fail_percent == 100 && threads == 1 {
                    assert!(retries + 100 >= paid, "{ratio}: it pays what was deposited: {retries} of {paid}");
                }
            }
        }
    }
}

#[test]
fn with_a_floor_it_is_that_much_more() {
    for threads in [1, 8] {
        for fail_percent in [50, 100] {
            for ratio in RATIOS {
                let began = t0();
                let budget = Arc::new(BudgetConfig::new(ratio).min_per_sec(10.0).build().unwrap());
                let retries = load(&budget, threads, REQUESTS, fail_percent, TokioClock) - REQUESTS;
                let floor = 10 + (10.0 * (t0() - began).as_secs_f64()).ceil() as u64;
                let paid = (ratio * 1e6).round() as u64 * REQUESTS / 1_000_000;
                assert!(
                    retries <= paid + floor,
                    "{threads} threads, {fail_percent} %, {ratio}: {retries} > {paid} + {floor}"
                );
            }
        }
    }
}

/// The rule with a clock that is read at every deposit, in fractions.
struct Model {
    window: f64,
    at: f64,
    balance: f64,
}

impl Model {
    fn settle(&mut self, now: f64, deposit: f64) {
        self.balance = (self.balance * (-(now - self.at) / self.window).exp() + deposit).min(100.0);
        self.at = now;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u32),
    Deposit(u32),
    Withdraw,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1_u32..1_000).prop_map(Step::Wait),
        (1_u32..50).prop_map(Step::Deposit),
        Just(Step::Withdraw),
        Just(Step::Withdraw),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    /// Never less than the model, and never more than what 32 deposits are worth above it. A thread has one stripe.
    #[test]
    fn it_does_what_the_naive_model_does(ratio in 0.000_001_f64..=2.0, window in 1_u64..60, steps in steps()) {
        let origin = t0();
        let config = BudgetConfig::new(ratio).min_per_sec(0.0).window(Duration::from_secs(window));
        let budget = Arc::new(config.build_at(&origin).unwrap());
        let ratio = (ratio * 1e6).round() / 1e6;
        // Fractions of a millionth are rounded down at every step.
        let (late, rounding) = (ratio * BOOK_AT as f64, 0.001);
        let mut model = Model { window: window as f64, at: 0.0, balance: 0.0 };
        let (mut ticks, mut deposited, mut granted) = (0_u64, 0.0, 0.0);
        for step in steps {
            let nanos = ticks << 24;
            let now = origin + Duration::from_nanos(nanos);
            match step {
                Step::Wait(more) => ticks += u64::from(more),
                Step::Deposit(n) => {
                    (0..n).for_each(|_| budget.deposit(&now));
                    for _ in 0..n {
                        model.settle(nanos as f64 / 1e9, ratio);
                    }
                    deposited += ratio * f64::from(n);
                }
                Step::Withdraw => {
                    model.settle(nanos as f64 / 1e9, 0.0);
                    let got = budget.withdraw(&now).is_ok();
                    if model.balance > 1.0 + rounding {
                        prop_assert!(got, "{}", model.balance);
                    }
                    if model.balance + late < 1.0 - rounding {
                        prop_assert!(!got, "{}", model.balance);
                    }
                    if got {
                        model.balance -= 1.0;
                        granted += 1.0;
                    }
                    prop_assert!(granted <= deposited + 1e-9);
                }
            }
            model.settle(nanos as f64 / 1e9, 0.0);
            let above = budget.snapshot_at(&now).tokens - model.balance;
            prop_assert!((-rounding..=late + rounding).contains(&above), "{} above {}", above, model.balance);
        }
    }
}
