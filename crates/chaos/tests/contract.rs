//! The chaos layer keeps the contract of every layer: while it is quiet, and while it delays calls.

use buttress_chaos::{ChaosConfig, Fault};
use buttress_core::{
    Handle, Mode,
    http::{HttpClient, HttpServer},
};
use buttress_sim::{
    contract::{RULES, Subject},
    contract_suite,
};
use std::time::Duration;

fn chaos(config: ChaosConfig) -> Subject {
    let layer = config.layer().unwrap();
    let operator = layer.handle();
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    Subject::new(layer, server, client)
        .shut(move |shut| operator.set_mode(if shut { Mode::ForcedOpen } else { Mode::Auto }).unwrap())
}

fn quiet() -> Subject {
    chaos(ChaosConfig::default())
}

/// Bodies are watched, and long enough.
fn armed() -> Subject {
    chaos(ChaosConfig::default().faults([Fault::cut(1 << 40), Fault::hang().percent(0.0)]))
}

fn slow() -> Subject {
    chaos(ChaosConfig::default().fault(Fault::latency(Duration::from_millis(5))))
}

contract_suite!(quiet);
contract_suite!(armed);

/// They count polls, or the milliseconds of a call, and this one waits for a timer.
const OF_CALLS_WITHOUT_DELAY: [&str; 4] = [
    "a_call_dropped_at_any_poll_leaves_nothing_behind",
    "the_latency_ends_at_the_head",
    "waiting_for_the_client_is_no_latency",
    "it_works_under_a_paused_clock",
];

#[test]
fn a_delayed_call_keeps_it_too() {
    let broken = RULES.iter().filter_map(|rule| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(rule.paused).build().unwrap();
        runtime.block_on(rule.check(&slow)).err()
    });
    let broken: Vec<_> = broken.filter(|broken| !OF_CALLS_WITHOUT_DELAY.contains(&broken.rule)).collect();
    assert_eq!(broken, []);
}
