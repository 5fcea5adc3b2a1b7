//! Who may ask.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header, uri::Authority};
use std::{net::IpAddr, sync::Arc};

/// Lets requests through that were meant for this listener, by somebody who may make them.
pub(super) struct Guard {
    token: Option<String>,
}

/// Asked by orchestrators, which have no token; they say nothing that anybody could use.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/startupz"];

impl Guard {
    pub(super) fn new(token: Option<String>) -> Self {
        Self { token }
    }

    fn judge(&self, path: &str, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        if crosses_origins(headers) {
            return Err((StatusCode::FORBIDDEN, "the page of another site asks for this"));
        }
        match &self.token {
            // A web page whose name was pointed at this listener (DNS rebinding) has no token, but it has a name.
            None if !is_local(headers) => Err((StatusCode::FORBIDDEN, "ask for localhost, or for an IP address")),
            None => Ok(()),
            Some(_) if OPEN.contains(&path) => Ok(()),
            Some(token) if bears(headers, token) => Ok(()),
            Some(_) => Err((StatusCode::UNAUTHORIZED, "the token is missing or wrong: `Authorization: Bearer ..`")),
        }
    }
}

pub(super) async fn check(State(guard): State<Arc<Guard>>, req: Request, next: Next) -> Response {
    match guard.judge(req.uri().path(), req.headers()) {
        Ok(()) => next.run(req).await,
        Err((status @ StatusCode::UNAUTHORIZED, text)) => {
            (status, [(header::WWW_AUTHENTICATE, "Bearer")], format!("{text}\n")).into_response()
        }
        Err((status, text)) => (status, format!("{text}\n")).into_response(),
    }
}

fn host(headers: &HeaderMap) -> Option<Authority> {
    headers.get(header::HOST)?.to_str().ok()?.parse().ok()
}

fn is_local(headers: &HeaderMap) -> bool {
    host(headers).is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

/// Whether a browser sends this for a page of another site.
fn crosses_origins(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")?.parse::<Authority>().ok());
    origin.is_none() || origin != host(headers)
}

/// In a time that says nothing about how much of it was right.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let said = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(said) = said.map(str::trim) else { return false };
    let differences = said.bytes().zip(token.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b));
    said.len() == token.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn status(token: Option<&str>, path: &str, pairs: &[(&'static str, &'static str)]) -> u16 {
        let headers = pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_static(value)));
        let judged = Guard::new(token.map(ToOwned::to_owned)).judge(path, &headers.collect());
        judged.map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn without_a_token_only_who_asks_for_this_machine_is_heard() {
        for (host, wanted) in [
            ("localhost:9901", 200),
            ("127.0.0.1:9901", 200),
            ("[::1]:9901", 200),
            ("evil.example:9901", 403),
            ("localhost.evil.example", 403),
        ] {
            assert_eq!(status(None, "/status", &[("host", host)]), wanted, "{host}");
        }
        assert_eq!(status(None, "/status", &[]), 403);
    }

    #[test]
    fn with_a_token_only_who_bears_it_is_heard_and_probes_are() {
        let token = Some("0123456789abcdef");
        for (said, wanted) in [
            ("Bearer 0123456789abcdef", 200),
            ("Bearer 0123456789abcdeF", 401),
            ("Bearer ", 401),
            ("0123456789abcdef", 401),
        ] {
            assert_eq!(status(token, "/drain", &[("host", "gw.example"), ("authorization", said)]), wanted, "{said}");
        }
        assert_eq!(status(token, "/drain", &[("host", "localhost")]), 401);
        assert_eq!(status(token, "/readyz", &[("host", "gw.example")]), 200);
    }

    #[test]
    fn no_page_of_another_site_is_heard() {
        let host = ("host", "127.0.0.1:9901");
        assert_eq!(status(None, "/drain", &[host, ("origin", "http://127.0.0.1:9901")]), 200);
        for origin in ["http://evil.example", "null", "http://127.0.0.1:80", "https://127.0.0.1:9901"] {
            assert_eq!(status(None, "/drain", &[host, ("origin", origin)]), 403, "{origin}");
        }
        assert_eq!(status(None, "/drain", &[host, ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(status(None, "/drain", &[host, ("sec-fetch-site", "same-origin")]), 200);
    }
}
