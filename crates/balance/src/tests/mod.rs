mod balancer;
mod load;
mod pick;

use crate::{BalanceConfig, load::Tuning, node::Node};
use buttress_core::{Clock, Origin, Signal, TokioClock};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn tuning() -> Arc<Tuning> {
    Arc::new(Tuning::new(Origin::new(TokioClock.now()), &BalanceConfig::default()))
}

fn node(name: &'static str, signals: &[Signal], tuning: &Arc<Tuning>) -> Arc<Node> {
    Arc::new(Node::new(name.into(), signals.into(), tuning.clone()))
}

fn signal(now: Instant) -> Signal {
    Signal::new(now)
}
