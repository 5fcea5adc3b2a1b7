//! What the values mean, and whether they can.

use super::{
    Canary, Cluster, ClusterTls, Config, ListenerTls, Route, degrade, document::Document, files, layers, matches,
    overload, table::did_you_mean,
};
use crate::tls;
use buttress::core::config::format_duration;
use http::{HeaderName, HeaderValue, uri::Authority};
use std::{fmt::Display, net::SocketAddr, ops::RangeInclusive, time::Duration};

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
pub(super) const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// A token shorter than this is guessed.
const TOKEN: usize = 16;

/// Says everything that is wrong with the config.
pub(super) fn config(document: &mut Document<'_>, config: &Config) {
    if let Some(name) = &config.name
        && !is_token(name)
    {
        let allowed = "a token (RFC 9110, 5.6.2): letters, digits and any of !#$%&'*+-.^_`|~";
        document.wrong(&["name"], quoted(name), allowed);
    }
    names(document, config);
    addresses(document, config);
    limits(document, config);
    for (name, listener) in &config.listeners {
        if let Some(tls) = &listener.tls {
            listener_tls(document, name, tls);
        }
    }
    for (name, cluster) in &config.clusters {
        self::cluster(document, name, cluster);
    }
    for (name, route) in &config.routes {
        self::route(document, config, name, route);
    }
    overload::pressure(document, &config.pressure);
    degrade::config(document, config);
    matches::check(document, config);
}

/// Names stand in metrics, in logs and in the paths of the admin pages.
fn names(document: &mut Document<'_>, config: &Config) {
    let sections = [
        ("listener", config.listeners.keys().collect::<Vec<_>>(), "address = \"127.0.0.1:8080\""),
        ("cluster", config.clusters.keys().collect(), "endpoints = [\"127.0.0.1:9001\"]"),
        ("route", config.routes.keys().collect(), "prefix = \"/\""),
    ];
    for (section, names, example) in sections {
        if names.is_empty() && !document.torn && document.value_at(&[section]).is_none_or(is_empty) {
            let allowed = format!("at least one, as in `[{section}.NAME]` with `{example}`");
            document.wrong(&[section], "empty", allowed);
        }
        for name in names {
            self::name(document, section, name);
        }
    }
}

/// Whether an entry can have its name.
pub(super) fn name(document: &mut Document<'_>, section: &str, name: &str) {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        let allowed = "a name of 1 to 64 letters, digits, `-`, `_` and `.`";
        document.wrong(&[section, name], format_args!("named {}", quoted(name)), allowed);
    }
}

fn is_empty(value: &toml::Spanned<toml::de::DeValue<'_>>) -> bool {
    value.get_ref().as_table().is_some_and(toml::de::DeTable::is_empty)
}

fn addresses(document: &mut Document<'_>, config: &Config) {
    let mut seen: Vec<(Vec<&str>, SocketAddr)> = Vec::new();
    let listeners =
        config.listeners.iter().map(|(name, listener)| (vec!["listener", name, "address"], listener.address));
    for (path, address) in listeners.chain([(vec!["admin", "address"], config.admin.address)]) {
        let other = seen.iter().find(|(other, taken)| overlap(*taken, address) && !document.is_taken(other));
        if let Some((other, _)) = other {
            let allowed = format!("an address of its own; `{}` has this one", other.join("."));
            document.wrong(&path, address, allowed);
        }
        seen.push((path, address));
    }
    let admin = &config.admin;
    match &admin.token_file {
        None if !admin.address.ip().is_loopback() && !document.is_taken(&["admin", "token_file"]) => {
            let allowed =
                "a loopback address (127.0.0.1, [::1]), or a `token_file` beside it: else everybody may open breakers";
            document.wrong(&["admin", "address"], admin.address, allowed);
        }
        None => {}
        Some(path) => {
            let fault = match files::text(path) {
                Err(error) => Some(error),
                Ok(token) if token.trim().chars().count() < TOKEN => Some("it holds less".to_owned()),
                Ok(token) if !token.trim().chars().all(|c| c.is_ascii_graphic()) => Some("it holds others".to_owned()),
                Ok(_) => None,
            };
            if let Some(fault) = fault {
                let allowed = format!(
                    "a file, relative to this one, with a token of {TOKEN} or more visible ASCII characters: {fault}"
                );
                wrong_file(document, &["admin", "token_file"], path, &allowed);
            }
        }
    }
}

/// Whether one cannot be bound beside the other.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // An IPv6 socket on every address takes IPv4's as well.
    let any = |all: SocketAddr, one: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let same = one.ip() == other.ip() || any(one, other) || any(other, one);
    same && one.port() == other.port() && one.port() != 0
}

fn limits(document: &mut Document<'_>, config: &Config) {
    let limits = &config.limits;
    number(document, &["limits", "connections"], limits.connections, 1..=1_000_000);
    if let Some(connections) = limits.connections_per_client {
        number(document, &["limits", "connections_per_client"], connections, 1..=1_000_000);
    }
    number(document, &["limits", "streams"], limits.streams, 1..=100_000);
    number(document, &["limits", "headers"], limits.headers, 1..=10_000);
    let kib = |n: u64| super::Bytes(n << 10);
    // Less is no buffer to read from a socket into.
    number(document, &["limits", "header_bytes"], limits.header_bytes, kib(8)..=kib(1024));
    let longest = super::Bytes(limits.header_bytes.0.min(u64::from(u16::MAX - 1)));
    number(document, &["limits", "uri_bytes"], limits.uri_bytes, super::Bytes(1)..=longest);
    number(document, &["limits", "buffer_bytes"], limits.buffer_bytes, super::Bytes(0)..=kib(1024));
    time(document, &["limits", "header_timeout"], limits.header_timeout, HOUR);
    if let Some(timeout) = limits.body_timeout {
        time(document, &["limits", "body_timeout"], timeout, HOUR);
    }
    time(document, &["limits", "write_timeout"], limits.write_timeout, HOUR);
    time(document, &["limits", "tunnel_idle"], limits.tunnel_idle, WEEK);
    let drain = &config.drain;
    time(document, &["drain", "max"], drain.max, WEEK);
    if drain.min > drain.max && !drain.max.is_zero() && !document.is_taken(&["drain", "max"]) {
        let by_default = if document.is_written(&["drain", "min"]) { "" } else { " by default" };
        let min = format!("{}{by_default}", format_duration(drain.min));
        document.wrong(&["drain", "min"], min, format!("at most `drain.max`, {}", format_duration(drain.max)));
    }
    let header = &config.trust.priority_header;
    if OF_OTHERS.contains(&header.as_str()) {
        let allowed = "a header of its own, as in \"x-priority\"";
        document.wrong(&["trust", "priority_header"], quoted(header), allowed);
    }
}

/// Headers that mean something else to everybody.
const OF_OTHERS: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Whether the files are there, and fit each other.
fn listener_tls(document: &mut Document<'_>, name: &str, config: &ListenerTls) {
    let path = ["listener", name, "tls"];
    let mut are_there = true;
    for (field, file, what) in
        [("certificate", &config.certificate, files::CERTIFICATE), ("key", &config.key, files::KEY)]
    {
        if let Err(fault) = files::pem(file, what) {
            wrong_file(document, &[&path[..], &[field]].concat(), file, &fault);
            are_there = false;
        }
    }
    if are_there && let Err(error) = tls::acceptor(config) {
        document.refused(&path, &error);
    }
}

fn cluster_tls(document: &mut Document<'_>, name: &str, tls: &ClusterTls) {
    let path = ["cluster", name, "tls"];
    if let Some(ca) = &tls.ca
        && let Err(fault) = files::pem(ca, files::CERTIFICATE)
    {
        wrong_file(document, &[&path[..], &["ca"]].concat(), ca, &fault);
    } else if let Err(error) = tls::roots(tls) {
        document.refused(&path, &error);
    }
    if let Some(server) = &tls.server_name
        && !is_host(server)
    {
        let allowed = "a host, as in \"api.example.com\", without a port";
        document.wrong(&[&path[..], &["server_name"]].concat(), quoted(server), allowed);
    }
}

fn cluster(document: &mut Document<'_>, name: &str, cluster: &Cluster) {
    let path = ["cluster", name];
    let at = |field| [path[0], path[1], field];
    if cluster.endpoints.is_empty() {
        document.wrong(&at("endpoints"), "an empty list", "at least one endpoint, as in \"127.0.0.1:9001\"");
    }
    for (i, endpoint) in cluster.endpoints.iter().enumerate() {
        if cluster.endpoints[..i].iter().any(|other| same_endpoint(other, endpoint)) {
            let what = format!("{} twice", quoted(endpoint));
            document.wrong(&at("endpoints"), what, "each endpoint once");
        }
    }
    time(document, &at("connect_timeout"), cluster.connect_timeout, HOUR);
    time(document, &at("pool_idle"), cluster.pool_idle, WEEK);
    if let Some(tls) = &cluster.tls {
        cluster_tls(document, name, tls);
    }
    layers::cluster(document, &path, cluster);
}

fn route(document: &mut Document<'_>, config: &Config, name: &str, route: &Route) {
    let path = ["route", name];
    let at = |field| [path[0], path[1], field];
    pattern(document, name, route);
    for (header, value) in &route.headers {
        let path = ["route", name, "headers", header];
        if HeaderName::from_bytes(header.as_bytes()).is_err() {
            document.wrong(&at("headers"), quoted(header), "names of headers, as in { x-tenant = \"blue\" }");
        }
        if HeaderValue::from_str(value).is_err() {
            document.wrong(&path, quoted(value), "a header's value: visible ASCII and spaces, or \"*\" for any");
        }
    }
    let cluster = cluster_of(document, config, &at("cluster"), &route.cluster);
    per_try(document, name, route, &route.cluster, cluster);
    if let Some(canary) = &route.canary {
        self::canary(document, config, name, route, canary);
    }
    degrade::route(document, config, name, route);
    layers::route(document, &path, route);
}

fn pattern(document: &mut Document<'_>, name: &str, route: &Route) {
    let (field, text) = match (&route.prefix, &route.path) {
        (Some(_), Some(_)) => {
            document.wrong(&["route", name, "path"], "beside a `prefix`", "one of `prefix` and `path`");
            return;
        }
        (None, None) => {
            let is_silent =
                document.is_taken(&["route", name, "path"]) || document.is_taken(&["route", name, "prefix"]);
            if !is_silent {
                let allowed = "one of `prefix = \"/api\"` and `path = \"/users/{id}\"`";
                document.wrong(&["route", name], "for no path", allowed);
            }
            return;
        }
        (Some(prefix), None) => ("prefix", prefix),
        (None, Some(path)) => ("path", path),
    };
    let is_path = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
    if !is_path {
        let allowed = "a path that begins with `/`, as it stands in requests: ASCII, without `?` and `#`";
        document.wrong(&["route", name, field], quoted(text), allowed);
    }
}

pub(super) fn cluster_of<'c>(
    document: &mut Document<'_>,
    config: &'c Config,
    path: &[&str],
    name: &str,
) -> Option<&'c Cluster> {
    let cluster = config.clusters.get(name);
    if cluster.is_none() && !document.torn && !document.is_taken(&["cluster", name]) {
        let names: Vec<_> = config.clusters.keys().map(quoted).collect();
        let similar = did_you_mean(name, config.clusters.keys().map(String::as_str));
        let mut allowed = format!("the name of a cluster: {}", names.join(", "));
        if let Some(similar) = similar {
            allowed = format!("{allowed}; {similar}");
        }
        document.wrong(path, quoted(name), allowed);
    }
    cluster
}

/// An attempt must end before the whole call does, or there is never another.
pub(super) fn per_try(
    document: &mut Document<'_>,
    name: &str,
    route: &Route,
    cluster_name: &str,
    cluster: Option<&Cluster>,
) {
    let Some(cluster) = cluster.filter(|cluster| cluster.deadline.on && route.deadline.on) else { return };
    if let (Some(per_try), Some(total)) = (cluster.deadline.config.per_try, route.deadline.config.total)
        && per_try >= total
        && !total.is_zero()
        && !document.is_taken(&["route", name, "deadline", "total"])
    {
        let allowed = format!("less than `route.{name}.deadline.total`, {}", format_duration(total));
        let path = ["cluster", cluster_name, "deadline", "per_try"];
        document.wrong(&path, format_duration(per_try), allowed);
    }
}

fn canary(document: &mut Document<'_>, config: &Config, name: &str, route: &Route, canary: &Canary) {
    let at = |field| ["route", name, "canary", field];
    let cluster = cluster_of(document, config, &at("cluster"), &canary.cluster);
    if canary.cluster == route.cluster {
        document.wrong(&at("cluster"), quoted(&canary.cluster), "another cluster than the route's own");
    } else {
        per_try(document, name, route, &canary.cluster, cluster);
    }
    if !(0.0..=100.0).contains(&canary.weight) {
        document.wrong(&at("weight"), canary.weight, "0 to 100, in percent of the calls");
    }
    if !(0.0..=1.0).contains(&canary.margin) {
        document.wrong(&at("margin"), canary.margin, "0 to 1, a share of the calls");
    }
    if !(Duration::from_secs(1)..=HOUR).contains(&canary.window) {
        document.wrong(&at("window"), format_duration(canary.window), "1s to 1h");
    }
    number(document, &at("min_calls"), canary.min_calls, 1..=1_000_000);
}

pub(super) fn number<N: PartialOrd + Display>(
    document: &mut Document<'_>,
    path: &[&str],
    value: N,
    allowed: RangeInclusive<N>,
) {
    if !allowed.contains(&value) {
        document.wrong(path, value, format_args!("{} to {}", allowed.start(), allowed.end()));
    }
}

pub(super) fn time(document: &mut Document<'_>, path: &[&str], value: Duration, most: Duration) {
    if value.is_zero() || value > most {
        let allowed = format!("more than 0s, at most {}", format_duration(most));
        document.wrong(path, format_duration(value), allowed);
    }
}

/// Says what is wrong with a file, by the name that was written.
pub(super) fn wrong_file(document: &mut Document<'_>, path: &[&str], file: &std::path::Path, allowed: &str) {
    let written = document.value_at(path).and_then(|value| value.get_ref().as_str()).map(quoted);
    let written = written.unwrap_or_else(|| quoted(file.display()));
    document.wrong(path, written, allowed);
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn is_host(text: &str) -> bool {
    let name = |text: &str| text.parse::<Authority>().is_ok_and(|authority| authority.host() == text);
    text.parse::<std::net::IpAddr>().is_ok() || name(text)
}

fn same_endpoint(one: &Authority, other: &Authority) -> bool {
    one.host().eq_ignore_ascii_case(other.host()) && one.port_u16() == other.port_u16()
}

pub(super) fn quoted(text: impl Display) -> String {
    format!("{:?}", text.to_string())
}
