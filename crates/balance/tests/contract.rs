//! A balancer keeps the contract of every layer, but for what it is: it has no inner service that it could ask in `poll_ready`.

use buttress_balance::{Balance, BalanceConfig, Balancer, Endpoint};
use buttress_core::{
    Handle, Mode, Opaque,
    http::{HttpClient, HttpServer},
};
use buttress_sim::contract::{HttpInner, RULES, Rule, Subject};
use std::sync::{Arc, Mutex};
use tower_layer::Layer;

/// Makes balances over so many clones of a service. The suite gives a layer several services; each has its own endpoints.
#[derive(Clone)]
struct Over<P> {
    endpoints: usize,
    made: Arc<Mutex<Vec<Arc<Balancer>>>>,
    mode: Arc<Mutex<Mode>>,
    protocol: P,
}

impl<P: Clone> Layer<HttpInner> for Over<P> {
    type Service = Balance<HttpInner, P>;

    fn layer(&self, inner: HttpInner) -> Self::Service {
        let endpoints = (0..self.endpoints).map(|n| Endpoint::new(format!("{n}"), inner.clone()));
        let balance = BalanceConfig::default().endpoints(endpoints).unwrap();
        balance.handle().set_mode(*self.mode.lock().unwrap()).unwrap();
        self.made.lock().unwrap().push(balance.handle());
        balance.protocol(self.protocol.clone())
    }
}

fn over(endpoints: usize) -> Subject {
    let (made, mode) = (Arc::new(Mutex::new(Vec::<Arc<Balancer>>::new())), Arc::new(Mutex::new(Mode::Auto)));
    let opaque = Over { endpoints, made: made.clone(), mode: mode.clone(), protocol: Opaque::new() };
    let server = Over { endpoints, made: made.clone(), mode: mode.clone(), protocol: HttpServer::new() };
    let client = Over { endpoints, made: made.clone(), mode: mode.clone(), protocol: HttpClient::new() };
    let sum = move |read: fn(&Balancer) -> u64| {
        let made = made.clone();
        move || made.lock().unwrap().iter().map(|balancer| read(balancer)).sum::<u64>()
    };
    let all = sum.clone();
    let waiting = |balancer: &Balancer| balancer.snapshot().endpoints.iter().map(|endpoint| endpoint.waiting).sum();
    let handles = opaque.made.clone();
    Subject::new(opaque, server, client)
        .in_flight(sum(|balancer| balancer.snapshot().in_flight))
        .at_rest("waiting", all(waiting))
        .shut(move |shut| {
            let to = if shut { Mode::ForcedOpen } else { Mode::Auto };
            *mode.lock().unwrap() = to;
            handles.lock().unwrap().iter().for_each(|balancer| balancer.set_mode(to).unwrap());
        })
}

/// These ask what `poll_ready` says of *the* inner service; a balance is ready, and asks in the call.
const OF_ONE_SERVICE: [&str; 2] =
    ["poll_ready_fails_only_with_the_inner_services_own_error", "an_unready_inner_service_is_never_called"];

fn check(rule: &Rule, endpoints: usize) -> Result<(), String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(rule.paused).build().unwrap();
    runtime.block_on(rule.check(&|| over(endpoints))).map_err(|broken| broken.to_string())
}

fn keeps_the_contract(endpoints: usize) {
    let rules: Vec<_> = RULES.iter().filter(|rule| !OF_ONE_SERVICE.contains(&rule.name)).collect();
    assert_eq!(rules.len(), RULES.len() - OF_ONE_SERVICE.len());
    let broken: Vec<_> = rules.iter().filter_map(|rule| check(rule, endpoints).err()).collect();
    assert!(broken.is_empty(), "the layer breaks the contract: {broken:#?}");
}

#[test]
fn over_one_endpoint() {
    keeps_the_contract(1);
}

#[test]
fn over_two_endpoints() {
    keeps_the_contract(2);
}

#[test]
fn over_five_endpoints() {
    keeps_the_contract(5);
}

#[test]
fn it_is_ready_over_endpoints_that_are_not() {
    let said = OF_ONE_SERVICE.map(|name| check(Rule::named(name).unwrap(), 2).unwrap_err());
    assert!(
        said.iter().all(|said| said.contains("the layer says Ready(Ok") || said.contains("the layer said Ready(Ok")),
        "{said:?}"
    );
}
