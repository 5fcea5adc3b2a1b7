//! The shell's mistakes: a right layer, and what a careless hand adds to it.

use super::{Fault, Permit, Policy};
use buttress_core::{
    BoxError, GateLayer, Outcome, Reason, Rejection, Settle,
    http::{HttpClient, HttpServer},
};
use buttress_sim::{
    AnyBody, any,
    contract::{HttpInner, Role},
    wire::HttpService,
};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};

/// The layer of a [`Policy`], with its fault.
pub struct Wrap {
    policy: Policy,
    role: Role,
    last: Arc<Mutex<Option<Instant>>>,
}

impl Wrap {
    pub fn new(policy: Policy, role: Role) -> Self {
        Self { policy, role, last: Arc::default() }
    }
}

impl Layer<HttpInner> for Wrap {
    type Service = Shell;

    fn layer(&self, inner: HttpInner) -> Shell {
        let policy = if self.policy.fault() == Fault::StateInLayer { self.policy.fresh() } else { self.policy.clone() };
        let gate = GateLayer::<Policy>::new(policy.clone());
        let by_hand = format!("{:?}", policy.fault()).starts_with("Tie");
        let service = match self.role {
            _ if by_hand => HttpService::new(inner),
            Role::Opaque => HttpService::new(gate.layer(inner)),
            Role::Server => {
                HttpService::new(gate.protocol(HttpServer::new()).layer(inner).map_response(|res| res.map(any)))
            }
            Role::Client => {
                HttpService::new(gate.protocol(HttpClient::new()).layer(inner).map_response(|res| res.map(any)))
            }
        };
        Shell { service, policy, role: self.role, by_hand, reserved: None, asked: false, last: self.last.clone() }
    }
}

pub struct Shell {
    service: HttpService,
    policy: Policy,
    role: Role,
    by_hand: bool,
    reserved: Option<Permit>,
    asked: bool,
    last: Arc<Mutex<Option<Instant>>>,
}

impl Clone for Shell {
    fn clone(&self) -> Self {
        let (service, policy, last) = (self.service.clone(), self.policy.clone(), self.last.clone());
        Self { service, policy, role: self.role, by_hand: self.by_hand, reserved: None, asked: false, last }
    }
}

impl Service<Request<AnyBody>> for Shell {
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<AnyBody>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let shut = self.policy.is_shut();
        match self.policy.fault() {
            Fault::RefusesInPollReady if shut.is_some() => return Poll::Ready(Err(shut.expect("shut").into())),
            // Says so, and forgets that nobody asked the inner service.
            Fault::ForgetsShutBetween if shut.is_some() => return Poll::Ready(Ok(())),
            Fault::SaysReadyAlways => return Poll::Ready(Ok(())),
            Fault::ReservesWhenReady if self.reserved.is_none() => match self.policy.take() {
                Ok(permit) => self.reserved = Some(permit),
                Err(_) => return Poll::Pending,
            },
            _ => {}
        }
        self.asked = true;
        match self.service.poll_ready(cx) {
            Poll::Ready(Err(_)) if self.policy.fault() == Fault::HidesReadinessErrors => Poll::Pending,
            other => other,
        }
    }

    fn call(&mut self, mut req: Request<AnyBody>) -> Self::Future {
        let (fault, role) = (self.policy.fault(), self.role);
        self.reserved = None;
        if fault == Fault::ForgetsTheContext {
            req.extensions_mut().clear();
        }
        if self.by_hand {
            return self.call_by_hand(req);
        }
        let call = match fault {
            Fault::CallsUnready => self.service.clone().call(req),
            Fault::SaysReadyAlways => self.service.clone().oneshot(req).boxed(),
            Fault::SwallowsPanics => match std::panic::catch_unwind(AssertUnwindSafe(|| self.service.call(req))) {
                Ok(call) => call,
                Err(_) => return Box::pin(async { Err("it panicked".into()) }),
            },
            _ => self.service.call(req),
        };
        let last = self.last.clone();
        let shut = self.policy.is_shut();
        Box::pin(async move {
            if fault == Fault::ExpiresWhenIdle {
                let now = Instant::now();
                let last = last.lock().expect("no panic").replace(now);
                if last.is_some_and(|last| now - last > Duration::from_secs(60)) {
                    return Err("too old".into());
                }
            }
            let answer = match fault {
                Fault::SpawnsTheCall => match tokio::spawn(call).await {
                    Ok(answer) => answer,
                    Err(join) => std::panic::resume_unwind(join.into_panic()),
                },
                Fault::SwallowsPanics => {
                    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|_| Err("it panicked".into()))
                }
                _ => call.await,
            };
            bend(fault, role, shut, answer).await
        })
    }
}

async fn bend(
    fault: Fault,
    role: Role,
    shut: Option<Rejection>,
    answer: Result<Response<AnyBody>, BoxError>,
) -> Result<Response<AnyBody>, BoxError> {
    match (fault, answer) {
        (Fault::DelaysTheHead, answer) => {
            tokio::time::sleep(Duration::from_millis(3)).await;
            answer
        }
        (Fault::WrapsErrors, Err(error)) => Err(format!("inner: {error}").into()),
        (Fault::Unmarked, Err(error)) if Rejection::find(&*error).is_some() => Err(error.to_string().into()),
        (Fault::Unmarked, Ok(mut res)) => {
            res.extensions_mut().remove::<Rejection>();
            Ok(res)
        }
        (Fault::MarksAnything, Err(_)) => Err(Rejection::new(Reason::AtCapacity, "test").into()),
        (Fault::ClosesBadConnections, Ok(mut res)) if shut.is_some() && role == Role::Server => {
            // As if a refusal were good news.
            *res.status_mut() = StatusCode::OK;
            Ok(res)
        }
        (Fault::GathersTheBody, Ok(res)) => {
            let (parts, body) = res.into_parts();
            let bytes = body.collect().await?.to_bytes();
            Ok(Response::from_parts(parts, any(Full::from(bytes))))
        }
        (Fault::SpawnsTheBody, Ok(res)) => {
            let (parts, body) = res.into_parts();
            let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
            tokio::spawn(async move {
                let mut body = body;
                while let Some(frame) = body.frame().await {
                    let _ = send.send(frame);
                }
            });
            let stream = futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx));
            Ok(Response::from_parts(parts, any(http_body_util::StreamBody::new(stream))))
        }
        (Fault::EatsEndOfStream | Fault::EatsSizeHint | Fault::EatsTrailers | Fault::EatsErrors, Ok(res)) => {
            Ok(res.map(|body| any(Bent { body, fault })))
        }
        (_, answer) => answer,
    }
}

/// A body wrapper that forwards all but one thing.
struct Bent {
    body: AnyBody,
    fault: Fault,
}

impl Body for Bent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) if self.fault == Fault::EatsTrailers && frame.is_trailers() => {
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) if self.fault == Fault::EatsErrors => Poll::Ready(None),
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.fault != Fault::EatsEndOfStream && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.fault == Fault::EatsSizeHint { SizeHint::default() } else { self.body.size_hint() }
    }
}

impl Shell {
    /// Without core's protocols: what whoever writes such a layer from scratch has to think of.
    fn call_by_hand(&mut self, req: Request<AnyBody>) -> <Self as Service<Request<AnyBody>>>::Future {
        let (fault, role) = (self.policy.fault(), self.role);
        let (grpc, head) = (req.method() == Method::POST, req.method() == Method::HEAD);
        let refused = match self.policy.is_shut() {
            Some(shut) => Err(shut),
            None => self.policy.take(),
        };
        let mut permit = match refused {
            Ok(permit) => permit,
            Err(rejection) if role != Role::Server => return Box::pin(async move { Err(rejection.into()) }),
            Err(rejection) => {
                return Box::pin(async move {
                    let mut res = Response::new(AnyBody::default());
                    match grpc && fault != Fault::TieRefusesGrpcPlainly {
                        true => _ = res.headers_mut().insert("grpc-status", "14".parse()?),
                        false => *res.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
                    }
                    res.extensions_mut().insert(rejection);
                    Ok(res)
                });
            }
        };
        let call = self.service.call(req);
        Box::pin(async move {
            let res = match call.await {
                Ok(res) => res,
                Err(error) => {
                    permit.conclude(error_outcome(&error), None);
                    return Err(error);
                }
            };
            if role == Role::Opaque {
                permit.conclude(Outcome::Success, None);
                return Ok(res);
            }
            let marked = res.extensions().get::<Rejection>().map(|rejection| rejection.reason.outcome());
            let in_head = res.headers().get("grpc-status").map(|code| of_code(code.as_bytes()));
            let by_status = match res.status().as_u16() {
                429 => Outcome::Overload,
                500.. => Outcome::Failure,
                _ => Outcome::Success,
            };
            let outcome = marked.or(in_head).unwrap_or(by_status);
            let bodiless =
                fault != Fault::TieKnowsNoBodilessAnswer && (head || matches!(res.status().as_u16(), 204 | 304));
            let declared = res.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
            let declared = res.body().size_hint().exact().or(declared);
            let left = if fault == Fault::TieKnowsNoLength || grpc { None } else { declared };
            let over = bodiless || left == Some(0) || (res.body().is_end_stream() && fault != Fault::TieKnowsNoneOnly);
            if res.status() == StatusCode::SWITCHING_PROTOCOLS && fault != Fault::TieForgetsTunnels {
                permit.conclude(outcome, None);
                let mut res = res;
                res.extensions_mut().insert(Arc::new(Mutex::new(permit)));
                return Ok(res);
            }
            if over || fault == Fault::TieEndsAtTheHead {
                permit.conclude(outcome, None);
                return Ok(res);
            }
            let known = (!grpc || outcome != Outcome::Success || fault == Fault::TieIgnoresTrailers).then_some(outcome);
            Ok(res.map(|body| any(Tied { body, permit: Some(permit), known, left, fault })))
        })
    }
}

fn error_outcome(error: &BoxError) -> Outcome {
    buttress_core::http::error_outcome(&**error)
}

fn of_code(code: &[u8]) -> Outcome {
    match code {
        b"0" | b"5" => Outcome::Success,
        _ => Outcome::Failure,
    }
}

struct Tied {
    body: AnyBody,
    permit: Option<Permit>,
    known: Option<Outcome>,
    left: Option<u64>,
    fault: Fault,
}

impl Tied {
    fn end(&mut self, outcome: Outcome) {
        if let Some(mut permit) = self.permit.take() {
            permit.conclude(outcome, None);
        }
    }
}

impl Body for Tied {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => {
                let outcome = self.known.unwrap_or(Outcome::Failure);
                self.end(outcome);
            }
            Poll::Ready(Some(Err(_))) if self.fault == Fault::TieMissesErrors => {}
            Poll::Ready(Some(Err(_))) => self.end(Outcome::Failure),
            Poll::Ready(Some(Ok(frame))) => {
                let len = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.left = self.left.map(|left| left.saturating_sub(len));
                if self.fault == Fault::TieKnowsNoneOnly {
                    return polled;
                }
                if let Some(trailers) = frame.trailers_ref() {
                    let code = trailers.get("grpc-status").map(|code| of_code(code.as_bytes()));
                    let outcome = self.known.or(code).unwrap_or(Outcome::Failure);
                    self.end(outcome);
                } else if self.left == Some(0) || self.body.is_end_stream() {
                    let outcome = self.known.unwrap_or(Outcome::Failure);
                    self.end(outcome);
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        if self.fault != Fault::TieForgetsBadHeads
            && let Some(outcome @ (Outcome::Failure | Outcome::Overload)) = self.known
        {
            self.end(outcome);
        }
    }
}
