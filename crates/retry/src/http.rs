//! What HTTP and gRPC say about sending a request again.

use crate::{
    Cause, Repeat, Resend, RetryBody, Wait, Why,
    resend::{
        by_error, by_reason, further_out,
        private::{Ask, Finding, RulesRef, Sealed},
    },
};
use buttress_core::{
    BoxError, Call, Context as CallContext, Outcome, Protocol, Pushback, Replay, Token, Verdict,
    http::{Classify, Http, Refuse, ResponseBody, SaysUnsent, grpc, is_grpc, opens_tunnel, parse_grpc_pushback},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, SizeHint};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// A request extension: whether this one request may be sent again though it may have been processed, whatever its method says.
///
/// ```
/// use buttress_retry::Idempotent;
///
/// let search = http::Request::post("/search").extension(Idempotent(true)).body(())?;
/// # let _ = search;
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent(pub bool);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl<M, C> Sealed for Http<M, C> {}

impl<M, C, B, R, Err> Resend<Request<B>, Response<R>, Err> for Http<M, C>
where
    M: Refuse<Err> + SaysUnsent<Err>,
    C: Classify,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: ResponseBody,
{
    type Response = Response<RetryBody<R>>;
    type Remains = Draining<R>;
    type Peek = Peek<R>;

    fn ask(&self, req: &Request<B>, idempotency_key: bool) -> Ask {
        let context = CallContext::of(req.extensions());
        let (nested, pays) = further_out();
        let nested = nested || self.tried_before(req) > 0;
        Ask {
            repeat: if nested { Repeat::Never } else { repeat(req, idempotency_key) },
            grpc: req.method() == Method::POST && is_grpc(req.headers()),
            pays: pays && !nested,
            deadline: context.and_then(|context| context.deadline).map(|deadline| deadline.at),
        }
    }

    #[inline]
    fn judge(call: &<Self as Protocol<Request<B>>>::Call, result: Result<&Response<R>, &Err>) -> Verdict {
        Call::<Response<R>, Err>::judge(call, result)
    }

    fn find(
        verdict: &Verdict,
        ask: &Ask,
        RulesRef(rules): RulesRef<'_>,
        result: Result<&Response<R>, &Err>,
    ) -> Finding {
        if let Some(rejection) = verdict.rejection {
            return by_reason(rejection, ask);
        }
        let res = match result {
            Ok(res) => res,
            Err(error) => return by_error(verdict, ask, M::says_unsent(error)),
        };
        let status = res.status();
        // An overload that says when to come back is worth coming back to, listed or not.
        let invited = verdict.outcome == Outcome::Overload && verdict.pushback.is_some();
        if ask.grpc {
            return match grpc::code(status, res.headers()) {
                // Response headers commit the call.
                None if rules.grpc_peek && !verdict.end => Finding::Peek,
                None => Finding::Good,
                Some(code) => by_code(verdict, code, invited || rules.retries_code(code), res.headers()),
            };
        }
        let listed = rules.retries_status(status.as_u16());
        match verdict.outcome {
            Outcome::Success => Finding::Good,
            // The client's own short deadline; a 408 that is listed is one all the same.
            Outcome::Ignored if !(listed && status == StatusCode::REQUEST_TIMEOUT) => Finding::Bad(Why::NotRetryable),
            _ if !listed && !invited => Finding::Bad(Why::NotRetryable),
            outcome => {
                let cause = if outcome == Outcome::Overload { Cause::Overload } else { Cause::Status };
                ask.if_repeatable(cause, at_least(verdict.pushback))
            }
        }
    }

    fn peek(res: Response<R>, ask: &Ask, RulesRef(rules): RulesRef<'_>) -> Peek<R> {
        let (head, body) = res.into_parts();
        let hint = body.size_hint();
        Peek { head: Some(head), body: Some(Box::pin(body)), hint, ask: *ask, rules: *rules }
    }

    #[inline]
    fn finish(res: Response<R>) -> Response<RetryBody<R>> {
        res.map(RetryBody::whole)
    }

    #[inline]
    fn hold(res: &mut Response<RetryBody<R>>, token: Token) {
        // Nothing is to come: the attempt is over.
        if !res.body().is_end_stream() {
            res.body_mut().hold(token);
        }
    }

    fn remains(res: Response<R>) -> Option<Draining<R>> {
        Draining::of(res)
    }

    fn poll_drained(remains: &mut Draining<R>, cx: &mut Context<'_>) -> Poll<()> {
        remains.poll(cx)
    }
}

/// What the request says about being sent twice.
fn repeat<B>(req: &Request<B>, idempotency_key: bool) -> Repeat {
    let method = req.method();
    if opens_tunnel(req) {
        return Repeat::Never;
    }
    let has_key = || {
        let has_key = |key: &HeaderValue| !key.as_bytes().trim_ascii().is_empty();
        matches!(*method, Method::POST | Method::PATCH) && req.headers().get(IDEMPOTENCY_KEY).is_some_and(has_key)
    };
    match req.extensions().get() {
        Some(Idempotent(true)) => Repeat::Safe,
        Some(Idempotent(false)) => Repeat::Unsafe,
        None if method.is_idempotent() || (idempotency_key && has_key()) => Repeat::Safe,
        None => Repeat::Unsafe,
    }
}

fn at_least(pushback: Option<Pushback>) -> Wait {
    match pushback.map(Pushback::delay) {
        None => Wait::Backoff,
        Some(None) => Wait::Never,
        Some(Some(delay)) => Wait::AtLeast(delay),
    }
}

/// A gRPC call whose code came without a message.
fn by_code(verdict: &Verdict, code: u8, listed: bool, headers: &HeaderMap) -> Finding {
    match verdict.outcome {
        _ if code == grpc::OK => Finding::Good,
        Outcome::Success => Finding::Good,
        Outcome::Ignored => Finding::Bad(Why::NotRetryable),
        // 429 without a gRPC status stays an overload: only with a time to come back.
        Outcome::Overload if verdict.pushback.is_none() && !headers.contains_key(grpc::STATUS) => {
            Finding::Bad(Why::NotRetryable)
        }
        _ if !listed => Finding::Bad(Why::NotRetryable),
        outcome => {
            let cause = if outcome == Outcome::Overload { Cause::Overload } else { Cause::Grpc };
            let wait = match (at_least(verdict.pushback), headers.contains_key(grpc::STATUS)) {
                (Wait::AtLeast(delay), true) => Wait::Exactly(delay),
                (wait, _) => wait,
            };
            Finding::Again(cause, wait)
        }
    }
}

/// The most that is read of a response that nobody will see, so that its connection can be used again.
const DRAIN: u64 = 64 * 1024;
/// The most frames of it: they may be empty.
const DRAIN_FRAMES: u32 = 64;

/// The body of such a response.
#[doc(hidden)]
pub struct Draining<B> {
    body: Pin<Box<B>>,
    left: u64,
    frames_left: u32,
}

impl<B: ResponseBody> Draining<B> {
    fn of(res: Response<B>) -> Option<Self> {
        let hint = res.body().size_hint();
        if res.body().is_end_stream() || hint.lower() > DRAIN {
            return None;
        }
        Some(Self { body: Box::pin(res.into_body()), left: DRAIN, frames_left: DRAIN_FRAMES })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(Ok(frame)) = ready!(self.body.as_mut().poll_frame(cx)) {
            let more = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(more) {
                Some(left) => self.left = left,
                None => break,
            }
            self.frames_left -= 1;
            if self.frames_left == 0 || self.body.is_end_stream() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<B> fmt::Debug for Draining<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining").field("left", &self.left).finish_non_exhaustive()
    }
}

/// Waits for the first frame of a gRPC response: a message commits it, a status without any does not.
#[doc(hidden)]
pub struct Peek<B> {
    head: Option<http::response::Parts>,
    body: Option<Pin<Box<B>>>,
    hint: SizeHint,
    ask: Ask,
    rules: crate::rules::Rules,
}

impl<B: ResponseBody> Future for Peek<B> {
    type Output = (Response<RetryBody<B>>, Finding);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let body = this.body.as_mut().expect("polled after it had completed");
        let first = ready!(body.as_mut().poll_frame(cx));
        let finding = match &first {
            Some(Ok(frame)) => {
                frame.trailers_ref().map_or(Finding::Good, |trailers| of_trailers(trailers, &this.rules))
            }
            Some(Err(_)) => this.ask.if_repeatable(Cause::Error, Wait::Backoff),
            // Neither a message nor a status.
            None => Finding::Bad(Why::NotRetryable),
        };
        let (head, body) = (this.head.take().expect("with its body"), this.body.take().expect("there"));
        Poll::Ready((Response::from_parts(head, RetryBody::begun(first, body, this.hint)), finding))
    }
}

impl<B> fmt::Debug for Peek<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peek").finish_non_exhaustive()
    }
}

/// What to make of a status that came without a message.
fn of_trailers(trailers: &HeaderMap, rules: &crate::rules::Rules) -> Finding {
    let Some(code) = grpc::said(trailers) else {
        return Finding::Bad(Why::NotRetryable);
    };
    let wait = match trailers.get("grpc-retry-pushback-ms") {
        None => Wait::Backoff,
        Some(millis) => parse_grpc_pushback(millis.as_bytes()).delay().map_or(Wait::Never, Wait::Exactly),
    };
    let overload = code == grpc::RESOURCE_EXHAUSTED;
    let invited = overload && matches!(wait, Wait::Exactly(_));
    let cause = if overload { Cause::Overload } else { Cause::Grpc };
    match code {
        _ if rules.retries_code(code) || invited => Finding::Again(cause, wait),
        grpc::UNKNOWN
        | grpc::DEADLINE_EXCEEDED
        | grpc::RESOURCE_EXHAUSTED
        | grpc::INTERNAL
        | grpc::UNAVAILABLE
        | grpc::DATA_LOSS => Finding::Bad(Why::NotRetryable),
        _ => Finding::Good,
    }
}
