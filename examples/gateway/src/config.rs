//! The config file: what it may say, and what is wrong with it.

mod describe;
mod parse;
mod switch;

pub(crate) use switch::Layer;

use buttress::{
    BalanceConfig, BreakerConfig, BulkheadConfig, ConfigError, DeadlineConfig, RetryConfig,
    core::config::{duration, duration_opt, format_duration},
    deadline::Headers,
};
use http::uri::Authority;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// `gateway.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) server: Server,
    #[serde(default)]
    pub(crate) admin: Admin,
    /// By name. The only places requests are ever sent to.
    pub(crate) upstream: BTreeMap<String, Upstream>,
    /// By name.
    pub(crate) route: BTreeMap<String, Route>,
}

/// The public listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    #[serde(deserialize_with = "address")]
    pub(crate) listen: SocketAddr,
    /// Connections at once; more wait in the kernel's queue.
    pub(crate) max_connections: usize,
    /// How long a client may take to send a request head.
    #[serde(with = "duration")]
    pub(crate) header_timeout: Duration,
    /// How long a client may send nothing of a request body that an upstream waits for. Not set: 10s, or less where the
    /// upstream would be accused before: by its breaker's `hang_after`, by `per_try`, by `total`.
    #[serde(with = "duration_opt")]
    pub(crate) body_timeout: Option<Duration>,
    /// After SIGTERM: how long new connections are still accepted, so that balancers can notice.
    #[serde(with = "duration")]
    pub(crate) drain_min: Duration,
    /// After SIGTERM: when what is still in flight is aborted.
    #[serde(with = "duration")]
    pub(crate) drain_max: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            max_connections: 10_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: None,
            drain_min: Duration::from_millis(200),
            drain_max: Duration::from_secs(30),
        }
    }
}

/// The admin listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    #[serde(deserialize_with = "address")]
    pub(crate) listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 9901).into() }
    }
}

/// A place to send requests to, and the layers around it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upstream {
    /// `host:port`, or several of them: its endpoints.
    #[serde(deserialize_with = "authorities")]
    pub(crate) address: Vec<Authority>,
    /// Speaks HTTP/2 without TLS, and nothing else (prior knowledge): what gRPC servers do.
    #[serde(default)]
    pub(crate) http2: bool,
    #[serde(with = "duration", default = "second")]
    pub(crate) connect_timeout: Duration,
    /// How long an unused connection is kept.
    #[serde(with = "duration", default = "pool_idle")]
    pub(crate) pool_idle: Duration,
    /// How calls are spread, where there are several endpoints.
    #[serde(default)]
    pub(crate) balance: BalanceConfig,
    #[serde(default)]
    pub(crate) breaker: Layer<BreakerConfig>,
    #[serde(default)]
    pub(crate) bulkhead: Layer<BulkheadConfig>,
    /// `per_try`, above all.
    #[serde(default = "per_try")]
    pub(crate) deadline: Layer<DeadlineConfig>,
}

/// What remains of a deadline is told to gRPC servers.
fn per_try() -> Layer<DeadlineConfig> {
    Layer::on(DeadlineConfig::default().emit(Headers::new()))
}

/// `grpc-timeout` may make it shorter.
fn total() -> Layer<DeadlineConfig> {
    Layer::on(DeadlineConfig::new(Duration::from_secs(30)).read(Headers::new()))
}

fn second() -> Duration {
    Duration::from_secs(1)
}

fn pool_idle() -> Duration {
    Duration::from_secs(20)
}

/// Which requests go where, and the layers around them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// `/api` takes `/api` and everything below it; the longest prefix wins.
    pub(crate) prefix: String,
    /// The name of an upstream.
    pub(crate) upstream: String,
    /// `total`, above all.
    #[serde(default = "total")]
    pub(crate) deadline: Layer<DeadlineConfig>,
    #[serde(default)]
    pub(crate) bulkhead: Layer<BulkheadConfig>,
    #[serde(default)]
    pub(crate) retry: Layer<RetryConfig>,
}

impl Config {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(path).map_err(|error| Problems::one(path, error))?;
        let config = Self::parse(&text).map_err(|errors| Problems::new(path, errors))?;
        let errors = config.errors();
        if errors.is_empty() { Ok(config) } else { Err(Problems::new(path, errors)) }
    }

    /// Reads a text; whether its values make sense is not asked.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<String>> {
        parse::parse(text)
    }

    /// What it comes to, defaults included.
    pub(crate) fn chains(&self) -> impl fmt::Display {
        describe::Chains(self)
    }

    /// What is allowed, and yet hardly meant.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let unused = |name: &&String| !self.route.values().any(|route| route.upstream == **name);
        self.upstream.keys().filter(unused).map(|name| format!("no route leads to `upstream.{name}`")).collect()
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
        self.server.body_timeout.unwrap_or_else(|| {
            let upstream = self.upstream.get(&route.upstream);
            let ends = [
                upstream.filter(|u| u.deadline.on).and_then(|u| u.deadline.config.per_try),
                route.deadline.config.total.filter(|_| route.deadline.on),
            ];
            // Before the deadline, so that a client hears what it did. A fifth is left for what came before it fell silent.
            let ends = ends.into_iter().flatten().map(|after| after / 5 * 4);
            ends.fold(Duration::from_secs(10), Duration::min)
        })
    }

    /// Everything that is wrong.
    fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let positive = "more than 0s";
        for (field, value) in [
            ("header_timeout", Some(self.server.header_timeout)),
            ("body_timeout", self.server.body_timeout),
            ("drain_max", Some(self.server.drain_max)),
        ] {
            if let Some(value) = value.filter(Duration::is_zero) {
                errors.push(ConfigError::duration(field, value, positive).within("server"));
            }
        }
        if !(1..=1_000_000).contains(&self.server.max_connections) {
            errors.push(ConfigError::new("server.max_connections", self.server.max_connections, "1 to 1000000"));
        }
        if self.server.drain_min > self.server.drain_max {
            errors.push(ConfigError::duration(
                "server.drain_min",
                self.server.drain_min,
                format!("at most `server.drain_max`, {}", format_duration(self.server.drain_max)),
            ));
        }
        if !self.admin.listen.ip().is_loopback() {
            let allowed = "a loopback address (127.0.0.1, [::1]): the admin pages have no access control";
            errors.push(ConfigError::new("admin.listen", self.admin.listen, allowed));
        }
        let (public, admin) = (self.server.listen, self.admin.listen);
        if admin.port() != 0
            && admin.port() == public.port()
            && (admin.ip() == public.ip() || public.ip().is_unspecified())
        {
            let allowed = "an address of its own; `server.listen` has this one";
            errors.push(ConfigError::new("admin.listen", self.admin.listen, allowed));
        }
        let mut table = |parent: &str, name: &str, table: &str, error: Option<ConfigError>| {
            errors.extend(error.map(|error| error.within(format_args!("{parent}.{name}.{table}"))));
        };
        for (name, upstream) in &self.upstream {
            table("upstream", name, "balance", upstream.balance.clone().build().err());
            table("upstream", name, "breaker", upstream.breaker.config.clone().build().err());
            table("upstream", name, "bulkhead", upstream.bulkhead.config.clone().build().err());
            table("upstream", name, "deadline", upstream.deadline.config.clone().build().err());
        }
        for (name, route) in &self.route {
            table("route", name, "deadline", route.deadline.config.clone().build().err());
            table("route", name, "bulkhead", route.bulkhead.config.clone().build().err());
            table("route", name, "retry", route.retry.config.clone().build().err());
        }
        for (name, upstream) in &self.upstream {
            if upstream.connect_timeout.is_zero() {
                errors.push(
                    ConfigError::duration("connect_timeout", upstream.connect_timeout, positive)
                        .within(format_args!("upstream.{name}")),
                );
            }
        }
        if self.route.is_empty() {
            errors.push(ConfigError::new("route", "empty", "at least one route, as in `[route.api]`"));
        }
        for (name, route) in &self.route {
            if !route.prefix.starts_with('/') {
                let allowed = "a path that begins with `/`";
                errors.push(ConfigError::new(format!("route.{name}.prefix"), quoted(&route.prefix), allowed));
            }
            if let Some((other, _)) =
                self.route.iter().find(|(other, r)| *other < name && prefix(&r.prefix) == prefix(&route.prefix))
            {
                let allowed = format!("a prefix of its own; `route.{other}` has this one");
                errors.push(ConfigError::new(format!("route.{name}.prefix"), quoted(&route.prefix), allowed));
            }
            let Some(upstream) = self.upstream.get(&route.upstream) else {
                let names: Vec<_> = self.upstream.keys().map(|name| quoted(name)).collect();
                let allowed = format!("the name of an upstream: {}", names.join(", "));
                errors.push(ConfigError::new(format!("route.{name}.upstream"), quoted(&route.upstream), allowed));
                continue;
            };
            if let (Some(per_try), Some(total)) = (upstream.deadline.config.per_try, route.deadline.config.total)
                && per_try >= total
                && upstream.deadline.on
                && route.deadline.on
            {
                let field = format!("upstream.{}.deadline.per_try", route.upstream);
                let allowed = format!("less than `route.{name}.deadline.total`, {}", format_duration(total));
                errors.push(ConfigError::duration(field, per_try, allowed));
            }
        }
        errors
    }
}

/// The prefix without the slash at its end: `/api/` and `/api` are the same.
pub(crate) fn prefix(text: &str) -> &str {
    text.trim_end_matches('/')
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!("{text:?} is not an address, allowed: an IP and a port, as in \"127.0.0.1:8080\""))
    })
}

fn authorities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Authority>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<Authority>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("host:port, or a list of them")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Authority>, E> {
            authority(text).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Authority>, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = list.next_element::<String>()? {
                let one = authority(&text)?;
                let is_same = |other: &Authority| other.host() == one.host() && other.port_u16() == one.port_u16();
                if all.iter().any(is_same) {
                    return Err(A::Error::custom(format!("{text:?} stands there twice, allowed: each endpoint once")));
                }
                all.push(one);
            }
            if all.is_empty() {
                return Err(A::Error::custom("an empty list, allowed: at least one endpoint"));
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

fn authority<E: Error>(text: &str) -> Result<Authority, E> {
    let authority = text.parse::<Authority>().ok();
    authority
        .filter(|a| a.port_u16().is_some_and(|port| port > 0) && !a.as_str().contains('@'))
        .ok_or_else(|| E::custom(format!("{text:?} is not an upstream, allowed: host:port, as in \"127.0.0.1:9001\"")))
}

/// What is wrong with a file, one line each.
#[derive(Debug)]
pub(crate) struct Problems {
    path: PathBuf,
    texts: Vec<String>,
}

impl Problems {
    pub(crate) fn new(path: &Path, errors: Vec<impl ToString>) -> Self {
        Self { path: path.into(), texts: errors.iter().map(ToString::to_string).collect() }
    }

    pub(crate) fn one(path: &Path, error: impl fmt::Display) -> Self {
        Self { path: path.into(), texts: vec![error.to_string()] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, text) in self.texts.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}: {}", self.path.display(), text.trim_end())?;
        }
        Ok(())
    }
}
