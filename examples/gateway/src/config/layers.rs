//! What the layers' crates say of their configs.

use super::{
    Cluster, Layer, Route,
    check::{self, is_token, quoted},
    degrade,
    document::{Document, follows, named},
    overload,
    policy::{Kind, Policies},
    table::{stand_in, take_out},
    value::{NONE, Step, Table},
};
use buttress::ConfigError;
use serde::{Deserialize, de::DeserializeOwned};
use toml::de::DeTable;

/// Says what is wrong with the layers of the cluster, or of a policy for clusters, at `path`.
pub(super) fn cluster(document: &mut Document<'_>, path: &[&str], cluster: &Cluster) {
    let balance = Layer::on(cluster.balance.clone());
    layer(document, path, "shed", &cluster.shed, |config| config.build().map(drop));
    layer(document, path, "gate", &cluster.gate, |config| config.build().map(drop));
    layer(document, path, "balance", &balance, |config| config.build().map(drop));
    layer(document, path, "breaker", &cluster.breaker, |config| config.build().map(drop));
    layer(document, path, "bulkhead", &cluster.bulkhead, |config| config.build().map(drop));
    layer(document, path, "deadline", &cluster.deadline, |config| config.build().map(drop));
}

/// Says what is wrong with the layers of the route, or of a policy for routes, at `path`.
pub(super) fn route(document: &mut Document<'_>, path: &[&str], route: &Route) {
    degrade::fallback(document, path, &route.fallback);
    if let Some(limit) = &route.rate_limit {
        overload::rate_limit(document, path, limit);
    }
    layer(document, path, "deadline", &route.deadline, |config| config.build().map(drop));
    layer(document, path, "bulkhead", &route.bulkhead, |config| config.build().map(drop));
    layer(document, path, "retry", &route.retry, |config| config.build().map(drop));
    for protocol in &route.upgrades {
        let at: Vec<_> = path.iter().copied().chain(["upgrades"]).collect();
        if protocol.eq_ignore_ascii_case("h2c") {
            let allowed =
                "protocols other than h2c: upgraded to HTTP/2, a connection would carry requests that no layer sees";
            document.wrong(&at, quoted(protocol), allowed);
        } else if !protocol.split('/').all(is_token) || protocol.split('/').count() > 2 {
            document.wrong(&at, quoted(protocol), "protocols (RFC 9110, 7.8), as in [\"websocket\"]");
        }
    }
}

/// Says all that a layer's crate has against its config: what is wrong is taken out, and the rest asked for again.
pub(super) fn layer<C: Clone + DeserializeOwned>(
    document: &mut Document<'_>,
    path: &[&str],
    name: &str,
    layer: &Layer<C>,
    build: impl Fn(C) -> Result<(), ConfigError>,
) {
    if !layer.on {
        return;
    }
    let path: Vec<_> = path.iter().copied().chain([name]).collect();
    let mut table = document.value_at(&path).and_then(|value| value.get_ref().as_table()).cloned().unwrap_or_default();
    let mut config = layer.config.clone();
    let mut struck: Vec<Vec<String>> = Vec::new();
    while let Err(error) = build(config.clone()) {
        let field: Vec<&str> = error.field.split('.').collect();
        let full = [&path[..], &field[..]].concat();
        if !struck.iter().any(|lost| follows(&full, &error.allowed, lost)) {
            document.refused(&path, &error);
        }
        let Some(rest) = without::<C>(&table, &field, &error.allowed) else { break };
        (table, config) = rest;
        struck.push(full.into_iter().map(str::to_owned).collect());
    }
}

/// The config without a field; where nobody wrote it, without one that it is measured by; where it must be there, without the
/// table around it.
fn without<'t, C: DeserializeOwned>(table: &DeTable<'t>, field: &[&str], allowed: &str) -> Option<(DeTable<'t>, C)> {
    let around = &field[..field.len() - 1];
    let itself = std::iter::once(field.to_vec());
    let others = named(allowed).map(|other| [around, &[other]].concat());
    let tables = (1..field.len()).rev().map(|len| field[..len].to_vec());
    itself.chain(others).chain(tables).find_map(|way| {
        let way: Vec<_> = way.into_iter().map(|name| Step::Key(name.to_owned())).collect();
        let mut rest = table.clone();
        if !take_out(&mut rest, &way) {
            return None;
        }
        let config = C::deserialize(Table(&rest)).ok()?;
        Some((rest, config))
    })
}

/// Says what is wrong with the names and the layers of policies, whether anybody uses them or not.
pub(super) fn policies(document: &mut Document<'_>, policies: &Policies<'_>) {
    for name in policies.names() {
        check::name(document, "policy", name);
        if name == NONE {
            document.wrong(
                &["policy", name],
                "named \"none\"",
                "another name: `policy = \"none\"` means that there is none",
            );
        }
        for kind in Kind::ALL {
            let path = ["policy", name, kind.name()];
            let Some(table) = document.value_at(&path).and_then(|value| value.get_ref().as_table()) else { continue };
            let mut table = table.clone();
            stand_in(&mut table, kind.required());
            match kind {
                Kind::Route => {
                    if let Ok(route) = Route::deserialize(Table(&table)) {
                        self::route(document, &path, &route);
                    }
                }
                Kind::Cluster => {
                    if let Ok(cluster) = Cluster::deserialize(Table(&table)) {
                        self::cluster(document, &path, &cluster);
                    }
                }
            }
        }
    }
}
