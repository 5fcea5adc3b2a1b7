use super::ledger::{Ledger, TOKEN, Terms, UNCAPPED};
use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering::Relaxed};
use loom::thread::spawn;

const SECOND: u64 = 1_000_000_000;

fn check(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

/// Half a token per deposit, no floor.
fn ledger(stripes: usize) -> Ledger {
    let terms = Terms {
        deposit: AtomicU64::new(TOKEN / 2),
        capacity: AtomicU64::new(100 * TOKEN),
        window: AtomicU64::new(10 * SECOND),
        floor_interval: AtomicU64::new(0),
        max_concurrent: AtomicU32::new(UNCAPPED),
    };
    Ledger::new(terms, stripes)
}

#[test]
fn loom_no_token_is_granted_twice() {
    check(|| {
        let ledger = Arc::new(ledger(2));
        (0..3).for_each(|stripe| ledger.deposit(stripe, || 0));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let ledger = ledger.clone();
                spawn(move || u64::from(ledger.take(0)))
            })
            .collect();
        let granted: u64 = takers.into_iter().map(|taker| taker.join().unwrap()).sum();
        assert!(granted <= 1, "1.5 tokens paid for {granted}");
        assert_eq!(ledger.balance(0) + granted * TOKEN, 3 * TOKEN / 2, "nothing is made, nothing is lost");
    });
}

#[test]
fn loom_deposits_beside_withdrawals_are_conserved() {
    check(|| {
        let ledger = Arc::new(ledger(2));
        ledger.deposit(0, || 0);
        let depositor = {
            let ledger = ledger.clone();
            spawn(move || (0..2).for_each(|stripe| ledger.deposit(stripe, || 0)))
        };
        let taker = {
            let ledger = ledger.clone();
            spawn(move || u64::from(ledger.take(0)))
        };
        let granted = u64::from(ledger.take(0)) + taker.join().unwrap();
        depositor.join().unwrap();
        assert!(granted <= 1);
        assert_eq!(ledger.balance(0) + granted * TOKEN, 3 * TOKEN / 2);
        if granted == 0 {
            assert!(ledger.take(0), "what was in somebody's hand is back");
        }
    });
}

#[test]
fn loom_a_late_clock_and_an_early_one_make_no_tokens() {
    check(|| {
        let ledger = Arc::new(ledger(1));
        (0..2).for_each(|_| ledger.deposit(0, || 0));
        let late = {
            let ledger = ledger.clone();
            spawn(move || u64::from(ledger.take(60 * SECOND)))
        };
        let granted = u64::from(ledger.take(0)) + late.join().unwrap();
        assert!(granted <= 1);
        assert!(ledger.balance(60 * SECOND) + granted * TOKEN <= TOKEN);
    });
}

#[test]
fn loom_the_floor_grants_once_per_interval() {
    check(|| {
        let ledger = Arc::new(ledger(1));
        ledger.terms.floor_interval.store(SECOND, Relaxed);
        let other = {
            let ledger = ledger.clone();
            spawn(move || u64::from(ledger.take(SECOND)))
        };
        let granted = u64::from(ledger.take(SECOND)) + other.join().unwrap();
        assert_eq!(granted, 1);
        assert!(!ledger.take(2 * SECOND - 1) && ledger.take(2 * SECOND));
    });
}

#[test]
fn loom_places_are_never_more_than_allowed_and_all_come_back() {
    check(|| {
        let ledger = Arc::new(ledger(1));
        ledger.terms.max_concurrent.store(1, Relaxed);
        let inside = Arc::new(AtomicU32::new(0));
        let visitors: Vec<_> = (0..2)
            .map(|_| {
                let (ledger, inside) = (ledger.clone(), inside.clone());
                spawn(move || {
                    if ledger.enter() {
                        assert_eq!(inside.fetch_add(1, Relaxed), 0, "two at once");
                        inside.fetch_sub(1, Relaxed);
                        ledger.leave();
                    }
                })
            })
            .collect();
        visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
        assert_eq!(ledger.in_flight(), 0);
        assert!(ledger.enter());
    });
}

#[test]
fn loom_an_update_beside_deposits_and_a_withdrawal_conserves_what_was_saved() {
    check(|| {
        let ledger = Arc::new(ledger(2));
        (0..2).for_each(|stripe| ledger.deposit(stripe, || 0));
        let updater = {
            let ledger = ledger.clone();
            spawn(move || ledger.set_deposit(TOKEN / 2, 0))
        };
        let granted = u64::from(ledger.take(0));
        updater.join().unwrap();
        assert_eq!(ledger.balance(0) + granted * TOKEN, TOKEN);
        assert_eq!(ledger.deposits(), 2);
    });
}
