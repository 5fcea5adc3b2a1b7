use crate::Context;
use ::http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use std::fmt;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `00-<trace id>-<span id>-<flags>`
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// Which trace a request belongs to: the [W3C Trace Context](https://www.w3.org/TR/trace-context-1/), level 1.
///
/// It travels between processes as `traceparent` and `tracestate`, within one in the request's [`Context`].
///
/// ```
/// use buttress_core::http::TraceContext;
///
/// let theirs = TraceContext::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
/// let ours = theirs.child();
/// assert_eq!(ours.trace_id(), theirs.trace_id());
/// assert_ne!(ours.span_id(), theirs.span_id());
///
/// let mut headers = http::HeaderMap::new();
/// ours.write(&mut headers);
/// assert_eq!(TraceContext::read(&headers), Some(ours));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
    state: Option<HeaderValue>,
}

impl TraceContext {
    /// A new trace with random ids, sampled.
    #[allow(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self { trace: fastrand::u128(1..), span: fastrand::u64(1..), flags: SAMPLED, state: None }
    }

    /// Reads a `traceparent`. `None`: it is malformed, and a new trace begins. Of a version after 00 it reads what 00 has.
    pub fn parse(traceparent: &[u8]) -> Option<Self> {
        let (known, rest) = traceparent.split_at_checked(LENGTH)?;
        let [v0, v1, b'-', ..] = known else { return None };
        let version = hex(&[*v0, *v1])?;
        match version {
            0 if !rest.is_empty() => return None,
            0xff => return None,
            _ if !matches!(rest.first(), None | Some(b'-')) => return None,
            _ => {}
        }
        if known[35] != b'-' || known[52] != b'-' {
            return None;
        }
        let (trace, span, flags) = (hex(&known[3..35])?, hex(&known[36..52])?, hex(&known[53..])?);
        if trace == 0 || span == 0 {
            return None;
        }
        // Level 1 knows one flag; those that it does not know are not passed on.
        Some(Self { trace, span: span as u64, flags: flags as u8 & SAMPLED, state: None })
    }

    /// Reads the headers of a request. `None`: there is no `traceparent`, or it is malformed, or there are several. A malformed
    /// `tracestate` alone is left out; a good one is kept as it is.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let parent = Self::parse(value.as_bytes())?;
        Some(Self { state: read_state(headers), ..parent })
    }

    /// That of a request's extensions.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        Context::of(extensions)?.trace.as_ref()
    }

    /// Makes it that of a request's extensions.
    pub fn put(self, extensions: &mut Extensions) {
        Context::of_mut(extensions).trace = Some(self);
    }

    /// The same trace, in a span of its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: fastrand::u64(1..), ..self.clone() }
    }

    /// The same context, to be recorded by whoever comes next or not.
    #[must_use]
    pub fn sampled(self, sampled: bool) -> Self {
        Self { flags: if sampled { SAMPLED } else { 0 }, ..self }
    }

    /// The id of the trace.
    pub fn trace_id(&self) -> u128 {
        self.trace
    }

    /// The id of the span.
    pub fn span_id(&self) -> u64 {
        self.span
    }

    /// Whether the caller may have recorded it.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// What the systems on the way say of the trace.
    pub fn state(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }

    /// The `traceparent`.
    pub fn traceparent(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], self.trace);
        write_hex(&mut text[36..52], self.span.into());
        write_hex(&mut text[53..], self.flags.into());
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| unreachable!("hexadecimal digits and dashes"))
    }

    /// Writes both headers, in place of what is there.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.traceparent());
        match &self.state {
            Some(state) => headers.insert(TRACESTATE, state.clone()),
            None => headers.remove(TRACESTATE),
        };
    }
}

/// Shown as its `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self}, {:?})", self.state)
    }
}

/// Reads lower-case digits, and nothing else.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

fn write_hex(digits: &mut [u8], mut number: u128) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// The `tracestate`, as it came. Several are one list (RFC 9110, 5.3).
fn read_state(headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(TRACESTATE);
    let mut keys = [&[][..]; MEMBERS];
    let mut known = 0;
    for value in &values {
        for member in value.as_bytes().split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty()) {
            let key = key_of(member)?;
            if known == MEMBERS || keys[..known].contains(&key) {
                return None;
            }
            keys[known] = key;
            known += 1;
        }
    }
    let mut all = values.iter();
    match (all.next(), known) {
        (None, _) | (_, 0) => None,
        (Some(one), _) if all.next().is_none() => Some(one.clone()),
        _ => {
            let joined: Vec<&[u8]> = values.iter().map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&joined.join(&b","[..])).ok()
        }
    }
}

/// How many members a `tracestate` has at most.
const MEMBERS: usize = 32;

fn trim(member: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = member.iter().position(|byte| !blank(byte)).unwrap_or(member.len());
    let end = member.iter().rposition(|byte| !blank(byte)).map_or(begin, |last| last + 1);
    &member[begin..end]
}

/// The key of a well-formed member.
fn key_of(member: &[u8]) -> Option<&[u8]> {
    let equals = member.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let value_fits = (1..=256).contains(&value.len())
        && value.last() != Some(&b' ')
        && value.iter().all(|byte| matches!(byte, 0x20..=0x7e) && *byte != b'=');
    let inner = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    let word = |word: &[u8], longest: usize, digit_first: bool| {
        word.len() <= longest
            && word.iter().all(inner)
            && word.first().is_some_and(|first| first.is_ascii_lowercase() || digit_first && first.is_ascii_digit())
    };
    let key_fits = match key.iter().position(|byte| *byte == b'@') {
        None => word(key, 256, false),
        Some(at) => word(&key[..at], 241, true) && word(&key[at + 1..], 14, false),
    };
    (key_fits && value_fits).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn state(values: &[&str]) -> Option<String> {
        let pairs = values.iter().map(|value| ("tracestate", *value));
        let pairs: Vec<_> = [("traceparent", GOOD)].into_iter().chain(pairs).collect();
        let context = TraceContext::read(&headers(&pairs)).expect("the parent is good");
        context.state.map(|state| state.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_traceparent_is_read_and_written_as_it_was() {
        let context = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((context.trace, context.span), (0x0af7651916cd43dd8448eb211c80319c, 0xb7ad6b7169203331));
        assert!(context.is_sampled());
        assert_eq!((context.traceparent().to_str().unwrap(), context.to_string().as_str()), (GOOD, GOOD));
        let unsampled = context.sampled(false);
        assert_eq!(unsampled.to_string(), GOOD.replace("-01", "-00"));
    }

    #[test]
    fn what_is_malformed_begins_a_new_trace() {
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319cab7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331x01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad:?}");
        }
        let twice = headers(&[("traceparent", GOOD), ("traceparent", GOOD)]);
        assert_eq!(TraceContext::read(&twice), None);
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-what-the-future-brings";
        let context = TraceContext::parse(later.as_bytes()).unwrap();
        assert_eq!(context.to_string(), GOOD, "written as version 00, with the flag that it knows");
        assert!(TraceContext::parse(&later.as_bytes()[..LENGTH]).is_some());
    }

    #[test]
    fn a_good_tracestate_is_passed_on_as_it_is() {
        for good in [
            "rojo=00f067aa0ba902b7",
            "rojo=1,congo=2",
            "rojo=1 , \t congo=2",
            "foo=1,",
            "1a-_*/@b=x",
            "a= leading blank",
            "z=!\"#$%&'()*+-./:;<>?@[]^_`{|}~",
        ] {
            assert_eq!(state(&[good]).as_deref(), Some(good));
        }
        assert_eq!(state(&["rojo=1", "congo=2"]).as_deref(), Some("rojo=1,congo=2"));
        let most = (0..32).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(state(&[&most]), Some(most));
    }

    #[test]
    fn a_malformed_tracestate_is_left_out_and_its_parent_kept() {
        let (long_value, long_key) = (format!("a={}", "x".repeat(257)), format!("{}=x", "a".repeat(257)));
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        for bad in [
            "",
            ",",
            "foo",
            "=1",
            "foo=",
            "Foo=1",
            "1foo=1",
            "foo@=1",
            "@foo=1",
            "a@b@c=1",
            "a@1b=1",
            "foo=1=2",
            "foo=1,foo=2",
            "foo =1",
            "a@abcdefghijklmno=1",
            &long_value,
            &long_key,
            &many,
        ] {
            assert_eq!(state(&[bad]), None, "{bad:?}");
        }
        assert_eq!(state(&["foo=1", "foo=2"]), None);
    }

    #[test]
    fn a_context_without_state_takes_a_strangers_state_away() {
        let mut request = headers(&[("tracestate", "old=1"), ("traceparent", GOOD)]);
        let context = TraceContext::new();
        context.write(&mut request);
        assert_eq!((request.len(), TraceContext::read(&request)), (1, Some(context)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic_and_what_they_read_they_write_back(
            parent in proptest::collection::vec(any::<u8>(), 0..80),
            list in proptest::collection::vec(any::<u8>(), 0..80),
            (trace, span, flags) in (1u128.., 1u64.., 0u8..),
        ) {
            let written = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            for parent in [&parent, written.as_bytes()] {
                let mut request = HeaderMap::new();
                let pairs = [(TRACEPARENT, parent), (TRACESTATE, &list)];
                for (name, value) in pairs {
                    if let Ok(value) = HeaderValue::from_bytes(value) {
                        request.insert(name, value);
                    }
                }
                if let Some(context) = TraceContext::read(&request) {
                    let mut again = HeaderMap::new();
                    context.write(&mut again);
                    prop_assert_eq!(TraceContext::read(&again), Some(context));
                }
            }
            let context = TraceContext::parse(written.as_bytes()).unwrap();
            prop_assert_eq!((context.trace, context.span, context.is_sampled()), (trace, span, flags & 1 == 1));
        }
    }
}
