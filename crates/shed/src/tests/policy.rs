//! Config, handle, modes, signal.
use super::{Scribe, ms};
use crate::{Algorithm, Ask, QueueConfig, Shed, ShedConfig, ShedPermit};
use buttress_core::{Fresh, Handle, Mode, Priority, Reason, Resting, Settle, Signal, Value};

fn fixed(limit: u32) -> ShedConfig {
    ShedConfig::default().limit(Algorithm::Fixed(limit)).seed(7)
}

fn at_once(limit: u32) -> Shed {
    fixed(limit).queue(QueueConfig::none()).build().unwrap()
}

fn take(shed: &Shed, n: usize) -> Vec<ShedPermit> {
    (0..n).map(|_| shed.try_acquire().unwrap()).collect()
}

#[test]
fn every_call_up_to_the_limit_is_admitted_and_none_beyond() {
    for stripes in [1, 2, 8] {
        let shed = fixed(5).stripes(stripes).build().unwrap();
        let mut permits = take(&shed, 5);
        let refused = shed.try_acquire().unwrap_err();
        assert_eq!((refused.reason, refused.layer), (Reason::Shed, "shed"));
        permits.pop();
        permits.extend(shed.try_acquire());
        let snapshot = shed.snapshot();
        assert_eq!((snapshot.in_flight, snapshot.shed_total(), snapshot.admitted_total), (5, 1, 6));
        drop(permits);
        shed.shared.permits.assert_at_rest(5);
    }
}

#[test]
fn refused_callers_come_back_later_than_a_second_and_not_all_at_once() {
    let shed = at_once(1);
    let _permit = shed.try_acquire().unwrap();
    let after: Vec<_> = (0..50).map(|_| shed.try_acquire().unwrap_err().retry_after.unwrap()).collect();
    assert!(after.iter().all(|after| (ms(1_000)..=ms(1_500)).contains(after)), "{after:?}");
    let mut different = after.clone();
    different.sort();
    different.dedup();
    assert!(different.len() > 40);
    let again = at_once(1);
    let _permit = again.try_acquire().unwrap();
    assert!(after.iter().all(|after| again.try_acquire().unwrap_err().retry_after == Some(*after)), "the seed decides");
}

#[test]
fn an_operator_can_close_open_and_observe() {
    let shed = at_once(1);
    let within = shed.try_acquire().unwrap();
    shed.set_mode(Mode::OBSERVE_ONLY).unwrap();
    let over = shed.try_acquire().unwrap();
    shed.set_mode(Mode::Disabled).unwrap();
    let off = shed.try_acquire().unwrap();
    let snapshot = shed.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.over_limit, snapshot.over_limit_total), (3, 2, 2));
    assert_eq!((snapshot.shed_total(), snapshot.mode), (0, Mode::Disabled));
    drop((over, off));
    assert_eq!((shed.snapshot().in_flight, shed.snapshot().over_limit), (1, 0));
    shed.set_mode(Mode::Auto).unwrap();
    assert!(shed.try_acquire().is_err());
    drop(within);
    shed.set_mode(Mode::ForcedOpen).unwrap();
    assert!(shed.try_acquire().is_err());
    assert!(shed.set_mode(Mode::Enforcing(101)).is_err());
    shed.set_mode(Mode::Enforcing(30)).unwrap();
    let _full = shed.try_acquire().unwrap();
    let refused = (0..1_000).filter(|_| shed.try_acquire().is_err()).count();
    assert!((230..370).contains(&refused), "{refused}");
}

#[test]
fn others_see_that_it_is_limited_until_half_of_it_is_free() {
    let shed = at_once(8);
    let signal = shed.signal();
    let mut permits = take(&shed, 8);
    assert!(!signal.is(Signal::LIMITED), "nobody was refused yet");
    shed.try_acquire().unwrap_err();
    assert!(signal.is(Signal::LIMITED));
    permits.drain(..4).for_each(|permit| permit.settle(buttress_core::Outcome::Success, None));
    assert!(signal.is(Signal::LIMITED));
    permits.into_iter().for_each(|permit| permit.settle(buttress_core::Outcome::Success, None));
    assert!(!signal.is(Signal::LIMITED));
}

#[test]
fn pressure_says_how_full_it_was() {
    let scribe = Scribe::new(8, 4);
    let shed = Shed::with_limit(fixed(1), move |_| Box::new(scribe.clone())).unwrap();
    take(&shed, 4).into_iter().for_each(|permit| permit.settle(buttress_core::Outcome::Success, None));
    assert!((shed.signal().pressure() - 0.25).abs() < 0.01, "four of eight, and nobody waits");
}

#[test]
fn the_permits_follow_the_algorithm() {
    let scribe = Scribe::new(4, 1);
    let its = scribe.clone();
    let shed = Shed::with_limit(fixed(1), move |_| Box::new(its.clone())).unwrap();
    for limit in [6, 2, 9] {
        scribe.set_limit(limit);
        // At this rate, not every call is timed.
        let ended = (0..5_000).take_while(|_| {
            shed.try_acquire().unwrap().settle(buttress_core::Outcome::Success, None);
            shed.snapshot().limit != limit
        });
        assert!(ended.count() < 5_000);
        let _all = take(&shed, limit as usize);
        assert!(shed.try_acquire().is_err());
        assert_eq!((shed.snapshot().limit, shed.snapshot().algorithm), (limit, "scribe"));
    }
    let fresh = shed.fresh();
    assert!(fresh.is_resting() && fresh.snapshot().admitted_total == 0);
    assert!(shed.update(shed.config().limit(Algorithm::Fixed(3))).is_err(), "it has an algorithm of its own");
}

#[test]
fn an_update_changes_what_it_can_and_else_nothing() {
    let shed = fixed(4).build().unwrap();
    let present = shed.config();
    for (field, config) in [
        ("limit.fixed", present.clone().limit(Algorithm::Fixed(0))),
        ("queue.tenants", present.clone().queue(QueueConfig::default().tenants(0))),
        ("stripes", present.clone().limit(Algorithm::Fixed(9)).stripes(2)),
        ("seed", present.clone().limit(Algorithm::Fixed(9)).seed(8)),
    ] {
        assert_eq!(shed.update(config).unwrap_err().field, field);
        assert_eq!((shed.config(), shed.snapshot().limit), (present.clone(), 4));
    }
    assert!(shed.is_resting());
    shed.update(present.limit(Algorithm::Fixed(9))).unwrap();
    let _all = take(&shed, 9);
    assert!(shed.try_acquire().is_err());
    assert_eq!((shed.snapshot().limit, shed.is_resting()), (9, false));
}

#[test]
fn errors_name_field_value_and_what_is_allowed() {
    let error = |queue: QueueConfig| ShedConfig::default().queue(queue).build().unwrap_err().to_string();
    let queue = QueueConfig::default;
    for (text, config) in [
        ("`queue.max` is 1000001, allowed: 0 to 1000000", queue().max(1_000_001)),
        ("`queue.burst_share` is NaN, allowed: more than 0 and at most 1", queue().burst_share(f64::NAN)),
        ("`queue.reserve` is 0.6, allowed: 0 to 0.5", queue().reserve(0.6)),
        ("`queue.tenants` is 1025, allowed: 1 to 1024", queue().tenants(1_025)),
        ("`queue.sheddable_wait` is 0s, allowed: 1ms to 1h", queue().sheddable_wait(ms(0))),
        ("`queue.critical_wait` is 4ms, allowed: 5ms (`sheddable_wait`) or more", queue().critical_wait(ms(4))),
        ("`queue.sheddable_wait` is 9s, allowed: 100ms (`critical_wait`) or less", queue().sheddable_wait(ms(9000))),
        (
            "`queue.sheddable_wait` is 9s, allowed: 300ms (`normal_wait`) or less",
            queue().sheddable_wait(ms(9000)).critical_wait(ms(9000)),
        ),
        (
            "`queue.critical_wait` is 8s, allowed: 9s (`sheddable_wait`) or more",
            queue().sheddable_wait(ms(9000)).critical_wait(ms(8000)),
        ),
        ("`queue.normal_wait` is 4ms, allowed: 5ms (`sheddable_wait`) or more", queue().normal_wait(ms(4))),
    ] {
        assert_eq!(error(config), text);
    }
    let error = ShedConfig::default().stripes(65).build().unwrap_err().to_string();
    assert_eq!(error, "`stripes` is 65, allowed: 0 (automatic) to 64");
}

#[test]
fn the_handle_shows_what_the_snapshot_says() {
    let shed = at_once(2);
    let _permits = take(&shed, 2);
    shed.try_acquire().unwrap_err();
    let mut shown = Vec::new();
    shed.visit(&mut |name, value| shown.push((name, value)));
    for reading in [
        ("limit", Value::Gauge(2)),
        ("in_flight", Value::Gauge(2)),
        ("shed_total", Value::Count(1)),
        ("line", Value::State("burst", &["burst", "standing"])),
    ] {
        assert!(shown.contains(&reading), "{reading:?}");
    }
    let mut series = Vec::new();
    shed.measure(&mut |one| series.push(format!("{:?} {:?}", one.labels, one.measure)));
    assert_eq!(series.len(), 15);
    let full = r#"[("shed", "shed"), ("priority", "normal"), ("cause", "full")] Count(1)"#;
    assert!(series.iter().any(|one| one == full), "{series:?}");
    assert_eq!((shed.kind(), shed.snapshot().class(Priority::Normal).full_total), ("shed", 1));
}

#[test]
fn what_a_closure_leaves_out_the_context_says() {
    let mut context = buttress_core::Context::default();
    context.priority = Priority::Sheddable;
    let ask = Ask::new().tenant("acme").or(Some(&context));
    assert_eq!((ask.priority, ask.tenant), (Some(Priority::Sheddable), Ask::new().tenant("acme").tenant));
    let ask = Ask::new().priority(Priority::Critical).or(Some(&context));
    assert_eq!((ask.priority, ask.tenant), (Some(Priority::Critical), None));
    assert_eq!(Ask::new().or(None), Ask::new());
}

#[test]
fn a_tenant_is_the_same_one_in_the_whole_process_and_a_hash_is_taken_as_it_is() {
    let (acme, other) = (Ask::new().tenant("acme").tenant, Ask::new().tenant("other").tenant);
    assert_eq!(std::thread::spawn(|| Ask::new().tenant("acme").tenant).join().unwrap(), acme);
    assert_ne!(acme, other);
    let mut known = std::hash::DefaultHasher::new();
    std::hash::Hash::hash("acme", &mut known);
    assert_ne!(acme, Some(std::hash::Hasher::finish(&known)), "nobody outside can work it out");
    assert_eq!(Ask::new().tenant_hash(7).tenant, Some(7));
}

#[cfg(feature = "serde")]
#[test]
fn its_snapshot_is_written_with_durations_as_texts() {
    let shed = fixed(1).build().unwrap();
    let shown = serde_json::to_value(shed.snapshot()).unwrap();
    assert_eq!((&shown["oldest_wait"], &shown["mean"]), (&"0s".into(), &serde_json::Value::Null), "{shown}");
    let mut snapshot = shed.snapshot();
    (snapshot.mean, snapshot.base) = (Some(ms(12)), Some(ms(1500)));
    let shown = serde_json::to_value(snapshot).unwrap();
    assert_eq!((&shown["mean"], &shown["base"]), (&"12ms".into(), &"1500ms".into()), "{shown}");
}

#[test]
fn many_threads_never_exceed_the_limit_and_calls_are_conserved() {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    let scribe = Scribe::new(6, 20);
    let its = scribe.clone();
    let config = fixed(1).stripes(4).queue(QueueConfig::none());
    let shed = Shed::with_limit(config, move |_| Box::new(its.clone())).unwrap();
    let (out, admitted) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (shed, out, admitted, scribe) = (&shed, &out, &admitted, &scribe);
            scope.spawn(move || {
                for i in 0..5_000 {
                    if thread == 0 && i % 50 == 0 {
                        scribe.set_limit(1 + i / 50 % 6);
                    }
                    let Ok(permit) = shed.try_acquire() else { continue };
                    assert!(out.fetch_add(1, SeqCst) < 6);
                    admitted.fetch_add(1, SeqCst);
                    out.fetch_sub(1, SeqCst);
                    permit.settle(buttress_core::Outcome::Success, None);
                }
            });
        }
    });
    let snapshot = shed.snapshot();
    assert_eq!(snapshot.admitted_total, u64::from(admitted.into_inner()));
    assert_eq!(snapshot.admitted_total + snapshot.shed_total(), 40_000);
    shed.shared.permits.assert_at_rest(snapshot.limit);
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_from_text_and_a_snapshot_written() {
    let text = r#"{"limit": {"fixed": 7}, "queue": {"max": 3, "burst_wait": "90ms"}, "release": "head"}"#;
    let config: ShedConfig = serde_json::from_str(text).unwrap();
    let wanted = ShedConfig::default().limit(Algorithm::Fixed(7)).release(crate::Release::Head);
    assert_eq!(config, wanted.queue(QueueConfig::default().max(3).burst_wait(ms(90))));
    let error = serde_json::from_str::<ShedConfig>(r#"{"queue": {"mx": 7}}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `mx`"), "{error}");
    let snapshot = serde_json::to_value(config.build().unwrap().snapshot()).unwrap();
    assert_eq!((&snapshot["limit"], &snapshot["mode"]), (&7.into(), &"auto".into()));
    assert_eq!(snapshot["classes"][0]["priority"], "critical");
}

#[cfg(feature = "serde")]
#[test]
fn a_limit_is_a_word_or_a_number_or_a_table() {
    use crate::limit::AdaptiveConfig;
    let read = |text: &str| toml::from_str::<ShedConfig>(text);
    for (text, wanted) in [
        ("", Algorithm::default()),
        ("limit = 'adaptive'", Algorithm::default()),
        ("[limit.adaptive]", Algorithm::default()),
        ("[limit.adaptive]\nmax = 9", Algorithm::Adaptive(AdaptiveConfig::default().max(9))),
        ("limit = 64", Algorithm::Fixed(64)),
        ("limit.fixed = 64", Algorithm::Fixed(64)),
    ] {
        let config = read(text).unwrap();
        assert_eq!(config.limit, wanted, "{text}");
        assert_eq!(read(&toml::to_string(&config).unwrap()).unwrap(), config);
        assert_eq!(serde_json::from_value::<ShedConfig>(serde_json::to_value(&config).unwrap()).unwrap(), config);
    }
    for (text, says) in [
        ("limit = 'fixed'", "expected \"adaptive\", a number of calls, or one of the tables"),
        ("limit = -1", "integer `-1`, expected 1 to 2147483647 calls"),
        ("limit = 4294967296", "integer `4294967296`, expected 1 to 2147483647 calls"),
        ("limit = 1.5", "expected \"adaptive\", a number"),
        ("limit.fix = 1", "unknown field `fix`, expected `adaptive` or `fixed`"),
        ("limit = {}", "an empty table, allowed: one of `adaptive` and `fixed`"),
        ("limit = { fixed = 1, adaptive = {} }", "`adaptive` and `fixed` in one, allowed: one of them, not both"),
        ("limit.adaptive.mx = 1", "unknown field `mx`"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
    assert!(read("limit = 0").unwrap().build().unwrap_err().to_string().starts_with("`limit.fixed` is 0"));
}
