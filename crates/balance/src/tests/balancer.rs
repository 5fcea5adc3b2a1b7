use super::*;
use crate::{Balancer, pick::Roster};
use buttress_core::{Handle, Mode, Outcome, Reason, Settle, Value};

#[test]
fn a_config_error_names_the_field_its_value_and_what_is_allowed() {
    let base = BalanceConfig::default;
    for (config, said) in [
        (base().decay(Duration::ZERO), "`decay` is 0s, allowed: 1ms to 1h"),
        (base().decay(ms(3_600_001)), "`decay` is 3600001ms, allowed: 1ms to 1h"),
        (base().penalty(Duration::ZERO), "`penalty` is 0s, allowed: more than 0 and at most 1h"),
        (base().overload(Duration::MAX), "allowed: at most 1h"),
        (base().max_overload(ms(999)), "`max_overload` is 999ms, allowed: `overload` to 1h"),
        (base().picks(17), "`picks` is 17, allowed: 1 to 16"),
    ] {
        let error = config.clone().build().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        let balancer = base().build().unwrap();
        assert!(balancer.update(config).is_err());
        assert_eq!(balancer.config(), base(), "nothing has changed");
    }
    let limits =
        base().decay(ms(1)).penalty(ms(3_600_000)).overload(Duration::ZERO).max_overload(Duration::ZERO).picks(16);
    limits.build().unwrap();
}

#[test]
fn an_update_is_felt_by_endpoints_that_are_there_and_the_seed_stays() {
    let (balancer, nodes) = with_nodes(2);
    balancer.update(BalanceConfig::default().penalty(ms(200))).unwrap();
    crate::BalancePermit::new(nodes[0].clone(), 0, true).conclude(Outcome::Failure, None);
    assert_eq!(nodes[0].load.average(0, &nodes[0].tuning), Some(2e8));
    let error = balancer.update(BalanceConfig::default().seed(3)).unwrap_err();
    assert_eq!(error.to_string(), "`seed` is Some(3), allowed: None: it cannot change while the balancer runs");
}

fn with_nodes(count: usize) -> (Balancer, Vec<Arc<Node>>) {
    let balancer = BalanceConfig::default().build().unwrap();
    let names = ["a", "b", "c"];
    let nodes: Vec<_> = (0..count).map(|place| node(names[place], &[], &balancer.tuning)).collect();
    balancer.enlist(Arc::new(Roster { nodes: nodes.clone().into() }));
    (balancer, nodes)
}

#[test]
fn counters_do_not_go_back_when_endpoints_leave_and_their_calls_go_on() {
    let (balancer, nodes) = with_nodes(2);
    let mut failing = crate::BalancePermit::new(nodes[0].clone(), 0, true);
    failing.conclude(Outcome::Failure, None);
    drop(failing);
    nodes[0].load.skip();
    let slow = crate::BalancePermit::new(nodes[0].clone(), 0, true);
    let totals = |balancer: &Balancer| {
        let seen = balancer.snapshot();
        (seen.picks_total, seen.failures_total, seen.skipped_total)
    };
    assert_eq!(totals(&balancer), (2, 1, 1));
    balancer.enlist(Arc::new(Roster { nodes: [nodes[1].clone()].into() }));
    drop(nodes);
    let seen = balancer.snapshot();
    assert_eq!((seen.endpoints.len(), seen.in_flight, seen.leaving), (1, 1, 1));
    assert_eq!(totals(&balancer), (2, 1, 1));
    drop(slow);
    let seen = balancer.snapshot();
    assert_eq!((seen.in_flight, seen.leaving), (0, 0));
    assert_eq!(totals(&balancer), (2, 1, 1));
}

#[test]
fn the_handle_shows_what_the_snapshot_says() {
    let (balancer, nodes) = with_nodes(3);
    let permit = crate::BalancePermit::new(nodes[1].clone(), 0, true);
    let mut shown = Vec::new();
    balancer.visit(&mut |name, value| shown.push((name, value)));
    for reading in [("endpoints", Value::Gauge(3)), ("in_flight", Value::Gauge(1)), ("picks_total", Value::Count(1))] {
        assert!(shown.contains(&reading), "{shown:?}");
    }
    let seen = balancer.snapshot();
    assert_eq!(seen.endpoint("b").map(|endpoint| (endpoint.in_flight, endpoint.id)), Some((1, permit.id())));
    assert_eq!((balancer.kind(), permit.endpoint(), seen.endpoint("d")), ("balance", "b", None));
    balancer.set_mode(Mode::Disabled).unwrap();
    assert_eq!(balancer.snapshot().mode, Mode::Disabled);
    assert!(balancer.set_mode(Mode::Enforcing(101)).is_err());
}

#[test]
fn the_latency_ends_at_the_head_and_goes_on_where_somebody_waits_again() {
    let (_, nodes) = with_nodes(1);
    let tuning = &nodes[0].tuning;
    let t0 = tuning.origin.at(0);
    let mut permit = crate::BalancePermit::new(nodes[0].clone(), 0, true);
    permit.pending_at(&t0);
    permit.pending_at(&(t0 + ms(5)));
    permit.head_at(&(t0 + ms(10)));
    permit.head_at(&(t0 + ms(15)));
    // A gRPC caller waits for the first message.
    permit.pending_at(&(t0 + ms(100)));
    permit.head_at(&(t0 + ms(120)));
    permit.conclude_at(Outcome::Success, None, &(t0 + ms(60_000)));
    let seen = nodes[0].load.average(60_000 * MILLI, tuning).unwrap();
    assert!((seen - 30e6).abs() < 1e3, "{seen}");
}

#[test]
fn ignored_says_nothing_and_overload_says_it_is_busy() {
    let (_, nodes) = with_nodes(2);
    let t0 = nodes[0].tuning.origin.at(0);
    let end = |node: usize, outcome| {
        let mut permit = crate::BalancePermit::new(nodes[node].clone(), 0, true);
        permit.pending_at(&t0);
        permit.conclude_at(outcome, Some(buttress_core::Pushback::NEVER), &(t0 + ms(10)));
    };
    end(0, Outcome::Ignored);
    assert_eq!(nodes[0].load.average(0, &nodes[0].tuning), None);
    assert!(!nodes[0].load.is_overloaded(0));
    end(1, Outcome::Success);
    end(1, Outcome::Overload);
    assert_eq!(nodes[1].load.failures(), 0);
    assert!(nodes[1].load.is_overloaded(30 * SECOND) && !nodes[1].load.is_overloaded(31 * SECOND));
    assert_eq!([nodes[0].load.in_flight(), nodes[1].load.in_flight()], [0, 0]);
}

#[test]
fn a_refusal_says_when_the_first_probe_is_and_nothing_where_nobody_knows() {
    let (balancer, _) = with_nodes(0);
    let now = balancer.tuning.origin.at(0);
    let refusal = balancer.refuse(Some(now + ms(1_500)), now);
    assert_eq!((refusal.reason, refusal.retry_after), (Reason::BreakerOpen, Some(ms(1_500))));
    assert_eq!(balancer.refuse(Some(now + Duration::from_secs(1 << 40)), now).retry_after, None);
    assert_eq!(balancer.refuse_empty().reason, Reason::NoEndpoint);
    assert_eq!(balancer.snapshot().refused_total, 3);
}

#[cfg(feature = "serde")]
#[test]
fn configs_and_snapshots_are_read_and_written() {
    let config: BalanceConfig = serde_json::from_str(r#"{ "penalty": "2s", "decay": "500ms", "picks": 2 }"#).unwrap();
    assert_eq!(config, BalanceConfig::default().penalty(ms(2_000)).decay(ms(500)).picks(2));
    assert!(serde_json::from_str::<BalanceConfig>(r#"{ "penalti": "2s" }"#).is_err());
    let (balancer, nodes) = with_nodes(1);
    nodes[0].load.sample(0, 0, MILLI, crate::load::Sample::Success, &nodes[0].tuning);
    let text = serde_json::to_string(&balancer.snapshot_at(&balancer.tuning.origin.at(0))).unwrap();
    assert!(text.contains(r#""mode":"auto""#) && text.contains(r#""latency":"1ms""#), "{text}");
}
