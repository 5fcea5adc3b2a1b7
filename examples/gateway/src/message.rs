//! What an intermediary does to the heads of messages (RFC 9110, 7.6).

use crate::trust;
use buttress::Reason;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use std::net::Ipv6Addr;

/// Why a request is refused before any layer sees it.
pub(crate) type Wrong = (Reason, &'static str);

/// The one host a request is for (RFC 9112, 3.2; RFC 9113, 8.3.1). HTTP/1.0 may have none.
pub(crate) fn host<B>(req: &Request<B>) -> Result<Option<HeaderValue>, Wrong> {
    let wrong = |text| Err((Reason::BadRequest, text));
    if req.method() == Method::CONNECT {
        return Err((Reason::NotImplemented, "CONNECT is for forward proxies"));
    }
    let mut named = req.headers().get_all(header::HOST).iter();
    let (first, second) = (named.next(), named.next());
    if second.is_some() {
        return wrong("more than one Host");
    }
    if first.is_some_and(|value| !is_host(value.as_bytes())) {
        return wrong("not a Host");
    }
    // The target of an absolute-form request, or `:authority`, wins over the header.
    match req.uri().authority() {
        Some(authority) if authority.as_str().contains('@') => wrong("credentials in the target"),
        Some(authority) if !is_host(authority.as_str().as_bytes()) => wrong("not a host"),
        Some(authority) => Ok(HeaderValue::from_str(authority.as_str()).ok()),
        None if first.is_some() => Ok(first.cloned()),
        None if req.version() <= Version::HTTP_10 => Ok(None),
        None => wrong("no Host"),
    }
}

/// Whether `text` is a name or an address, and a port or none. Less than RFC 3986 allows: what no name has in the wild, servers
/// read in different ways.
fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let (is_known, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address.parse::<Ipv6Addr>().is_ok(), ""),
        Some((address, port)) => match port.strip_prefix(':') {
            Some(port) => (address.parse::<Ipv6Addr>().is_ok(), port),
            None => return false,
        },
        None => {
            let (name, port) = text.split_once(':').unwrap_or((text, ""));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            (!name.is_empty() && name.bytes().all(plain), port)
        }
    };
    is_known && (port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()))
}

/// Whether the target is of a form that a server takes, and the body in no coding that it would lose on the way (RFC 9112, 3.2
/// and 6.1).
pub(crate) fn check_form<B>(req: &Request<B>) -> Result<(), Wrong> {
    let uri = req.uri();
    if req.version() < Version::HTTP_2 && uri.scheme().is_none() && uri.authority().is_some() {
        return Err((Reason::BadRequest, "the target is no path"));
    }
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err((Reason::BadRequest, "the target is neither http nor https"));
    }
    if uri.path() == "*" && req.method() != Method::OPTIONS {
        return Err((Reason::BadRequest, "only OPTIONS is for the server as a whole"));
    }
    let mut codings = req.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err((Reason::NotImplemented, "a transfer coding other than chunked")),
    }
}

/// The values of a list header, one by one.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The protocol a client asks to switch to, if it is one of `allowed` (RFC 9110, 7.8).
pub(crate) fn upgrade<B>(req: &Request<B>, allowed: &[String]) -> Option<HeaderValue> {
    if req.version() != Version::HTTP_11 || !req.headers().contains_key(header::UPGRADE) {
        return None;
    }
    let asked = items(req.headers(), &header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let mut protocols = items(req.headers(), &header::UPGRADE);
    let wanted = protocols.find(|wanted| allowed.iter().any(|known| known.eq_ignore_ascii_case(wanted)))?;
    asked.then(|| HeaderValue::from_str(wanted).ok()).flatten()
}

/// Makes the headers of a client's request those of one that goes on; `unwanted` ones go, too.
pub(crate) fn clean_request(headers: &mut HeaderMap, host: Option<HeaderValue>, unwanted: impl Fn(&str) -> bool) {
    let trailers = headers.contains_key(header::TE)
        && items(headers, &header::TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    // hyper has said 100 to the client by the time the body is read.
    remove(headers, |name| *name == header::EXPECT || unwanted(name.as_str()));
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(headers);
    match host {
        Some(host) => headers.insert(header::HOST, host),
        None => headers.remove(header::HOST),
    };
}

/// HTTP/2 may send cookies one by one; HTTP/1 knows one line of them (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let (Some(_), Some(_)) = (cookies.next(), cookies.next()) {
        let all: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(line) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(header::COOKIE, line);
        }
    }
}

/// Makes the headers of an upstream's response those of one that goes on.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    remove(headers, |_| false);
}

/// Makes the trailers of a client's request such that a server which takes them for headers learns nothing that the head of the
/// request could not have told it (RFC 9110, 6.5.1).
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    const OF_HEADS: [HeaderName; 11] = [
        header::AUTHORIZATION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::EXPECT,
        header::HOST,
        header::MAX_FORWARDS,
        header::TRAILER,
        header::VIA,
    ];
    remove(trailers, |name| OF_HEADS.contains(name) || trust::is_claim(name.as_str()));
}

/// Removes what is known to be for one connection only, what `Connection` lists, and what is `unwanted` besides. Most messages
/// have nothing that must go: they are looked over once, and nothing is searched for.
fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let goes = |name: &HeaderName| is_hop_by_hop(name) || unwanted(name);
    if !headers.keys().any(goes) {
        return;
    }
    let mut found: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    found.extend(items(headers, &header::CONNECTION).filter_map(|name| name.parse().ok()));
    for name in found {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION
        | header::PROXY_AUTHENTICATE
        | header::PROXY_AUTHORIZATION
        | header::TE
        | header::TRANSFER_ENCODING
        | header::UPGRADE => true,
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings"),
    }
}

/// This proxy's entries in `Via`.
pub(crate) struct Via {
    name: &'static str,
    one_zero: HeaderValue,
    one_one: HeaderValue,
    two: HeaderValue,
}

impl Via {
    /// A proxy of that name, which is a token.
    pub(crate) fn new(name: &'static str) -> Self {
        let entry = |version| HeaderValue::try_from(format!("{version} {name}")).expect("a name is a token");
        Self { name, one_zero: entry("1.0"), one_one: entry("1.1"), two: entry("2") }
    }

    /// Whether a message has passed here before.
    pub(crate) fn knows(&self, headers: &HeaderMap) -> bool {
        let by = |entry: &str| entry.split_whitespace().nth(1).is_some_and(|by| by == self.name);
        items(headers, &header::VIA).any(by)
    }

    /// Adds the entry for a message that was received in `version`.
    pub(crate) fn add(&self, headers: &mut HeaderMap, version: Version) {
        let entry = match version {
            Version::HTTP_10 => &self.one_zero,
            Version::HTTP_2 => &self.two,
            _ => &self.one_one,
        };
        headers.append(header::VIA, entry.clone());
    }
}

/// How often an OPTIONS request may still be passed on (RFC 9110, 7.6.2): whether it may once more, and one less of it.
pub(crate) fn may_go_on<B>(req: &mut Request<B>) -> bool {
    if req.method() != Method::OPTIONS {
        return true;
    }
    let left = req.headers().get(header::MAX_FORWARDS).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match left {
        Some(0) => false,
        Some(left) => {
            req.headers_mut().insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
            true
        }
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_upgrade_that_is_asked_for_and_allowed_is_one() {
        let allowed = ["websocket".to_owned()];
        for (connection, upgrades, found) in [
            ("Upgrade", "websocket", Some("websocket")),
            ("keep-alive, upgrade", "h2c, WebSocket", Some("WebSocket")),
            ("upgrade", "h2c", None),
            ("close", "websocket", None),
        ] {
            let req = Request::get("/").header("connection", connection).header("upgrade", upgrades).body(()).unwrap();
            let found = found.map(HeaderValue::from_static);
            assert_eq!(upgrade(&req, &allowed), found, "{connection}: {upgrades}");
        }
    }

    #[test]
    fn a_message_that_was_here_is_known_by_our_entry() {
        let via = Via::new("edge-1");
        let mut headers = HeaderMap::new();
        headers.append(header::VIA, HeaderValue::from_static("1.1 edge-10, HTTP/1.1 other (edge-1)"));
        assert!(!via.knows(&headers));
        via.add(&mut headers, Version::HTTP_2);
        assert!(via.knows(&headers));
        assert_eq!(headers.get_all(header::VIA).iter().next_back().unwrap(), "2 edge-1");
    }
}
