//! RFC 9111 and RFC 5861 for a shared store, without the store.

use super::{
    cache_control::{CacheControl, seconds},
    request::Asked,
};
use buttress_core::{
    Degraded, Rejection,
    http::{X_DEGRADED, is_grpc},
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use std::time::{Duration, SystemTime};

/// Why an answer was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotStored {
    /// Its status, or its kind: 206, what is not in RFC 9110's list of what may be kept, gRPC.
    Status,
    /// The request asked for a part.
    Range,
    /// The request or the answer said `no-store`.
    NoStore,
    /// `private`: it is for one user.
    Private,
    /// `no-cache`: it is of no use without asking.
    NoCache,
    /// It has `Set-Cookie`.
    SetCookie,
    /// `Vary: *`, or more fields than are looked at.
    Vary,
    /// The request had `Authorization` or `Cookie`, and the answer does not say `public`.
    Personal,
    /// A layer further in refused, or gave a degraded answer.
    Degraded,
    /// Nothing says that it may be used at any time.
    NoUse,
    /// Its body is larger than what is kept.
    TooLarge,
    /// Its body failed, was not read to its end, or was not as long as declared.
    Incomplete,
    /// It has trailers.
    Trailers,
    /// The resource was changed while it was under way, or a later answer is there.
    Outdated,
    /// As many bytes are being copied as may be kept altogether.
    Busy,
}

impl NotStored {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 15] = [
        Self::Status,
        Self::Range,
        Self::NoStore,
        Self::Private,
        Self::NoCache,
        Self::SetCookie,
        Self::Vary,
        Self::Personal,
        Self::Degraded,
        Self::NoUse,
        Self::TooLarge,
        Self::Incomplete,
        Self::Trailers,
        Self::Outdated,
        Self::Busy,
    ];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Range => "range",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::NoCache => "no_cache",
            Self::SetCookie => "set_cookie",
            Self::Vary => "vary",
            Self::Personal => "personal",
            Self::Degraded => "degraded",
            Self::NoUse => "no_use",
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
            Self::Trailers => "trailers",
            Self::Outdated => "outdated",
            Self::Busy => "busy",
        }
    }
}

/// What an answer says of its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// How long it is fresh (RFC 9111, 4.2.1).
    pub(super) lifetime: Duration,
    /// How long it may be used after that where the origin fails; `None`: it does not say.
    stale_if_error: Option<Duration>,
    /// How long it may be used after that while it is asked for anew.
    stale_while_revalidate: Option<Duration>,
    /// It is never used stale.
    strict: bool,
    /// It may be given to those who say who they are.
    pub(super) public: bool,
}

/// How a stored answer may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Fresh,
    Stale,
}

impl Terms {
    pub(super) fn of(headers: &HeaderMap, wall: SystemTime) -> Self {
        let said = CacheControl::of_answer(headers);
        let lifetime = match said.s_maxage.or(said.max_age) {
            Some(age) => seconds(age),
            None => expires(headers, wall),
        };
        let strict = said.must_revalidate || said.proxy_revalidate || said.no_cache || said.s_maxage.is_some();
        Self {
            lifetime,
            stale_if_error: said.stale_if_error.map(seconds),
            stale_while_revalidate: said.stale_while_revalidate.map(seconds),
            strict,
            public: said.public,
        }
    }

    /// Whether it can be used at all, now or later, by its own word or the operator's.
    fn is_of_use(&self, age: Duration, operator: Option<Duration>) -> bool {
        let granted = self.stale_if_error.or(operator).max(self.stale_while_revalidate);
        self.lifetime > age || (!self.strict && granted.is_some_and(|granted| !granted.is_zero()))
    }

    /// Whether an answer of this age may be used for a request that says `said`. `failed`: the origin was asked, and failed;
    /// then `operator` counts where the answer itself says nothing.
    pub(super) fn usable(
        &self,
        age: Duration,
        said: &CacheControl,
        failed: bool,
        operator: Option<Duration>,
    ) -> Option<Use> {
        if said.no_cache {
            return None;
        }
        let max_age = said.max_age.map(seconds);
        let min_fresh = said.min_fresh.map_or(Duration::ZERO, seconds);
        if self.lifetime > age {
            let young = max_age.is_none_or(|max_age| age <= max_age);
            return (young && self.lifetime - age >= min_fresh).then_some(Use::Fresh);
        }
        // A client that sets a bound wants nothing stale, unless it says so, too (RFC 9111, 5.2.1.1).
        if self.strict || said.min_fresh.is_some() || (max_age.is_some() && said.max_stale.is_none()) {
            return None;
        }
        let max_stale = said.max_stale.map(seconds);
        let granted = if failed {
            // A client may take less than the answer, or else the operator, allows on errors, and never more.
            let least =
                |granted: Duration, taken: Option<u32>| taken.map_or(granted, |taken| granted.min(seconds(taken)));
            let allowed = self.stale_if_error.or(operator);
            allowed.map(|allowed| least(least(allowed, said.stale_if_error), said.max_stale))
        } else {
            max_stale.or(self.stale_while_revalidate)
        };
        let young = max_age.is_none_or(|bound| age <= bound.saturating_add(max_stale.unwrap_or_default()));
        let stale = age - self.lifetime;
        (young && granted.is_some_and(|granted| !granted.is_zero() && stale <= granted)).then_some(Use::Stale)
    }
}

/// `Expires` less `Date`. What is no date has passed (RFC 9111, 5.3).
fn expires(headers: &HeaderMap, wall: SystemTime) -> Duration {
    let mut lines = headers.get_all(header::EXPIRES).iter();
    let (Some(first), None) = (lines.next(), lines.next()) else { return Duration::ZERO };
    let Some(expires) = date(first) else { return Duration::ZERO };
    let date = headers.get(header::DATE).and_then(date).unwrap_or(wall);
    expires.duration_since(date).unwrap_or_default()
}

pub(super) fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// The time as `Date` says it; `None`: it has no name for a time before 1970 or after 9999.
pub(super) fn date_of(wall: SystemTime) -> Option<HeaderValue> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_10000).then(|| HeaderValue::try_from(httpdate::fmt_http_date(wall)).ok())?
}

/// The age of an answer when it came: `wall` is the time then, `delay` what it took (RFC 9111, 4.2.3).
pub(super) fn initial_age(headers: &HeaderMap, wall: SystemTime, delay: Duration) -> Duration {
    let date = headers.get(header::DATE).and_then(date);
    let apparent = date.and_then(|date| wall.duration_since(date).ok()).unwrap_or_default();
    let told = headers.get(header::AGE).map_or(Duration::ZERO, |age| {
        // Of a list, the first; what is no number is not looked at.
        let first = age.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        let digits = std::str::from_utf8(first).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.map_or(Duration::ZERO, |digits| match digits.parse::<u32>() {
            Ok(age) => seconds(age),
            Err(_) if digits.is_empty() => Duration::ZERO,
            Err(_) => seconds(super::cache_control::FOREVER),
        })
    });
    apparent.max(told.saturating_add(delay))
}

/// Statuses whose answers may be kept without being told (RFC 9110, 15.1), but partial ones and errors of ours.
fn is_kept(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 410)
}

/// More varying fields than this are not looked at.
const MOST_FIELDS: usize = 16;

/// The fields that an answer varies by; `None`: by something else (RFC 9111, 4.1).
pub(crate) fn vary(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for line in headers.get_all(header::VARY) {
        for name in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            // `*` is a token as well, and would be a name.
            if name == b"*" {
                return None;
            }
            if !name.is_empty() {
                names.push(HeaderName::from_bytes(name).ok()?);
            }
        }
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    (names.len() <= MOST_FIELDS).then_some(names)
}

/// Whether the answer to a GET may be stored, by its head.
pub(super) fn storable<R>(asked: &Asked, res: &Response<R>) -> Result<(), NotStored> {
    // The header is another process's mark.
    let is_degraded = Degraded::of(res).is_some() || res.headers().contains_key(X_DEGRADED);
    if is_degraded || res.extensions().get::<Rejection>().is_some() {
        return Err(NotStored::Degraded);
    }
    if !is_kept(res.status()) || is_grpc(res.headers()) || res.headers().contains_key(header::CONTENT_RANGE) {
        return Err(NotStored::Status);
    }
    by_request(asked, res.headers())?;
    by_answer(res.headers())
}

/// What the request says against it.
pub(super) fn by_request(asked: &Asked, headers: &HeaderMap) -> Result<(), NotStored> {
    if asked.said.no_store {
        return Err(NotStored::NoStore);
    }
    if asked.headers.contains_key(header::RANGE) {
        return Err(NotStored::Range);
    }
    if asked.is_personal() && !CacheControl::of_answer(headers).public {
        return Err(NotStored::Personal);
    }
    Ok(())
}

/// What the answer says against it.
pub(super) fn by_answer(headers: &HeaderMap) -> Result<(), NotStored> {
    let said = CacheControl::of_answer(headers);
    if said.no_store {
        return Err(NotStored::NoStore);
    }
    if said.private {
        return Err(NotStored::Private);
    }
    if said.no_cache {
        return Err(NotStored::NoCache);
    }
    if headers.contains_key(header::SET_COOKIE) {
        return Err(NotStored::SetCookie);
    }
    Ok(())
}

/// The terms of an answer that came with this age, if it is of any use.
pub(super) fn terms(
    headers: &HeaderMap,
    wall: SystemTime,
    age: Duration,
    operator: Option<Duration>,
) -> Result<Terms, NotStored> {
    let terms = Terms::of(headers, wall);
    if terms.is_of_use(age, operator) { Ok(terms) } else { Err(NotStored::NoUse) }
}
