//! Which route a request is for.

use crate::config::{Host, Route};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use std::{cmp::Reverse, fmt};

/// Finds the most specific route: first by host, then by path, then by the number of its other conditions.
#[derive(Default)]
pub(crate) struct Router {
    groups: Vec<Group>,
    rules: Vec<Rule>,
}

/// The routes that ask for the same host, methods and headers, and for whole paths or for all below one: a tree of paths cannot
/// hold both where they begin alike.
struct Group {
    host: Option<Host>,
    methods: Vec<Method>,
    /// `None`: any value.
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
    below: bool,
    paths: matchit::Router<usize>,
    /// What is in it, each with its rule.
    templates: Vec<(String, usize)>,
}

/// One host of one route.
struct Rule {
    /// Its place among the routes.
    route: usize,
    rank: Rank,
}

/// How specific a rule is; the smaller, the more.
type Rank = (Reverse<usize>, Vec<Segment>, Reverse<usize>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal,
    Parameter,
    Rest,
}

/// What became of a search.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The place of the route among those the router was built from.
    Route(usize),
    /// There are routes for other methods.
    Methods(Vec<Method>),
    Nothing,
}

/// Why a route cannot be there.
#[derive(Debug)]
pub(crate) enum Clash {
    /// A header that is none.
    Header(String),
    /// Its path: it is no template, or no request could be told apart from those of the route at that place.
    Path(matchit::InsertError, Option<usize>),
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(text) => write!(f, "{text:?} is no header"),
            Self::Path(error, _) => error.fmt(f),
        }
    }
}

impl Router {
    /// Adds the route at `place`.
    ///
    /// # Errors
    ///
    /// Why it cannot be there.
    pub(crate) fn add(&mut self, place: usize, route: &Route) -> Result<(), Clash> {
        let mut hosts: Vec<_> = route.hosts.iter().cloned().map(Some).collect();
        hosts.sort_unstable();
        hosts.dedup();
        if hosts.is_empty() {
            hosts.push(None);
        }
        let mut methods = route.methods.clone();
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        let mut headers = Vec::new();
        for (name, value) in &route.headers {
            let name = name.parse::<HeaderName>().map_err(|_| Clash::Header(name.clone()))?;
            let value = match value.as_str() {
                "*" => None,
                text => Some(HeaderValue::from_str(text).map_err(|_| Clash::Header(value.clone()))?),
            };
            headers.push((name, value));
        }
        headers.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        let templates = templates(route);
        let segments = segments(&templates[0], route);
        let below = segments.last() == Some(&Segment::Rest);
        for host in hosts {
            let conditions = usize::from(!methods.is_empty()) + headers.len();
            let rank = (Reverse(specificity(host.as_ref())), segments.clone(), Reverse(conditions));
            let rule = self.rules.len();
            self.rules.push(Rule { route: place, rank });
            let same = |group: &&mut Group| {
                group.host == host && group.methods == methods && group.headers == headers && group.below == below
            };
            let group = match self.groups.iter_mut().find(same) {
                Some(group) => group,
                None => {
                    let (methods, headers, paths) = (methods.clone(), headers.clone(), matchit::Router::new());
                    self.groups.push(Group { host, methods, headers, below, paths, templates: Vec::new() });
                    self.groups.last_mut().expect("it was pushed")
                }
            };
            for template in &templates {
                if let Err(error) = group.paths.insert(template.clone(), rule) {
                    let other = match &error {
                        matchit::InsertError::Conflict { with } => group.rule_of(with),
                        _ => None,
                    };
                    return Err(Clash::Path(error, other.map(|rule| self.rules[rule].route)));
                }
                group.templates.push((template.clone(), rule));
            }
        }
        Ok(())
    }

    /// The route for a request to `host`.
    pub(crate) fn find<B>(&self, host: Option<&str>, req: &Request<B>) -> Found {
        let host = host.map(name_of);
        let mut best: Option<&Rule> = None;
        let mut methods = Vec::new();
        for group in &self.groups {
            if !group.is_for(host, req) {
                continue;
            }
            let Ok(matched) = group.paths.at(req.uri().path()) else { continue };
            if !group.methods.is_empty() && !group.methods.contains(req.method()) {
                methods.extend_from_slice(&group.methods);
                continue;
            }
            let rule = &self.rules[*matched.value];
            if best.is_none_or(|best| rule.rank < best.rank) {
                best = Some(rule);
            }
        }
        match best {
            Some(rule) => Found::Route(rule.route),
            None if methods.is_empty() => Found::Nothing,
            None => Found::Methods(methods),
        }
    }
}

impl Group {
    /// The rule with that template.
    fn rule_of(&self, template: &str) -> Option<usize> {
        self.templates.iter().find(|(known, _)| known == template).map(|(_, rule)| *rule)
    }

    /// Whether host and headers fit.
    fn is_for<B>(&self, host: Option<&str>, req: &Request<B>) -> bool {
        let host_fits = match (&self.host, host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(Host::Exact(name)), Some(host)) => name.eq_ignore_ascii_case(host),
            (Some(Host::Below(suffix)), Some(host)) => {
                let at = host.len().checked_sub(suffix.len());
                at.is_some_and(|at| at > 0 && host.as_bytes()[at..].eq_ignore_ascii_case(suffix.as_bytes()))
            }
        };
        let has = |(name, value): &(HeaderName, Option<HeaderValue>)| match value {
            Some(value) => req.headers().get_all(name).iter().any(|v| v == value),
            None => req.headers().contains_key(name),
        };
        host_fits && self.headers.iter().all(has)
    }
}

/// A host without its port, and without the dot at its end (RFC 3986, 3.2.2).
fn name_of(host: &str) -> &str {
    let name = match host.rfind(':') {
        // The colons of an IPv6 address are between brackets.
        Some(at) if !host[at..].contains(']') => &host[..at],
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

fn specificity(host: Option<&Host>) -> usize {
    match host {
        None => 0,
        Some(Host::Below(name)) => name.len(),
        // More than any wildcard.
        Some(Host::Exact(_)) => usize::MAX,
    }
}

/// What a route is in the language of `matchit`.
fn templates(route: &Route) -> Vec<String> {
    if let Some(path) = &route.path {
        return vec![path.clone()];
    }
    let prefix = route.pattern().trim_end_matches('/').replace('{', "{{").replace('}', "}}");
    let below = format!("{prefix}/{{*rest}}");
    if prefix.is_empty() { vec!["/".to_owned(), below] } else { vec![prefix.clone(), format!("{prefix}/"), below] }
}

/// The segments of a template; a prefix ends with a rest.
fn segments(template: &str, route: &Route) -> Vec<Segment> {
    let kind = |segment: &str| match segment.replace("{{", "").find('{') {
        None => Segment::Literal,
        Some(_) if segment.contains("{*") => Segment::Rest,
        Some(_) => Segment::Parameter,
    };
    let mut all: Vec<_> = template.split('/').filter(|segment| !segment.is_empty()).map(kind).collect();
    if route.path.is_none() {
        all.push(Segment::Rest);
    }
    all
}

/// Whether a server might resolve `path` to one that another route is for (RFC 3986, 5.2.4): `..` or `.` between slashes or
/// backslashes, each of them as it is or percent-encoded, and with parameters behind `;` or without.
pub(crate) fn has_dot_segments(uri: &Uri) -> bool {
    let mut rest = uri.path().as_bytes();
    // Nearly all have nothing that could be a dot.
    if !rest.iter().any(|byte| matches!(byte, b'.' | b'%')) {
        return false;
    }
    let decoded = std::iter::from_fn(|| {
        let hex = |byte: u8| char::from(byte).to_digit(16);
        let (byte, len) = if let [b'%', high, low, ..] = *rest
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            ((high << 4 | low) as u8, 3)
        } else {
            (*rest.first()?, 1)
        };
        rest = &rest[len..];
        Some(byte)
    });
    // How many dots the segment has so far; `None`: it has something else.
    let mut dots = None;
    for byte in decoded.chain([b'/']) {
        match byte {
            b'/' | b'\\' | b';' if matches!(dots, Some(1 | 2)) => return true,
            b'/' | b'\\' => dots = Some(0),
            b'.' => dots = dots.map(|n: u8| n.saturating_add(1)),
            _ => dots = None,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Finds by the names of routes.
    struct Rig(Vec<String>, Router);

    impl Rig {
        /// Routes by name, each with the lines of its table.
        fn new<const N: usize>(routes: [(&str, &str); N]) -> Self {
            let mut text = "[listener.l]\naddress = '127.0.0.1:0'\n[cluster.c]\nendpoints = 'h:1'\n".to_owned();
            for (name, lines) in routes {
                text += &format!("[route.{name}]\ncluster = 'c'\n{lines}\n");
            }
            let config = Config::parse(&text).unwrap();
            let mut router = Router::default();
            for (place, route) in config.routes.values().enumerate() {
                router.add(place, route).unwrap();
            }
            Self(config.routes.keys().cloned().collect(), router)
        }

        fn find(&self, method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> String {
            let mut req = Request::builder().method(method).uri(path);
            for (name, value) in headers {
                req = req.header(*name, *value);
            }
            match self.1.find(Some(host), &req.body(()).unwrap()) {
                Found::Route(place) => self.0[place].clone(),
                Found::Methods(methods) => format!("{methods:?}"),
                Found::Nothing => "-".to_owned(),
            }
        }
    }

    #[test]
    fn the_most_specific_path_wins_whatever_comes_first() {
        let rig = Rig::new([
            ("a_all", "prefix = '/'"),
            ("b_api", "prefix = '/api/'"),
            ("c_user", "path = '/api/users/{id}'"),
            ("d_me", "path = '/api/users/me'"),
            ("e_files", "path = '/files/{*rest}'"),
            ("f_braces", "prefix = '/{x}'"),
        ]);
        for (path, route) in [
            ("/", "a_all"),
            ("/apix", "a_all"),
            ("/api", "b_api"),
            ("/api/", "b_api"),
            ("/api/users", "b_api"),
            ("/api/users/7", "c_user"),
            ("/api/users/me", "d_me"),
            ("/api/users/7/x", "b_api"),
            ("/files/a/b", "e_files"),
            ("/files", "a_all"),
            ("/y", "a_all"),
        ] {
            assert_eq!(rig.find("GET", "h", path, &[]), route, "{path}");
        }
    }

    #[test]
    fn a_route_whose_conditions_do_not_fit_leaves_the_request_to_a_less_specific_one() {
        let rig = Rig::new([
            ("all", "prefix = '/api'"),
            ("post", "path = '/api/users'\nmethods = ['POST', 'PUT']"),
            ("beta", "prefix = '/api'\nheaders = { x-beta = '1' }"),
            ("traced", "path = '/api/users'\nmethods = 'POST'\nheaders = { x-trace = '*' }"),
        ]);
        assert_eq!(rig.find("POST", "h", "/api/users", &[]), "post");
        assert_eq!(rig.find("GET", "h", "/api/users", &[]), "all");
        assert_eq!(rig.find("GET", "h", "/api/users", &[("x-beta", "1")]), "beta");
        assert_eq!(rig.find("GET", "h", "/api/users", &[("x-beta", "2")]), "all");
        assert_eq!(rig.find("POST", "h", "/api/users", &[("x-trace", "y")]), "traced");
        assert_eq!(rig.find("POST", "h", "/api/users", &[("x-beta", "1")]), "post", "a path weighs more than a header");
    }

    #[test]
    fn a_host_weighs_more_than_a_path_and_a_name_more_than_a_wildcard() {
        let rig = Rig::new([
            ("any", "path = '/x'"),
            ("below", "hosts = '*.example.com'\nprefix = '/'"),
            ("deep", "hosts = ['*.eu.example.com', 'other']\nprefix = '/'"),
            ("exact", "hosts = 'a.eu.example.com'\nprefix = '/'"),
        ]);
        for (host, route) in [
            ("A.EU.example.com:8080", "exact"),
            ("a.eu.example.com.", "exact"),
            ("b.eu.example.com", "deep"),
            ("OTHER", "deep"),
            ("eu.example.com", "below"),
            ("example.com", "any"),
            ("badexample.com", "any"),
            ("[::1]:80", "any"),
        ] {
            assert_eq!(rig.find("GET", host, "/x", &[]), route, "{host}");
        }
        assert_eq!(rig.find("GET", "example.com", "/y", &[]), "-");
    }

    #[test]
    fn a_path_that_takes_other_methods_is_told_from_one_that_is_not_there() {
        let rig =
            Rig::new([("get", "path = '/a'\nmethods = ['GET', 'HEAD']"), ("put", "path = '/a'\nmethods = 'PUT'")]);
        assert_eq!(rig.find("POST", "h", "/a", &[]), "[GET, HEAD, PUT]");
        assert_eq!(rig.find("POST", "h", "/b", &[]), "-");
    }

    #[test]
    fn a_whole_path_may_stand_beside_a_prefix_that_begins_alike() {
        let rig = Rig::new([
            ("below", "prefix = '/a'"),
            ("exact", "path = '/a'"),
            ("one", "path = '/a/{x}'"),
            ("deep", "prefix = '/a/b'"),
        ]);
        for (path, route) in [
            ("/a", "exact"),
            ("/a/", "below"),
            ("/a/c", "one"),
            ("/a/b", "deep"),
            ("/a/b/c", "deep"),
            ("/a/c/d", "below"),
        ] {
            assert_eq!(rig.find("GET", "h", path, &[]), route, "{path}");
        }
    }
}
