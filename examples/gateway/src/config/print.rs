//! A config as TOML, with every value written out.

use super::{
    Config,
    origin::Origins,
    tree::{Node, tree_of},
};
use std::fmt::{self, Write};

/// Comments stand no further right than this.
const WIDEST: usize = 60;

/// The config as TOML that reads back as the same; with origins, each line says where its value came from.
pub(crate) struct Effective<'a> {
    pub(super) config: &'a Config,
    pub(super) origins: Option<&'a Origins>,
}

/// Tables of their own, wherever they stand; others are written in a line.
const OWN_TABLE: [&str; 12] = [
    "tls",
    "canary",
    "failover",
    "rate_limit",
    "fallback",
    "shed",
    "gate",
    "balance",
    "breaker",
    "bulkhead",
    "deadline",
    "retry",
];

/// The sections whose tables have names; the others are tables themselves.
const NAMED: [&str; 4] = ["listener", "toggle", "cluster", "route"];

impl fmt::Display for Effective<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Node::Table(sections) = tree_of(self.config) else { return Err(fmt::Error) };
        let (tables, values): (Vec<_>, Vec<_>) = sections.iter().partition(|(_, node)| matches!(node, Node::Table(_)));
        self.lines(f, &[], &values)?;
        for (name, node) in tables {
            let Node::Table(entries) = node else { continue };
            if NAMED.contains(&name.as_str()) {
                for (entry, node) in entries {
                    if let Node::Table(values) = node {
                        self.table(f, &[name, entry], values)?;
                    }
                }
            } else {
                self.table(f, &[name], entries)?;
            }
        }
        Ok(())
    }
}

impl Effective<'_> {
    fn table(&self, f: &mut fmt::Formatter<'_>, path: &[&str], entries: &[(String, Node)]) -> fmt::Result {
        let is_own = |(name, node): &&(String, Node)| {
            matches!(node, Node::Table(_)) && path.len() == 2 && OWN_TABLE.contains(&name.as_str())
        };
        // What entries inherit is written out in them.
        let is_shown = |(name, _): &&(String, Node)| name != "policy";
        let (tables, values): (Vec<_>, Vec<_>) = entries.iter().filter(is_shown).partition(is_own);
        let keys: Vec<_> = path.iter().map(|key| quoted_key(key)).collect();
        writeln!(f, "\n[{}]", keys.join("."))?;
        self.lines(f, path, &values)?;
        for (name, node) in tables {
            if let Node::Table(entries) = node {
                let path: Vec<_> = path.iter().copied().chain([name.as_str()]).collect();
                self.table(f, &path, entries)?;
            }
        }
        Ok(())
    }

    fn lines(&self, f: &mut fmt::Formatter<'_>, path: &[&str], values: &[&(String, Node)]) -> fmt::Result {
        let keys = values.iter().map(|(name, _)| quoted_key(name).len()).max().unwrap_or_default();
        let lines: Vec<_> =
            values.iter().map(|(name, node)| (name, format!("{:keys$} = {node}", quoted_key(name)))).collect();
        let widest = lines.iter().map(|(_, line)| line.chars().count()).filter(|&width| width <= WIDEST).max();
        let widest = widest.unwrap_or_default();
        for (name, line) in lines {
            match self.origins {
                Some(origins) => {
                    let path: Vec<_> = path.iter().copied().chain([name.as_str()]).collect();
                    writeln!(f, "{line:widest$}  # {}", origins.find(&path))?;
                }
                None => writeln!(f, "{line}")?,
            }
        }
        Ok(())
    }
}

/// A key as TOML wants it.
fn quoted_key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if is_bare { key.to_owned() } else { text(key) }
}

/// A text as TOML wants it.
pub(super) fn text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => _ = write!(quoted, "\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => f.write_str(value),
            Self::List(list) => {
                let list: Vec<_> = list.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", list.join(", "))
            }
            Self::Table(entries) if entries.is_empty() => f.write_str("{}"),
            Self::Table(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(name, node)| format!("{} = {node}", quoted_key(name))).collect();
                write!(f, "{{ {} }}", entries.join(", "))
            }
        }
    }
}
