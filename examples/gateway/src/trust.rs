//! Whose word about a request is taken: what clients say of themselves, and what goes on of it.

use crate::config;
use buttress::Priority;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The trusted proxies.
pub(crate) struct Trust {
    proxies: Vec<IpNet>,
    pub(crate) priority_header: HeaderName,
}

/// Where requests come in: what upstreams are told of a connection, written once.
pub(crate) struct Arrival {
    pub(crate) peer: SocketAddr,
    /// `X-Forwarded-For`.
    address: HeaderValue,
    /// `http` or `https`.
    proto: &'static str,
    /// The beginning of `Forwarded` (RFC 7239).
    forwarded: String,
}

impl Arrival {
    /// A connection of `peer`, over TLS if it is `secure`.
    pub(crate) fn new(peer: SocketAddr, secure: bool) -> Self {
        let ip = peer.ip().to_canonical();
        let proto = if secure { "https" } else { "http" };
        let forwarded = match ip {
            IpAddr::V4(ip) => format!("for={ip};proto={proto}"),
            IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto={proto}"),
        };
        let address = HeaderValue::try_from(ip.to_string()).expect("an address is a header value");
        Self { peer, address, proto, forwarded }
    }

    /// `Forwarded`, with the host in quotes.
    fn forwarded(&self, host: Option<&HeaderValue>) -> HeaderValue {
        const HOST: &[u8] = b";host=\"";
        let host = host.filter(|host| host.to_str().is_ok()).map(HeaderValue::as_bytes);
        let mut text = Vec::with_capacity(self.forwarded.len() + host.map_or(0, |host| HOST.len() + host.len() + 1));
        text.extend_from_slice(self.forwarded.as_bytes());
        if let Some(host) = host {
            text.extend_from_slice(HOST);
            text.extend_from_slice(host);
            text.push(b'"');
        }
        HeaderValue::from_maybe_shared(Bytes::from(text)).expect("a host is a header value")
    }
}

impl Trust {
    pub(crate) fn new(config: &config::Trust) -> Self {
        Self { proxies: config.proxies.clone(), priority_header: config.priority_header.clone() }
    }

    /// Whether `address` is a trusted proxy's.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        !self.proxies.is_empty() && {
            let address = address.to_canonical();
            self.proxies.iter().any(|network| network.contains(&address))
        }
    }

    /// The client a request is from: the last address that no trusted proxy has.
    pub(crate) fn client(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            for hop in value.to_str().unwrap_or_default().rsplit(',') {
                // What follows was said by somebody whom nobody knows.
                let Some(address) = address(hop.trim()) else { return client };
                client = address;
                if !self.trusts(client) {
                    return client;
                }
            }
        }
        client
    }
}

/// How important a request says it is: by the header `name`, or by RFC 9218's urgency.
pub(crate) fn priority(headers: &HeaderMap, name: &HeaderName) -> Option<Priority> {
    if let Some(value) = headers.get(name) {
        let levels = [Priority::Critical, Priority::Normal, Priority::Sheddable];
        return levels.into_iter().find(|level| value.as_bytes().eq_ignore_ascii_case(level.as_str().as_bytes()));
    }
    // Lines are one list, in which of two of a name the last one holds (RFC 8941, 3.2).
    let values = headers.get_all("priority").iter().filter_map(|value| value.to_str().ok());
    let mut urgencies = values.flat_map(|value| value.split(',')).filter_map(|item| item.trim().strip_prefix("u="));
    let urgency = urgencies.next_back()?;
    match urgency.split(';').next()?.parse::<u8>().ok()? {
        0 | 1 => Some(Priority::Critical),
        2..=4 => Some(Priority::Normal),
        5..=7 => Some(Priority::Sheddable),
        _ => None,
    }
}

/// Puts how important a request `is` in the place of what a stranger says of it, in whatever header, line or form: servers may read
/// them otherwise than this gateway does.
pub(crate) fn restate(headers: &mut HeaderMap, name: &HeaderName, is: Priority) {
    let by_urgency = headers.remove("priority").is_some();
    if headers.remove(name).is_some() || by_urgency {
        headers.insert(name, HeaderValue::from_static(is.as_str()));
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// An address as proxies write it: with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(address, _)| address);
    let ip = bare.parse().or_else(|_| bare.parse::<SocketAddr>().map(|socket| socket.ip())).ok()?;
    Some(IpAddr::to_canonical(&ip))
}

/// Says where a request comes from (RFC 7239). What a trusted proxy said stays, and this hop is added; nobody else has said
/// anything: [`is_claim`] went before.
pub(crate) fn forward(headers: &mut HeaderMap, arrival: &Arrival, host: Option<&HeaderValue>) {
    add(headers, X_FORWARDED_FOR, arrival.address.clone());
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(arrival.proto));
    add(headers, header::FORWARDED, arrival.forwarded(host));
}

/// Adds to a list that is one line: most servers read only one.
fn add(headers: &mut HeaderMap, name: HeaderName, item: HeaderValue) {
    let line = match headers.contains_key(&name) {
        true => {
            headers.get_all(&name).iter().chain([&item]).map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..])
        }
        false => {
            headers.insert(name, item);
            return;
        }
    };
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(line)) {
        headers.insert(name, value);
    }
}

/// Whether servers, and the layers in front of them, take the header `name` from a proxy as the truth about a request: where it
/// comes from, what it was for, how often it was sent. `_` and `-` are the same to those that speak CGI.
pub(crate) fn is_claim(name: &str) -> bool {
    let begins = |known: &str| {
        name.len() >= known.len() && name.bytes().zip(known.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    };
    match name.as_bytes() {
        b"forwarded" => true,
        [b'x', b'-' | b'_', ..] => [
            "x-forwarded",
            "x-original-",
            "x-rewrite-",
            "x-real-ip",
            "x-client-ip",
            "x-cluster-client-ip",
            "x-envoy-",
            "x-host",
            "x-proxyuser-ip",
            "x-url-scheme",
        ]
        .into_iter()
        .any(begins),
        // `Proxy` becomes `HTTP_PROXY` where CGI is spoken.
        [b'c' | b'f' | b'p' | b't', ..] => {
            ["cf-connecting-ip", "client-ip", "fastly-client-ip", "front-end-https", "true-client-ip"]
                .into_iter()
                .any(begins)
                || name == "proxy"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;

    fn trust(proxies: &[&str]) -> Trust {
        let proxies = proxies.iter().map(|text| text.parse().unwrap()).collect();
        Trust::new(&config::Trust { proxies, ..config::Trust::default() })
    }

    #[test]
    fn the_client_is_the_last_whom_no_trusted_proxy_hides() {
        let trust = trust(&["10.0.0.0/8", "fd00::/8"]);
        for (peer, chain, client) in [
            ("192.0.2.1", "10.9.9.9", "192.0.2.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
            ("10.0.0.1", "1.1.1.1, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
            ("10.0.0.1", "192.0.2.7:4711", "192.0.2.7"),
            ("10.0.0.1", "\"[2001:db8::1]:80\"", "10.0.0.1"),
            ("10.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
            ("10.0.0.1", "192.0.2.7, unknown", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
            ("::ffff:10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
            ("fd00::1", "192.0.2.7", "192.0.2.7"),
        ] {
            let mut headers = HeaderMap::new();
            if !chain.is_empty() {
                headers.insert("x-forwarded-for", chain.parse().unwrap());
            }
            let found = trust.client(&headers, peer.parse().unwrap());
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {chain}");
        }
    }

    #[test]
    fn priorities_are_read_from_either_header() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_static(value)));
            priority(&headers.collect(), &HeaderName::from_static("x-priority"))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("x-priority", "CRITICAL")]), Some(Priority::Critical));
        assert_eq!(of(&[("x-priority", "sheddable"), ("priority", "u=0")]), Some(Priority::Sheddable));
        assert_eq!(of(&[("x-priority", "most")]), None);
        assert_eq!(of(&[("priority", "i, u=1")]), Some(Priority::Critical));
        assert_eq!(of(&[("priority", "u=3")]), Some(Priority::Normal));
        assert_eq!(of(&[("priority", "u=7, i")]), Some(Priority::Sheddable));
        assert_eq!(of(&[("priority", "u=9")]), None);
    }

    #[test]
    fn of_what_a_stranger_says_of_a_priority_only_what_holds_goes_on() {
        let name = HeaderName::from_static("x-priority");
        for (said, is) in [
            (&[("x-priority", "critical")][..], "normal"),
            (&[("x-priority", "sheddable")], "sheddable"),
            (&[("priority", "u=0")], "normal"),
            (&[("priority", "u=6, i")], "sheddable"),
            // What one of them cannot read, another may.
            (&[("x-priority", "junk"), ("priority", "u=0")], "normal"),
            (&[("x-priority", "sheddable"), ("priority", "u=0")], "sheddable"),
            (&[("x-priority", "sheddable"), ("x-priority", "critical")], "sheddable"),
            (&[("priority", "u=7, u=0")], "normal"),
            (&[("priority", "u=0, u=7")], "sheddable"),
            (&[("priority", "u=0"), ("priority", "u=7")], "sheddable"),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in said {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let holds = priority(&headers, &name).map_or(Priority::Normal, |said| said.min(Priority::Normal));
            restate(&mut headers, &name, holds);
            let left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            assert_eq!(left, [("x-priority", is)], "{said:?}");
        }
        let mut silent = HeaderMap::new();
        restate(&mut silent, &name, Priority::Critical);
        assert!(silent.is_empty(), "who says nothing is not spoken for");
    }

    #[test]
    fn what_a_trusted_proxy_said_stays_and_this_hop_is_added() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("forwarded", "for=192.0.2.7;proto=https"),
            ("x-envoy-attempt-count", "2"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let arrival = Arrival::new("[fd00::1]:5".parse().unwrap(), false);
        let host = HeaderValue::from_static("inner");
        let mut from_stranger = headers.clone();
        forward(&mut headers, &arrival, Some(&host));
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7, fd00::1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "shop.example");
        let ours = "for=\"[fd00::1]\";proto=http;host=\"inner\"";
        assert_eq!(headers["forwarded"], format!("for=192.0.2.7;proto=https, {ours}").as_str());
        assert_eq!(headers["x-envoy-attempt-count"], "2");

        message::clean_request(&mut from_stranger, Some(host.clone()), is_claim);
        forward(&mut from_stranger, &arrival, Some(&host));
        assert_eq!(from_stranger["x-forwarded-for"], "fd00::1");
        assert_eq!(from_stranger["x-forwarded-host"], "inner");
        assert_eq!(from_stranger["forwarded"], ours);
        assert!(!from_stranger.contains_key("x-envoy-attempt-count"));
    }
}
