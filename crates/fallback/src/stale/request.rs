use super::cache_control::CacheControl;
use buttress_core::{
    Clock,
    http::{is_grpc, opens_tunnel},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body::Body;
use std::{sync::Arc, time::Instant};

/// What an answer is found by: scheme, authority and path of the resource, whatever the method.
pub(super) type Key = Arc<[u8]>;

/// What is kept of a GET or a HEAD: what its answer is stored by, and chosen by.
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) is_head: bool,
    pub(super) headers: HeaderMap,
    pub(super) said: CacheControl,
    /// When it came.
    pub(super) begun: Instant,
}

/// What a request means to a store.
pub(super) enum Kind {
    /// It may be answered from the store, and a GET's answer may be kept.
    Read(Box<Asked>),
    /// Where it succeeds, what is stored of the resource counts no longer (RFC 9111, 4.4).
    Write(Uri, Key),
    /// It has nothing to do with the store.
    Other,
}

impl Kind {
    pub(super) fn of<B: Body>(req: &Request<B>, clock: &impl Clock) -> Self {
        match *req.method() {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS | Method::TRACE | Method::CONNECT => return Self::Other,
            // Nothing of gRPC is stored.
            Method::POST if is_grpc(req.headers()) => return Self::Other,
            _ => return Self::Write(req.uri().clone(), key(req.uri(), req.headers())),
        }
        // What a body asks for is not in the key, nor is a second name that the service may go by.
        if opens_tunnel(req) || !req.body().is_end_stream() || has_two_names(req) {
            return Self::Other;
        }
        Self::Read(Box::new(Asked {
            key: key(req.uri(), req.headers()),
            is_head: req.method() == Method::HEAD,
            headers: req.headers().clone(),
            said: CacheControl::of_request(req.headers()),
            begun: clock.now(),
        }))
    }
}

impl Asked {
    /// Whether it says who asks.
    pub(super) fn is_personal(&self) -> bool {
        self.headers.contains_key(header::AUTHORIZATION) || self.headers.contains_key(header::COOKIE)
    }

    /// Whether it asks for what no store can decide (RFC 9111, 4.3.2).
    pub(super) fn is_for_origin(&self) -> bool {
        self.headers.contains_key(header::IF_MATCH) || self.headers.contains_key(header::IF_UNMODIFIED_SINCE)
    }
}

/// Whether a request says twice which authority it is for, and not the same.
fn has_two_names<B>(req: &Request<B>) -> bool {
    let mut hosts = req.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let differs = |host: &HeaderValue| {
        let authority = req.uri().authority();
        authority.is_some_and(|authority| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()))
    };
    second.is_some() || first.is_some_and(differs)
}

/// The lines of a field as one value: how requests are compared (RFC 9111, 4.1).
pub(super) fn combined(headers: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut lines = headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii());
    let mut value = lines.next()?.to_vec();
    for line in lines {
        value.extend_from_slice(b", ");
        value.extend_from_slice(line);
    }
    Some(value.into())
}

/// The schemes that a resource is known by: over HTTP/1 nobody says which one it is.
pub(super) const SCHEMES: [&str; 3] = ["", "http", "https"];

fn key(uri: &Uri, headers: &HeaderMap) -> Key {
    let host = || headers.get(header::HOST).map_or(&[][..], |host| host.as_bytes());
    let authority = uri.authority().map_or_else(host, |authority| authority.as_str().as_bytes());
    key_of(uri.scheme_str().unwrap_or(""), authority, path(uri))
}

pub(super) fn path(uri: &Uri) -> &[u8] {
    uri.path_and_query().map_or(b"/", |path| path.as_str().as_bytes())
}

/// No part of it can hold a space.
pub(super) fn key_of(scheme: &str, authority: &[u8], path: &[u8]) -> Key {
    let mut key = Vec::with_capacity(scheme.len() + authority.len() + path.len() + 2);
    key.extend_from_slice(scheme.as_bytes());
    key.push(b' ');
    key.extend(authority.iter().map(u8::to_ascii_lowercase));
    key.push(b' ');
    key.extend_from_slice(path);
    key.into()
}

/// A key without its scheme.
pub(super) fn resource(key: &[u8]) -> &[u8] {
    let scheme = key.iter().position(|byte| *byte == b' ').unwrap_or_default();
    &key[scheme..]
}

/// The authority in a key.
pub(super) fn authority_of(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
}
