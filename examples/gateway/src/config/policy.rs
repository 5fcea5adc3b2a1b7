//! Policies: tables that entries inherit, key by key.

use super::{
    Cluster, Route,
    document::{Document, NOWHERE},
    problems::Diagnostic,
    table::{did_you_mean, stand_in, unknown},
    value::fields_of,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Holds for the entries that name none.
pub(super) const DEFAULT: &str = "default";

/// Whom a table of a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Route,
    Cluster,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Route, Self::Cluster];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Cluster => "cluster",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Route => Self::Cluster,
            Self::Cluster => Self::Route,
        }
    }

    /// What tells one entry from another: no policy can say it.
    pub(super) fn identity(self) -> &'static [&'static str] {
        match self {
            Self::Route => {
                &["hosts", "prefix", "path", "methods", "headers", "cluster", "canary", "failover", "policy"]
            }
            Self::Cluster => &["endpoints", "tls", "policy"],
        }
    }

    pub(super) fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Route => fields_of::<Route>(),
            Self::Cluster => fields_of::<Cluster>(),
        }
    }

    /// What must be there, with what stands in for it where it is not.
    pub(super) fn required(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Route => &[("cluster", "")],
            Self::Cluster => &[("endpoints", "[]")],
        }
    }

    fn layers(self) -> &'static [&'static str] {
        match self {
            Self::Route => &["rate_limit", "fallback", "deadline", "bulkhead", "retry"],
            Self::Cluster => &["shed", "gate", "balance", "breaker", "bulkhead", "deadline"],
        }
    }

    /// What a layer's table has before anybody writes one, beyond the defaults of its config.
    fn layer(self, name: &str) -> DeTable<'static> {
        let text = match (self, name) {
            (Self::Route, "deadline") => super::ROUTE_DEADLINE,
            (Self::Cluster, "deadline") => super::CLUSTER_DEADLINE,
            (Self::Cluster, "breaker") => super::BREAKER,
            (Self::Cluster, "shed") => super::SHED,
            (_, "bulkhead") => super::BULKHEAD,
            _ => "",
        };
        let (table, _) = DeTable::parse_recoverable(text);
        from_nowhere(&table.into_inner())
    }

    fn built_in(self) -> DeTable<'static> {
        let layer = |name: &&'static str| {
            let table = self.layer(name);
            let key = Spanned::new(NOWHERE, Cow::Borrowed(*name));
            (!table.is_empty()).then(|| (key, Spanned::new(NOWHERE, DeValue::Table(table))))
        };
        self.layers().iter().filter_map(layer).collect()
    }
}

fn from_nowhere(table: &DeTable<'static>) -> DeTable<'static> {
    let value = |value: &Spanned<DeValue<'static>>| match value.get_ref() {
        DeValue::Table(table) => DeValue::Table(from_nowhere(table)),
        other => other.clone(),
    };
    let entries =
        table.iter().map(|(k, v)| (Spanned::new(NOWHERE, k.get_ref().clone()), Spanned::new(NOWHERE, value(v))));
    entries.collect()
}

/// What a cluster's limit of calls comes to that is said `over` another one. A number replaces whatever was there, and an adaptive limit
/// all but its like: of that it changes what it names, as a layer's table does. The word alone stands for the built-in one.
fn limit<'t>(under: Option<DeValue<'t>>, over: &Spanned<DeValue<'t>>) -> Spanned<DeValue<'t>> {
    const ADAPTIVE: &str = "adaptive";
    let take = |limit: Option<DeValue<'t>>| match limit {
        Some(DeValue::Table(mut limit)) => limit.remove(ADAPTIVE).map(Spanned::into_inner),
        _ => None,
    };
    let said = over.get_ref().as_table().filter(|limit| limit.len() == 1);
    let (under, own, place) = match said.and_then(|limit| limit.get_key_value(ADAPTIVE)) {
        Some((_, own)) => (take(under), own.get_ref().as_table(), own.span()),
        None => (None, None, over.span()),
    };
    if own.is_none() && over.get_ref().as_str() != Some(ADAPTIVE) {
        return over.clone();
    }
    let built_in = || take(Kind::Cluster.layer("shed").remove("limit").map(Spanned::into_inner));
    let mut table = match under.or_else(built_in) {
        Some(DeValue::Table(table)) => table,
        _ => DeTable::new(),
    };
    for (key, value) in own.into_iter().flatten() {
        table.remove(key.get_ref().as_ref());
        table.insert(key.clone(), value.clone());
    }
    let mut limit = DeTable::new();
    limit.insert(Spanned::new(place.clone(), Cow::Borrowed(ADAPTIVE)), Spanned::new(place, DeValue::Table(table)));
    Spanned::new(over.span(), DeValue::Table(limit))
}

/// Lays a table over another: a key replaces a key, in the layers' tables as well.
fn lay<'t>(under: &mut DeTable<'t>, over: &DeTable<'t>, kind: Kind) {
    for (key, value) in over {
        let name = key.get_ref().as_ref();
        let before = under.remove(name);
        let value = match value.get_ref() {
            DeValue::Table(table) if kind.layers().contains(&name) => {
                let mut layer = match before.map(Spanned::into_inner) {
                    Some(DeValue::Table(before)) => before,
                    // Switched on again.
                    _ => kind.layer(name),
                };
                for (key, value) in table {
                    let before = layer.remove(key.get_ref().as_ref()).map(Spanned::into_inner);
                    let value = match (name, key.get_ref().as_ref()) {
                        ("shed", "limit") => limit(before, value),
                        _ => value.clone(),
                    };
                    layer.insert(key.clone(), value);
                }
                Spanned::new(value.span(), DeValue::Table(layer))
            }
            _ => value.clone(),
        };
        under.insert(key.clone(), value);
    }
}

struct Policy<'t> {
    inherits: Option<Spanned<String>>,
    own: BTreeMap<Kind, DeTable<'t>>,
}

/// All policies, readable on their own.
pub(super) struct Policies<'t> {
    all: BTreeMap<String, Policy<'t>>,
    /// Those that were there and could not be read.
    unreadable: BTreeSet<String>,
    used: BTreeSet<String>,
}

impl<'t> Policies<'t> {
    /// Takes the policies out of the document; merged, they are put back.
    pub(super) fn take(document: &mut Document<'t>) -> Self {
        let mut policies = Self { all: BTreeMap::new(), unreadable: BTreeSet::new(), used: BTreeSet::new() };
        let Some(table) = document.take_table("policy", "tables with names, as in `[policy.patient.route.deadline]`")
        else {
            return policies;
        };
        let mut spans = BTreeMap::new();
        for (name, value) in table.get_ref().clone() {
            let name = name.into_inner().into_owned();
            mark(&mut document.policies, &name, &value);
            spans.insert(name.clone(), value.span());
            let allowed = "a table, with `inherits`, `route` and `cluster`";
            match document.as_table(&["policy", &name], value, allowed) {
                Some(table) => {
                    let policy = Policy::read(document, &name, table.into_inner());
                    policies.all.insert(name, policy);
                }
                None => _ = policies.unreadable.insert(name),
            }
        }
        policies.check_parents(document);
        // For those who ask where a value stands.
        let merged = policies.all.keys().map(|name| {
            let kinds = Kind::ALL.iter().map(|&kind| {
                let table = policies.merged(name, kind);
                (Spanned::new(NOWHERE, Cow::Borrowed(kind.name())), Spanned::new(NOWHERE, DeValue::Table(table)))
            });
            let span = spans[name].clone();
            (Spanned::new(span.clone(), Cow::Owned(name.clone())), Spanned::new(span, DeValue::Table(kinds.collect())))
        });
        let merged: DeTable<'t> = merged.collect();
        document.put("policy", Spanned::new(table.span(), merged));
        policies
    }

    fn check_parents(&mut self, document: &mut Document<'t>) {
        let names: Vec<String> = self.all.keys().cloned().collect();
        for name in &names {
            let Some(parent) = self.all[name].inherits.clone() else { continue };
            let (text, span) = (parent.get_ref().as_str(), parent.span());
            let fault = if !self.all.contains_key(text) {
                (!self.unreadable.contains(text) && !document.torn).then(|| self.choice(text))
            } else {
                self.circle(name).map(|circle| format!("allowed: no circle, as in {circle}"))
            };
            if fault.is_some() || !self.all.contains_key(text) {
                self.all.get_mut(name).expect("it is one of them").inherits = None;
            }
            if let Some(fix) = fault {
                let field = format!("policy.{name}.inherits");
                let diagnostic = Diagnostic::error(format!("`{field}` is {text:?}"));
                document.push(diagnostic.field(field).value(format!("{text:?}")).fix(fix).at(span));
            }
        }
    }

    /// Which policies there are.
    fn choice(&self, name: &str) -> String {
        let names: Vec<_> = self.all.keys().map(|name| format!("{name:?}")).collect();
        let similar = did_you_mean(name, self.all.keys().map(String::as_str));
        let allowed = match names.as_slice() {
            [] => "allowed: the name of a policy; there is none, as in `[policy.patient.route]`".to_owned(),
            names => format!("allowed: the name of a policy: {}", names.join(", ")),
        };
        similar.map_or(allowed.clone(), |similar| format!("{allowed}; {similar}"))
    }

    /// From `name` back to itself.
    fn circle(&self, name: &str) -> Option<String> {
        let mut seen = vec![name];
        loop {
            let parent = self.all.get(*seen.last()?)?.inherits.as_ref()?.get_ref().as_str();
            if parent == name {
                seen.push(parent);
                return Some(seen.join(" -> "));
            }
            if seen.contains(&parent) {
                return None;
            }
            seen.push(parent);
        }
    }

    /// The policy and those it inherits, the nearest first.
    fn line<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a Policy<'t>)> {
        let first = self.all.get_key_value(name);
        std::iter::successors(first, |(_, policy)| self.all.get_key_value(policy.inherits.as_ref()?.get_ref()))
            .map(|(name, policy)| (name.as_str(), policy))
    }

    /// The built-in values under the policy's.
    fn merged(&self, name: &str, kind: Kind) -> DeTable<'t> {
        let mut table: DeTable<'t> = kind.built_in();
        let line: Vec<_> = self.line(name).collect();
        for (_, policy) in line.iter().rev() {
            if let Some(own) = policy.own.get(&kind) {
                lay(&mut table, own, kind);
            }
        }
        table
    }

    /// What an entry comes to with what it inherits.
    pub(super) fn inherit(
        &mut self,
        document: &mut Document<'t>,
        kind: Kind,
        entry: &str,
        own: &DeTable<'t>,
    ) -> DeTable<'t> {
        let named = own.get("policy").and_then(|policy| policy.get_ref().as_str().map(|name| (name, policy.span())));
        let name = match named {
            Some((super::value::NONE, _)) => None,
            Some((name, _)) if self.all.contains_key(name) => Some(name),
            Some((name, span)) => {
                if !self.unreadable.contains(name) && !document.torn {
                    let field = format!("{}.{entry}.policy", kind.name());
                    let diagnostic = Diagnostic::error(format!("`{field}` is {name:?}"));
                    document.push(diagnostic.field(field).value(format!("{name:?}")).fix(self.choice(name)).at(span));
                }
                None
            }
            None => Some(DEFAULT),
        };
        let mut table = name.map_or_else(|| kind.built_in(), |name| self.merged(name, kind));
        let line: Vec<_> = self.line(name.unwrap_or_default()).map(|(name, _)| name.to_owned()).collect();
        for policy in &line {
            document.lose_alike(&["policy", policy, kind.name()], &[kind.name(), entry], own);
        }
        self.used.extend(line);
        lay(&mut table, own, kind);
        table
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }

    /// Those that hold for nobody.
    pub(super) fn unused(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|name| !self.used.contains(*name))
    }
}

impl<'t> Policy<'t> {
    fn read(document: &mut Document<'t>, name: &str, mut table: DeTable<'t>) -> Self {
        let mut policy = Self { inherits: None, own: BTreeMap::new() };
        if let Some(value) = table.remove("inherits") {
            let span = value.span();
            match value.get_ref().as_str() {
                Some(parent) => policy.inherits = Some(Spanned::new(span, parent.to_owned())),
                None => {
                    let field = format!("policy.{name}.inherits");
                    let diagnostic = Diagnostic::error(format!("`{field}` is no text")).field(field);
                    document.push(diagnostic.fix("allowed: the name of a policy").at(span));
                }
            }
        }
        for kind in Kind::ALL {
            let Some(value) = table.remove(kind.name()) else { continue };
            let path = ["policy", name, kind.name()];
            let Some(table) = document.as_table(&path, value, "a table") else { continue };
            let span = table.span();
            let table = policy_table(document, kind, &path, &span, table.into_inner());
            policy.own.insert(kind, table);
        }
        for (key, _) in table {
            let field = format!("policy.{name}.{}", key.get_ref());
            let holders: Vec<_> =
                Kind::ALL.iter().filter(|kind| kind.layers().contains(&key.get_ref().as_ref())).collect();
            let fix = match holders.as_slice() {
                [] => did_you_mean(key.get_ref(), ["inherits", "route", "cluster"].into_iter()),
                kinds => {
                    let tables: Vec<_> =
                        kinds.iter().map(|k| format!("`[policy.{name}.{}.{}]`", k.name(), key.get_ref())).collect();
                    Some(format!("write {}", tables.join(" or ")))
                }
            };
            let known = ["inherits", "route", "cluster"].into_iter().map(|name| format!("`{name}`"));
            document.push(unknown(&field, fix, known).at(key.span()));
        }
        policy
    }
}

/// What is readable of a policy's table.
fn policy_table<'t>(
    document: &mut Document<'t>,
    kind: Kind,
    path: &[&str],
    span: &Range<usize>,
    mut table: DeTable<'t>,
) -> DeTable<'t> {
    for name in kind.identity() {
        let key = table.get_key_value(*name).map(|(key, _)| key.span());
        if let Some(span) = key {
            table.remove(*name);
            let field = format!("{}.{name}", path.join("."));
            let diagnostic = Diagnostic::error(format!("`{field}` cannot stand in a policy")).field(field);
            let fix = format!("write it in every `[{}.NAME]` that it is for", kind.name());
            document.push(diagnostic.fix(fix).at(span));
        }
    }
    stand_in(&mut table, kind.required());
    match kind {
        Kind::Route => _ = document.read::<Route>(path, span, &mut table, &[], &super::read::hints(Some(kind))),
        Kind::Cluster => _ = document.read::<Cluster>(path, span, &mut table, &[], &super::read::hints(Some(kind))),
    }
    for (name, _) in kind.required() {
        table.remove(*name);
    }
    table
}

/// Remembers whose the values are.
fn mark(places: &mut BTreeMap<usize, String>, policy: &str, value: &Spanned<DeValue<'_>>) {
    places.insert(value.span().start, policy.to_owned());
    if let DeValue::Table(table) = value.get_ref() {
        for (_, value) in table {
            mark(places, policy, value);
        }
    }
}
