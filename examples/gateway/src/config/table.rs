//! Tables to types, with everything that stands in the way: what cannot be read is said, taken out, and the rest read again.

use super::{
    document::{Document, NOWHERE},
    policy::Kind,
    problems::Diagnostic,
    value::{self, Step, Table, Value, What},
};
use serde::de::DeserializeOwned;
use std::{borrow::Cow, ops::Range};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

/// Puts something in the place of what must be there: a text, or a list (`"[]"`).
pub(super) fn stand_in(table: &mut DeTable<'_>, required: &[(&'static str, &'static str)]) {
    for (name, text) in required {
        let value = match *text {
            "[]" => DeValue::Array(DeArray::new()),
            text => DeValue::String(Cow::Borrowed(text)),
        };
        table.insert(Spanned::new(NOWHERE, Cow::Borrowed(*name)), Spanned::new(NOWHERE, value));
    }
}

/// What is allowed where a type's own words for it say little.
fn by_hand(path: &[&str]) -> Option<&'static str> {
    match path {
        [.., "window"] => Some("{ time = \"10s\" } or { count = 100 }"),
        [.., "rate_limit", "by"] => Some("\"client\", \"route\" or { header = \"x-tenant\" }"),
        ["pressure", "sheddable" | "normal" | "critical"] => Some("{ from = 0.8, to = 0.9 } or \"none\""),
        _ => None,
    }
}

impl<'t> Document<'t> {
    /// Reads the table at `at`, saying all that is wrong with it. What cannot be read is taken out of it; what is missing gets
    /// the stand-in of `required`, and else there is nothing to read.
    pub(super) fn read<T: DeserializeOwned>(
        &mut self,
        at: &[&str],
        span: &Range<usize>,
        table: &mut DeTable<'t>,
        required: &[(&'static str, &'static str)],
        hints: &dyn Fn(&[&str], &str) -> Option<String>,
    ) -> Option<T> {
        loop {
            let mut error = match T::deserialize(Table(table)) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            find_unknown(table, &mut error);
            let way: Vec<_> = names(&error.way).collect();
            let path: Vec<_> = at.iter().copied().chain(way.iter().copied()).collect();
            if let What::Missing(field) = error.what {
                let field_path: Vec<_> = path.iter().copied().chain([field]).collect();
                if !self.is_near_taken(&field_path) {
                    let span = error.span.clone().unwrap_or_else(|| span.clone());
                    self.push(missing(&field_path, field).at(span));
                }
                self.taken.insert(field_path.iter().map(|&name| name.to_owned()).collect());
                if error.way.is_empty() {
                    let missing = required.iter().find(|(name, _)| *name == field)?;
                    stand_in(table, std::slice::from_ref(missing));
                    continue;
                }
            } else {
                // What is left of a value is no value.
                if !self.has_lost(&path) {
                    let diagnostic = self.unreadable(&path, &error, hints);
                    self.push(diagnostic);
                }
                self.taken.insert(path.iter().map(|&name| name.to_owned()).collect());
            }
            if !take_out(table, &error.way) {
                return None;
            }
        }
    }

    fn unreadable(
        &self,
        path: &[&str],
        error: &value::Error,
        hints: &dyn Fn(&[&str], &str) -> Option<String>,
    ) -> Diagnostic {
        let field = path.join(".");
        let value = error.span.as_ref().map_or_else(|| "a value".to_owned(), |span| self.written(span));
        let (table, name) = path.split_last().map_or((path, ""), |(name, table)| (table, *name));
        let diagnostic = match &error.what {
            What::Unknown(_, known) => {
                let identity = match table {
                    ["policy", _, kind] => Kind::named(kind).map_or(&[][..], Kind::identity),
                    _ => &[],
                };
                let known: Vec<_> = known.iter().copied().filter(|name| !identity.contains(name)).collect();
                let fix = hints(table, name).or_else(|| did_you_mean(name, known.iter().copied()));
                unknown(&field, fix, known.iter().map(|name| format!("`{name}`")))
            }
            What::Wrong(allowed) => {
                let allowed = by_hand(path).unwrap_or(allowed);
                Diagnostic::error(format!("`{field}` is {value}")).fix(format!("allowed: {allowed}")).value(value)
            }
            What::Said(text) => {
                let (what, allowed) = match text.split_once(", allowed: ") {
                    Some((what, allowed)) => (what, Some(format!("allowed: {allowed}"))),
                    None => (text.as_str(), None),
                };
                let mut diagnostic = Diagnostic::error(format!("`{field}`: {what}")).value(value);
                diagnostic.fix = allowed;
                diagnostic
            }
            What::Missing(field) => Diagnostic::error(format!("`{field}` is missing")),
        };
        diagnostic.field(field).at(error.span.clone())
    }

    /// Reads one value of the document's top.
    pub(super) fn scalar<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.root.get(name)?;
        match T::deserialize(Value(value)) {
            Ok(read) => Some(read),
            Err(error) => {
                let diagnostic = self.unreadable(&[name], &error, &|_, _| None);
                self.push(diagnostic);
                self.taken.insert(vec![name.to_owned()]);
                None
            }
        }
    }
}

fn missing(path: &[&str], field: &str) -> Diagnostic {
    let example = match field {
        "address" => "address = \"127.0.0.1:8080\"",
        "endpoints" => "endpoints = [\"127.0.0.1:9001\"]",
        "cluster" => "cluster = \"NAME\", with a `[cluster.NAME]`",
        "certificate" => "certificate = \"cert.pem\"",
        "key" => "key = \"key.pem\"",
        "from" => "from = 0.8",
        "to" => "to = 0.95",
        "weight" => "weight = 5, in percent of the calls",
        _ => field,
    };
    let path = path.join(".");
    Diagnostic::error(format!("`{path}` is missing")).field(path).fix(format!("add: {example}"))
}

/// What is known is said where nothing like it is.
pub(super) fn unknown(field: &str, fix: Option<String>, known: impl Iterator<Item = String>) -> Diagnostic {
    let diagnostic = Diagnostic::error(format!("`{field}` is unknown")).field(field);
    match fix {
        Some(fix) => diagnostic.fix(fix),
        None => diagnostic
            .fix("nothing here has this name")
            .note(format!("known: {}", known.collect::<Vec<_>>().join(", "))),
    }
}

/// "did you mean ..?" of the name that is most like `name`, if one is.
pub(super) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let far = |known: &str| strsim::damerau_levenshtein(name, known);
    let nearest = known.map(|known| (far(known), known)).min()?;
    (nearest.0 <= name.chars().count().div_ceil(3) && nearest.0 < name.chars().count())
        .then(|| format!("did you mean `{}`?", nearest.1))
}

/// The keys of a way; what stands in a list has the list's.
fn names(way: &[Step]) -> impl Iterator<Item = &str> {
    way.iter().filter_map(|step| match step {
        Step::Key(name) => Some(name.as_str()),
        Step::Index(_) => None,
    })
}

/// A table that is kept until its `kind` is known loses the places of its keys: of one that is unknown the name is left.
fn find_unknown(table: &DeTable<'_>, error: &mut value::Error) {
    let What::Unknown(name, _) = &error.what else { return };
    if names(&error.way).last() == Some(name) {
        return;
    }
    let mut around = Some(table);
    for step in names(&error.way) {
        around = around.and_then(|table| table.get(step)?.get_ref().as_table());
    }
    if let Some((key, _)) = around.and_then(|table| table.get_key_value(name.as_str())) {
        error.span = Some(key.span());
        error.way.push(Step::Key(name.clone()));
    }
}

/// Takes the entry or the element at the end of `way` out; whether it was there.
pub(super) fn take_out(table: &mut DeTable<'_>, way: &[Step]) -> bool {
    let Some((Step::Key(name), rest)) = way.split_first() else { return false };
    if rest.is_empty() {
        return table.remove(name.as_str()).is_some();
    }
    table.get_mut(name.as_str()).is_some_and(|value| take_out_of(value.get_mut(), rest))
}

fn take_out_of(value: &mut DeValue<'_>, way: &[Step]) -> bool {
    match (value, way) {
        (DeValue::Table(table), _) => take_out(table, way),
        (DeValue::Array(list), [Step::Index(index)]) => {
            let mut rest = DeArray::new();
            for (at, value) in list.iter().enumerate() {
                if at != *index {
                    rest.push(value.clone());
                }
            }
            let was_there = rest.len() < list.len();
            *list = rest;
            was_there
        }
        (DeValue::Array(list), [Step::Index(index), rest @ ..]) => {
            list.get_mut(*index).is_some_and(|value| take_out_of(value.get_mut(), rest))
        }
        _ => false,
    }
}
