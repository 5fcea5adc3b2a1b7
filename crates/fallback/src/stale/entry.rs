use super::{
    request::{Asked, combined},
    rules::{self, NotStored, Terms},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// An answer that is kept. Nothing in it holds more memory than it shows: what a connection read is copied.
pub(super) struct Stored {
    pub(super) head: StoredHead,
    pub(super) body: Bytes,
}

/// The head of an answer, whose body may be still to come.
pub(super) struct StoredHead {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    /// What its request is told apart by, always, and by the fields that it varies by.
    front: Arc<[u8]>,
    vary: Vec<(HeaderName, Option<Box<[u8]>>)>,
    pub(super) terms: Terms,
    /// When its request came.
    pub(super) begun: Instant,
    /// When its head came, and how old it was then.
    at: Instant,
    initial_age: Duration,
}

/// The time, by both clocks.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) at: Instant,
    pub(super) wall: SystemTime,
}

impl StoredHead {
    /// Of an answer that may be stored; `operator` is how long an answer that says nothing may be used stale.
    pub(super) fn of(
        asked: &Asked,
        status: StatusCode,
        headers: &HeaderMap,
        now: Now,
        operator: Option<Duration>,
    ) -> Result<Self, NotStored> {
        let names = rules::vary(headers).ok_or(NotStored::Vary)?;
        let delay = now.at.saturating_duration_since(asked.begun);
        let initial_age = rules::initial_age(headers, now.wall, delay);
        let terms = rules::terms(headers, now.wall, initial_age, operator)?;
        let vary = names.into_iter().map(|name| {
            let value = combined(&asked.headers, &name);
            (name, value)
        });
        let vary = vary.collect();
        let (front, mut headers) = (asked.front.clone(), kept_headers(headers));
        // Who stores it says when it came, or the next cache takes it for new (RFC 9110, 6.6.1).
        if !headers.contains_key(header::DATE)
            && let Some(date) = rules::date_of(now.wall)
        {
            headers.insert(header::DATE, date);
        }
        Ok(Self { status, headers, front, vary, terms, begun: asked.begun, at: now.at, initial_age })
    }

    pub(super) fn with(self, body: Bytes) -> Stored {
        Stored { head: self, body }
    }

    /// How many bytes it holds, roughly: never less than its text.
    pub(super) fn weight(&self) -> usize {
        /// A place of a `HeaderMap`: hash, index, name, value.
        const PLACE: usize = 112;
        let fields = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
        let vary =
            self.vary.iter().map(|(name, value)| name.as_str().len() + value.as_ref().map_or(0, |v| v.len()) + 64);
        let places = self.headers.capacity() * PLACE;
        size_of::<Self>() + fields + places + self.front.len() + vary.sum::<usize>()
    }
}

impl Stored {
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.head.initial_age.saturating_add(now.saturating_duration_since(self.head.at))
    }

    /// Whether it is an answer to such a request.
    pub(super) fn is_for(&self, asked: &Asked) -> bool {
        let StoredHead { front, vary, .. } = &self.head;
        *front == asked.front && vary.iter().all(|(name, value)| combined(&asked.headers, name) == *value)
    }

    /// Whether both stand in the same place.
    pub(super) fn is_same_variant(&self, other: &Self) -> bool {
        self.head.front == other.head.front && self.head.vary == other.head.vary
    }

    /// How many bytes it holds, roughly.
    pub(super) fn weight(&self) -> usize {
        self.head.weight() + self.body.len()
    }

    /// The answer to a request for it: whole, without a body, or 304 where the client has it already (RFC 9111, 4.3.2).
    pub(super) fn answer(&self, asked: &Asked, age: Duration) -> Response<Bytes> {
        let is_known = self.head.status == StatusCode::OK && self.is_known_to(asked);
        let mut res = Response::new(Bytes::new());
        *res.headers_mut() = self.head.headers.clone();
        if is_known {
            *res.status_mut() = StatusCode::NOT_MODIFIED;
            // A 304 says what tells answers apart, and nothing of the content (RFC 9110, 15.4.5).
            for name in
                [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE]
            {
                res.headers_mut().remove(name);
            }
        } else {
            *res.status_mut() = self.head.status;
            if asked.is_head
                && !res.headers().contains_key(header::CONTENT_LENGTH)
                && self.head.status != StatusCode::NO_CONTENT
            {
                res.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            }
            if !asked.is_head {
                *res.body_mut() = self.body.clone();
            }
        }
        res.headers_mut().insert(header::AGE, HeaderValue::from(age.as_secs()));
        res
    }

    /// Whether the conditions of a request say that its client has this answer.
    fn is_known_to(&self, asked: &Asked) -> bool {
        if asked.headers.contains_key(header::IF_NONE_MATCH) {
            let etag = self.head.headers.get(header::ETAG).map(|etag| weak(etag.as_bytes()));
            let mut lines = asked.headers.get_all(header::IF_NONE_MATCH).iter();
            return lines.any(|line| {
                line.as_bytes().trim_ascii() == b"*" || etag.is_some_and(|etag| lists(line.as_bytes(), etag))
            });
        }
        let since = asked.headers.get(header::IF_MODIFIED_SINCE).and_then(rules::date);
        let changed = self.head.headers.get(header::LAST_MODIFIED).or_else(|| self.head.headers.get(header::DATE));
        matches!((since, changed.and_then(rules::date)), (Some(since), Some(changed)) if changed <= since)
    }

    /// Whether a 304 speaks of this answer (RFC 9111, 4.3.4).
    pub(super) fn is_meant_by(&self, headers: &HeaderMap) -> bool {
        let same = |name: HeaderName| headers.get(&name).map(|value| self.head.headers.get(&name) == Some(value));
        same(header::ETAG).or_else(|| same(header::LAST_MODIFIED)).unwrap_or(false)
    }

    /// The fields that it has after a 304 (RFC 9111, 3.2).
    pub(super) fn refreshed(&self, headers: &HeaderMap) -> HeaderMap {
        let mut all = self.head.headers.clone();
        // They were of the answer that was refreshed.
        all.remove(header::DATE);
        all.remove(header::AGE);
        let fresh = kept_headers(headers);
        for name in fresh.keys() {
            if !is_of_content(name) {
                all.remove(name);
            }
        }
        for (name, value) in fresh.iter().filter(|(name, _)| !is_of_content(name)) {
            all.append(name, value.clone());
        }
        all
    }

    /// What asks whether it has changed.
    pub(super) fn validators(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
        let pairs = [(header::IF_NONE_MATCH, header::ETAG), (header::IF_MODIFIED_SINCE, header::LAST_MODIFIED)];
        pairs.into_iter().filter_map(|(ask, from)| Some((ask, self.head.headers.get(from)?.clone())))
    }
}

/// What a 304 cannot change: it has no content.
fn is_of_content(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_TYPE, header::CONTENT_RANGE].contains(name)
}

/// A tag without its mark of weakness.
fn weak(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether a list of entity tags has this one, compared weakly. What stands in quotes may hold commas.
fn lists(line: &[u8], etag: &[u8]) -> bool {
    let mut rest = line;
    while let Some(open) = rest.iter().position(|byte| *byte == b'"') {
        let Some(len) = rest[open + 1..].iter().position(|byte| *byte == b'"') else { return false };
        let end = open + len + 2;
        if &rest[open..end] == etag {
            return true;
        }
        rest = &rest[end..];
    }
    false
}

/// Fields of one connection (RFC 9111, 3.1; RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
const PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");

/// The fields that are kept, in memory of their own: a value that was read is a slice of its connection's buffer.
fn kept_headers(headers: &HeaderMap) -> HeaderMap {
    let mut named = Vec::new();
    for line in headers.get_all(header::CONNECTION) {
        let names = line.as_bytes().split(|byte| *byte == b',');
        named.extend(names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()));
    }
    let is_kept =
        |name: &HeaderName| !HOP_BY_HOP.contains(name) && *name != PROXY_AUTHENTICATION_INFO && !named.contains(name);
    let mut kept = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers.iter().filter(|(name, _)| is_kept(name)) {
        let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) else { continue };
        copy.set_sensitive(value.is_sensitive());
        kept.append(name, copy);
    }
    kept
}
