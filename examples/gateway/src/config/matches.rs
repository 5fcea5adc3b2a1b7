//! Routes that stand in each other's way.

use super::{Config, document::Document};
use crate::router::{Clash, Router};
use matchit::InsertError;

/// Says which templates are none, and which routes no request could be told apart for.
pub(super) fn check(document: &mut Document<'_>, config: &Config) {
    let names: Vec<_> = config.routes.keys().collect();
    let mut router = Router::default();
    for (place, (name, route)) in config.routes.iter().enumerate() {
        let field = if route.path.is_some() { "path" } else { "prefix" };
        let path = ["route", name.as_str(), field];
        if document.is_taken(&path) || !route.pattern().starts_with('/') {
            continue;
        }
        // What is wrong with a header is said where headers are looked at.
        if let Err(Clash::Path(error, other)) = router.add(place, route) {
            let other = other.map(|place| names[place].as_str());
            document.wrong(&path, format_args!("{:?}", route.pattern()), allowed(config, &error, other));
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
