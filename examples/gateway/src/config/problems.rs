//! What is wrong with a config, and how it is said.

use ariadne::{Config as Style, IndexType, Label, Report, ReportKind, Source};
use serde::Serialize;
use std::{
    fmt,
    io::{self, IsTerminal, Write},
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// More are counted, not shown.
const MOST: usize = 100;

/// How long a line of a note may be.
const WIDTH: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// The config cannot be used.
    Error,
    /// Allowed, and yet hardly meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Diagnostic {
    pub(crate) severity: Severity,
    pub(crate) message: String,
    /// Its path: `route.api.deadline.total`.
    pub(crate) field: Option<String>,
    /// As it is written, or what it comes to.
    pub(crate) value: Option<String>,
    /// What would be right.
    pub(crate) fix: Option<String>,
    /// What is too long to stand beside the line.
    pub(crate) note: Option<String>,
    /// Where, in bytes of the text.
    pub(crate) span: Option<Range<usize>>,
}

impl Diagnostic {
    pub(super) fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            field: None,
            value: None,
            fix: None,
            note: None,
            span: None,
        }
    }

    pub(super) fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    pub(super) fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    pub(super) fn value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub(super) fn at(mut self, span: impl Into<Option<Range<usize>>>) -> Self {
        self.span = span.into();
        self
    }

    /// What is right, in one line.
    fn advice(&self) -> Option<String> {
        match (&self.fix, &self.note) {
            (Some(fix), Some(note)) => Some(format!("{fix}; {note}")),
            (fix, note) => fix.as_ref().or(note.as_ref()).cloned(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.advice().map_or(Ok(()), |advice| write!(f, ", {advice}"))
    }
}

/// All that is wrong with a file, in the order of its lines.
#[derive(Debug)]
pub(crate) struct Problems {
    path: PathBuf,
    text: String,
    list: Vec<Diagnostic>,
    code: u8,
}

/// An entry of `check --format json`; lines and columns count from 1, columns in characters.
#[derive(Serialize)]
struct Entry<'a> {
    severity: Severity,
    file: String,
    line: Option<usize>,
    column: Option<usize>,
    end_line: Option<usize>,
    end_column: Option<usize>,
    field: Option<&'a str>,
    value: Option<&'a str>,
    message: &'a str,
    fix: Option<String>,
}

impl Problems {
    /// What stands in a file.
    pub(super) fn of(path: &Path, text: &str, mut list: Vec<Diagnostic>) -> Self {
        // What has no place is about the file as a whole.
        list.sort_by_key(|d| (d.span.as_ref().map(|span| (span.start, span.end)), d.severity));
        Self { path: path.into(), text: text.into(), list, code: 2 }
    }

    /// What has nothing to do with a config's text.
    pub(crate) fn one(path: &Path, error: impl fmt::Display) -> Self {
        let list = vec![Diagnostic::error(error.to_string())];
        Self { path: path.into(), text: String::new(), list, code: 1 }
    }

    /// The file cannot be read at all.
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self { code: 2, ..Self::one(path, error) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Whether there are errors among them; `strict`: warnings are errors.
    pub(crate) fn are_errors(&self, strict: bool) -> bool {
        self.list.iter().any(|d| strict || d.severity == Severity::Error)
    }

    /// Says all to standard error; with what the process is to end: 2 for a config that cannot be used, 1 for anything else.
    pub(crate) fn report(&self) -> ExitCode {
        let error = io::stderr();
        // Where nobody listens, the exit code says it.
        let _ = self.write(&mut error.lock(), error.is_terminal());
        ExitCode::from(self.code)
    }

    /// As text, each with its lines.
    pub(crate) fn write(&self, out: &mut impl Write, colours: bool) -> io::Result<()> {
        for diagnostic in self.list.iter().take(MOST) {
            match &diagnostic.span {
                Some(span) => self.with_lines(diagnostic, span.clone(), out, colours)?,
                None => self.without_lines(diagnostic, out)?,
            }
        }
        match self.list.len().saturating_sub(MOST) {
            0 => Ok(()),
            more => writeln!(out, "{}: and {more} more", self.path.display()),
        }
    }

    /// As a list of objects.
    pub(crate) fn json(&self) -> String {
        let file = self.path.display().to_string();
        let entries = self.list.iter().take(MOST).map(|diagnostic| {
            let start = diagnostic.span.as_ref().map(|span| self.place(span.start));
            let end = diagnostic.span.as_ref().map(|span| self.place(span.end));
            Entry {
                severity: diagnostic.severity,
                file: file.clone(),
                line: start.map(|(line, _)| line),
                column: start.map(|(_, column)| column),
                end_line: end.map(|(line, _)| line),
                end_column: end.map(|(_, column)| column),
                field: diagnostic.field.as_deref(),
                value: diagnostic.value.as_deref(),
                message: &diagnostic.message,
                fix: diagnostic.advice(),
            }
        });
        serde_json::to_string_pretty(&entries.collect::<Vec<_>>()).expect("texts and numbers are JSON")
    }

    fn with_lines(
        &self,
        diagnostic: &Diagnostic,
        span: Range<usize>,
        out: &mut impl Write,
        colours: bool,
    ) -> io::Result<()> {
        let file = self.path.display().to_string();
        // Of a value over several lines the first is enough to find it.
        let line = self.text[span.start..span.end].lines().next().map_or(0, |line| line.trim_end().len());
        let span = span.start..span.start + line;
        let kind = match diagnostic.severity {
            Severity::Error => ReportKind::Error,
            Severity::Warning => ReportKind::Warning,
        };
        let label = diagnostic.fix.as_deref().unwrap_or("here");
        let mut report = Report::build(kind, (file.clone(), span.clone()))
            .with_config(Style::default().with_color(colours).with_index_type(IndexType::Byte))
            .with_message(&diagnostic.message)
            .with_label(Label::new((file.clone(), span)).with_message(label));
        if let Some(note) = &diagnostic.note {
            report.set_note(wrapped(note));
        }
        let mut lines = Vec::new();
        report.finish().write((file, Source::from(&self.text)), &mut lines)?;
        for line in String::from_utf8_lossy(&lines).lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn without_lines(&self, diagnostic: &Diagnostic, out: &mut impl Write) -> io::Result<()> {
        let kind = if diagnostic.severity == Severity::Error { "Error" } else { "Warning" };
        writeln!(out, "{kind}: {}: {diagnostic}", self.path.display())
    }

    /// Line and column of a byte.
    fn place(&self, at: usize) -> (usize, usize) {
        place(&self.text, at)
    }
}

/// Line and column of a byte, both from 1, the column in characters.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    (line, before.chars().rev().take_while(|c| *c != '\n').count() + 1)
}

/// With line ends between words.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is one");
        if !last.is_empty() && last.len() + word.len() >= WIDTH {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines.join("\n")
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write(&mut text, false).map_err(|_| fmt::Error)?;
        f.write_str(String::from_utf8_lossy(&text).trim_end())
    }
}

impl std::error::Error for Problems {}
