//! From a request to its answer: what is checked before any layer sees it, which chain it goes through, and who answers when
//! nobody else can.

use crate::{
    answer::AnswerBody,
    chain::{self, Chain, Controls, Front, ResponseBody},
    config::{self, Config, Limits},
    message::{self, Via},
    quota::{Quota, Quotas},
    router::{Found, Router, has_dot_segments},
    server::Slot,
    trust::{self, Arrival, Trust},
    tunnel,
    upload::{self, Answering, Bounded, Fault},
    upstream::{self, Failed},
};
use buttress::{
    BoxError, ConfigError, Context, Priority, Reason, Rejection,
    core::Protocol,
    http::{HttpGateway, OpensTunnel, Tunnel, UploadBody},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    uri::{Authority, Scheme},
};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, upgrade};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio_util::task::TaskTracker;
use tower::{Layer, ServiceExt, service_fn};

/// Routes requests and answers for them.
pub(crate) struct Gateway {
    name: &'static str,
    via: Via,
    router: Router,
    routes: Vec<Route>,
    trust: Trust,
    limits: Limits,
    controls: Controls,
    /// For requests that no route is for.
    unrouted: Front,
    tunnels: TaskTracker,
}

struct Route {
    front: Front,
    chain: Chain,
    quotas: Option<Arc<Quotas>>,
    priority: Priority,
    body_bytes: Option<u64>,
    body_timeout: Duration,
    /// How long a body may take that is read before the call begins.
    upload_time: Duration,
    upgrades: Vec<String>,
}

/// What is known of a request that may be passed on, before anything is done for it.
struct Passed<'a> {
    route: &'a Route,
    host: Option<HeaderValue>,
    quota: Option<Quota<'a>>,
    /// The word of who sent it is taken.
    trusted: bool,
    priority: Priority,
}

impl Gateway {
    /// Builds every chain; the config has been judged.
    pub(crate) fn build(config: &Config) -> Result<Self, ConfigError> {
        // Told apart from others of the same kind, so that only a real circle is one.
        let name = config.name.clone().unwrap_or_else(|| format!("buttress-{:06x}", fastrand::u32(..1 << 24)));
        let name: &'static str = name.leak();
        let gateway = HttpGateway::new(name);
        let gateway_name = name;
        let mut controls = Controls::new(config)?;
        let mut clusters = BTreeMap::new();
        for (name, cluster) in &config.clusters {
            clusters.insert(name.as_str(), chain::cluster(name, cluster, &mut controls)?);
        }
        controls.watch_clusters(&config.levels);
        let access = config.log.access;
        let unrouted = chain::front(gateway, "unrouted", "", access, &controls.registry)?;
        let (mut router, mut routes) = (Router::default(), Vec::new());
        for (place, (name, route)) in config.routes.iter().enumerate() {
            let scope = format!("route.{name}");
            router.add(place, route).map_err(|clash| {
                ConfigError::new(format!("{scope}.path"), route.pattern(), format!("what fits beside others: {clash}"))
            })?;
            let quotas = route.rate_limit.as_ref().map(|limit| Quotas::new(limit, &scope)).transpose()?.map(Arc::new);
            if let Some(quotas) = &quotas {
                controls.registry.add(format!("{scope}.rate_limit"), quotas.clone());
            }
            routes.push(Route {
                quotas,
                front: chain::front(gateway, &scope, route.pattern(), access, &controls.registry)?,
                chain: chain::route(gateway_name, name, route, config.retry(route), &clusters, &mut controls)?,
                priority: route.priority,
                body_bytes: route.body_bytes.or(config.limits.body_bytes).map(|config::Bytes(most)| most),
                body_timeout: config.body_timeout(route),
                upload_time: route.deadline.config.total.unwrap_or(Duration::from_secs(30)),
                upgrades: route.upgrades.clone(),
            });
        }
        Ok(Self {
            name,
            via: Via::new(name),
            router,
            routes,
            trust: Trust::new(&config.trust),
            limits: config.limits.clone(),
            controls,
            unrouted,
            tunnels: TaskTracker::new(),
        })
    }

    /// The name in `Via` and `Proxy-Status`.
    pub(crate) fn name(&self) -> &str {
        self.name
    }

    /// The layers, for operators.
    pub(crate) fn controls(&self) -> &Controls {
        &self.controls
    }

    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The upgraded connections.
    pub(crate) fn tunnels(&self) -> &TaskTracker {
        &self.tunnels
    }

    /// Answers a request, whatever happens.
    pub(crate) async fn serve(
        &self,
        mut req: Request<Incoming>,
        arrival: &Arrival,
        slot: &Slot,
    ) -> Response<impl Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static + use<>> {
        let client = self.trust.client(req.headers(), arrival.peer.ip());
        Context::of_mut(req.extensions_mut()).client = Some(client);
        let found = self.find(&req).map(|(route, host)| self.pass(route, host, &mut req, arrival));
        let front = found.as_ref().map_or(&self.unrouted, |passed| &passed.route.front);
        let call = HttpGateway::new(self.name).start_refusable(&req);
        let http1 = req.version() < Version::HTTP_2;
        let told = found.as_ref().ok().and_then(|passed| passed.quota.as_ref()?.told());
        let mut once = Some((found, call));
        let answer = service_fn(|req: Request<Incoming>| {
            let (found, call) = once.take().expect("it is called once");
            async move {
                let forwarded = async {
                    match found {
                        Ok(passed) => self.forward(passed, req, arrival, slot).await,
                        Err(refusal) => {
                            upload::leave(req);
                            Err(refusal)
                        }
                    }
                };
                let refusal = match unpanicked(forwarded).await {
                    Ok(Ok(res)) => return Ok::<_, Infallible>(res),
                    Ok(Err(refusal)) => refusal,
                    Err(Panicked) => Rejection::new(Reason::Panicked, "gateway").into(),
                };
                let mut res = refusal.complete(call.refusal(refusal.rejection));
                // Who sends what is no request may mean something else by what follows.
                if http1 && matches!(refusal.rejection.reason, Reason::BadRequest | Reason::NotImplemented) {
                    res.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok(res.map(AnswerBody::from))
            }
        });
        let Ok(mut res) = front.layer(answer).oneshot(req).await;
        if let Some(told) = told {
            told.write(res.headers_mut());
        }
        res
    }

    /// The route of a request that may be passed on, and the host it is for.
    fn find<B>(&self, req: &Request<B>) -> Result<(&Route, Option<HeaderValue>), Refusal> {
        self.check_size(req)?;
        let host = message::host(req)?;
        message::check_form(req)?;
        if has_dot_segments(req.uri()) {
            return Err((Reason::BadRequest, "the path has dot segments").into());
        }
        if req.method() == Method::TRACE {
            return Err(Refusal::methods("TRACE shows what nobody should see", &[]));
        }
        if self.via.knows(req.headers()) {
            return Err(Rejection::new(Reason::Loop, "gateway").into());
        }
        match self.router.find(host.as_ref().and_then(|host| host.to_str().ok()), req) {
            Found::Route(place) => Ok((&self.routes[place], host)),
            Found::Methods(methods) => Err(Refusal::methods("there are routes for other methods", &methods)),
            Found::Nothing => Err(Rejection::new(Reason::NoRoute, "gateway").into()),
        }
    }

    /// What is known of a request for `route`. How important it is stands in its context from here on, for whoever tells of it.
    fn pass<'a>(
        &self,
        route: &'a Route,
        host: Option<HeaderValue>,
        req: &mut Request<Incoming>,
        arrival: &Arrival,
    ) -> Passed<'a> {
        let trusted = self.trust.trusts(arrival.peer.ip());
        let priority = self.priority(req.headers(), route.priority, trusted);
        if priority != Priority::default() {
            Context::of_mut(req.extensions_mut()).priority = priority;
        }
        let quota = route.quotas.as_ref().map(|quotas| quotas.of(req));
        Passed { route, host, quota, trusted, priority }
    }

    async fn forward(
        &self,
        passed: Passed<'_>,
        mut req: Request<Incoming>,
        arrival: &Arrival,
        slot: &Slot,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let Passed { route, host, quota, trusted, priority } = passed;
        // Before anything is done for it: a body is not read yet, and no fallback stands in for a client's own limit.
        let room = self.controls.pressure.admit(priority);
        if let Err(refusal) = room.and_then(|()| quota.map_or(Ok(()), Quota::check)) {
            upload::leave(req);
            return Err(refusal.into());
        }
        if !message::may_go_on(&mut req) {
            upload::leave(req);
            return Ok(plain(StatusCode::OK, "this is as far as it goes").map(AnswerBody::from));
        }
        if route.body_bytes.is_some_and(|most| req.body().size_hint().lower() > most) {
            upload::leave(req);
            return Err(Rejection::new(Reason::BodyTooLarge, "gateway").into());
        }
        let (asked, switch) = match message::upgrade(&req, &route.upgrades) {
            Some(protocol) => (Some(tunnel::Asked(protocol)), Some(upgrade::on(&mut req))),
            None => (None, None),
        };
        let expects = req.headers().contains_key(header::EXPECT);
        let writes = !req.method().is_safe() && !self.controls.stales.is_empty();
        let written = writes.then(|| (req.uri().clone(), host.clone()));
        self.prepare(&mut req, arrival, host, (!trusted).then_some(priority));
        let mut req = Bounded::wrap(req, route.body_timeout, route.body_bytes, expects);
        // A client that takes its time to send a small body has no place in a bulkhead yet.
        if req.body().may_be_taken_in(self.limits.buffer_bytes.0) {
            req.body_mut().take_in(route.upload_time).await.map_err(refused)?;
        }
        // Whatever becomes of single attempts.
        let answering = Answering::to(&req);
        let mut req = UploadBody::track(req);
        if let Some(asked) = &asked {
            req.extensions_mut().insert(asked.clone());
            // Its `Upgrade` went with the headers that are for one hop.
            req.extensions_mut().insert(OpensTunnel);
        }
        let mut res = route.chain.clone().oneshot(req).await.map_err(|error| match upstream::failed(&error) {
            Failed::Client(fault) => refused(fault),
            Failed::Refused(rejection) => rejection,
        })?;
        if let Some(rejection) = res.extensions().get::<Rejection>() {
            return Err((*rejection).into());
        }
        if let Some((uri, host)) = written
            && (res.status().is_success() || res.status().is_redirection())
        {
            self.forget(&uri, host.as_ref());
        }
        let version = res.version();
        // hyper writes the version of the connection it answers on.
        *res.version_mut() = Version::HTTP_11;
        message::clean_response(res.headers_mut());
        self.via.add(res.headers_mut(), version);
        if let (Some(tunnel::Asked(protocol)), Some(client)) = (asked, switch)
            && res.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            res.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            res.headers_mut().insert(header::UPGRADE, protocol);
            let (upstream, permits) = (upgrade::on(&mut res), Tunnel::take(res.extensions_mut()));
            self.tunnels.spawn(tunnel::carry(client, upstream, permits, slot.clone(), self.limits.tunnel_idle));
        }
        Ok(res.map(|body| AnswerBody::new(body, answering)))
    }

    /// What was written by one route is known to the others, which may have stored what it was (RFC 9111, 4.4).
    fn forget(&self, uri: &Uri, host: Option<&HeaderValue>) {
        let mut parts = uri.clone().into_parts();
        parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        parts.scheme = parts.authority.is_some().then_some(Scheme::HTTP);
        if let Ok(uri) = Uri::from_parts(parts) {
            self.controls.stales.values().for_each(|stale| _ = stale.purge(&uri));
        }
    }

    /// Whether the head is one that may be passed on.
    fn check_size<B>(&self, req: &Request<B>) -> Result<(), Refusal> {
        let target = req.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if target as u64 > self.limits.uri_bytes.0 {
            return Err(Rejection::new(Reason::UriTooLong, "gateway").into());
        }
        let headers = req.headers();
        // A name, a colon, a space, a value, and the end of the line.
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if headers.len() > self.limits.headers || (target + bytes) as u64 > self.limits.header_bytes.0 {
            return Err(Rejection::new(Reason::HeaderTooLarge, "gateway").into());
        }
        Ok(())
    }

    /// Makes a client's request one of ours. `of_stranger`: how important that of a client is whose word is not taken.
    fn prepare<B>(
        &self,
        req: &mut Request<B>,
        arrival: &Arrival,
        host: Option<HeaderValue>,
        of_stranger: Option<Priority>,
    ) {
        let version = req.version();
        let headers = req.headers_mut();
        let trusted = of_stranger.is_none();
        if let Some(priority) = of_stranger {
            trust::restate(headers, &self.trust.priority_header, priority);
        }
        // In one step: five come.
        headers.reserve(5);
        message::clean_request(headers, host.clone(), |name| !trusted && trust::is_claim(name));
        trust::forward(headers, arrival, host.as_ref());
        self.via.add(headers, version);
    }

    /// How important a request is: what its route says, what a trusted proxy says, or less.
    fn priority(&self, headers: &HeaderMap, of_route: Priority, trusted: bool) -> Priority {
        match trust::priority(headers, &self.trust.priority_header) {
            Some(said) if trusted => said,
            Some(said) => said.min(of_route),
            None => of_route,
        }
    }
}

/// What a client did to its own request, as a refusal.
fn refused(fault: Fault) -> Rejection {
    let reason = match fault {
        Fault::BrokeOff => Reason::UploadBroken,
        Fault::Stalled => Reason::UploadStalled,
        Fault::TooLarge => Reason::BodyTooLarge,
    };
    Rejection::new(reason, "gateway")
}

/// Why a request gets no answer from an upstream.
struct Refusal {
    rejection: Rejection,
    /// What exactly is wrong, if the reason does not say it.
    detail: Option<&'static str>,
    allow: Option<HeaderValue>,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, detail: None, allow: None }
    }
}

impl From<message::Wrong> for Refusal {
    fn from((reason, detail): message::Wrong) -> Self {
        Self { detail: Some(detail), ..Rejection::new(reason, "gateway").into() }
    }
}

impl Refusal {
    fn methods(detail: &'static str, allowed: &[Method]) -> Self {
        let allowed: Vec<_> = allowed.iter().map(Method::as_str).collect();
        let allow = HeaderValue::try_from(allowed.join(", ")).ok();
        Self { allow, ..(Reason::MethodNotAllowed, detail).into() }
    }

    /// Adds to the response what core's table of reasons does not know.
    fn complete(&self, mut res: Response<Bytes>) -> Response<ResponseBody> {
        if let Some(allow) = &self.allow {
            res.headers_mut().insert(header::ALLOW, allow.clone());
        }
        let (head, mut body) = res.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let json = kind == b"application/problem+json";
        if json || kind.starts_with(b"text/plain") {
            let text = match self.detail {
                Some(detail) if json => {
                    let mut problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                    problem["detail"] = detail.into();
                    problem.to_string()
                }
                Some(detail) => detail.to_owned(),
                None => String::from_utf8_lossy(&body).into_owned(),
            };
            body = Bytes::from(text + "\n");
        }
        Response::from_parts(head, Full::from(body).map_err(|never| match never {}).boxed_unsync())
    }
}

pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut res = Response::new(Full::from(format!("{text}\n")).map_err(|never| match never {}).boxed_unsync());
    *res.status_mut() = status;
    res.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    res
}

struct Panicked;

/// A panic in the chain is this request's misfortune, and nobody else's.
async fn unpanicked<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_contained() {
        assert!(unpanicked(async { panic!("a bug") }).await.is_err());
        assert_eq!(unpanicked(async { 5 }).await.ok(), Some(5));
    }
}
