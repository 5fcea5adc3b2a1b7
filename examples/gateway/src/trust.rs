//! Whose word about a request is taken: what clients say of themselves, and what goes on of it.

use crate::config;
use buttress::Priority;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The trusted proxies.
pub(crate) struct Trust {
    proxies: Vec<IpNet>,
    pub(crate) priority_header: HeaderName,
}

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: SocketAddr,
    /// Over TLS.
    pub(crate) secure: bool,
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
    let value = headers.get("priority")?.to_str().ok()?;
    let urgency = value.split(',').find_map(|item| item.trim().strip_prefix("u="))?;
    match urgency.split(';').next()?.parse::<u8>().ok()? {
        0 | 1 => Some(Priority::Critical),
        2..=4 => Some(Priority::Normal),
        5..=7 => Some(Priority::Sheddable),
        _ => None,
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

/// Says where a request comes from (RFC 7239). What a trusted proxy said stays, and this hop is added; what anybody else said is
/// replaced.
pub(crate) fn forward(headers: &mut HeaderMap, arrival: Arrival, host: Option<&HeaderValue>, trusted: bool) {
    if !trusted {
        remove_claims(headers);
    }
    let peer = arrival.peer.ip().to_canonical();
    let proto = if arrival.secure { "https" } else { "http" };
    append(headers, X_FORWARDED_FOR, &peer.to_string());
    let mut forwarded = String::with_capacity(96);
    forwarded.push_str(if peer.is_ipv6() { "for=\"[" } else { "for=" });
    forwarded.push_str(&peer.to_string());
    forwarded.push_str(if peer.is_ipv6() { "]\";proto=" } else { ";proto=" });
    forwarded.push_str(proto);
    if let Some(host) = host {
        if let Ok(name) = host.to_str() {
            forwarded.extend([";host=\"", name, "\""]);
        }
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static(proto));
    append(headers, header::FORWARDED, &forwarded);
}

/// Adds to a list that is one line (most servers read only one).
fn append(headers: &mut HeaderMap, name: HeaderName, item: &str) {
    let mut line = String::new();
    for value in headers.get_all(&name) {
        line.extend([value.to_str().unwrap_or_default(), ", "]);
    }
    line.push_str(item);
    if let Ok(value) = HeaderValue::try_from(line) {
        headers.insert(name, value);
    }
}

pub(crate) fn remove_claims(headers: &mut HeaderMap) {
    // Nearly always there is none.
    if !headers.keys().any(|name| is_claim(name.as_str())) {
        return;
    }
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Whether servers, and the layers in front of them, take the header `name` from a proxy as the truth about a request: where it
/// comes from, what it was for, how often it was sent. `_` and `-` are the same to those that speak CGI.
fn is_claim(name: &str) -> bool {
    let begins = |known: &str| {
        name.len() >= known.len() && name.bytes().zip(known.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    };
    match name.as_bytes()[0] {
        b'f' => name == "forwarded",
        b'x' => {
            ["x-forwarded", "x-original-", "x-rewrite-", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-envoy-"]
                .into_iter()
                .any(begins)
        }
        b't' => begins("true-client-ip"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let arrival = Arrival { peer: "[fd00::1]:5".parse().unwrap(), secure: false };
        let host = HeaderValue::from_static("inner");
        let mut from_stranger = headers.clone();
        forward(&mut headers, arrival, Some(&host), true);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7, fd00::1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "shop.example");
        let ours = "for=\"[fd00::1]\";proto=http;host=\"inner\"";
        assert_eq!(headers["forwarded"], format!("for=192.0.2.7;proto=https, {ours}").as_str());
        assert_eq!(headers["x-envoy-attempt-count"], "2");

        forward(&mut from_stranger, arrival, Some(&host), false);
        assert_eq!(from_stranger["x-forwarded-for"], "fd00::1");
        assert_eq!(from_stranger["x-forwarded-host"], "inner");
        assert_eq!(from_stranger["forwarded"], ours);
        assert!(!from_stranger.contains_key("x-envoy-attempt-count"));
    }
}
