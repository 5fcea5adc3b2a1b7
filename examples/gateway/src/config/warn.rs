//! What is allowed, and yet hardly meant.

use super::{Cluster, Config, Gating, Route, Source, document::Document};
use crate::router::has_dot_segments;
use buttress::core::config::format_duration;
use std::time::Duration;

/// Says what an operator would want to hear.
pub(super) fn config(document: &mut Document<'_>, config: &Config) {
    for network in config.trust.proxies.iter().filter(|network| network.prefix_len() == 0) {
        let message =
            format!("`trust.proxies` holds {network}: everybody is believed, whatever they say of their address");
        document.warn(&["trust", "proxies"], message, "the networks of your own proxies");
    }
    let pressure = &config.pressure;
    if pressure.mode == Gating::Auto && pressure.sources.contains(&Source::Cpu) {
        let message =
            "`pressure.sources` holds \"cpu\": requests are refused while CPUs are busy, though nobody may be waiting"
                .to_owned();
        let fix = "\"memory\" and \"lag\" (the default): a lag says that somebody waits";
        document.warn(&["pressure", "sources"], message, fix);
    }
    let is_heeded = config.toggles.values().any(|toggle| toggle.level.is_some());
    if !config.levels.order.is_empty() && !is_heeded && !document.torn && !document.is_taken(&["toggle"]) {
        let message = "no toggle heeds `levels`: nothing is given up".to_owned();
        document.warn(&["levels"], message, "a toggle with `level = ..`, and a route with that toggle");
    }
    for (name, cluster) in &config.clusters {
        self::cluster(document, config, name, cluster);
    }
    for (name, route) in &config.routes {
        self::route(document, config, name, route);
    }
}

fn cluster(document: &mut Document<'_>, config: &Config, name: &str, cluster: &Cluster) {
    let path = ["cluster", name];
    let leads = |route: &Route| route.clusters().any(|cluster| cluster == name);
    // A route that cannot be read may be the one.
    if !config.routes.values().any(leads) && !document.torn && !document.is_taken(&["route"]) {
        let message = format!("no route leads to `cluster.{name}`");
        document.warn(&path, message, "name it in a route (`cluster = ..`), or take it out");
    }
    let deadline = &cluster.deadline;
    if deadline.on && deadline.config.total.is_some() {
        let message = format!("`cluster.{name}.deadline.total` bounds every attempt, not the call");
        let fix = "write `per_try` here, and `total` under the route";
        document.warn(&[path[0], name, "deadline", "total"], message, fix);
    }
    if cluster.bulkhead.on && cluster.bulkhead.config.limit == 0 {
        no_places(document, &path);
    }
    let per_try = deadline.config.per_try.filter(|per_try| deadline.on && !per_try.is_zero());
    let Some(per_try) = per_try else { return };
    let is_written = document.is_written(&[path[0], name, "connect_timeout"]);
    if cluster.connect_timeout >= per_try && is_written {
        let (connect, per_try) = (format_duration(cluster.connect_timeout), format_duration(per_try));
        let message =
            format!("`cluster.{name}.connect_timeout` is {connect}, and an attempt ends after {per_try} (`per_try`)");
        document.warn(&[path[0], name, "connect_timeout"], message, "less than `deadline.per_try`");
    }
    let hang = cluster.breaker.config.effective_hang_after();
    if cluster.breaker.on && hang < per_try {
        let message = format!(
            "`cluster.{name}.deadline.per_try` allows {}, and the breaker counts a call that takes {} as failed",
            format_duration(per_try),
            format_duration(hang)
        );
        let fix = "a `breaker.hang_after` of at least `per_try`";
        document.warn(&[path[0], name, "deadline", "per_try"], message, fix);
    }
    // Where nothing is said of it, it is the breakers'.
    let is_own = document.is_written(&[path[0], name, "gate", "hang_after"]) || !cluster.breaker.on;
    let hang = cluster.gate.config.hang_after;
    if cluster.gate.on && cluster.endpoints.len() > 1 && is_own && hang < per_try {
        let message = format!(
            "`cluster.{name}.deadline.per_try` allows {}, and the gate counts a call that takes {} as failed",
            format_duration(per_try),
            format_duration(hang)
        );
        let fix = "a `gate.hang_after` of at least `per_try`";
        document.warn(&[path[0], name, "deadline", "per_try"], message, fix);
    }
}

fn route(document: &mut Document<'_>, config: &Config, name: &str, route: &Route) {
    let path = ["route", name];
    let at = |layer, field| [path[0], path[1], layer, field];
    if route.bulkhead.on && route.bulkhead.config.limit == 0 {
        no_places(document, &path);
    }
    if route.pattern().split('/').any(|segment| segment.contains('*') && !segment.starts_with("{*")) {
        let field = if route.path.is_some() { "path" } else { "prefix" };
        let message = format!("`*` in `route.{name}.{field}` stands for itself");
        document.warn(
            &["route", name, field],
            message,
            "a `prefix`, which takes all below it, or `{*rest}` in a `path`",
        );
    }
    if let Some(prefix) = &route.prefix {
        if prefix.contains('{') {
            let message = format!("`{{` in `route.{name}.prefix` stands for itself");
            document.warn(&["route", name, "prefix"], message, "a `path`, where it begins a parameter");
        }
        if prefix.parse().is_ok_and(|uri| has_dot_segments(&uri)) {
            let message = format!("`route.{name}.prefix` has dot segments, and requests with such are refused");
            document.warn(&["route", name, "prefix"], message, "the path that it comes to");
        }
    }
    if let Some(canary) = &route.canary
        && (canary.weight == 0.0 || canary.weight == 100.0)
    {
        let (weight, cluster) = match canary.weight == 0.0 {
            true => ("0", &canary.cluster),
            false => ("100", &route.cluster),
        };
        let message =
            format!("`route.{name}.canary.weight` is {weight}: `cluster.{cluster}` gets no calls to compare with");
        document.warn(&at("canary", "weight"), message, "more than 0 and less than 100");
    }
    if route.deadline.on && route.deadline.config.per_try.is_some() {
        let message = format!("`route.{name}.deadline.per_try` bounds the whole call, with all its attempts");
        document.warn(&at("deadline", "per_try"), message, "write it under the cluster");
    }
    let total = route.deadline.config.total.filter(|_| route.deadline.on);
    let is_bounded = config.clusters.get(&route.cluster).is_none_or(|cluster| {
        let deadline = &cluster.deadline;
        deadline.on && deadline.config.per_try.is_some()
    });
    if route.failover.is_some() && total.is_none() && !is_bounded {
        let message = format!(
            "`route.{name}.failover` has no time to share out: where `cluster.{}` hangs, no other is asked",
            route.cluster
        );
        document.warn(
            &["route", name, "failover"],
            message,
            "a `deadline.total` of the route, or a `deadline.per_try` of the cluster",
        );
    }
    let is_written = document.is_written(&at("deadline", "total")) && !config.drain.max.is_zero();
    if let Some(total) = total.filter(|total| *total > config.drain.max && is_written) {
        let (total, max) = (format_duration(total), format_duration(config.drain.max));
        let message =
            format!("`route.{name}.deadline.total` is {total}, and a drain aborts calls after {max} (`drain.max`)");
        document.warn(&at("deadline", "total"), message, "a `drain.max` of at least `total`");
    }
    let Some(cluster) = config.clusters.get(&route.cluster) else { return };
    let per_try = cluster.deadline.config.per_try.filter(|_| cluster.deadline.on);
    if let (Some(total), Some(per_try)) = (total, per_try) {
        attempts(document, name, route, total, per_try);
    }
    // What waits in the endpoints' queues is let in, too.
    let is_read = !document.is_taken(&["cluster", &route.cluster, "bulkhead"]);
    if route.bulkhead.on && cluster.bulkhead.on && is_read {
        let each = &cluster.bulkhead.config;
        let most = (u64::from(each.limit) + u64::from(each.max_queue)) * cluster.endpoints.len() as u64;
        if most > 0 && u64::from(route.bulkhead.config.limit) > most {
            let message = format!(
                "`route.{name}.bulkhead.limit` lets in {} calls, and the endpoints of `cluster.{}` take {most}: \
                 the others are refused there",
                route.bulkhead.config.limit, route.cluster
            );
            document.warn(
                &at("bulkhead", "limit"),
                message,
                "at most what the endpoints take, or a greater limit there",
            );
        }
    }
}

/// An attempt that times out takes `per_try`: how many fit?
fn attempts(document: &mut Document<'_>, name: &str, route: &Route, total: Duration, per_try: Duration) {
    let wanted = route.retry.config.max_attempts;
    let fit = total.as_nanos().div_ceil(per_try.as_nanos().max(1));
    if route.retry.on && per_try < total && fit < u128::from(wanted) {
        let message = format!(
            "`route.{name}.retry.max_attempts` is {wanted}, and where attempts time out, after {} each, there is time for {fit} \
             (`deadline.total` is {})",
            format_duration(per_try),
            format_duration(total)
        );
        document.warn(
            &["route", name, "retry", "max_attempts"],
            message,
            "fewer attempts, a shorter `per_try` or a longer `total`",
        );
    }
}

fn no_places(document: &mut Document<'_>, path: &[&str]) {
    let table = path.join(".");
    let path: Vec<_> = path.iter().copied().chain(["bulkhead", "limit"]).collect();
    document.warn(&path, format!("`{table}.bulkhead.limit` is 0: every call is refused"), "1 or more");
}
