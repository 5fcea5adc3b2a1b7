//! The suite passes on layers that keep the contract: on both shells of core, and on one that is written by hand.

mod support;

use buttress_core::{
    GateLayer,
    http::{HttpClient, HttpServer},
};
use buttress_sim::{Meter, contract::Subject, contract_suite};
use support::{Fault, breaker, compartment, limiter};
use tower::layer::util::Identity;

fn no_layer_at_all() -> Subject {
    Subject::new(Identity::new(), Identity::new(), Identity::new())
}

fn meter() -> Subject {
    let layer = GateLayer::<Meter>::new(Meter::new());
    let (handle, counts) = (layer.handle(), layer.handle());
    Subject::new(layer.clone(), layer.clone().protocol(HttpServer::new()), layer.protocol(HttpClient::new()))
        .in_flight(move || handle.in_flight())
        .outcomes(move || (counts.tally().success, counts.tally().failure))
}

contract_suite!(no_layer_at_all);
contract_suite!(meter);
contract_suite!(a_breaker: || breaker(Fault::None));
contract_suite!(a_limiter: || limiter(Fault::None));
contract_suite!(a_limiter_whose_callers_wait: || compartment(Fault::None));
contract_suite!(a_limiter_that_ties_by_hand: || limiter(Fault::TiesByHand));
