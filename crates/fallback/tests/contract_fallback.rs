//! The fallback keeps the contract of every layer: where it has nothing to do, where its backup has no answer, and switched off.
#![cfg(feature = "http")]

use buttress_core::{
    BoxError, Handle, Mode,
    http::{HttpClient, HttpServer},
};
use buttress_fallback::{AnswerLayer, FallbackConfig, backup};
use buttress_sim::{AnyBody, contract::Subject, contract_suite};
use http::Response;

type Unwanted = fn(Result<&Response<AnyBody>, &BoxError>) -> bool;

/// Whatever it would answer, it has nothing: what was there goes on.
fn suite(config: FallbackConfig, unwanted: Unwanted, mode: Mode) -> Subject {
    let layer = AnswerLayer::<_, buttress_core::Opaque>::new(config, backup::none()).when(unwanted);
    let operator = layer.handle();
    operator.set_mode(mode).unwrap();
    let (server, client) = (layer.clone().protocol(HttpServer::new()), layer.clone().protocol(HttpClient::new()));
    Subject::new(layer, server, client)
        .shut(move |shut| operator.set_mode(if shut { Mode::ForcedOpen } else { mode }).unwrap())
        .asks_first()
}

fn idle() -> Subject {
    suite(FallbackConfig::default().on([]), |_| false, Mode::Auto)
}

/// Each call is answered by the backup, which has no answer.
fn failing() -> Subject {
    suite(FallbackConfig::default(), |_| true, Mode::Auto)
}

fn observing() -> Subject {
    suite(FallbackConfig::default(), |_| true, Mode::OBSERVE_ONLY)
}

fn disabled() -> Subject {
    suite(FallbackConfig::default(), |_| true, Mode::Disabled)
}

contract_suite!(idle);
contract_suite!(failing);
contract_suite!(observing);
contract_suite!(disabled);
