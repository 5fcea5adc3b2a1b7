use crate::*;
use buttress_core::{Clock, Handle, Mode, Reason, TokioClock, Value};
use proptest::prelude::*;
use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn now() -> Instant {
    TokioClock.now()
}

fn with(faults: &[&str]) -> Chaos {
    let faults = faults.iter().map(|text| text.parse::<Fault>().unwrap());
    ChaosConfig::default().seed(7).faults(faults).build().unwrap()
}

#[test]
fn it_is_quiet_until_it_is_told_and_again_when_it_is_cleared() {
    let chaos = Chaos::default();
    assert!((0..100).all(|_| chaos.next(&now()).is_pass()) && !chaos.is_injecting());
    chaos.inject([Fault::hang()]).unwrap();
    assert_eq!(chaos.next(&now()).end, Some(End::Hang));
    chaos.clear();
    assert!(chaos.next(&now()).is_pass() && chaos.config().faults.is_empty());
    chaos.inject([Fault::hang()]).unwrap();
    chaos.inject([]).unwrap();
    assert!(!chaos.is_injecting(), "no faults are none");
}

#[test]
fn the_clock_is_read_only_where_a_fault_has_an_end() {
    struct Counted(AtomicU32, Instant);
    impl Clock for Counted {
        fn now(&self) -> Instant {
            self.0.fetch_add(1, Relaxed);
            self.1
        }
    }
    let clock = Counted(0.into(), now());
    with(&["hang"]).next(&clock);
    assert_eq!(clock.0.load(Relaxed), 0);
    with(&["hang for=1h"]).next(&clock);
    assert_eq!(clock.0.load(Relaxed), 1);
}

#[test]
fn the_same_seed_harms_the_same_calls_after_every_injection() {
    let faults = [Fault::status(503).percent(20.0), Fault::latency_between(ms(1), ms(9)).percent(30.0)];
    let run = |seed| {
        let chaos = ChaosConfig::default().seed(seed).build().unwrap();
        let again = || {
            chaos.inject(faults).unwrap();
            (0..500).map(|_| chaos.next(&now())).collect::<Vec<_>>()
        };
        let first = again();
        assert_eq!(first, again());
        first
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn each_fault_gets_its_share_whatever_the_others_do() {
    let chaos = with(&["status=500 percent=20", "latency=1ms..3ms percent=50", "cut=5 percent=0.5", "hang percent=0"]);
    let calls = 100_000;
    let seen: Vec<_> = (0..calls).map(|_| chaos.next(&now())).collect();
    let share = |is: fn(&Decision) -> bool| seen.iter().filter(|decision| is(decision)).count() as f64 / calls as f64;
    let near = |share: f64, want: f64| assert!((share - want).abs() < 0.005, "{share} for {want}");
    near(share(|d| d.end.is_some()), 0.2);
    near(share(|d| d.delay.is_some()), 0.5);
    near(share(|d| d.delay.is_some() && d.end.is_some()), 0.1);
    let cut = share(|d| d.cut.is_some());
    assert!((0.003..0.005).contains(&cut), "of those that are answered: {cut}");
    let delays: Vec<_> = seen.iter().filter_map(|d| d.delay).collect();
    let mean = delays.iter().sum::<Duration>() / delays.len() as u32;
    assert!(delays.iter().all(|delay| (ms(1)..=ms(3)).contains(delay)) && (ms(2).abs_diff(mean)) < ms(1) / 50);
    let snapshot = chaos.snapshot();
    let counted: Vec<_> = snapshot.faults.iter().map(|fault| fault.harmed_total).collect();
    let count = |is: fn(&Decision) -> bool| seen.iter().filter(|decision| is(decision)).count() as u64;
    let want = [count(|d| d.end.is_some()), count(|d| d.delay.is_some()), count(|d| d.cut.is_some()), 0];
    assert_eq!(counted, want);
    assert_eq!((snapshot.answered_total, snapshot.delayed_total, snapshot.cut_total), (want[0], want[1], want[2]));
}

#[test]
fn a_hundred_percent_is_every_call_and_none_is_none() {
    let (all, none) = (with(&["refuse"]), with(&["refuse percent=0"]));
    for draw in
        [0, 1, u64::MAX / 2, u64::MAX].into_iter().chain((0..1000).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    {
        assert!(all.decide(&now(), draw).end.is_some());
        assert!(none.decide(&now(), draw).is_pass());
    }
}

#[test]
fn delays_add_up_the_first_end_counts_and_a_hang_waits_for_nothing() {
    let chaos = with(&["latency=10ms", "reason=peer_closed", "latency=5ms", "status=500", "cut=3"]);
    let decision = chaos.next(&now());
    assert_eq!((decision.delay, decision.cut), (Some(ms(15)), None));
    let Some(End::Refuse(rejection)) = decision.end else { panic!("{decision:?}") };
    assert_eq!((rejection.reason, rejection.layer), (Reason::PeerClosed, LAYER));
    let harmed: Vec<_> = chaos.snapshot().faults.iter().map(|fault| fault.harmed_total).collect();
    assert_eq!(harmed, [1, 1, 1, 0, 0]);
    assert_eq!(with(&["latency=1s", "hang"]).next(&now()), Decision { end: Some(End::Hang), ..Decision::PASS });
    assert_eq!(with(&["cut=9", "cut=4"]).next(&now()).cut, Some(4));
}

#[test]
fn a_fault_ends_by_itself_and_with_the_last_one_the_injection() {
    let t0 = now();
    let chaos = ChaosConfig::default().seed(1).build().unwrap();
    chaos.inject_at([Fault::status(500).lasting(ms(100)), Fault::status(503).lasting(ms(300))], &t0).unwrap();
    let status = |at| match chaos.next(&(t0 + at)).end {
        Some(End::Status { status, .. }) => status,
        _ => 0,
    };
    assert_eq!([status(ms(0)), status(ms(99)), status(ms(100)), status(ms(299))], [500, 500, 503, 503]);
    let seen = chaos.snapshot_at(&(t0 + ms(120)));
    assert_eq!(seen.faults.iter().map(|fault| fault.left).collect::<Vec<_>>(), [Some(ms(0)), Some(ms(180))]);
    assert!(seen.injecting && !chaos.snapshot_at(&(t0 + ms(300))).injecting, "also before a call sees it");
    assert!(chaos.is_injecting());
    assert_eq!(status(ms(300)), 0);
    assert!(!chaos.is_injecting() && chaos.snapshot().faults.is_empty());
}

#[test]
fn an_injection_that_is_over_does_not_end_the_next_one() {
    let t0 = now();
    let chaos = Chaos::default();
    chaos.inject_at([Fault::hang().lasting(ms(10))], &t0).unwrap();
    let first = chaos.plan.load_full().unwrap();
    chaos.inject_at([Fault::refuse()], &t0).unwrap();
    // A call that had seen the first one says so late.
    chaos.end(Some(&first));
    assert!(chaos.next(&(t0 + ms(20))).end.is_some() && chaos.is_injecting());
}

#[test]
fn an_operator_overrides_it() {
    let chaos = with(&["status=500"]);
    chaos.set_mode(Mode::Disabled).unwrap();
    assert!(chaos.next(&now()).is_pass() && !chaos.is_injecting() && chaos.snapshot().faults.len() == 1);
    chaos.set_mode(Mode::OBSERVE_ONLY).unwrap();
    assert!(chaos.next(&now()).is_pass());
    assert_eq!((chaos.snapshot().spared_total, chaos.snapshot().answered_total), (1, 0));
    chaos.set_mode(Mode::Enforcing(30)).unwrap();
    let harmed = (0..10_000).filter(|_| !chaos.next(&now()).is_pass()).count();
    assert!((2_800..3_200).contains(&harmed), "{harmed}");
    chaos.clear();
    chaos.set_mode(Mode::ForcedOpen).unwrap();
    let Some(End::Refuse(rejection)) = chaos.next(&now()).end else { panic!("forced") };
    assert_eq!(rejection.reason, Reason::Injected);
    chaos.set_mode(Mode::Auto).unwrap();
    assert!(chaos.next(&now()).is_pass());
    assert_eq!(chaos.set_mode(Mode::Enforcing(101)).unwrap_err().field, "mode");
}

#[test]
fn wrong_values_are_named_and_change_nothing() {
    let chaos = with(&["hang"]);
    let inject = |fault| chaos.inject([Fault::hang(), fault]).unwrap_err().to_string();
    assert_eq!(inject(Fault::hang().percent(100.1)), "`faults[1].percent` is 100.1, allowed: 0 to 100");
    assert_eq!(inject(Fault::hang().percent(f64::NAN)), "`faults[1].percent` is NaN, allowed: 0 to 100");
    assert_eq!(inject(Fault::status(302)), "`faults[1].status` is 302, allowed: 400 to 599");
    assert_eq!(inject(Fault::hang().lasting(ms(0))), "`faults[1].for` is 0s, allowed: more than 0, at most 7 days");
    let latency = inject(Fault::latency_between(ms(5), ms(2)));
    assert!(latency.starts_with("`faults[1].latency` is 5ms..2ms, allowed: a delay"), "{latency}");
    let many = chaos.inject([Fault::hang(); 33]).unwrap_err().to_string();
    assert_eq!(many, "`faults` is 33 faults, allowed: at most 32");
    assert_eq!(chaos.config().faults, [Fault::hang()]);
    let other = ChaosConfig { seed: Some(8), ..chaos.config() };
    assert_eq!(chaos.update(other).unwrap_err().field, "seed");
    chaos.update(chaos.config().faults([Fault::refuse()]).name("upstream")).unwrap();
    assert_eq!((chaos.config().faults.len(), &*chaos.config().name), (1, "upstream"));
}

#[test]
fn a_layer_without_http_refuses_what_needs_it_and_passes_it_over() {
    use tower_layer::Layer;
    let layer = ChaosLayer::new(with(&["status=503", "hang percent=0"]));
    let chaos = layer.handle();
    layer.layer(());
    assert!(chaos.next_of(&now(), false).is_pass());
    let error = chaos.inject([Fault::cut(3)]).unwrap_err().to_string();
    let want = "`faults[0]` is cut=3 percent=100, allowed: latency, refuse, reason or hang: this layer speaks no HTTP (`.protocol(..)`)";
    assert_eq!(error, want);
    layer.protocol(buttress_core::http::HttpServer::new()).layer(());
    chaos.inject([Fault::cut(3)]).unwrap();
    assert_eq!(chaos.next_of(&now(), true).cut, Some(3));
}

#[test]
fn a_registry_can_show_it() {
    let chaos = with(&["status=503"]);
    chaos.next(&now());
    let mut shown = Vec::new();
    chaos.visit(&mut |name, value| shown.push((name, value)));
    assert_eq!(shown[0], ("state", Value::State("injecting", &["quiet", "injecting"])));
    assert!(shown.contains(&("answered_total", Value::Count(1))));
    assert_eq!(chaos.kind(), "chaos");
}

#[test]
fn a_text_says_what_is_wrong_with_it() {
    let error = |text: &str| text.parse::<Fault>().unwrap_err().to_string();
    for (text, start) in [
        ("", "`fault` is \"\", allowed: one of latency="),
        ("percent=20", "`fault` is \"percent=20\", allowed: one of latency="),
        ("latncy=5ms", "`fault` is \"latncy\", allowed: one of latency="),
        ("hang status=500", "`status` is 500, allowed: one harm to a fault, and it has hang"),
        ("hang=1", "`hang` is 1, allowed: no value"),
        ("status", "`status` is without a value, allowed: a value, as in \"status=..\""),
        ("status=abc", "`status` is \"abc\", allowed: 400 to 599"),
        ("status=200", "`status` is 200, allowed: 400 to 599"),
        ("latency=5", "`latency` is \"5\", allowed: a number and a unit"),
        ("latency=9ms..2ms", "`latency` is 9ms..2ms, allowed:"),
        ("reason=tired", "`reason` is \"tired\", allowed: breaker_open, at_capacity,"),
        ("hang percent=-1", "`percent` is -1, allowed: 0 to 100"),
        ("hang percent=x", "`percent` is \"x\", allowed: 0 to 100"),
        ("hang percent=1 percent=2", "`percent` is 2, allowed: once"),
        ("hang for=8000h", "`for` is 8000h, allowed: more than 0, at most 7 days"),
        ("cut=-1", "`cut` is \"-1\", allowed: a number of bytes"),
        ("hang retry_after=2s", "`retry_after` is 2s, allowed: only with refuse, reason or status"),
    ] {
        assert!(error(text).starts_with(start), "{text}: {}", error(text));
    }
}

#[test]
fn texts_are_read_as_people_write_them() {
    for (text, want) in [
        ("status=503 percent=20", Fault::status(503).percent(20.0)),
        ("  percent=50   latency=200ms..500ms ", Fault::latency_between(ms(200), ms(500)).percent(50.0)),
        ("latency=0s..1s", Fault::latency_between(ms(0), ms(1000))),
        ("hang percent=5", Fault::hang().percent(5.0)),
        ("reason=connect_refused percent=100", Fault::imitate(Reason::ConnectRefused)),
        ("reason=injected", Fault::refuse()),
        ("status=429 retry_after=2s for=1m", Fault::status(429).retry_after(ms(2000)).lasting(ms(60_000))),
        ("cut=0", Fault::cut(0)),
    ] {
        assert_eq!(text.parse(), Ok(want), "{text}");
    }
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let harm = prop_oneof![
        (0..3_600_000_u64, 0..3_600_000_u64)
            .prop_map(|(a, b)| Fault::latency_between(ms(a.min(b)), ms(a.max(b).max(1)))),
        (0..Reason::ALL.len()).prop_map(|n| Fault::imitate(Reason::ALL[n])),
        (400..600_u16).prop_map(Fault::status),
        Just(Fault::hang()),
        any::<u64>().prop_map(Fault::cut),
    ];
    let nanos = |most: u64| proptest::option::of((1..most).prop_map(Duration::from_nanos));
    (harm, 0.0..=100.0, nanos(3_600_000_000_000), nanos(600_000_000_000_000)).prop_map(
        |(fault, percent, after, lasts)| {
            let fault = after.map_or(fault, |after| fault.retry_after(after)).percent(percent);
            lasts.map_or(fault, |lasts| fault.lasting(lasts))
        },
    )
}

proptest! {
    #[test]
    fn a_fault_is_read_as_it_was_written(fault in any_fault()) {
        prop_assert_eq!(fault.to_string().parse(), Ok(fault));
        prop_assert_eq!(fault.validate(), Ok(()));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z_=0-9. ]{0,40}") {
        if let Ok(fault) = text.parse::<Fault>() {
            prop_assert_eq!(fault.to_string().parse(), Ok(fault));
        }
    }

    /// Every fault drawn apart, one after the other.
    #[test]
    fn a_decision_is_what_a_naive_list_says(
        faults in proptest::collection::vec(any_fault(), 0..8),
        draw in any::<u64>(),
        at in 0..700_000_000_u64,
        http in any::<bool>(),
    ) {
        let t0 = now();
        let at = t0 + Duration::from_micros(at);
        let plan = plan::Plan::new(&faults, 1, t0);
        let mut want = Decision::PASS;
        for (place, fault) in faults.iter().enumerate() {
            // All but this one never hit: what is left is its own decision.
            let alone = faults.iter().enumerate().map(|(n, other)| if n == place { *other } else { other.percent(0.0) });
            let (one, _) = plan::Plan::new(&alone.collect::<Vec<_>>(), 1, t0).decide(Some(at), draw, http);
            let is_over = fault.lasts.is_some_and(|lasts| t0 + lasts <= at);
            prop_assert!(one.is_pass() || !is_over && (http || !fault.harm.needs_http()));
            want.end = want.end.or(one.end);
            if let Some(delay) = one.delay {
                want.delay = Some(want.delay.unwrap_or_default() + delay);
            }
            want.cut = want.cut.into_iter().chain(one.cut).min();
        }
        if want.end == Some(End::Hang) {
            want.delay = None;
        }
        if want.end.is_some() {
            want.cut = None;
        }
        prop_assert_eq!(plan.decide(Some(at), draw, http).0, want);
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_from_texts_and_unknown_fields_are_errors() {
    let config: ChaosConfig = serde_json::from_str(r#"{"faults": ["hang percent=5"], "seed": 3}"#).unwrap();
    assert_eq!(config, ChaosConfig::default().fault(Fault::hang().percent(5.0)).seed(3));
    let again: ChaosConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    let error = serde_json::from_str::<ChaosConfig>(r#"{"faults": ["hang percent=500"]}"#).unwrap_err();
    assert!(error.to_string().starts_with("`percent` is 500, allowed: 0 to 100"), "{error}");
    assert!(serde_json::from_str::<ChaosConfig>(r#"{"fault": []}"#).is_err());
    let snapshot = serde_json::to_value(config.build().unwrap().snapshot()).unwrap();
    assert_eq!(snapshot["faults"][0]["fault"], "hang percent=5");
}
