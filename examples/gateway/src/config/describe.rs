//! What a config comes to, defaults included.

use super::{
    Config, Failover, Fallback, Gating, Layer, Pressure, RateKey, RateLimit, Source, Toggle,
    degrade::{Back, StaticAnswer},
    texts::Text,
};
use buttress::{
    BalanceConfig, BreakerConfig, BulkheadConfig, DeadlineConfig, RampedGateConfig, RetryConfig, ShedConfig,
    breaker::Window,
    core::{Release, config::format_duration},
    deadline::Headers,
    fallback::levels::LevelConfig,
    shed::{Algorithm, QueueConfig, pressure::Scaled},
};
use std::{cmp::Reverse, fmt, time::Duration};

/// The chain of every route and cluster, layers outside in, with the values that hold.
pub(crate) struct Chains<'a>(pub(super) &'a Config);

impl fmt::Display for Chains<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As requests are matched.
        let mut routes: Vec<_> = self.0.routes.iter().collect();
        routes.sort_by_key(|(_, route)| Reverse(route.pattern().len()));
        for (name, route) in routes {
            write!(f, "route.{name}: ")?;
            for (list, between) in [
                (route.methods.iter().map(ToString::to_string).collect::<Vec<_>>(), "|"),
                (route.hosts.iter().map(Text::write).collect(), "|"),
            ] {
                if !list.is_empty() {
                    write!(f, "{} ", list.join(between))?;
                }
            }
            write!(f, "{}", route.pattern())?;
            for (header, value) in &route.headers {
                write!(f, " {header}={value}")?;
            }
            writeln!(f, " -> cluster.{}", route.cluster)?;
            if let Some(canary) = &route.canary {
                writeln!(
                    f,
                    "  canary    weight={} %  cluster.{}  margin={}",
                    canary.weight, canary.cluster, canary.margin
                )?;
            }
            if let Some(config) = &route.rate_limit {
                layer(f, "rate_limit", &Layer::on(config), |config| rate_limit(config))?;
            }
            if let Some(config) = route.fallback() {
                layer(f, "fallback", &Layer::on(config), |config| fallback(config))?;
            }
            if let Some(toggle) = &route.toggle {
                writeln!(f, "  toggle    {toggle}")?;
            }
            layer(f, "deadline", &route.deadline, deadline)?;
            layer(f, "bulkhead", &route.bulkhead, bulkhead)?;
            if let Some(config) = &route.failover {
                layer(f, "failover", &Layer::on(config), |config| failover(config))?;
            }
            layer(f, "retry", &Layer { on: route.retry.on, config: self.0.retry(route) }, retry)?;
        }
        for (name, cluster) in &self.0.clusters {
            let version = if cluster.http2 { "HTTP/2" } else { "HTTP/1" };
            let endpoints: Vec<_> = cluster.endpoints.iter().map(ToString::to_string).collect();
            writeln!(f, "cluster.{name}: {}, {version}", endpoints.join(", "))?;
            layer(f, "shed", &cluster.shed, shed)?;
            if endpoints.len() > 1 {
                layer(f, "gate", &cluster.gate, gate)?;
                layer(f, "balance", &Layer::on(cluster.balance.clone()), balance)?;
            }
            layer(f, "breaker", &cluster.breaker, breaker)?;
            layer(f, "bulkhead", &cluster.bulkhead, bulkhead)?;
            layer(f, "deadline", &cluster.deadline, deadline)?;
        }
        write!(f, "pressure:")?;
        match self.0.pressure.mode {
            Gating::Disabled => write!(f, " off")?,
            _ => {
                for (name, value) in pressure(&self.0.pressure) {
                    value.map_or(Ok(()), |value| write!(f, " {name}={value}"))?;
                }
            }
        }
        writeln!(f)?;
        let steps: Vec<_> = self.0.levels.config().into_iter().flat_map(|config| config.levels).collect();
        if !steps.is_empty() {
            let from = |at: f64| format!(" (from {})", (at * 1000.0).round() / 1000.0);
            let step = |step: &LevelConfig| format!("{}{}", step.name, step.at.map(from).unwrap_or_default());
            writeln!(f, "levels: {}", steps.iter().map(step).collect::<Vec<_>>().join(" > "))?;
        }
        for (name, toggle) in &self.0.toggles {
            writeln!(f, "toggle.{name}: {}", conditions(toggle).join(", "))?;
        }
        Ok(())
    }
}

type Values = Vec<(&'static str, Option<String>)>;

fn layer<C>(f: &mut fmt::Formatter<'_>, name: &str, layer: &Layer<C>, values: fn(&C) -> Values) -> fmt::Result {
    write!(f, "  {name:8}")?;
    if !layer.on {
        return writeln!(f, "  off");
    }
    let values: Values = values(&layer.config).into_iter().filter(|(_, value)| value.is_some()).collect();
    if values.is_empty() {
        write!(f, "  bounds nothing of its own")?;
    }
    for (name, value) in values {
        write!(f, "  {name}={}", value.unwrap_or_default())?;
    }
    writeln!(f)
}

fn span(duration: Option<Duration>) -> Option<String> {
    duration.map(format_duration)
}

fn deadline(config: &DeadlineConfig) -> Values {
    let headers = |headers: &Option<Headers>| {
        let headers = headers.as_ref()?;
        let grpc = headers.grpc_timeout.then_some("grpc-timeout");
        Some(grpc.into_iter().chain(headers.header.as_deref()).collect::<Vec<_>>().join(","))
    };
    vec![
        ("total", span(config.total)),
        ("per_try", span(config.per_try)),
        ("idle", span(config.idle)),
        ("absolute", span(config.absolute)),
        ("read", headers(&config.read)),
        ("emit", headers(&config.emit)),
    ]
}

fn fallback(config: &Fallback) -> Values {
    let body = |fixed: &StaticAnswer| match &fixed.file {
        Some(file) => format!("{} {}", fixed.status, file.display()),
        None => format!("{} {:?}", fixed.status, fixed.body.as_deref().unwrap_or_default()),
    };
    vec![
        ("static", config.fixed.as_ref().map(body)),
        ("stale", config.stale.as_ref().map(|stale| stale.bytes.to_string())),
        ("max", config.stale.as_ref().and_then(|stale| span(stale.max))),
        ("cache", config.stale.as_ref().filter(|stale| stale.cache).map(|_| "on".to_owned())),
    ]
}

fn failover(config: &Failover) -> Values {
    let clusters: Vec<_> = config.clusters.iter().map(|name| format!("cluster.{name}")).collect();
    vec![
        ("then", Some(clusters.join(","))),
        (
            "on",
            Some(Vec::from(config.on).iter().map(|on| format!("{on:?}").to_lowercase()).collect::<Vec<_>>().join(",")),
        ),
        ("share", Some(config.share.to_string())),
        ("fail_after", Some(config.fail_after.to_string())),
        ("probe_every", span(Some(config.probe_every))),
        ("return_after", Some(config.return_after.to_string())),
        ("max_concurrent", config.max_concurrent.map(|most| most.to_string())),
    ]
}

/// What switches it off, and how it is switched on again.
fn conditions(toggle: &Toggle) -> Vec<String> {
    let mut said = Vec::new();
    said.extend(toggle.level.as_ref().map(|level| format!("off from level {level:?} on")));
    said.extend(toggle.first_failure.then(|| "off at the first failure".to_owned()));
    said.extend(toggle.failure_rate.map(|rate| {
        let window = format_duration(toggle.window);
        format!("off at a failure_rate of {rate} (of {} calls or more in {window})", toggle.min_calls)
    }));
    if toggle.first_failure || toggle.failure_rate.is_some() {
        let after = format_duration(toggle.after);
        said.push(match toggle.back {
            Back::Manual => "back by an operator".to_owned(),
            Back::Probe => format!("back after {after} by {} probes", toggle.successes),
            Back::Ramp => format!("back after {after}, over {}", format_duration(toggle.over)),
        });
    }
    if said.is_empty() {
        said.push("switched by an operator".to_owned());
    }
    said
}

fn bulkhead(config: &BulkheadConfig) -> Values {
    let queue = (config.max_queue > 0).then_some(config);
    vec![
        ("limit", Some(config.limit.to_string())),
        ("max_queue", queue.map(|config| config.max_queue.to_string())),
        ("max_wait", queue.map(|config| format_duration(config.max_wait))),
    ]
}

fn retry(config: &RetryConfig) -> Values {
    let list = |values: Vec<String>| (!values.is_empty()).then(|| values.join(","));
    vec![
        ("max_attempts", Some(config.max_attempts.to_string())),
        ("ratio", Some(config.budget.ratio.to_string())),
        ("min_per_sec", Some(config.budget.min_per_sec.to_string())),
        ("max_concurrent", config.budget.max_concurrent.map(|most| most.to_string())),
        ("backoff", Some(format!("{:?}", config.backoff.to_string()))),
        ("max_body", Some(config.max_body.to_string())),
        ("statuses", list(config.statuses.iter().map(u16::to_string).collect())),
        ("grpc_codes", list(config.grpc_codes.iter().map(u8::to_string).collect())),
        ("idempotency_key", config.idempotency_key.then(|| "honoured".to_owned())),
    ]
}

fn shed(config: &ShedConfig) -> Values {
    let queue = Some(&config.queue).filter(|queue| queue.max > 0);
    let wait = |wait: fn(&QueueConfig) -> Duration| queue.map(|queue| format_duration(wait(queue)));
    let (limit, adaptive) = match &config.limit {
        Algorithm::Fixed(limit) => (limit.to_string(), None),
        Algorithm::Adaptive(config) => ("adaptive".to_owned(), Some(config)),
        other => (format!("{other:?}"), None),
    };
    vec![
        ("limit", Some(limit)),
        ("initial", adaptive.map(|limit| limit.start().to_string())),
        ("min", adaptive.map(|limit| limit.min.to_string())),
        ("max", adaptive.map(|limit| limit.max.to_string())),
        ("queue", queue.map(|queue| queue.max.to_string())),
        ("burst_wait", wait(|queue| queue.burst_wait)),
        ("critical_wait", wait(|queue| queue.critical_wait)),
        ("normal_wait", wait(|queue| queue.normal_wait)),
        ("sheddable_wait", wait(|queue| queue.sheddable_wait)),
        ("lowest_wait", wait(|queue| queue.lowest_wait)),
        ("reserve", queue.map(|queue| queue.reserve.to_string())),
        ("release", Some(if config.release == Release::Head { "head" } else { "body_end" }.to_owned())),
    ]
}

fn gate(config: &RampedGateConfig) -> Values {
    vec![
        ("hang_after", span(Some(config.hang_after))),
        ("min_share", Some(config.min_share.to_string())),
        ("probe_every", span(Some(config.probe_every))),
    ]
}

fn rate_limit(config: &RateLimit) -> Values {
    let by = match &config.by {
        RateKey::Client => "client".to_owned(),
        RateKey::Route => "route".to_owned(),
        RateKey::Header(name) => format!("header {name}"),
    };
    vec![
        ("permits", Some(config.permits.to_string())),
        ("period", span(Some(config.period))),
        ("burst", config.burst.map(|burst| burst.to_string())),
        ("by", Some(by)),
        ("capacity", (config.by != RateKey::Route).then(|| config.capacity.to_string())),
        ("headers", config.headers.then(|| "on".to_owned())),
    ]
}

fn pressure(config: &Pressure) -> Values {
    let from = |class: Option<Scaled>| class.map(|class| format!("{}..{}", class.from, class.to));
    let sources: Vec<_> = config.sources.iter().map(|source| source.as_str()).collect();
    vec![
        ("mode", Some(config.mode.as_str().to_owned())),
        ("sources", Some(sources.join(","))),
        ("every", span(Some(config.every))),
        ("lag", span(Some(config.lag).filter(|_| config.sources.contains(&Source::Lag)))),
        ("sheddable", from(config.sheddable)),
        ("normal", from(config.normal)),
        ("critical", from(config.critical)),
        ("retry_after", span(Some(config.retry_after))),
    ]
}

fn balance(config: &BalanceConfig) -> Values {
    vec![("decay", span(Some(config.decay))), ("penalty", span(Some(config.penalty)))]
}

fn breaker(config: &BreakerConfig) -> Values {
    let window = match config.window {
        Window::Time(length) => format_duration(length),
        Window::Count(1) => "1 call".to_owned(),
        Window::Count(calls) => format!("{calls} calls"),
        other => format!("{other:?}"),
    };
    vec![
        ("failure_rate", config.failure_rate.map(|rate| rate.to_string())),
        ("consecutive", config.consecutive.map(|failures| failures.to_string())),
        ("slow_rate", config.slow_rate.map(|rate| rate.to_string())),
        ("slow_after", span(config.slow_after)),
        ("hang_after", span(Some(config.effective_hang_after()))),
        ("window", Some(window)),
        ("min_calls", Some(config.min_calls.to_string())),
        ("open_for", span(Some(config.open_for))),
        ("max_open", span(Some(config.max_open))),
        ("probes", Some(config.probes.to_string())),
        ("ramp", config.ramp.as_ref().map(|ramp| format!("from {}", ramp.share))),
    ]
}
