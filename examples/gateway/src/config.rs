//! The config file: what it may say, and what is wrong with it.

mod check;
mod degrade;
mod describe;
mod document;
mod files;
mod layers;
mod matches;
mod origin;
mod overload;
mod policy;
mod print;
mod problems;
mod read;
mod switch;
mod table;
#[cfg(test)]
mod tests;
mod texts;
mod tree;
mod value;
mod warn;

pub(crate) use degrade::{Failover, Fallback, Levels, Toggle};
pub(crate) use overload::{Gating, Pressure, RateKey, RateLimit, Source};
pub(crate) use problems::Problems;
pub(crate) use read::Loaded;
pub(crate) use switch::Layer;
pub(crate) use texts::{Bytes, Host};

use buttress::{
    BalanceConfig, BreakerConfig, BulkheadConfig, DeadlineConfig, Priority, RampedGateConfig, RetryConfig, ShedConfig,
    core::config::{duration, duration_opt},
};
use http::{HeaderName, Method, uri::Authority};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use texts::{many, one};

/// `gateway.toml`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Config {
    /// The name in `Via` and `Proxy-Status`; a request that has passed a proxy of this name is a loop. Not set: "buttress" and a
    /// few random letters.
    pub(crate) name: Option<String>,
    /// By name.
    #[serde(rename = "listener")]
    pub(crate) listeners: BTreeMap<String, Listener>,
    pub(crate) limits: Limits,
    pub(crate) drain: Drain,
    pub(crate) trust: Trust,
    pub(crate) admin: Admin,
    pub(crate) log: Log,
    pub(crate) pressure: Pressure,
    pub(crate) levels: Levels,
    /// By name.
    #[serde(rename = "toggle")]
    pub(crate) toggles: BTreeMap<String, Toggle>,
    /// By name. The only places requests are ever sent to.
    #[serde(rename = "cluster")]
    pub(crate) clusters: BTreeMap<String, Cluster>,
    /// By name.
    #[serde(rename = "route")]
    pub(crate) routes: BTreeMap<String, Route>,
}

/// An address that clients connect to.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    #[serde(with = "one")]
    pub(crate) address: SocketAddr,
    /// HTTPS. Without it HTTP/1 and HTTP/2 with prior knowledge are spoken in the clear.
    pub(crate) tls: Option<ListenerTls>,
}

/// Files in PEM, relative to the config's.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerTls {
    /// The certificate and those that signed it, its own first.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What clients may send, and how long they may take.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Connections at once, over all listeners; more wait in the kernel's queue.
    pub(crate) connections: usize,
    /// Connections at once from one IPv4 address, or IPv6 /64, that is no trusted proxy; more are closed.
    pub(crate) connections_per_client: Option<usize>,
    /// Requests at once on an HTTP/2 connection.
    pub(crate) streams: u32,
    /// Fields of a request head.
    pub(crate) headers: usize,
    /// Bytes of a request head, its target included.
    pub(crate) header_bytes: Bytes,
    /// Bytes of a request's target.
    pub(crate) uri_bytes: Bytes,
    /// Bytes of a request body. Not set: any number; it is never kept as a whole.
    pub(crate) body_bytes: Option<Bytes>,
    /// Bytes of a request body of a declared length that is read before its call begins, so that a slow client has no place in a
    /// bulkhead meanwhile; longer ones stream. Neither gRPC nor what waits for `100 Continue` is held back.
    pub(crate) buffer_bytes: Bytes,
    /// How long a client may take to send a request head, and how long an idle connection is kept.
    #[serde(with = "duration")]
    pub(crate) header_timeout: Duration,
    /// How long a client may send nothing of a request body that an upstream waits for. Not set: 10s, or less where a
    /// deadline would accuse the upstream before: four fifths of `per_try` and of `total`.
    #[serde(with = "duration_opt")]
    pub(crate) body_timeout: Option<Duration>,
    /// How long a client may take nothing of an answer.
    #[serde(with = "duration")]
    pub(crate) write_timeout: Duration,
    /// How long a tunnel (a WebSocket) may be silent in both directions.
    #[serde(with = "duration")]
    pub(crate) tunnel_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_client: None,
            streams: 200,
            headers: 100,
            header_bytes: Bytes(32 << 10),
            uri_bytes: Bytes(8 << 10),
            body_bytes: None,
            buffer_bytes: Bytes(64 << 10),
            header_timeout: Duration::from_secs(10),
            body_timeout: None,
            write_timeout: Duration::from_secs(30),
            tunnel_idle: Duration::from_secs(600),
        }
    }
}

/// How it ends.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Drain {
    /// How long new connections are still accepted, so that balancers can notice.
    #[serde(with = "duration")]
    pub(crate) min: Duration,
    /// When what is still in flight is aborted.
    #[serde(with = "duration")]
    pub(crate) max: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { min: Duration::from_millis(200), max: Duration::from_secs(30) }
    }
}

/// Whose word about a request is taken.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Trust {
    /// The networks of proxies in front of this one: what they say of a request is kept and added to. What anybody else says is
    /// replaced.
    #[serde(with = "many")]
    pub(crate) proxies: Vec<IpNet>,
    /// The header that says how important a request is: `critical`, `normal` or `sheddable`. From anybody but a trusted proxy it
    /// can only lower it.
    #[serde(with = "one")]
    pub(crate) priority_header: HeaderName,
}

impl Default for Trust {
    fn default() -> Self {
        Self { proxies: Vec::new(), priority_header: HeaderName::from_static("x-priority") }
    }
}

/// The admin listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    #[serde(with = "one")]
    pub(crate) address: SocketAddr,
    /// A file that holds the token that requests must bear (`Authorization: Bearer ..`). Not set: nobody is asked, and the
    /// address must be a loopback one.
    pub(crate) token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, 9901).into(), token_file: None }
    }
}

impl Admin {
    /// The token that requests must bear, if they must.
    pub(crate) fn token(&self) -> io::Result<Option<String>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| io::Error::new(error.kind(), format!("`admin.token_file` {}: {error}", path.display())))?;
        Ok(Some(text.trim().to_owned()))
    }
}

/// What is written to standard error.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    /// Which requests get a line.
    pub(crate) access: Access,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Which requests get a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Access {
    Off,
    /// Those that were refused or failed.
    #[default]
    Failed,
    All,
}

/// Endpoints that can stand for each other, and the layers around them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// `host:port` of each.
    #[serde(with = "many")]
    pub(crate) endpoints: Vec<Authority>,
    /// Whose `cluster` tables hold where this one says nothing.
    pub(crate) policy: Option<String>,
    /// HTTPS.
    pub(crate) tls: Option<ClusterTls>,
    /// Speaks HTTP/2, and not HTTP/1: what gRPC servers do. Without TLS by prior knowledge.
    #[serde(default)]
    pub(crate) http2: bool,
    #[serde(with = "duration", default = "second")]
    pub(crate) connect_timeout: Duration,
    /// How long an unused connection is kept.
    #[serde(with = "duration", default = "pool_idle")]
    pub(crate) pool_idle: Duration,
    /// How many calls may be under way at once: found out, with a queue by importance. One limit for the cluster.
    #[serde(default)]
    pub(crate) shed: Layer<ShedConfig>,
    /// What share of the calls passes while the cluster as a whole fails, where there are several endpoints.
    #[serde(default)]
    pub(crate) gate: Layer<RampedGateConfig>,
    /// How calls are spread, where there are several endpoints.
    #[serde(default)]
    pub(crate) balance: BalanceConfig,
    #[serde(default)]
    pub(crate) breaker: Layer<BreakerConfig>,
    #[serde(default)]
    pub(crate) bulkhead: Layer<BulkheadConfig>,
    /// `per_try`, above all.
    #[serde(default)]
    pub(crate) deadline: Layer<DeadlineConfig>,
}

/// How an endpoint proves who it is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClusterTls {
    /// The authorities that are believed, in PEM, relative to the config's file. Not set: the system's.
    pub(crate) ca: Option<PathBuf>,
    /// The name it must prove. Not set: the endpoint's host.
    pub(crate) server_name: Option<String>,
}

/// What an attempt's deadline is where nobody says anything else: what remains of it is told to gRPC servers.
const CLUSTER_DEADLINE: &str = "emit = { grpc_timeout = true }";

/// What a call's deadline is where nobody says anything else: `grpc-timeout` may make it shorter.
const ROUTE_DEADLINE: &str = "total = \"30s\"\nread = { grpc_timeout = true }";

/// A circuit closes by degrees: who has just come back has cold caches and no connections.
const BREAKER: &str = "ramp = {}";

/// A place is given back with the head. What is found out is how many calls a cluster can work on, and it works on a call until
/// its head is there; a limit that streams and tunnels hold for hours would be full of those who need nothing, and let in no
/// call that could show that there is room. Bodies hold their places in the bulkheads.
///
/// So few calls as `min` are never too many: one endpoint of several that hangs, or is busy, makes the whole cluster look slow,
/// and there is little to learn from a handful of calls.
const SHED: &str = "release = \"head\"\nlimit = { adaptive = { min = 20 } }";

/// More than a crate lets through that cannot know what is behind it.
const BULKHEAD: &str = "limit = 256";

fn second() -> Duration {
    Duration::from_secs(1)
}

fn pool_idle() -> Duration {
    Duration::from_secs(20)
}

/// Which requests go where, and the layers around them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// None: any.
    #[serde(with = "many", default)]
    pub(crate) hosts: Vec<Host>,
    /// `/api` takes `/api` and everything below it.
    pub(crate) prefix: Option<String>,
    /// A whole path, as a template: `/users/{id}`, `/files/{*rest}`.
    pub(crate) path: Option<String>,
    /// None: any.
    #[serde(with = "many", default)]
    pub(crate) methods: Vec<Method>,
    /// Headers a request must have, with the value each must have; `"*"`: any.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// The name of a cluster.
    pub(crate) cluster: String,
    /// Another one that gets a share of the calls.
    pub(crate) canary: Option<Canary>,
    /// Others that are asked where it gives no good answer.
    pub(crate) failover: Option<Failover>,
    /// The name of a toggle: where that is off, nothing is called.
    pub(crate) toggle: Option<String>,
    /// Whose `route` tables hold where this one says nothing.
    pub(crate) policy: Option<String>,
    #[serde(default)]
    pub(crate) priority: Priority,
    /// In place of `limits.body_bytes`.
    pub(crate) body_bytes: Option<Bytes>,
    /// The protocols that connections may be upgraded to.
    #[serde(default = "websocket")]
    pub(crate) upgrades: Vec<String>,
    /// How many requests a client, or a tenant, may send. Not set: any number.
    pub(crate) rate_limit: Option<RateLimit>,
    /// What is answered in place of a bad answer.
    #[serde(default)]
    pub(crate) fallback: Layer<Fallback>,
    /// `total`, above all.
    #[serde(default)]
    pub(crate) deadline: Layer<DeadlineConfig>,
    #[serde(default)]
    pub(crate) bulkhead: Layer<BulkheadConfig>,
    #[serde(default)]
    pub(crate) retry: Layer<RetryConfig>,
}

impl Route {
    /// Its prefix or template, as it is written.
    pub(crate) fn pattern(&self) -> &str {
        self.path.as_deref().or(self.prefix.as_deref()).unwrap_or("/")
    }
}

fn websocket() -> Vec<String> {
    vec!["websocket".to_owned()]
}

/// A cluster that gets a share of a route's calls, as long as it fails no more than the other.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Canary {
    /// The name of a cluster.
    pub(crate) cluster: String,
    /// In percent of the calls.
    pub(crate) weight: f64,
    /// By how much its failure rate may exceed the other's before it gets no calls any more.
    #[serde(default = "margin")]
    pub(crate) margin: f64,
    /// What the rates are made of.
    #[serde(with = "duration", default = "canary_window")]
    pub(crate) window: Duration,
    /// How many calls there must be of each before they are compared.
    #[serde(default = "canary_calls")]
    pub(crate) min_calls: u32,
}

fn margin() -> f64 {
    0.05
}

fn canary_window() -> Duration {
    Duration::from_secs(60)
}

fn canary_calls() -> u32 {
    100
}

impl Config {
    /// Reads a file and judges it: of what it returns a gateway can be built.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Loaded, Problems> {
        let text = std::fs::read_to_string(path).map_err(|error| Problems::unreadable(path, &error))?;
        read::read(path, &text, path.parent().unwrap_or(Path::new("")))
    }

    /// The same for a text; files are relative to the current folder.
    pub(crate) fn parse(text: &str) -> Result<Self, Problems> {
        read::read(Path::new("config"), text, Path::new("")).map(|loaded| loaded.config)
    }

    /// What it comes to, defaults included.
    pub(crate) fn chains(&self) -> impl fmt::Display {
        describe::Chains(self)
    }

    /// The retries of `route`. One that waits for its turn holds a place in the route's bulkhead: unless the file says otherwise,
    /// a quarter of the places at most, so that one bad path, and its long `Retry-After`, does not close the route for all others.
    pub(crate) fn retry(&self, route: &Route) -> RetryConfig {
        let mut retry = route.retry.config.clone();
        if retry.budget.max_concurrent.is_none() && route.bulkhead.on {
            retry.budget.max_concurrent = Some((route.bulkhead.config.limit / 4).max(1));
        }
        retry
    }

    /// How long the clients of `route` may send nothing of a request body.
    pub(crate) fn body_timeout(&self, route: &Route) -> Duration {
        self.limits.body_timeout.unwrap_or_else(|| {
            let deadlines = route.clusters().filter_map(|name| Some(&self.clusters.get(name)?.deadline));
            let per_try = deadlines.filter(|deadline| deadline.on).map(|deadline| deadline.config.per_try);
            let ends = per_try.chain([route.deadline.config.total.filter(|_| route.deadline.on)]);
            // Before the deadline, so that a client hears what it did. A fifth is left for what came before it fell silent.
            let ends = ends.flatten().map(|after| after / 5 * 4);
            ends.fold(Duration::from_secs(10), Duration::min)
        })
    }
}

impl Loaded {
    /// What holds, as TOML.
    pub(crate) fn effective(&self, origin: bool) -> impl fmt::Display {
        print::Effective { config: &self.config, origins: origin.then_some(&self.origins) }
    }
}
