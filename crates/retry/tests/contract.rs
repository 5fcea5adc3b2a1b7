//! The retries keep the contract of every layer: a call that succeeds at once does not notice them.

use buttress_core::{
    BoxError,
    http::{HttpClient, HttpServer, ReplayBody},
};
use buttress_retry::{ResendLayer, RetryConfig, RetryService};
use buttress_sim::{
    AnyBody, any,
    contract::{HttpInner, RULES, Subject},
    contract_suite,
};
use http::{Request, Response};
use tower::util::MapRequest;
use tower_layer::Layer;

/// The layer over an inner service that takes the suite's bodies: those of attempts are boxed into them. Its calls fail once each, so it keeps
/// every request to send it again, and then is told not to.
struct Boxing<P>(ResendLayer<P, Declines>);

type Declines = fn(Result<&Response<AnyBody>, &BoxError>) -> bool;
type Rebox = fn(Request<ReplayBody<AnyBody>>) -> Request<AnyBody>;

impl<P: Clone> Layer<HttpInner> for Boxing<P> {
    type Service = RetryService<MapRequest<HttpInner, Rebox>, P, Declines>;

    fn layer(&self, inner: HttpInner) -> Self::Service {
        self.0.layer(MapRequest::new(inner, |req| req.map(any)))
    }
}

/// Bodies are no `Clone`: in the opaque role of the suite stands the client's protocol.
fn suite(config: RetryConfig) -> Subject {
    let layer = ResendLayer::<HttpClient>::new(config.build().unwrap()).when((|_| false) as Declines);
    let handle = layer.handle();
    let server = layer.clone().protocol(HttpServer::new());
    Subject::new(Boxing(layer.clone()), Boxing(server), Boxing(layer))
        .at_rest("tokens held", move || handle.snapshot().budget.in_flight.into())
}

fn retry() -> Subject {
    suite(RetryConfig::default())
}

fn peeking() -> Subject {
    suite(RetryConfig::default().grpc_peek(true))
}

fn switched_off() -> Subject {
    suite(RetryConfig::new(1))
}

contract_suite!(retry);
contract_suite!(switched_off);

/// All rules but one: a head that is held back until the first message is there is late by as much.
#[test]
fn peeking_keeps_every_other_rule() {
    for rule in RULES.iter().filter(|rule| rule.name != "the_latency_ends_at_the_head") {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(rule.paused).build().unwrap();
        runtime.block_on(rule.check(&peeking)).unwrap();
    }
}
