use crate::{Breaker, Bulkhead, Handle, Mode, Retry, Shed, breaker::Window, shed::Algorithm};
use buttress_core::{Release, config::format_duration};
use buttress_deadline::{Deadlines, Headers};
use std::{fmt, time::Duration};

/// A chain as it is at one moment: its layers outside in, with their effective values. Shown, it is a line per layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    layers: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    name: &'static str,
    values: Vec<(&'static str, String)>,
}

/// One difference between two descriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// `layer.value`.
    pub path: String,
    /// What it was; `None`: it was not there.
    pub before: Option<String>,
    /// What it is; `None`: it is gone.
    pub after: Option<String>,
}

impl Description {
    pub(super) fn new(layers: impl IntoIterator<Item = Part>) -> Self {
        Self { layers: layers.into_iter().collect() }
    }

    #[cfg(feature = "fallback")]
    pub(super) fn into_parts(self) -> Vec<Part> {
        self.layers
    }

    /// The names of the layers, outside in.
    pub fn layers(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.layers.iter().map(|part| part.name)
    }

    /// The effective value at `layer.value`.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.values().find(|(other, _)| other == path).map(|(_, value)| value)
    }

    /// What has changed since `before`.
    pub fn diff(&self, before: &Self) -> Vec<Change> {
        let changed = self.values().filter(|(path, value)| before.get(path) != Some(value)).map(|(path, value)| {
            let was = before.get(&path).map(str::to_owned);
            Change { before: was, after: Some(value.to_owned()), path }
        });
        let gone = before.values().filter(|(path, _)| self.get(path).is_none());
        changed.chain(gone.map(|(path, value)| Change { path, before: Some(value.to_owned()), after: None })).collect()
    }

    fn values(&self) -> impl Iterator<Item = (String, &str)> {
        self.layers
            .iter()
            .flat_map(|part| part.values.iter().map(|(name, value)| (format!("{}.{name}", part.name), value.as_str())))
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.layers.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{:10}", part.name)?;
            for (name, value) in &part.values {
                write!(f, " {name}={value}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        write!(f, "{}: {} -> {}", self.path, show(&self.before), show(&self.after))
    }
}

fn part(name: &'static str, mode: Mode, values: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Part {
    let switched = (mode != Mode::Auto).then(|| mode.as_str().to_owned());
    let values = [("mode", switched)].into_iter().chain(values);
    Part { name, values: values.filter_map(|(name, value)| Some((name, value?))).collect() }
}

pub(super) fn span(duration: Option<Duration>) -> Option<String> {
    duration.map(format_duration)
}

fn headers(headers: &Headers) -> String {
    let grpc = headers.grpc_timeout.then_some("grpc-timeout");
    grpc.into_iter().chain(headers.header.as_deref()).collect::<Vec<_>>().join(",")
}

#[cfg(feature = "fallback")]
pub(super) fn cover(name: &'static str, handle: &impl super::cover::Values) -> Part {
    part(name, handle.mode(), handle.values())
}

pub(super) fn deadline(name: &'static str, deadlines: &Deadlines) -> Part {
    let config = deadlines.config();
    part(
        name,
        Handle::mode(deadlines),
        [
            ("total", span(config.total)),
            ("per_try", span(config.per_try)),
            ("idle", span(config.idle)),
            ("absolute", span(config.absolute)),
            ("read", config.read.as_ref().map(headers)),
            ("emit", config.emit.as_ref().map(headers)),
        ],
    )
}

pub(super) fn retry(name: &'static str, retry: &Retry) -> Part {
    let config = retry.config();
    let budget = retry.budget().config();
    let list = |values: &[String]| (!values.is_empty()).then(|| values.join(","));
    part(
        name,
        Handle::mode(retry),
        [
            ("max_attempts", Some(config.max_attempts.to_string())),
            ("ratio", Some(budget.ratio.to_string())),
            ("min_per_sec", Some(budget.min_per_sec.to_string())),
            ("max_concurrent", budget.max_concurrent.map(|most| most.to_string())),
            ("backoff", Some(format!("{:?}", config.backoff.to_string()))),
            ("max_retry_after", span(Some(config.max_retry_after))),
            ("max_body", Some(config.max_body.to_string())),
            ("statuses", list(&config.statuses.iter().map(u16::to_string).collect::<Vec<_>>())),
            ("grpc_codes", list(&config.grpc_codes.iter().map(u8::to_string).collect::<Vec<_>>())),
            ("idempotency_key", config.idempotency_key.then(|| "honoured".to_owned())),
        ],
    )
}

pub(super) fn balance(name: &'static str, balancer: &crate::Balancer) -> Part {
    let config = balancer.config();
    part(
        name,
        Handle::mode(balancer),
        [
            ("endpoints", Some(balancer.snapshot().endpoints.len().to_string())),
            ("decay", span(Some(config.decay))),
            ("penalty", span(Some(config.penalty))),
        ],
    )
}

pub(super) fn breaker(name: &'static str, breaker: &Breaker) -> Part {
    let config = breaker.config();
    let window = match config.window {
        Window::Time(length) => format_duration(length),
        Window::Count(calls) => format!("{calls} calls"),
        other => format!("{other:?}"),
    };
    part(
        name,
        Handle::mode(breaker),
        [
            ("failure_rate", config.failure_rate.map(|rate| rate.to_string())),
            ("consecutive", config.consecutive.map(|failures| failures.to_string())),
            ("slow_rate", config.slow_rate.map(|rate| rate.to_string())),
            ("slow_after", span(config.slow_after)),
            ("hang_after", span(Some(config.effective_hang_after()))),
            ("window", Some(window)),
            ("min_calls", Some(config.min_calls.to_string())),
            ("confidence", config.confidence.map(|confidence| confidence.to_string())),
            ("open_for", span(Some(config.open_for))),
            ("max_open", span(Some(config.max_open))),
            ("probes", Some(config.probes.to_string())),
            ("ramp", config.ramp.as_ref().map(|ramp| ramp.share.to_string())),
        ],
    )
}

pub(super) fn bulkhead(name: &'static str, bulkhead: &Bulkhead) -> Part {
    let config = bulkhead.config();
    part(name, Handle::mode(bulkhead), [("limit", Some(config.limit.to_string()))])
}

pub(super) fn shed(name: &'static str, shed: &Shed) -> Part {
    let config = shed.config();
    let (fixed, adaptive) = match &config.limit {
        Algorithm::Fixed(limit) => (Some(limit.to_string()), None),
        Algorithm::Adaptive(limit) => (None, Some(limit)),
        _ => (None, None),
    };
    part(
        name,
        Handle::mode(shed),
        [
            ("algorithm", Some(shed.snapshot().algorithm.to_owned())),
            ("limit", fixed),
            ("initial", adaptive.map(|limit| limit.start().to_string())),
            ("min", adaptive.map(|limit| limit.min.to_string())),
            ("max", adaptive.map(|limit| limit.max.to_string())),
            ("queue", Some(config.queue.max.to_string())),
            ("burst_wait", span(Some(config.queue.burst_wait))),
            ("critical_wait", span(Some(config.queue.critical_wait))),
            ("normal_wait", span(Some(config.queue.normal_wait))),
            ("sheddable_wait", span(Some(config.queue.sheddable_wait))),
            ("lowest_wait", span(Some(config.queue.lowest_wait))),
            ("reserve", Some(config.queue.reserve.to_string())),
            ("release", Some(if config.release == Release::Head { "head" } else { "body_end" }.to_owned())),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ShedConfig;

    #[test]
    fn of_a_limit_of_calls_it_says_all_that_decides_who_is_refused() {
        let said = |config: ShedConfig| Description::new([shed("shed", &config.build().unwrap())]).to_string();
        let adaptive = "shed       algorithm=adaptive initial=20 min=1 max=10000 queue=1000 burst_wait=250ms critical_wait=100ms \
                        normal_wait=300ms sheddable_wait=5ms lowest_wait=120ms reserve=0.005 release=head";
        assert_eq!(said(ShedConfig::default()), adaptive);
        let fixed = said(ShedConfig::default().limit(Algorithm::Fixed(7)).release(Release::BodyEnd));
        assert!(fixed.contains(" algorithm=fixed limit=7 queue=") && fixed.ends_with(" release=body_end"), "{fixed}");
    }
}
