//! TOML to a config, or everything that stands in the way.

use serde::Deserialize;
use std::ops::Range;
use toml::de::{DeTable, DeValue, Deserializer, Error};

/// More are not shown at once.
const MOST: usize = 20;

/// Reads a text. What is wrong is taken out and the rest read again, until nothing is.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Vec<String>> {
    let (mut document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().map(ToString::to_string).collect());
    }
    let mut errors: Vec<(usize, String)> = Vec::new();
    let mut taken: Vec<String> = Vec::new();
    loop {
        let mut error = match T::deserialize(Deserializer::from(document.clone())) {
            Ok(config) if errors.is_empty() => return Ok(config),
            Ok(_) => break,
            Err(error) => error,
        };
        error.set_input(Some(text));
        // A field that was there and wrong is not missing.
        let follows = taken.iter().any(|name| error.message().starts_with(&format!("missing field `{name}`")));
        let name = error.span().and_then(|span| take_out(document.get_mut(), &span));
        if !follows {
            let at = error.span().map_or(0, |span| span.start);
            errors.push((at, with_hint(&error, name.as_deref())));
        }
        match name {
            Some(name) if errors.len() < MOST => taken.push(name),
            _ => break,
        }
    }
    errors.sort();
    Err(errors.into_iter().map(|(_, text)| text).collect())
}

/// Takes the innermost entry that holds the span out; its name.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (_, value) in table.iter_mut() {
        if let DeValue::Table(inner) = value.get_mut()
            && let Some(name) = take_out(inner, span)
        {
            return Some(name);
        }
    }
    let (key, _) = table.iter().find(|(key, value)| holds(key.span()) || holds(value.span()))?;
    let key = key.clone();
    table.remove(&key);
    Some(key.get_ref().to_string())
}

fn with_hint(error: &Error, name: Option<&str>) -> String {
    let hint = match name {
        Some("breaker") if error.message().starts_with("unknown field") => {
            "a breaker belongs to an upstream: `[upstream.NAME.breaker]`"
        }
        // Of what is inside it, the name would be another one.
        Some("window") => "a window is { time = \"10s\" } or { count = 100 }",
        _ => return error.to_string(),
    };
    format!("{}\n{hint}", error.to_string().trim_end())
}
