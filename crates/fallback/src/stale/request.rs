use super::cache_control::CacheControl;
use buttress_core::{
    Clock,
    http::{is_grpc, opens_tunnel},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body::Body;
use std::{sync::Arc, time::Instant};

/// What answers are found by: authority and path of the resource, whatever the method and the scheme.
pub(super) type Key = Arc<[u8]>;

/// What is kept of a GET or a HEAD: what its answer is stored by, and chosen by.
pub(super) struct Asked {
    pub(super) key: Key,
    /// What it is told apart by, whatever `Vary` names: see [`front`].
    pub(super) front: Arc<[u8]>,
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
            front: front(req.uri(), req.headers()),
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

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How the request came, as a proxy in front says it, or its URI: services make links and redirects of it, and seldom say so in
/// `Vary`.
///
/// The scheme of a URI is what a client writes: where a proxy says which one it is the URI's does not count, and where none does it
/// is never the same as what one says.
fn front(uri: &Uri, headers: &HeaderMap) -> Arc<[u8]> {
    let mut all = Vec::new();
    match combined(headers, &X_FORWARDED_PROTO) {
        Some(told) => {
            all.push(b'=');
            all.extend_from_slice(&told);
        }
        None => all.extend_from_slice(uri.scheme_str().unwrap_or_default().as_bytes()),
    }
    // No field has a line feed in it.
    all.push(b'\n');
    all.extend(combined(headers, &X_FORWARDED_HOST).into_iter().flatten());
    all.push(b'\n');
    all.extend(combined(headers, &header::FORWARDED).into_iter().flat_map(|told| without_nodes(&told)));
    all.into()
}

/// `Forwarded` without who passed the request on (RFC 7239, 4): that changes with every client.
fn without_nodes(forwarded: &[u8]) -> Vec<u8> {
    let is_whole = |part: &[u8]| part.iter().filter(|byte| **byte == b'"').count() % 2 == 0;
    if forwarded.contains(&b'\\') || !forwarded.split(|byte| matches!(byte, b',' | b';')).all(is_whole) {
        // Quotes with a separator in them: others may read it in another way.
        return forwarded.to_vec();
    }
    let is_node = |part: &[u8]| {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by")
    };
    let of_hop = |hop: &[u8]| {
        let parts: Vec<_> = hop.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).collect();
        parts.into_iter().filter(|part| !is_node(part)).collect::<Vec<_>>().join(&b';')
    };
    forwarded.split(|byte| *byte == b',').map(of_hop).collect::<Vec<_>>().join(&b',')
}

fn key(uri: &Uri, headers: &HeaderMap) -> Key {
    let host = || headers.get(header::HOST).map_or(&[][..], |host| host.as_bytes());
    let authority = uri.authority().map_or_else(host, |authority| authority.as_str().as_bytes());
    key_of(authority, path(uri))
}

pub(super) fn path(uri: &Uri) -> &[u8] {
    uri.path_and_query().map_or(b"/", |path| path.as_str().as_bytes())
}

/// No path has a space in it.
pub(super) fn key_of(authority: &[u8], path: &[u8]) -> Key {
    let mut key = Vec::with_capacity(authority.len() + path.len() + 1);
    key.extend(authority.iter().map(u8::to_ascii_lowercase));
    key.push(b' ');
    key.extend_from_slice(path);
    key.into()
}

/// The authority in a key.
pub(super) fn authority_of(key: &[u8]) -> &[u8] {
    let end = key.iter().rposition(|byte| *byte == b' ').unwrap_or_default();
    &key[..end]
}
