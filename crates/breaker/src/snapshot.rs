use crate::{
    machine::{Machine, until_probe},
    state::{CLOSED, HALF_OPEN, OPEN, RAMPING, Word},
};
use buttress_core::{Clock, Mode, Value, sync::Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The states of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum State {
    /// Calls pass and are measured.
    Closed,
    /// Calls are refused.
    Open,
    /// A few probes pass, and decide.
    HalfOpen,
    /// The second phase of half-open, where the config has a [`ramp`](crate::RampConfig): a growing share of the calls passes, and
    /// decides.
    Ramping,
}

impl State {
    const NAMES: &'static [&'static str] = &["closed", "open", "half_open", "ramping"];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub(crate) fn of(word: Word) -> Self {
        match word.kind() {
            CLOSED => Self::Closed,
            OPEN => Self::Open,
            RAMPING => Self::Ramping,
            _ => Self::HalfOpen,
        }
    }
}

/// Why a circuit changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// So many failures in a row.
    Consecutive,
    /// Too large a share of failures.
    FailureRate,
    /// Too large a share of slow calls.
    SlowRate,
    /// Its open time is over, and a call came.
    OpenTimeOver,
    /// Enough good probes.
    ProbesGood,
    /// Enough good probes were out of reach.
    ProbesBad,
    /// The last tick of a ramp was good, or an update took the ramp away.
    RampGood,
    /// A tick of a ramp was bad.
    RampBad,
    /// An operator's reset.
    Reset,
}

impl Cause {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::OpenTimeOver => "open_time_over",
            Self::ProbesGood => "probes_good",
            Self::ProbesBad => "probes_bad",
            Self::RampGood => "ramp_good",
            Self::RampBad => "ramp_bad",
            Self::Reset => "reset",
        }
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// The generation that begins with it.
    pub generation: u32,
    /// Why.
    pub cause: Cause,
    /// Opened: until the first probe may go.
    pub open_for: Option<Duration>,
}

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::breaker";

impl Transition {
    pub(crate) fn trace(&self, name: &str) {
        let (from, to, cause) = (self.from.as_str(), self.to.as_str(), self.cause.as_str());
        let (generation, open_for) = (self.generation, self.open_for.unwrap_or_default());
        let open_for = Duration::from_millis(u64::try_from(open_for.as_millis()).unwrap_or(u64::MAX));
        match self.to {
            State::Open => {
                tracing::warn!(target: TARGET, name, from, to, cause, generation, ?open_for, "circuit opened");
            }
            State::Closed => tracing::info!(target: TARGET, name, from, to, cause, generation, "circuit closed"),
            State::HalfOpen => tracing::debug!(target: TARGET, name, from, to, cause, generation, "circuit probes"),
            State::Ramping => tracing::debug!(target: TARGET, name, from, to, cause, generation, "circuit ramps"),
        }
    }
}

/// A step of a ramp is no change of state.
pub(crate) fn trace_share(name: &str, share: f64) {
    tracing::debug!(target: TARGET, name, share, "circuit lets more calls through");
}

/// A breaker at one moment.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BreakerSnapshot {
    /// Its state.
    pub state: State,
    /// What an operator told it to do.
    pub mode: Mode,
    /// How often it has changed its state, modulo 2^24.
    pub generation: u32,
    /// The share of calls that passes: 1 closed, 0 open and while it is probed, and what lies between in a ramp.
    pub share: f64,
    /// Calls in the window, or in the present tick of a ramp.
    pub calls: u64,
    /// Failed calls of these.
    pub failures: u64,
    /// Slow calls in the window.
    pub slow: u64,
    /// The share of failures, with the calls that hang; `None` before there are `min_calls`.
    pub failure_rate: Option<f64>,
    /// The share of slow calls, with those in flight; `None` before there are `min_calls`.
    pub slow_rate: Option<f64>,
    /// Failures in a row.
    pub consecutive: u32,
    /// Calls of this generation that are waiting for an answer (those that were pending at least once), or probes.
    pub in_flight: u64,
    /// Of these, the slow ones.
    pub slow_in_flight: u64,
    /// Of these, those that hang.
    pub hung_in_flight: u64,
    /// Good probes so far, half-open.
    pub probes_good: u64,
    /// Bad probes so far, half-open.
    pub probes_bad: u64,
    /// How often it opened.
    pub opened_total: u64,
    /// How many calls it refused.
    pub refused_total: u64,
    /// How many calls it would have refused, had the mode not let them through.
    pub let_through_total: u64,
    /// Open: how long until the next probe.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub retry_in: Option<Duration>,
    /// Open: the moment of the next probe.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub open_until: Option<Instant>,
}

impl BreakerSnapshot {
    pub(crate) fn take(machine: &Machine, clock: &impl Clock) -> Self {
        let at = clock.now();
        let now = machine.origin.nanos(at);
        machine.examine(now);
        let word = machine.word();
        let is = |kind| word.kind() == kind;
        let (mut counts, tally) = (machine.counts(word, now), word.tally());
        let mut share = f64::from(u8::from(is(CLOSED)));
        if is(RAMPING) {
            let (good, bad) = word.ramped();
            (counts.total, counts.failures) = (good + bad, bad);
            share = machine.ramp_share(word);
        }
        let (hung, slow) = if word.measures() { machine.late(now) } else { (0, 0) };
        let min_calls = u64::from(buttress_core::sync::lock(&machine.config).min_calls);
        let rate = |bad: u64, late: u64| {
            let total = counts.total + late;
            (is(CLOSED) && total >= min_calls).then(|| (bad + late) as f64 / total as f64)
        };
        let half_open = |count: u64| if is(HALF_OPEN) { count } else { 0 };
        let retry_in = if is(OPEN) { Some(until_probe(word, now).unwrap_or_default()) } else { None };
        Self {
            state: State::of(word),
            mode: machine.mode.get(),
            generation: word.generation(),
            share,
            calls: counts.total,
            failures: counts.failures,
            slow: counts.slow,
            failure_rate: rate(counts.failures, hung),
            slow_rate: rate(counts.slow, slow),
            consecutive: machine.consecutive(word),
            in_flight: if is(HALF_OPEN) { tally.in_flight } else { machine.hung.all() },
            slow_in_flight: slow,
            hung_in_flight: hung,
            probes_good: half_open(tally.successes),
            probes_bad: half_open(tally.failures),
            opened_total: machine.opened.load(Relaxed),
            refused_total: machine.refused_total(),
            let_through_total: machine.let_through_total(),
            retry_in,
            open_until: retry_in.map(|wait| at + wait),
        }
    }

    pub(crate) fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        show("state", Value::State(self.state.as_str(), State::NAMES));
        show("share", Value::Ratio(self.share));
        show("calls", Value::Gauge(self.calls));
        show("failures", Value::Gauge(self.failures));
        show("slow", Value::Gauge(self.slow));
        if let Some(rate) = self.failure_rate {
            show("failure_rate", Value::Ratio(rate));
        }
        if let Some(rate) = self.slow_rate {
            show("slow_rate", Value::Ratio(rate));
        }
        show("consecutive", Value::Gauge(u64::from(self.consecutive)));
        show("in_flight", Value::Gauge(self.in_flight));
        show("slow_in_flight", Value::Gauge(self.slow_in_flight));
        show("hung_in_flight", Value::Gauge(self.hung_in_flight));
        show("opened_total", Value::Count(self.opened_total));
        show("refused_total", Value::Count(self.refused_total));
        show("let_through_total", Value::Count(self.let_through_total));
        show("retry_in", Value::Duration(self.retry_in.unwrap_or_default()));
    }
}
