//! Where a value came from.

use super::{
    document::{Document, NOWHERE},
    problems::place,
};
use std::{collections::BTreeMap, fmt, path::Path};
use toml::de::{DeTable, DeValue};

/// Where each value that was written stands, by its path.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    file: String,
    places: BTreeMap<Vec<String>, Place>,
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    policy: Option<String>,
}

/// As a comment: `gateway.toml:12`, `policy patient, gateway.toml:31`, `default`.
pub(crate) struct Origin<'a> {
    file: &'a str,
    place: Option<&'a Place>,
}

impl Origins {
    pub(super) fn of(document: &Document<'_>, path: &Path) -> Self {
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        // It stands in comments, which end with their line.
        let file = file.escape_debug().to_string();
        let mut origins = Self { file, places: BTreeMap::new() };
        origins.note(document, &document.root, &mut Vec::new());
        origins
    }

    fn note(&mut self, document: &Document<'_>, table: &DeTable<'_>, path: &mut Vec<String>) {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            let span = value.span();
            if span != NOWHERE && span.end <= document.text.len() {
                let policy = document.policies.get(&span.start).cloned();
                let (line, _) = place(document.text, span.start);
                self.places.insert(path.clone(), Place { line, policy });
            }
            if let DeValue::Table(table) = value.get_ref() {
                self.note(document, table, path);
            }
            path.pop();
        }
    }

    /// The origin of the value at `path`.
    pub(crate) fn find(&self, path: &[&str]) -> Origin<'_> {
        let path: Vec<_> = path.iter().map(|&name| name.to_owned()).collect();
        Origin { file: &self.file, place: self.places.get(&path) }
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = self.place else { return f.write_str("default") };
        if let Some(policy) = &place.policy {
            write!(f, "policy {policy}, ")?;
        }
        write!(f, "{}:{}", self.file, place.line)
    }
}
