//! Routes that stand in each other's way.

use super::{Config, Host, Route, document::Document};
use http::Method;
use matchit::{InsertError, Router};
use std::collections::BTreeMap;

/// What requests must have beside their path to be for a route: routes that ask for the same share a tree of paths.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group<'a> {
    host: Option<&'a Host>,
    methods: Vec<&'a str>,
    /// Names are the same in all cases.
    headers: BTreeMap<String, &'a str>,
}

/// Says which templates are none, and which routes no request could be told apart for.
pub(super) fn check(document: &mut Document<'_>, config: &Config) {
    let mut groups: BTreeMap<Group<'_>, (Router<&str>, BTreeMap<String, &str>)> = BTreeMap::new();
    for (name, route) in &config.routes {
        let field = if route.path.is_some() { "path" } else { "prefix" };
        let path = ["route", name.as_str(), field];
        if document.is_taken(&path) || !route.pattern().starts_with('/') {
            continue;
        }
        let hosts: Vec<_> = match route.hosts.as_slice() {
            [] => vec![None],
            hosts => hosts.iter().map(Some).collect(),
        };
        'hosts: for host in hosts {
            let (router, taken) = groups.entry(Group::of(host, route)).or_default();
            for template in templates(route) {
                let Err(error) = router.insert(&template, name) else {
                    taken.entry(template).or_insert(name);
                    continue;
                };
                let other = match &error {
                    InsertError::Conflict { with } => {
                        taken.get(with).copied().or_else(|| router.at(&template).ok().map(|found| *found.value))
                    }
                    _ => None,
                };
                // A host that is listed twice is no second route.
                if other == Some(name) {
                    continue 'hosts;
                }
                document.wrong(&path, format_args!("{:?}", route.pattern()), allowed(config, &error, other));
                break 'hosts;
            }
        }
    }
}

fn allowed(config: &Config, error: &InsertError, other: Option<&str>) -> String {
    match error {
        InsertError::Conflict { with } => match other.and_then(|name| config.routes.get_key_value(name)) {
            Some((name, route)) => format!(
                "what can be told from `route.{name}`, which is for {:?}: by hosts, path, methods or headers",
                route.pattern()
            ),
            None => format!("what can be told from {with:?}"),
        },
        InsertError::InvalidParamSegment => "one `{name}` in a segment, at its end".to_owned(),
        InsertError::InvalidCatchAll => "`{*name}` as the last segment alone".to_owned(),
        _ => "`{name}` for a segment and `{*name}` for the rest; `{{` and `}}` for the braces themselves".to_owned(),
    }
}

impl<'a> Group<'a> {
    fn of(host: Option<&'a Host>, route: &'a Route) -> Self {
        let mut methods: Vec<_> = route.methods.iter().map(Method::as_str).collect();
        methods.sort_unstable();
        methods.dedup();
        let headers = route.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()));
        Self { host, methods, headers: headers.collect() }
    }
}

/// The route in the language of `matchit`.
fn templates(route: &Route) -> Vec<String> {
    if let Some(path) = &route.path {
        return vec![path.clone()];
    }
    let prefix = super::prefix(route.pattern()).replace('{', "{{").replace('}', "}}");
    let below = format!("{prefix}/{{*rest}}");
    if prefix.is_empty() { vec!["/".to_owned(), below] } else { vec![prefix.clone(), format!("{prefix}/"), below] }
}
