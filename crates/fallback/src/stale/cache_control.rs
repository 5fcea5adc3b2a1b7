use http::{HeaderMap, header};
use std::time::Duration;

/// `Cache-Control` of a request or of an answer ([RFC 9111](https://www.rfc-editor.org/rfc/rfc9111#section-5.2),
/// [RFC 5861](https://www.rfc-editor.org/rfc/rfc5861)).
///
/// What cannot be read counts as what is safe: a time that is no number is 0, of several values the stricter one counts, and a
/// directive that is written wrongly says `no-store`: quotes that do not close, a semicolon or a space where a comma should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct CacheControl {
    pub no_store: bool,
    /// Also where it names single fields.
    pub no_cache: bool,
    /// Also where it names single fields.
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub only_if_cached: bool,
    /// Times in seconds, at most [`FOREVER`].
    pub max_age: Option<u32>,
    pub s_maxage: Option<u32>,
    pub stale_if_error: Option<u32>,
    pub stale_while_revalidate: Option<u32>,
    pub min_fresh: Option<u32>,
    /// [`FOREVER`] where it names no time.
    pub max_stale: Option<u32>,
}

/// The longest time that there is: 68 years (RFC 9111, 1.2.2).
pub(super) const FOREVER: u32 = 1 << 31;

pub(super) fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

impl CacheControl {
    /// What an answer says.
    pub(crate) fn of_answer(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        headers.get_all(header::CACHE_CONTROL).iter().for_each(|line| said.read(line.as_bytes()));
        said
    }

    /// What a request says. `Pragma: no-cache` counts where it has no `Cache-Control` (RFC 9111, 5.4).
    pub(crate) fn of_request(headers: &HeaderMap) -> Self {
        let mut said = Self::of_answer(headers);
        if !headers.contains_key(header::CACHE_CONTROL) {
            let mut pragma = Self::default();
            headers.get_all(header::PRAGMA).iter().for_each(|line| pragma.read(line.as_bytes()));
            said.no_cache = pragma.no_cache;
        }
        said
    }

    /// Reads a line more.
    pub fn read(&mut self, line: &[u8]) {
        let mut rest = line;
        while let Some((directive, after)) = next(rest) {
            rest = after;
            self.no_store |= directive.is_broken;
            self.take(directive.name, directive.value);
        }
    }

    fn take(&mut self, name: &[u8], value: Option<&[u8]>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let least = |field: &mut Option<u32>| {
            let said = value.and_then(delta_seconds).unwrap_or(0);
            *field = Some(field.map_or(said, |before| before.min(said)));
        };
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            self.no_cache = true;
        } else if is("private") {
            self.private = true;
        } else if is("public") {
            self.public = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            least(&mut self.max_age);
        } else if is("s-maxage") {
            least(&mut self.s_maxage);
        } else if is("stale-if-error") {
            least(&mut self.stale_if_error);
        } else if is("stale-while-revalidate") {
            least(&mut self.stale_while_revalidate);
        } else if is("max-stale") && value.is_none() {
            self.max_stale = self.max_stale.or(Some(FOREVER));
        } else if is("max-stale") {
            least(&mut self.max_stale);
        } else if is("min-fresh") {
            let said = value.and_then(delta_seconds).unwrap_or(FOREVER);
            self.min_fresh = self.min_fresh.max(Some(said));
        }
    }
}

struct Directive<'a> {
    name: &'a [u8],
    value: Option<&'a [u8]>,
    /// It is not what the grammar has (RFC 9111, 5.2): what was meant might be anything.
    is_broken: bool,
}

/// Whether it is a token (RFC 9110, 5.6.2), and none in quotes of another kind.
fn is_token(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&*+-.^_|~".contains(byte);
    !text.is_empty() && text.iter().all(is_part)
}

/// The next directive of a list, and what is behind it.
fn next(list: &[u8]) -> Option<(Directive<'_>, &[u8])> {
    let start = list.iter().position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?;
    let list = &list[start..];
    let end = list.iter().position(|byte| matches!(byte, b',' | b'=')).unwrap_or(list.len());
    let name = list[..end].trim_ascii();
    let Some(rest) = list[end..].strip_prefix(b"=") else {
        return Some((Directive { name, value: None, is_broken: !is_token(name) }, &list[end..]));
    };
    let rest = rest.trim_ascii_start();
    let Some(quoted) = rest.strip_prefix(b"\"") else {
        let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
        let value = rest[..end].trim_ascii();
        let is_broken = !(is_token(name) && is_token(value));
        return Some((Directive { name, value: Some(value), is_broken }, &rest[end..]));
    };
    let mut escaped = false;
    let close = quoted.iter().position(|byte| match byte {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' => {
            escaped = true;
            false
        }
        byte => *byte == b'"',
    });
    let Some(close) = close else { return Some((Directive { name, value: Some(quoted), is_broken: true }, &[])) };
    let after = &quoted[close + 1..];
    let end = after.iter().position(|byte| *byte == b',').unwrap_or(after.len());
    let is_broken = !(is_token(name) && after[..end].trim_ascii().is_empty());
    Some((Directive { name, value: Some(&quoted[..close]), is_broken }, &after[end..]))
}

/// Digits; more than fit are a very long time.
fn delta_seconds(value: &[u8]) -> Option<u32> {
    // `parse` would take a sign.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = std::str::from_utf8(value).ok()?;
    Some(digits.parse().unwrap_or(FOREVER).min(FOREVER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> CacheControl {
        let mut said = CacheControl::default();
        said.read(line.as_bytes());
        said
    }

    #[test]
    fn directives_are_read_as_they_are_written() {
        let said = read(" Public ,max-age=60,, Stale-If-Error = \"300\", x=\"a, no-store\", ext");
        assert_eq!((said.public, said.max_age, said.stale_if_error), (true, Some(60), Some(300)));
        assert!(!said.no_store, "what stands in quotes is no directive");
        let said = read("private=\"set-cookie\", no-cache=\"a\\\"b\", s-maxage=5, must-revalidate, proxy-revalidate");
        assert!(said.private && said.no_cache && said.must_revalidate && said.proxy_revalidate);
        assert_eq!(said.s_maxage, Some(5));
        assert_eq!(read("max-stale").max_stale, Some(FOREVER));
        assert_eq!(read("max-stale=7, max-stale").max_stale, Some(7));
        assert!(read("only-if-cached").only_if_cached);
    }

    #[test]
    fn what_cannot_be_read_is_what_is_safe() {
        for odd in ["max-age", "max-age=", "max-age=x", "max-age=-1", "max-age=+1", "max-age=1.5", "max-age=\"\""] {
            assert_eq!(read(odd).max_age, Some(0), "{odd}");
        }
        assert_eq!(read("max-age=99999999999999999999").max_age, Some(FOREVER));
        assert_eq!(read("max-age=60, max-age=10, max-age=90").max_age, Some(10), "the shortest counts");
        assert_eq!(read("min-fresh=x").min_fresh, Some(FOREVER));
        assert!(read("max-age=60, x=\"never closed, public").no_store);
        for odd in [
            "private; max-age=5",
            "max-age=5; private",
            "max-age=\"5\"; private",
            "max-age=",
            "'private'",
            "=",
            "a=b\"c",
        ] {
            assert!(read(odd).no_store, "{odd}");
        }
        assert!(read("no-storefront").eq(&CacheControl::default()));
    }

    #[test]
    fn pragma_counts_where_nothing_else_is_said() {
        let mut headers = HeaderMap::new();
        headers.insert(header::PRAGMA, http::HeaderValue::from_static("no-cache"));
        assert!(CacheControl::of_request(&headers).no_cache);
        headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("max-age=5"));
        assert!(!CacheControl::of_request(&headers).no_cache);
    }
}
