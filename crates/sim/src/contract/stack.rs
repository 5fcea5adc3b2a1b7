//! Services around a subject, and what rules do with them.

use super::{HttpInner, Role, Subject};
use crate::{AnyBody, Meter, Script, any, wire::HttpService};
use buttress_core::{
    BoxError, GateLayer, Opaque, Rejection,
    http::{HttpClient, HttpServer},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

pub(super) type HttpScript = Script<Request<AnyBody>, Response<AnyBody>>;
pub(super) type Answer = Result<Response<AnyBody>, BoxError>;
pub(super) type Call = BoxFuture<'static, Answer>;

/// A service with its response body boxed.
pub(super) fn boxed<S, B>(service: S) -> HttpService
where
    S: Service<Request<AnyBody>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    HttpService::new(service.map_response(|res: Response<B>| res.map(any)))
}

/// A subject between two meters.
pub(super) struct Stack {
    pub(super) service: HttpService,
    /// What a layer further in sees.
    pub(super) inner: Meter,
    /// What a layer further out sees.
    pub(super) outer: Meter,
}

impl Stack {
    pub(super) fn new<S>(subject: &Subject, role: Role, innermost: S) -> Self
    where
        S: Service<Request<AnyBody>, Response = Response<AnyBody>, Error = BoxError> + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        let (inner, outer) = (Meter::new(), Meter::new());
        let metered: HttpInner = match role {
            Role::Opaque => HttpInner::new(GateLayer::<Meter>::new(inner.clone()).layer(innermost)),
            Role::Server => {
                let layer = GateLayer::<Meter>::new(inner.clone()).protocol(HttpServer::new());
                HttpInner::new(layer.layer(innermost).map_response(|res| res.map(any)))
            }
            Role::Client => {
                let layer = GateLayer::<Meter>::new(inner.clone()).protocol(HttpClient::new());
                HttpInner::new(layer.layer(innermost).map_response(|res| res.map(any)))
            }
        };
        let service = subject.layer(role, metered);
        let layer = GateLayer::<Meter>::new(outer.clone());
        let service = match role {
            Role::Opaque => boxed(layer.protocol(Opaque::new()).layer(service)),
            Role::Server => boxed(layer.protocol(HttpServer::new()).layer(service)),
            Role::Client => boxed(layer.protocol(HttpClient::new()).layer(service)),
        };
        Self { service, inner, outer }
    }

    /// One call, to the response head.
    pub(super) async fn ask(&self, req: Request<AnyBody>) -> Answer {
        self.service.clone().oneshot(req).await
    }
}

/// A subject around a script, without meters.
pub(super) fn service(subject: &Subject, role: Role, script: &HttpScript) -> HttpService {
    subject.layer(role, HttpInner::new(script.clone()))
}

pub(super) fn get() -> Request<AnyBody> {
    Request::get("/").body(AnyBody::default()).expect("a request")
}

/// An answer without a body.
pub(super) fn ok() -> Response<AnyBody> {
    Response::new(AnyBody::default())
}

/// A script that answers every call at once.
pub(super) fn answering() -> HttpScript {
    Script::new(async |_| Ok(ok()))
}

/// Waits until `service` is ready, and calls it. It must become ready.
pub(super) async fn start(service: &mut HttpService) -> Result<Call, String> {
    let ready = tokio::time::timeout(Duration::from_secs(10), service.ready()).await;
    match ready {
        Ok(Ok(service)) => Ok(service.call(get())),
        Ok(Err(error)) => Err(format!("poll_ready failed: {error}")),
        Err(_) => Err("poll_ready hangs though the inner service is ready".to_owned()),
    }
}

pub(super) async fn poll_ready(service: &mut HttpService) -> Poll<Result<(), BoxError>> {
    std::future::poll_fn(|cx| Poll::Ready(service.poll_ready(cx))).await
}

/// The refusal in an answer, as the role shows it.
pub(super) fn refusal(role: Role, answer: &Answer) -> Option<Rejection> {
    match (role, answer) {
        (Role::Server, Ok(res)) => res.extensions().get().copied(),
        (Role::Opaque | Role::Client, Err(error)) => Rejection::find(&**error),
        _ => None,
    }
}

/// An answer for a message.
pub(super) fn show(answer: &Answer) -> String {
    match answer {
        Ok(res) => format!("a response with status {}", res.status()),
        Err(error) => format!("the error `{error}`"),
    }
}

/// Reads a body to the end as `collect` does; `Err`: it failed.
pub(super) async fn read(body: AnyBody) -> Result<Bytes, BoxError> {
    Ok(body.collect().await?.to_bytes())
}

/// Polls a body once.
pub(super) fn poll_frame(
    body: &mut AnyBody,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
    Pin::new(body).poll_frame(cx)
}

/// Whether `cond` holds within a generous bound.
pub(super) async fn soon(mut cond: impl FnMut() -> bool) -> bool {
    for _ in 0..2_000 {
        if cond() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cond()
}

/// The end of a rule that needs a knob which the subject does not have: it passes, and the test's output says so.
pub(super) fn nothing_to_check(knob: &str) -> Result<(), String> {
    println!("nothing to check: the subject has no `.{knob}(..)`");
    Ok(())
}

/// Ends a rule with a message unless the condition holds.
macro_rules! ensure {
    ($cond:expr, $($message:tt)+) => {
        if !$cond {
            return Err(format!($($message)+));
        }
    };
}
pub(super) use ensure;
