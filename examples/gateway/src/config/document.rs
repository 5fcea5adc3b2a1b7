//! A config's text as tables, what was found wrong in it, and where each value stands.

use super::{
    problems::Diagnostic,
    table::{did_you_mean, take_out},
    value::Step,
};
use buttress::ConfigError;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
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
    pub(super) taken: BTreeSet<Vec<String>>,
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
        self.taken.iter().any(|taken| taken.iter().zip(path).all(|(a, b)| a == b))
    }

    /// The same for anything in the table of `path`, where that is a layer's: what seems to be missing may be what is misspelt.
    pub(super) fn is_near_taken(&self, path: &[&str]) -> bool {
        let is_layers = path.len() > 2 + usize::from(NAMED.contains(&path[0]));
        let around = &path[..path.len() - 1];
        let beside = |taken: &Vec<String>| taken.len() == path.len() && taken.iter().zip(around).all(|(a, b)| a == b);
        self.is_taken(path) || is_layers && self.taken.iter().any(beside)
    }

    /// What could not be read at `from` is not there for `to` either, which inherits it, but where that has something of its `own`.
    pub(super) fn lose_alike(&mut self, from: &[&str], to: &[&str], own: &DeTable<'t>) {
        let lost =
            self.taken.iter().filter(|taken| taken.len() > from.len() && taken.iter().zip(from).all(|(a, b)| a == b));
        let inherited = lost.map(|taken| &taken[from.len()..]).filter(|rest| !says(own, rest));
        let alike = inherited.map(|rest| to.iter().map(|&name| name.to_owned()).chain(rest.iter().cloned()).collect());
        let alike: Vec<Vec<String>> = alike.collect();
        self.taken.extend(alike);
    }

    /// Whether a part of the value at `path` was taken out.
    pub(super) fn has_lost(&self, path: &[&str]) -> bool {
        let is_part = |taken: &Vec<String>| taken.len() > path.len() && taken.iter().zip(path).all(|(a, b)| a == b);
        self.taken.iter().any(is_part)
    }

    /// Says that the value at `path` is not among the `allowed`.
    pub(super) fn wrong(&mut self, path: &[&str], value: impl fmt::Display, allowed: impl fmt::Display) {
        let allowed = allowed.to_string();
        if self.is_taken(path) || self.taken.iter().any(|taken| follows(path, &allowed, taken)) {
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
        if self.is_near_taken(path) {
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
    pub(super) fn written(&self, span: &Range<usize>) -> String {
        match self.text.get(span.clone()) {
            Some(text) if !text.is_empty() && text.len() <= SHOWN && !text.contains('\n') => text.to_owned(),
            Some(text) if text.starts_with('[') => "a list".to_owned(),
            _ => "a value".to_owned(),
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

/// Whether what is `allowed` at `path` follows from the value at `lost`: it names that one, which has its default by now.
pub(super) fn follows(path: &[&str], allowed: &str, lost: &[impl AsRef<str>]) -> bool {
    let is_lost = |around: &[&str], name: &str| {
        let field: Vec<_> = around.iter().copied().chain(name.split('.')).collect();
        let mut steps = lost.iter().map(AsRef::as_ref).zip(&field).enumerate();
        // What is unknown may be this one, misspelt.
        let is_like = |lost, name| did_you_mean(lost, std::iter::once(name)).is_some();
        steps.all(|(at, (lost, &name))| lost == name || at + 1 == field.len() && is_like(lost, name))
    };
    let entry = 1 + usize::from(NAMED.contains(&path[0]));
    named(allowed).any(|name| is_lost(&[], name) || (entry..path.len()).any(|len| is_lost(&path[..len], name)))
}

/// Whether there is a value at `path`, or one that is no table before its end.
fn says(table: &DeTable<'_>, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else { return true };
    let value = table.get(name.as_str()).map(Spanned::get_ref);
    value.is_some_and(|value| value.as_table().is_none_or(|table| says(table, rest)))
}

/// The fields that a text names: `so`.
pub(super) fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The sections whose tables have names.
pub(super) const NAMED: [&str; 5] = ["listener", "cluster", "route", "toggle", "policy"];

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
