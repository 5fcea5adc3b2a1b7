//! A config's text as tables, what was found wrong in it, and where each value stands.

use super::{
    policy::Kind,
    problems::Diagnostic,
    value::{self, Step, Table, Value, What},
};
use buttress::ConfigError;
use serde::de::DeserializeOwned;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

/// The place of what stands in no file.
pub(super) const NOWHERE: Range<usize> = usize::MAX..usize::MAX;

/// How long a value may be to be shown in a message.
const SHOWN: usize = 60;

pub(super) struct Document<'t> {
    pub(super) text: &'t str,
    /// Once it is read: with what entries inherit, and without what could not be read.
    pub(super) root: DeTable<'t>,
    /// The policies as they are written, by the first byte of each of their values.
    pub(super) policies: BTreeMap<usize, String>,
    found: Vec<Diagnostic>,
    /// What could not be read and was taken out; nothing more is said about it.
    taken: BTreeSet<Vec<String>>,
    /// There are syntax errors: what seems to be missing may be there.
    pub(super) torn: bool,
}

impl<'t> Document<'t> {
    /// Parses. Tables with syntax errors are taken out; the others stay.
    pub(super) fn parse(text: &'t str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document = Self {
            text,
            root: root.into_inner(),
            policies: BTreeMap::new(),
            found: Vec::new(),
            taken: BTreeSet::new(),
            torn: !errors.is_empty(),
        };
        for error in &errors {
            let span = error.span().map(|span| document.shown_place(span));
            let (what, allowed) = match error.message().split_once(", expected ") {
                Some((what, "nothing")) => (what, "a text stands in quotes".to_owned()),
                Some((what, allowed)) => (what, format!("allowed: {allowed}")),
                None if error.message() == "duplicate key" => {
                    ("a key that is there already", "take one of them out".to_owned())
                }
                None => (error.message(), "not understood".to_owned()),
            };
            let diagnostic = Diagnostic::error(format!("not TOML: {what}")).fix(allowed).at(span.clone());
            document.found.push(diagnostic);
            if let Some(span) = span {
                document.take_torn(&region(text, span.start));
            }
        }
        document
    }

    /// A place that can be shown: the parser's may be empty, or behind the end of a line.
    fn shown_place(&self, span: Range<usize>) -> Range<usize> {
        let start = span.start.min(self.text.len());
        start..span.end.clamp(start, self.text.len())
    }

    /// Takes out what stands between two headers.
    fn take_torn(&mut self, region: &Range<usize>) {
        let mut torn = Vec::new();
        for (section, value) in &self.root {
            let section = section.get_ref().to_string();
            match value.get_ref() {
                DeValue::Table(entries) if NAMED.contains(&section.as_str()) => {
                    for (name, entry) in entries {
                        if touches(entry, region) {
                            torn.push(vec![section.clone(), name.get_ref().to_string()]);
                        }
                    }
                }
                _ if touches(value, region) => torn.push(vec![section]),
                _ => {}
            }
        }
        for way in torn {
            let steps: Vec<_> = way.iter().cloned().map(Step::Key).collect();
            take_out(&mut self.root, &steps);
            self.taken.insert(way);
        }
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        // What is inherited is wrong once, however many inherit it.
        let said =
            |other: &Diagnostic| other.span.is_some() && other.span == diagnostic.span && other.fix == diagnostic.fix;
        if !self.found.iter().any(said) {
            self.found.push(diagnostic);
        }
    }

    pub(super) fn into_found(self) -> Vec<Diagnostic> {
        self.found
    }

    /// Whether something that belongs to `path` could not be read, so that what follows from it says nothing.
    pub(super) fn is_taken(&self, path: &[&str]) -> bool {
        let layer = |path: &[&str]| (path.len() > 3).then(|| path[..path.len() - 1].join("\0"));
        self.taken.iter().any(|taken| {
            let taken: Vec<_> = taken.iter().map(String::as_str).collect();
            taken.starts_with(path)
                || path.starts_with(&taken)
                || layer(path).is_some_and(|parent| layer(&taken).is_some_and(|other| other == parent))
        })
    }

    /// Whether a part of the value at `path` was taken out.
    fn has_lost(&self, path: &[&str]) -> bool {
        let is_part = |taken: &Vec<String>| taken.len() > path.len() && taken.iter().zip(path).all(|(a, b)| a == b);
        self.taken.iter().any(is_part)
    }

    /// Says that the value at `path` is not among the `allowed`.
    pub(super) fn wrong(&mut self, path: &[&str], value: impl fmt::Display, allowed: impl fmt::Display) {
        if self.is_taken(path) {
            return;
        }
        let (field, value) = (path.join("."), value.to_string());
        let diagnostic = Diagnostic::error(format!("`{field}` is {value}"))
            .field(field)
            .value(value)
            .fix(format!("allowed: {allowed}"))
            .at(self.place_of(path));
        self.push(diagnostic);
    }

    /// The same for what a crate says of its config at `table`.
    pub(super) fn refused(&mut self, table: &[&str], error: &ConfigError) {
        let path: Vec<_> = table.iter().copied().chain(error.field.split('.')).collect();
        match self.is_written(&path) {
            true => self.wrong(&path, &error.value, &error.allowed),
            false => self.wrong(&path, format_args!("{} by default", error.value), &error.allowed),
        }
    }

    /// Says that something is hardly meant.
    pub(super) fn warn(&mut self, path: &[&str], message: String, fix: &str) {
        if self.is_taken(path) {
            return;
        }
        let place = self.place_of(path);
        self.push(Diagnostic::warning(message).field(path.join(".")).fix(fix).at(place));
    }

    pub(super) fn value_at(&self, path: &[&str]) -> Option<&Spanned<DeValue<'t>>> {
        let (first, rest) = path.split_first()?;
        let mut value = self.root.get(*first)?;
        for name in rest {
            value = value.get_ref().as_table()?.get(*name)?;
        }
        Some(value)
    }

    /// Whether the file says something of `path`, itself or in a policy.
    pub(super) fn is_written(&self, path: &[&str]) -> bool {
        self.value_at(path).is_some_and(|value| value.span() != NOWHERE)
    }

    /// Where the value at `path` is written, or else the innermost table around it that is.
    fn place_of(&self, path: &[&str]) -> Option<Range<usize>> {
        (1..=path.len()).rev().find_map(|len| {
            let span = self.value_at(&path[..len])?.span();
            (span != NOWHERE && span.end <= self.text.len()).then_some(span)
        })
    }

    /// A value as it is written.
    fn written(&self, span: &Range<usize>) -> String {
        match self.text.get(span.clone()) {
            Some(text) if !text.is_empty() && text.len() <= SHOWN && !text.contains('\n') => text.to_owned(),
            Some(text) if text.starts_with('[') => "a list".to_owned(),
            _ => "a value".to_owned(),
        }
    }

    /// Reads the table at `at`, saying all that is wrong with it. What cannot be read is taken out of it; what is missing gets
    /// the stand-in of `required`, and else there is nothing to read.
    pub(super) fn read<T: DeserializeOwned>(
        &mut self,
        at: &[&str],
        span: &Range<usize>,
        table: &mut DeTable<'t>,
        required: &[(&str, &str)],
        hints: &dyn Fn(&[&str], &str) -> Option<String>,
    ) -> Option<T> {
        loop {
            let error = match T::deserialize(Table(table)) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let way: Vec<_> = names(&error.way).collect();
            let path: Vec<_> = at.iter().copied().chain(way.iter().copied()).collect();
            if let What::Missing(field) = error.what {
                let field_path: Vec<_> = path.iter().copied().chain([field]).collect();
                if !self.is_taken(&field_path) {
                    let span = error.span.clone().unwrap_or_else(|| span.clone());
                    self.push(missing(&field_path, field).at(span));
                }
                self.taken.insert(field_path.iter().map(|&name| name.to_owned()).collect());
                if error.way.is_empty() {
                    let (name, stand_in) = required.iter().find(|(name, _)| *name == field)?;
                    let value = match *stand_in {
                        "[]" => DeValue::Array(DeArray::new()),
                        text => DeValue::String(Cow::Owned(text.to_owned())),
                    };
                    table.insert(Spanned::new(NOWHERE, Cow::Owned((*name).to_owned())), Spanned::new(NOWHERE, value));
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
            What::Unknown(known) => {
                let identity = match table {
                    ["policy", _, kind] => Kind::named(kind).map_or(&[][..], Kind::identity),
                    _ => &[],
                };
                let known: Vec<_> = known.iter().copied().filter(|name| !identity.contains(name)).collect();
                let fix = hints(table, name).or_else(|| did_you_mean(name, known.iter().copied()));
                unknown(&field, fix, known.iter().map(|name| format!("`{name}`")))
            }
            What::Wrong(allowed) => {
                let allowed = if name == "window" { WINDOW } else { allowed };
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

    /// A table taken out of the document's top, to be put back when it is read. What is no table is said to be wrong.
    pub(super) fn take_table(&mut self, name: &str, allowed: &str) -> Option<Spanned<DeTable<'t>>> {
        let value = self.root.remove(name)?;
        self.as_table(&[name], value, allowed)
    }

    pub(super) fn as_table(
        &mut self,
        path: &[&str],
        value: Spanned<DeValue<'t>>,
        allowed: &str,
    ) -> Option<Spanned<DeTable<'t>>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(Spanned::new(span, table)),
            _ => {
                let (field, value) = (path.join("."), self.written(&span));
                let diagnostic = Diagnostic::error(format!("`{field}` is {value}"))
                    .field(field)
                    .value(value)
                    .fix(format!("allowed: {allowed}"))
                    .at(span);
                self.push(diagnostic);
                self.taken.insert(path.iter().map(|&name| name.to_owned()).collect());
                None
            }
        }
    }

    pub(super) fn put(&mut self, name: &'static str, table: Spanned<DeTable<'t>>) {
        let span = table.span();
        let key = Spanned::new(span.clone(), Cow::Borrowed(name));
        self.root.insert(key, Spanned::new(span, DeValue::Table(table.into_inner())));
    }
}

const WINDOW: &str = "{ time = \"10s\" } or { count = 100 }";

/// The sections whose tables have names.
pub(super) const NAMED: [&str; 4] = ["listener", "cluster", "route", "policy"];

fn missing(path: &[&str], field: &str) -> Diagnostic {
    let example = match field {
        "address" => "address = \"127.0.0.1:8080\"",
        "endpoints" => "endpoints = [\"127.0.0.1:9001\"]",
        "cluster" => "cluster = \"NAME\", with a `[cluster.NAME]`",
        "certificate" => "certificate = \"cert.pem\"",
        "key" => "key = \"key.pem\"",
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

/// Takes the entry or the element at the end of `way` out; whether it was there.
fn take_out(table: &mut DeTable<'_>, way: &[Step]) -> bool {
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

/// From the header before `at` to the one after it.
fn region(text: &str, at: usize) -> Range<usize> {
    let headers = text.split_inclusive('\n').scan(0, |next, line| {
        let start = *next;
        *next += line.len();
        Some((start, line.trim_start().starts_with('[')))
    });
    let mut region = 0..text.len();
    for (start, _) in headers.filter(|(_, is_header)| *is_header) {
        if start <= at {
            region.start = start;
        } else {
            region.end = start;
            break;
        }
    }
    region
}

/// Whether a part of the value stands in the region.
fn touches(value: &Spanned<DeValue<'_>>, region: &Range<usize>) -> bool {
    let span = value.span();
    let own = span.start < region.end && region.start < span.end.max(span.start + 1);
    let DeValue::Table(table) = value.get_ref() else { return own };
    // A header stands for its table, and every table inside for itself.
    own || table.iter().any(|(key, value)| region.contains(&key.span().start) || touches(value, region))
}
