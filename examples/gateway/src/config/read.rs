//! A text to a config, or everything that stands in the way.

use super::{
    Admin, Cluster, Config, Drain, Levels, Limits, Listener, Log, Pressure, Route, Toggle, Trust, check,
    document::{Document, NAMED},
    layers,
    origin::Origins,
    policy::{Kind, Policies},
    problems::{Problems, Severity},
    table::{did_you_mean, unknown},
    value::fields_of,
    warn,
};
use buttress::RampedGateConfig;
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};
use toml::{Spanned, de::DeTable};

/// A config that was judged, and found good.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// What is allowed, and yet hardly meant.
    pub(crate) warnings: Problems,
    pub(crate) origins: Origins,
}

const SECTIONS: [&str; 13] = [
    "name", "listener", "limits", "drain", "trust", "admin", "log", "pressure", "levels", "toggle", "policy",
    "cluster", "route",
];

/// Reads and judges. Files are relative to `folder`.
pub(super) fn read(path: &Path, text: &str, folder: &Path) -> Result<Loaded, Problems> {
    let mut document = Document::parse(text);
    document.unknown_sections();
    let mut policies = Policies::take(&mut document);
    let mut config = Config {
        name: document.scalar::<Option<String>>("name").flatten(),
        listeners: document.named::<Listener>("listener", &[("address", "0.0.0.0:0")], &hints(None)),
        limits: document.single::<Limits>("limits"),
        drain: document.single::<Drain>("drain"),
        trust: document.single::<Trust>("trust"),
        admin: document.single::<Admin>("admin"),
        log: document.single::<Log>("log"),
        pressure: document.single::<Pressure>("pressure"),
        levels: document.single::<Levels>("levels"),
        toggles: document.named::<Toggle>("toggle", &[], &hints(None)),
        clusters: document.inheriting::<Cluster>(Kind::Cluster, &mut policies),
        routes: document.inheriting::<Route>(Kind::Route, &mut policies),
    };
    resolve(&mut config, folder);
    hang_alike(&document, &mut config);
    layers::policies(&mut document, &policies);
    check::config(&mut document, &config);
    warn::config(&mut document, &config);
    for name in policies.unused() {
        let message = format!("`policy.{name}` holds for nobody");
        document.warn(&["policy", name], message, "name it in a route or a cluster (`policy = ..`), or take it out");
    }
    let origins = Origins::of(&document, path);
    let found = document.into_found();
    let is_good = found.iter().all(|diagnostic| diagnostic.severity == Severity::Warning);
    let problems = Problems::of(path, text, found);
    if is_good { Ok(Loaded { config, warnings: problems, origins }) } else { Err(problems) }
}

impl<'t> Document<'t> {
    fn unknown_sections(&mut self) {
        let strangers: Vec<_> =
            self.root.keys().filter(|key| !SECTIONS.contains(&key.get_ref().as_ref())).cloned().collect();
        for key in strangers {
            let name = key.get_ref().as_ref();
            let misplaced =
                fields_of::<Limits>().contains(&name).then(|| format!("write it in `[limits]`: `{name} = ..`"));
            let fix = misplaced.or_else(|| did_you_mean(name, SECTIONS.into_iter()));
            let known = SECTIONS.iter().map(|name| match NAMED.contains(name) {
                true => format!("`[{name}.NAME]`"),
                false => format!("`{name}`"),
            });
            self.push(unknown(name, fix, known).at(key.span()));
            self.root.remove(name);
        }
    }

    fn single<T: Default + DeserializeOwned>(&mut self, name: &'static str) -> T {
        let Some(table) = self.take_table(name, "a table") else { return T::default() };
        let span = table.span();
        let mut table = table.into_inner();
        let read = self.read(&[name], &span, &mut table, &[], &hints(None));
        self.put(name, Spanned::new(span, table));
        read.unwrap_or_default()
    }

    /// Reads every entry of a section by itself.
    fn entries<T>(
        &mut self,
        section: &'static str,
        mut read: impl FnMut(&mut Self, &str, &Range<usize>, &mut DeTable<'t>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let mut all = BTreeMap::new();
        let Some(table) = self.take_table(section, &format!("tables with names, as in `[{section}.NAME]`")) else {
            return all;
        };
        let span = table.span();
        let mut kept = DeTable::new();
        for (key, value) in table.into_inner() {
            let value_span = value.span();
            let name = key.get_ref().to_string();
            let allowed = format!("a table, as in `[{section}.{name}]`");
            let Some(table) = self.as_table(&[section, &name], value, &allowed) else { continue };
            let mut table = table.into_inner();
            if let Some(entry) = read(self, &name, &value_span, &mut table) {
                all.insert(name, entry);
            }
            kept.insert(key, Spanned::new(value_span, toml::de::DeValue::Table(table)));
        }
        self.put(section, Spanned::new(span, kept));
        all
    }

    fn named<T: DeserializeOwned>(
        &mut self,
        section: &'static str,
        required: &[(&'static str, &'static str)],
        hints: &dyn Fn(&[&str], &str) -> Option<String>,
    ) -> BTreeMap<String, T> {
        self.entries(section, |document, name, span, table| {
            document.read(&[section, name], span, table, required, hints)
        })
    }

    fn inheriting<T: DeserializeOwned>(&mut self, kind: Kind, policies: &mut Policies<'t>) -> BTreeMap<String, T> {
        self.entries(kind.name(), |document, name, span, table| {
            *table = policies.inherit(document, kind, name, table);
            document.read(&[kind.name(), name], span, table, kind.required(), &hints(Some(kind)))
        })
    }
}

/// Where an unknown field of an entry of `kind`, or of a policy for it, would be known.
pub(super) fn hints(kind: Option<Kind>) -> impl Fn(&[&str], &str) -> Option<String> {
    move |table, name| {
        let kind = kind?;
        let other = kind.other();
        let within = match table {
            ["policy", policy, _] => format!("policy.{policy}.{}", other.name()),
            [_, _] => format!("{}.NAME", other.name()),
            _ => return None,
        };
        if !other.fields().contains(&name) {
            return None;
        }
        let place = match name {
            "breaker" | "balance" | "gate" | "rate_limit" | "retry" | "shed" => format!("`[{within}.{name}]`"),
            _ => format!("`[{within}]`"),
        };
        Some(format!("`{name}` belongs to a {}: {place}", other.name()))
    }
}

/// What takes long is what its operator says of the breakers: a gate that nothing is said of believes the same, or it would shut out a
/// cluster that is slow and well.
fn hang_alike(document: &Document<'_>, config: &mut Config) {
    for (name, cluster) in &mut config.clusters {
        let hang_after = cluster.breaker.config.effective_hang_after();
        // One that no breaker may have is said of the breaker.
        let is_allowed = RampedGateConfig::default().hang_after(hang_after).build().is_ok();
        if is_allowed && !document.is_written(&["cluster", name, "gate", "hang_after"]) {
            cluster.gate.config.hang_after = hang_after;
        }
    }
}

/// Files are found whatever the current folder is later.
fn resolve(config: &mut Config, folder: &Path) {
    let absolute = |path: &mut PathBuf| {
        let joined = folder.join(&path);
        *path = std::path::absolute(&joined).unwrap_or(joined);
    };
    for tls in config.listeners.values_mut().filter_map(|listener| listener.tls.as_mut()) {
        absolute(&mut tls.certificate);
        absolute(&mut tls.key);
    }
    let authorities = config.clusters.values_mut().filter_map(|cluster| cluster.tls.as_mut()?.ca.as_mut());
    let fallbacks = config.routes.values_mut().filter_map(|route| route.fallback.config.fixed.as_mut()?.file.as_mut());
    authorities.chain(config.admin.token_file.as_mut()).chain(fallbacks).for_each(absolute);
}
