//! The breaker keeps the contract of every layer.

use buttress_breaker::{
    Admission, Breaker, BreakerConfig, BreakerLayer, RampedGateConfig, RampedGateLayer, State, Window,
};
use buttress_core::{
    Handle, Mode, Outcome, Settle,
    http::{HttpClient, HttpServer},
};
use buttress_sim::{contract::Subject, contract_suite};
use std::sync::Arc;

fn unshut(config: BreakerConfig) -> (Subject, Arc<Breaker>) {
    let layer = BreakerLayer::new(config.build().unwrap());
    let [calls, counts, breaker] = [(); 3].map(|()| layer.handle());
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    let subject = Subject::new(layer, server, client).at_rest("watched", move || calls.snapshot().in_flight).outcomes(
        move || {
            let seen = counts.snapshot();
            (seen.calls - seen.failures, seen.failures)
        },
    );
    (subject, breaker)
}

fn subject(config: BreakerConfig) -> Subject {
    let (subject, breaker) = unshut(config);
    let force = move |shut| breaker.set_mode(if shut { Mode::ForcedOpen } else { Mode::Auto }).unwrap();
    subject.shut(force).asks_first()
}

fn time_window() -> Subject {
    subject(BreakerConfig::default())
}

fn count_window() -> Subject {
    subject(BreakerConfig::default().window(Window::Count(100)).consecutive(50))
}

/// Shut by failures, not by its operator.
fn tripped() -> Subject {
    let (subject, breaker) = unshut(BreakerConfig::default().consecutive(5));
    let trip = move |shut| match shut {
        true => {
            while breaker.state() == State::Closed {
                breaker.try_acquire().unwrap().settle(Outcome::Failure, None);
            }
        }
        false => breaker.reset(),
    };
    subject.shut(trip).asks_first()
}

fn back_pressure() -> Subject {
    unshut(BreakerConfig::default().admission(Admission::BackPressure)).0.back_pressure()
}

fn gate() -> Subject {
    let layer = RampedGateLayer::new(RampedGateConfig::default().build().unwrap());
    let (calls, gate) = (layer.handle(), layer.handle());
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    let force = move |shut| gate.set_mode(if shut { Mode::ForcedOpen } else { Mode::Auto }).unwrap();
    let subject = Subject::new(layer, server, client).at_rest("watched", move || calls.snapshot().in_flight);
    subject.shut(force).asks_first()
}

contract_suite!(gate);
contract_suite!(time_window);
contract_suite!(count_window);
contract_suite!(tripped);
contract_suite!(back_pressure);
