//! Reduced service instead of failure: what a config says of fallbacks, backups, toggles and levels.

use super::{Bytes, Config, Layer, Route, check, document::Document, table::did_you_mean, texts::many};
use buttress::{
    ConfigError,
    core::config::{duration, duration_opt, format_duration},
    fallback::{self, FailoverConfig, LevelsConfig, StaleConfig, StaticResponse, ToggleConfig, Trigger, Triggers},
};
use check::{DAY, HOUR, WEEK, number, quoted, time};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// What is answered where a route's upstreams give no good answer. Without `static` and `stale`: nothing is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fallback {
    /// What is answered in place of: `refused`, `failure`, `overload`. Default: all of them.
    pub(crate) on: Triggers,
    /// An answer made beforehand.
    #[serde(rename = "static")]
    pub(crate) fixed: Option<StaticAnswer>,
    /// The last good answer.
    pub(crate) stale: Option<StaleAnswers>,
}

impl Default for Fallback {
    fn default() -> Self {
        Self { on: Triggers::ALL, fixed: None, stale: None }
    }
}

/// An answer made beforehand.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StaticAnswer {
    pub(crate) status: u16,
    /// Its body: the text, or a file, relative to the config's, which is read at the start.
    pub(crate) body: Option<String>,
    pub(crate) file: Option<PathBuf>,
    /// Its content type. Not set: what the file's name says; of a `body` plain text.
    #[serde(rename = "type")]
    pub(crate) content_type: Option<String>,
}

impl Default for StaticAnswer {
    fn default() -> Self {
        Self { status: 503, body: None, file: None, content_type: None }
    }
}

/// What is kept of good answers, and for how long it may be served.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StaleAnswers {
    /// How long after it became stale an answer may be served that does not say so itself (`stale-if-error`). Not set: no longer
    /// than answers say themselves.
    #[serde(with = "duration_opt")]
    pub(crate) max: Option<Duration>,
    /// Fresh answers are served without asking, and those within `stale-while-revalidate` while they are asked for anew.
    pub(crate) cache: bool,
    /// Bytes of all that is kept.
    pub(crate) bytes: Bytes,
    /// Bytes of one body; larger ones are not kept.
    pub(crate) body_bytes: Bytes,
}

impl Default for StaleAnswers {
    fn default() -> Self {
        Self { max: None, cache: false, bytes: Bytes(64 << 20), body_bytes: Bytes(1 << 20) }
    }
}

impl StaleAnswers {
    /// The config of the store of a route at `scope`; `gateway` names it in `Cache-Status`.
    pub(crate) fn config(&self, gateway: &str, scope: &str) -> StaleConfig {
        let config = StaleConfig::default()
            .name(scope.to_owned())
            .max_bytes(self.bytes.0)
            .max_body(usize::try_from(self.body_bytes.0).unwrap_or(usize::MAX))
            .max(self.max)
            .cache(self.cache);
        // A token of a structured field begins with a letter, one of HTTP need not.
        match gateway.starts_with(|c: char| c.is_ascii_alphabetic()) {
            true => config.cache_name(gateway.to_owned()),
            false => config,
        }
    }
}

/// Clusters that are asked where the route's own gives no good answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failover {
    /// In the order in which they are asked.
    #[serde(with = "many")]
    pub(crate) clusters: Vec<Name>,
    /// What is bad enough: `refused`, `failure`, `overload`. Default: the first two; "too much" is often one client's.
    #[serde(default = "on")]
    pub(crate) on: Triggers,
    /// How much of the time that is left a tier may take before the next is asked.
    #[serde(default = "share")]
    pub(crate) share: f64,
    /// So many bad answers of the first cluster in a row, and calls go to the next one at once.
    #[serde(default = "fail_after")]
    pub(crate) fail_after: u32,
    /// How often the first cluster is tried then.
    #[serde(with = "duration", default = "probe_every")]
    pub(crate) probe_every: Duration,
    /// So many good answers in a row, and calls return to it.
    #[serde(default = "return_after")]
    pub(crate) return_after: u32,
    /// Calls to one backup at once.
    #[serde(default)]
    pub(crate) max_concurrent: Option<u32>,
}

fn on() -> Triggers {
    [Trigger::Refused, Trigger::Failure].into_iter().collect()
}

fn share() -> f64 {
    0.5
}

fn fail_after() -> u32 {
    5
}

fn probe_every() -> Duration {
    Duration::from_secs(1)
}

fn return_after() -> u32 {
    3
}

/// The name of a cluster, in a list of them.
pub(crate) type Name = String;

impl super::texts::Text for String {
    const WHAT: &'static str = "a name";

    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn write(&self) -> String {
        self.clone()
    }
}

/// A feature that can be switched off: routes that name it are refused then, or get their fallback.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Toggle {
    /// The level from which on it is off.
    pub(crate) level: Option<String>,
    /// The first failure switches it off.
    pub(crate) first_failure: bool,
    /// So does this share of failed calls, of at least `min_calls` in `window`.
    pub(crate) failure_rate: Option<f64>,
    #[serde(with = "duration")]
    pub(crate) window: Duration,
    pub(crate) min_calls: u32,
    /// How it is switched on again.
    pub(crate) back: Back,
    /// How long it is off before it is tried.
    #[serde(with = "duration")]
    pub(crate) after: Duration,
    /// How many calls must succeed then (`back = "probe"`).
    pub(crate) successes: u32,
    /// Over which time the share of calls that it gets rises (`back = "ramp"`).
    #[serde(with = "duration")]
    pub(crate) over: Duration,
}

impl Default for Toggle {
    fn default() -> Self {
        Self {
            level: None,
            first_failure: false,
            failure_rate: None,
            window: Duration::from_secs(10),
            min_calls: 20,
            back: Back::Probe,
            after: Duration::from_secs(5),
            successes: 3,
            over: Duration::from_secs(30),
        }
    }
}

/// How a feature is switched on again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Back {
    /// Single calls try it.
    #[default]
    Probe,
    /// A share of the calls that rises.
    Ramp,
    /// An operator does it.
    Manual,
}

/// Levels of service, from the full one to the least.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Levels {
    /// Their names. None: there are no levels.
    pub(crate) order: Vec<String>,
    /// From which pressure on each but the first holds, from 0 to 1. Not set: at equal steps.
    pub(crate) at: Vec<f64>,
    /// How far below that the pressure falls before a level is left.
    pub(crate) hysteresis: f64,
    /// How long the pressure lasts before service gets a level worse.
    #[serde(with = "duration")]
    pub(crate) worse_after: Duration,
    /// And how long it is gone before it gets a level better.
    #[serde(with = "duration")]
    pub(crate) better_after: Duration,
    /// The clusters that make pressure: the largest share of endpoints whose circuits are open. None: all.
    #[serde(with = "many")]
    pub(crate) clusters: Vec<Name>,
    /// Whether `[pressure]`, of this process itself, is pressure as well.
    pub(crate) pressure: bool,
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            at: Vec::new(),
            hysteresis: 0.1,
            worse_after: Duration::from_secs(1),
            better_after: Duration::from_secs(5),
            clusters: Vec::new(),
            pressure: false,
        }
    }
}

impl Levels {
    /// The config of the crate's levels; `None`: there are none.
    pub(crate) fn config(&self) -> Option<LevelsConfig> {
        let (full, lesser) = self.order.split_first()?;
        let even = |place: usize| place as f64 / self.order.len() as f64;
        let levels = lesser.iter().enumerate().fold(LevelsConfig::new(full.clone()), |levels, (i, name)| {
            levels.level(name.clone(), self.at.get(i).copied().unwrap_or_else(|| even(i + 1)))
        });
        // Looked at often enough to notice in time.
        let every = (self.worse_after.min(self.better_after) / 4).clamp(MILLI, MILLI * 100);
        Some(
            levels
                .hysteresis(self.hysteresis)
                .worse_after(self.worse_after)
                .better_after(self.better_after)
                .every(every),
        )
    }
}

const MILLI: Duration = Duration::from_millis(1);

impl Toggle {
    /// The config of the crate's toggle.
    pub(crate) fn config(&self, name: &str) -> ToggleConfig {
        let back = match self.back {
            Back::Manual => fallback::Back::Manual,
            Back::Probe => fallback::Back::Probe { after: self.after, successes: self.successes },
            Back::Ramp => fallback::Back::Ramp { after: self.after, over: self.over },
        };
        ToggleConfig::new(name.to_owned())
            .first_failure(self.first_failure)
            .failure_rate(self.failure_rate)
            .window(self.window)
            .min_calls(self.min_calls)
            .back(back)
    }
}

impl Failover {
    /// The layer's config for `route`, whose place is `scope`.
    pub(crate) fn tiers(&self, route: &Route, scope: &str) -> FailoverConfig {
        FailoverConfig::default()
            .name(scope.to_owned())
            .primary(route.cluster.clone())
            .on(Vec::from(self.on))
            .share(self.share)
            .fail_after(self.fail_after)
            .probe_every(self.probe_every)
            .return_after(self.return_after)
            .max_body(route.retry.config.max_body)
    }
}

impl Route {
    /// Its fallback, where it has one.
    pub(crate) fn fallback(&self) -> Option<&Fallback> {
        let config = &self.fallback.config;
        (self.fallback.on && (config.fixed.is_some() || config.stale.is_some())).then_some(config)
    }

    /// All clusters that its calls may go to.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &String> {
        let canary = self.canary.iter().map(|canary| &canary.cluster);
        let backups = self.failover.iter().flat_map(|failover| &failover.clusters);
        [&self.cluster].into_iter().chain(canary).chain(backups)
    }
}

impl StaticAnswer {
    /// The answer, made.
    pub(crate) fn build(&self) -> Result<StaticResponse, ConfigError> {
        let made = match (&self.file, &self.body) {
            (Some(file), _) => StaticResponse::file(file)?,
            (None, body) => {
                let text = body.clone().unwrap_or_default();
                StaticResponse::new(200, "text/plain; charset=utf-8", text)?
            }
        };
        let made = made.status(self.status)?;
        match &self.content_type {
            Some(content_type) => made.content_type(content_type).map_err(|error| renamed(error, "type")),
            None => Ok(made),
        }
    }
}

/// The name that the config has for a field.
fn renamed(error: ConfigError, field: &'static str) -> ConfigError {
    ConfigError::new(field, error.value, error.allowed)
}

/// Says what is wrong with toggles and levels.
pub(super) fn config(document: &mut Document<'_>, config: &Config) {
    levels(document, config);
    for (name, toggle) in &config.toggles {
        check::name(document, "toggle", name);
        self::toggle(document, config, name, toggle);
    }
}

fn levels(document: &mut Document<'_>, config: &Config) {
    let levels = &config.levels;
    let path = |field| ["levels", field];
    if levels.order.is_empty() {
        // `order = []` is how a config without levels is written out.
        let is_meant = document.value_at(&["levels"]).is_some() && !document.is_written(&path("order"));
        if is_meant && !document.is_taken(&path("order")) {
            let allowed = "two levels or more, from full service to the least, as in [\"full\", \"static\"]";
            document.wrong(&path("order"), "empty", allowed);
        }
        return;
    }
    if !(2..=16).contains(&levels.order.len()) {
        document.wrong(&path("order"), format_args!("{} level(s)", levels.order.len()), "2 to 16 levels");
    }
    for (i, name) in levels.order.iter().enumerate() {
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            document.wrong(&path("order"), quoted(name), "names of 1 to 64 characters");
        }
        if levels.order[..i].contains(name) {
            document.wrong(&path("order"), format_args!("{} twice", quoted(name)), "each level once");
        }
    }
    if !levels.at.is_empty() {
        let wanted = levels.order.len() - 1;
        let rises = levels.at.windows(2).all(|pair| pair[0] < pair[1]);
        let fits = levels.at.iter().all(|at| *at > 0.0 && *at <= 1.0);
        if levels.at.len() != wanted || !rises || !fits {
            let allowed =
                format!("{wanted} numbers that rise, more than 0 and at most 1: one for each level but the first");
            document.wrong(&path("at"), format_args!("{:?}", levels.at), allowed);
        }
    }
    if let Err(error) = levels.config().map_or(Ok(()), |config| config.build().map(drop))
        && error.field == "hysteresis"
    {
        document.refused(&["levels"], &error);
    }
    for (field, span) in [("worse_after", levels.worse_after), ("better_after", levels.better_after)] {
        time(document, &path(field), span, HOUR);
    }
    for cluster in &levels.clusters {
        check::cluster_of(document, config, &path("clusters"), cluster);
    }
}

fn toggle(document: &mut Document<'_>, config: &Config, name: &str, toggle: &Toggle) {
    let at = |field| ["toggle", name, field];
    if let Some(level) = &toggle.level {
        let order = &config.levels.order;
        let is_less = order.iter().position(|known| known == level).is_some_and(|place| place > 0);
        if !is_less && !document.torn && !document.is_taken(&["levels"]) {
            let names: Vec<_> = order.iter().skip(1).map(quoted).collect();
            let allowed = match names.as_slice() {
                [] => "the name of a level; there is none, as in `[levels]` with `order = [\"full\", \"static\"]`"
                    .to_owned(),
                names => {
                    let similar = did_you_mean(level, order.iter().skip(1).map(String::as_str));
                    let similar = similar.map_or_else(String::new, |similar| format!("; {similar}"));
                    format!("the name of a level below the first: {}{similar}", names.join(", "))
                }
            };
            document.wrong(&at("level"), quoted(level), allowed);
        }
    }
    if let Some(rate) = toggle.failure_rate
        && !(rate > 0.0 && rate <= 1.0)
    {
        document.wrong(&at("failure_rate"), rate, "more than 0 and at most 1");
    }
    number(document, &at("min_calls"), toggle.min_calls, 1..=1_000_000);
    number(document, &at("successes"), toggle.successes, 1..=63);
    if !(Duration::from_secs(1)..=HOUR).contains(&toggle.window) {
        document.wrong(&at("window"), format_duration(toggle.window), "1s to 1h");
    }
    time(document, &at("after"), toggle.after, DAY);
    time(document, &at("over"), toggle.over, DAY);
    let reads = |route: &Route| route.toggle.as_deref() == Some(name);
    // A route that cannot be read may be the one.
    if !config.routes.values().any(reads) && !document.torn && !document.is_taken(&["route"]) {
        document.wrong(&["toggle", name], "read by nobody", "a toggle that a route names (`toggle = ..`)");
    }
}

/// Says what is wrong with what a route does instead of failing.
pub(super) fn route(document: &mut Document<'_>, config: &Config, name: &str, route: &Route) {
    if let Some(toggle) = &route.toggle
        && !config.toggles.contains_key(toggle)
        && !document.torn
        && !document.is_taken(&["toggle", toggle])
    {
        let names: Vec<_> = config.toggles.keys().map(quoted).collect();
        let similar = did_you_mean(toggle, config.toggles.keys().map(String::as_str));
        let allowed = match names.as_slice() {
            [] => format!("the name of a toggle; there is none, as in `[toggle.{toggle}]`"),
            names => format!("the name of a toggle: {}", names.join(", ")),
        };
        let similar = similar.map_or_else(String::new, |similar| format!("; {similar}"));
        document.wrong(&["route", name, "toggle"], quoted(toggle), allowed + &similar);
    }
    if let Some(failover) = &route.failover {
        self::failover(document, config, name, route, failover);
    }
}

fn failover(document: &mut Document<'_>, config: &Config, name: &str, route: &Route, failover: &Failover) {
    let at = |field| ["route", name, "failover", field];
    if failover.clusters.is_empty() {
        document.wrong(&at("clusters"), "an empty list", "at least one cluster");
    }
    if failover.clusters.len() > 8 {
        document.wrong(&at("clusters"), format_args!("{} clusters", failover.clusters.len()), "8 clusters at most");
    }
    if failover.on == Triggers::NONE {
        document.wrong(&at("on"), "an empty list", "at least one of \"refused\", \"failure\", \"overload\"");
    }
    for (i, backup) in failover.clusters.iter().enumerate() {
        let cluster = check::cluster_of(document, config, &at("clusters"), backup);
        if *backup == route.cluster {
            document.wrong(&at("clusters"), quoted(backup), "other clusters than the route's own");
        } else if failover.clusters[..i].contains(backup) {
            document.wrong(&at("clusters"), format_args!("{} twice", quoted(backup)), "each cluster once");
        } else {
            check::per_try(document, name, route, backup, cluster);
        }
    }
    if !(0.1..=0.9).contains(&failover.share) {
        document.wrong(&at("share"), failover.share, "0.1 to 0.9");
    }
    number(document, &at("fail_after"), failover.fail_after, 1..=1000);
    number(document, &at("return_after"), failover.return_after, 1..=1000);
    time(document, &at("probe_every"), failover.probe_every, HOUR);
    if let Some(most) = failover.max_concurrent {
        number(document, &at("max_concurrent"), most, 1..=1_000_000);
    }
}

/// Says what is wrong with the fallback of the route, or of a policy for routes, at `path`.
pub(super) fn fallback(document: &mut Document<'_>, path: &[&str], fallback: &Layer<Fallback>) {
    let path: Vec<_> = path.iter().copied().chain(["fallback"]).collect();
    let at = |kind, field| [&path[..], &[kind, field]].concat();
    if !fallback.on {
        return;
    }
    if let Some(fixed) = &fallback.config.fixed {
        match (&fixed.body, &fixed.file) {
            (Some(_), Some(_)) => document.wrong(&at("static", "file"), "beside a `body`", "one of `body` and `file`"),
            (None, None) if !document.has_lost(&[&path[..], &["static"]].concat()) => {
                let table = [&path[..], &["static"]].concat();
                document.wrong(&table, "without a body", "one of `body = \"..\"` and `file = \"sorry.html\"`");
            }
            (_, file) => match (fixed.build(), file) {
                (Ok(_), _) => {}
                (Err(error), Some(file)) if error.field == "file" => {
                    // By the name that was written.
                    let why = error.value.strip_prefix(&format!("{}: ", file.display())).unwrap_or(&error.value);
                    let allowed = format!("a file, relative to this one, that can be read: {why}");
                    check::wrong_file(document, &at("static", "file"), file, &allowed);
                }
                (Err(error), _) => document.refused(&[&path[..], &["static"]].concat(), &error),
            },
        }
    }
    if let Some(stale) = &fallback.config.stale {
        if let Some(max) = stale.max {
            time(document, &at("stale", "max"), max, WEEK);
        }
        let gib = |n: u64| Bytes(n << 30);
        number(document, &at("stale", "bytes"), stale.bytes, Bytes(64 << 10)..=gib(64));
        // Half of what is kept, where that is known.
        let is_known = stale.bytes >= Bytes(64 << 10) && !document.is_taken(&at("stale", "bytes"));
        let most = Bytes(if is_known { (stale.bytes.0 / 2).min(64 << 20) } else { 64 << 20 });
        number(document, &at("stale", "body_bytes"), stale.body_bytes, Bytes(1)..=most);
    }
}
