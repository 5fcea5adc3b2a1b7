//! The bulkhead on its own: config, handle, modes.
use crate::{AdmissionMode, Bulkhead, BulkheadConfig, BulkheadPermit, QueueOrder};
use buttress_core::{Clock, Fresh, Handle, Mode, Reason, Resting, Signal, TokioClock, Value};
use std::time::Duration;

fn take(bulkhead: &Bulkhead, n: usize) -> Vec<BulkheadPermit> {
    (0..n).map(|_| bulkhead.try_acquire().unwrap()).collect()
}

#[test]
fn every_call_up_to_the_limit_is_admitted_and_none_beyond() {
    for stripes in [1, 2, 8] {
        let bulkhead = BulkheadConfig::new(5).stripes(stripes).build().unwrap();
        let mut permits = take(&bulkhead, 5);
        let refused = bulkhead.try_acquire().unwrap_err();
        assert_eq!((refused.reason, refused.layer), (Reason::AtCapacity, "bulkhead"));
        assert!(refused.retry_after.is_some());
        permits.pop();
        permits.extend(bulkhead.try_acquire());
        assert_eq!((bulkhead.snapshot().in_flight, bulkhead.snapshot().refused_total), (5, 1));
        drop(permits);
        assert_eq!(bulkhead.snapshot().in_flight, 0);
    }
}

#[test]
fn many_threads_never_exceed_the_limit() {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    for (limit, stripes) in [(3, 1), (3, 4), (64, 4)] {
        let bulkhead = BulkheadConfig::new(limit).stripes(stripes).build().unwrap();
        let (out, admitted) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let Ok(permit) = bulkhead.try_acquire() else { continue };
                        assert!(out.fetch_add(1, SeqCst) < limit);
                        admitted.fetch_add(1, SeqCst);
                        out.fetch_sub(1, SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        let snapshot = bulkhead.snapshot();
        assert_eq!(u64::from(admitted.into_inner()) + snapshot.refused_total, 40_000);
        bulkhead.shared.permits.assert_at_rest(limit);
    }
}

#[test]
fn a_limit_of_zero_refuses_every_call() {
    assert!(Bulkhead::from(0).try_acquire().is_err());
    let bulkhead = Bulkhead::from(1);
    bulkhead.set_limit(0).unwrap();
    assert!(bulkhead.try_acquire().is_err());
}

#[test]
fn a_lower_limit_is_reached_as_calls_end_and_a_higher_one_at_once() {
    for stripes in [1, 4] {
        let bulkhead = BulkheadConfig::new(8).stripes(stripes).build().unwrap();
        let mut permits = take(&bulkhead, 8);
        bulkhead.set_limit(3).unwrap();
        for in_flight in (3..8).rev() {
            assert!(bulkhead.try_acquire().is_err(), "{in_flight} are in flight");
            permits.pop();
        }
        assert!(bulkhead.try_acquire().is_err(), "three are in flight");
        permits.pop();
        permits.push(bulkhead.try_acquire().unwrap());
        bulkhead.set_limit(10).unwrap();
        permits.extend(take(&bulkhead, 7));
        assert!(bulkhead.try_acquire().is_err());
        assert_eq!((bulkhead.snapshot().limit, bulkhead.snapshot().in_flight), (10, 10));
        drop(permits);
        bulkhead.shared.permits.assert_at_rest(10);
    }
}

#[test]
fn errors_name_field_value_and_what_is_allowed() {
    let error = |config: BulkheadConfig| config.build().unwrap_err().to_string();
    let queued = BulkheadConfig::new(1).max_queue(1);
    for (text, config) in [
        ("`limit` is 4294967295, allowed: 0 to 2147483647", BulkheadConfig::new(u32::MAX)),
        ("`max_queue` is 4294967295, allowed: 0 to 2147483647", BulkheadConfig::new(1).max_queue(u32::MAX)),
        ("`max_wait` is 0s, allowed: more than 0 where there is a queue", queued.clone().max_wait(Duration::ZERO)),
        (
            "`max_queue` is 1, allowed: 0 with back-pressure, where callers wait before they call",
            queued.clone().admission(AdmissionMode::BackPressure),
        ),
        ("`stripes` is 65, allowed: 0 (automatic) to 64", BulkheadConfig::new(1).stripes(65)),
    ] {
        assert_eq!(error(config), text);
    }
    let error = queued.layer().unwrap_err().to_string();
    assert_eq!(error, "`max_queue` is 1, allowed: 0, or a `QueuedBulkheadLayer` (`queued_layer`)");
    let error = BulkheadConfig::new(1).queued_layer().unwrap_err().to_string();
    assert_eq!(error, "`max_queue` is 0, allowed: 1 to 2147483647, or a `BulkheadLayer` (`layer`)");
}

#[test]
fn an_update_that_cannot_be_changes_nothing() {
    let bulkhead = Bulkhead::from(4);
    let present = bulkhead.config();
    for (field, config) in [
        ("limit", present.clone().limit(u32::MAX)),
        ("max_queue", present.clone().limit(9).max_queue(1)),
        ("stripes", present.clone().limit(9).stripes(2)),
        ("admission", present.clone().limit(9).admission(AdmissionMode::BackPressure)),
    ] {
        assert_eq!(bulkhead.update(config).unwrap_err().field, field);
        assert_eq!((bulkhead.config(), bulkhead.snapshot().limit), (present.clone(), 4));
    }
    bulkhead.update(present.limit(9)).unwrap();
    assert_eq!((bulkhead.config().limit, bulkhead.snapshot().limit), (9, 9));
    let fresh = bulkhead.fresh();
    assert_eq!((fresh.snapshot().limit, fresh.is_resting(), bulkhead.is_resting()), (9, true, false));
}

#[test]
fn an_operator_can_close_open_and_observe() {
    let bulkhead = Bulkhead::from(1);
    let within = bulkhead.try_acquire().unwrap();
    bulkhead.set_mode(Mode::OBSERVE_ONLY).unwrap();
    let over = bulkhead.try_acquire().unwrap();
    bulkhead.set_mode(Mode::Disabled).unwrap();
    let off = bulkhead.try_acquire().unwrap();
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.over_limit, snapshot.over_limit_total), (3, 2, 2));
    assert_eq!((snapshot.refused_total, snapshot.mode), (0, Mode::Disabled));
    drop((over, off));
    assert_eq!((bulkhead.snapshot().in_flight, bulkhead.snapshot().over_limit), (1, 0));
    bulkhead.set_mode(Mode::Auto).unwrap();
    assert!(bulkhead.try_acquire().is_err(), "the first call still holds its permit");
    drop(within);
    bulkhead.set_mode(Mode::ForcedOpen).unwrap();
    assert!(bulkhead.try_acquire().is_err());
    assert!(bulkhead.set_mode(Mode::Enforcing(101)).is_err());
    bulkhead.set_mode(Mode::Enforcing(30)).unwrap();
    let _full = bulkhead.try_acquire().unwrap();
    let refused = (0..1_000).filter(|_| bulkhead.try_acquire().is_err()).count();
    assert!((230..370).contains(&refused), "{refused}");
}

#[test]
fn others_see_that_it_is_full_until_a_call_finds_room() {
    let bulkhead = Bulkhead::from(1);
    let signal = bulkhead.signal();
    let permit = bulkhead.try_acquire().unwrap();
    assert!(!signal.is(Signal::LIMITED), "nobody was refused yet");
    bulkhead.try_acquire().unwrap_err();
    assert!(signal.is(Signal::LIMITED));
    drop(permit);
    drop(bulkhead.try_acquire());
    assert!(!signal.is(Signal::LIMITED));
}

#[test]
fn the_handle_shows_what_the_snapshot_says() {
    let bulkhead = Bulkhead::from(2);
    let _permits = take(&bulkhead, 2);
    bulkhead.try_acquire().unwrap_err();
    let mut shown = Vec::new();
    bulkhead.visit(&mut |name, value| shown.push((name, value)));
    assert!(shown.contains(&("in_flight", Value::Gauge(2))));
    assert!(shown.contains(&("refused_total", Value::Count(1))));
    assert_eq!(bulkhead.kind(), "bulkhead");
    let now: std::time::Instant = TokioClock.now();
    assert!(bulkhead.signal().until() <= now);
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_from_text_and_a_snapshot_written() {
    let text = r#"{"limit": 7, "max_queue": 3, "max_wait": "250ms", "order": "lifo", "release": "head"}"#;
    let config: BulkheadConfig = serde_json::from_str(text).unwrap();
    let wanted = BulkheadConfig::new(7).max_queue(3).max_wait(Duration::from_millis(250)).order(QueueOrder::Lifo);
    assert_eq!(config, wanted.release(crate::Release::Head));
    let error = serde_json::from_str::<BulkheadConfig>(r#"{"limt": 7}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `limt`"), "{error}");
    let snapshot = serde_json::to_value(Bulkhead::from(2).snapshot()).unwrap();
    assert_eq!((&snapshot["limit"], &snapshot["mode"]), (&2.into(), &"auto".into()));
}
