//! The HTTP and gRPC protocols (feature `http`).
//!
//! [`HttpServer`] turns a refusal into a response and leaves the error type alone, so `Infallible` works; [`HttpGateway`]
//! is the same for an intermediary (`Proxy-Status`, 504 where an origin says 503); [`HttpClient`] turns it into an error.
//! gRPC is recognised per request, by its content type; its refusals are trailers-only responses, and its outcome is known
//! only from `grpc-status`.

mod body;
pub mod grpc;
mod outcome;
mod refuse;
mod replay;
#[cfg(all(test, not(buttress_loom)))]
mod tests;
mod trace;
mod transport;
mod tunnel;
mod unsent;
mod upload;

use crate::{
    Call, Context, Cut, Degraded, Outcome, Protocol, Pushback, Rejection, Settle, Status, Verdict,
    protocol::sealed::Sealed,
    settle::{settle_in_place, tell_refused},
};
use ::http::{Extensions, HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use body::Tie;
use bytes::Bytes;
use http_body::Body;
use std::{convert::Infallible, num::NonZeroU8};

pub use body::{BodyError, CutBody, ResponseBody, Tracked, Uncut};
pub use outcome::{Classify, Head, RequestBodyError, Table, error_outcome, parse_grpc_pushback, parse_retry_after};
pub use refuse::{Ask, Fail, Gateway, Refuse, Render, Reply};
pub use replay::{KeptRequest, ReplayBody, attempts_before};
pub use trace::TraceContext;
pub use transport::TransportError;
pub use tunnel::{OpensTunnel, Tunnel, opens_tunnel};
#[doc(hidden)]
pub use unsent::SaysUnsent;
pub use unsent::{Unsent, is_unsent};
pub use upload::{Upload, UploadBody, UploadLayer, Uploads};

/// The header of a degraded answer: `fallback; cause=breaker_open`. See [`Degraded`].
pub const X_DEGRADED: HeaderName = HeaderName::from_static("x-degraded");

/// Refusals become responses: for servers, whatever their error type, and for generated tonic clients.
pub type HttpServer<C = Table> = Http<Reply, C>;
/// Refusals become a gateway's responses, with `Proxy-Status`.
pub type HttpGateway<C = Table> = Http<Gateway, C>;
/// Refusals become errors.
pub type HttpClient<C = Table> = Http<Fail, C>;

/// HTTP, and gRPC where the request's content type says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Http<M, C = Table> {
    mode: M,
    classify: C,
}

impl Http<Reply> {
    /// The protocol of an origin server.
    pub const fn new() -> Self {
        Self { mode: Reply, classify: Table }
    }
}

impl Http<Fail> {
    /// The protocol of a client.
    pub const fn new() -> Self {
        Self { mode: Fail, classify: Table }
    }
}

impl Http<Gateway> {
    /// The protocol of an intermediary that calls itself `name` in `Proxy-Status`
    /// ([RFC 9209](https://www.rfc-editor.org/rfc/rfc9209)).
    pub const fn new(name: &'static str) -> Self {
        Self { mode: Gateway { name }, classify: Table }
    }
}

impl<M, C> Http<M, C> {
    /// Overrides single rows of the outcome table: a closure `Fn(&Head, Outcome) -> Outcome` gets what the table says.
    ///
    /// ```
    /// use buttress_core::{Outcome, http::{Head, HttpServer}};
    ///
    /// let missing_is_bad = HttpServer::new().classify(|head: &Head<'_>, by_table: Outcome| match head.status.as_u16() {
    ///     404 => Outcome::Failure,
    ///     _ => by_table,
    /// });
    /// ```
    pub fn classify<D: Classify>(self, classify: D) -> Http<M, D> {
        Http { mode: self.mode, classify }
    }

    /// Writes refusals by a closure `Fn(&Rejection, Ask) -> http::Response<Bytes>`. The marker that tells layers further out
    /// of the refusal is added to whatever it returns.
    pub fn render<F>(self, render: F) -> Http<Render<F>, C>
    where
        F: Fn(&Rejection, Ask) -> Response<Bytes> + Clone + Send + 'static,
    {
        Http { mode: Render(render), classify: self.classify }
    }
}

/// A call of [`Http`].
#[derive(Clone, Debug)]
pub struct HttpCall<M, C> {
    mode: M,
    classify: C,
    asked: Asked,
    /// The request's body, if it comes from somebody else.
    upload: Option<Upload>,
}

/// [`Ask`] in one byte: a call moves from hand to hand, and five bytes written one by one are waited for when they are moved as
/// one word.
#[derive(Clone, Copy, Debug)]
struct Asked(NonZeroU8);

impl Asked {
    const GRPC: u8 = 1;
    const HEAD: u8 = 2;
    const CONNECT: u8 = 4;
    const JSON: u8 = 8;
    const SHORT: u8 = 16;
    /// Always there, so that an `Option` of a call needs no byte of its own.
    const SOME: NonZeroU8 = NonZeroU8::new(128).unwrap();

    #[inline]
    fn new(ask: Ask) -> Self {
        let bit = |is: bool, bit| if is { bit } else { 0 };
        let bits = bit(ask.grpc, Self::GRPC)
            | bit(ask.head, Self::HEAD)
            | bit(ask.connect, Self::CONNECT)
            | bit(ask.json, Self::JSON)
            | bit(ask.short, Self::SHORT);
        Self(Self::SOME | bits)
    }

    #[inline]
    fn is(self, bit: u8) -> bool {
        self.0.get() & bit != 0
    }

    fn ask(self) -> Ask {
        Ask {
            grpc: self.is(Self::GRPC),
            head: self.is(Self::HEAD),
            connect: self.is(Self::CONNECT),
            json: self.is(Self::JSON),
            short: self.is(Self::SHORT),
        }
    }
}

impl<M, C> Sealed for Http<M, C> {}

/// Whether a content type is gRPC: `application/grpc`, alone or followed by `+` or `;` (grpc-web is something else).
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

impl<M: Clone, C: Clone, B> Protocol<Request<B>> for Http<M, C> {
    type Call = HttpCall<M, C>;

    #[inline]
    fn start(&self, req: &Request<B>) -> Self::Call {
        // gRPC is always POST: every other method saves the look-up, once per layer.
        let grpc = req.method() == Method::POST && is_grpc(req.headers());
        let context = Context::of(req.extensions());
        let ask = Ask {
            grpc,
            head: req.method() == Method::HEAD,
            connect: req.method() == Method::CONNECT,
            json: false,
            short: match context.and_then(|context| context.deadline) {
                Some(deadline) => deadline.by_client,
                // Nobody has compared it with a deadline of ours: DEADLINE_EXCEEDED may well be the client's own wish.
                None => grpc && req.headers().contains_key("grpc-timeout"),
            },
        };
        HttpCall {
            mode: self.mode.clone(),
            classify: self.classify.clone(),
            asked: Asked::new(ask),
            upload: context.and_then(|context| context.upload.clone()),
        }
    }

    #[inline]
    fn start_refusable(&self, req: &Request<B>) -> Self::Call {
        let mut call = self.start(req);
        if refuse::accepts_json(req.headers()) {
            call.asked.0 |= Asked::JSON;
        }
        call
    }

    #[inline]
    fn context<'a>(&self, req: &'a Request<B>) -> Option<&'a Context> {
        Context::of(req.extensions())
    }

    #[inline]
    fn context_mut<'a>(&self, req: &'a mut Request<B>) -> Option<&'a mut Context> {
        Some(Context::of_mut(req.extensions_mut()))
    }
}

impl<M, C: Classify> HttpCall<M, C> {
    fn judge_head(&self, status: StatusCode, headers: &HeaderMap, extensions: &Extensions, ended: bool) -> Verdict {
        if let Some(rejection) = extensions.get::<Rejection>() {
            return Verdict::refused(*rejection);
        }
        if !self.is_grpc() || !answers_grpc(headers) {
            if status.is_success() || status.is_redirection() || status.is_informational() {
                return Verdict::new(self.classified(status, headers, Outcome::Success), None);
            }
            let (by_table, pushback) = outcome::of_http(status, headers, self.asked.is(Asked::SHORT));
            return Verdict::new(self.classified(status, headers, by_table), pushback);
        }
        if status == StatusCode::OK && !headers.contains_key(grpc::STATUS) {
            if !ended {
                return Verdict::open();
            }
            return Verdict::new(self.classified(status, headers, Outcome::Failure), None);
        }
        let (by_table, pushback) = outcome::of_grpc(status, headers, self.asked.is(Asked::SHORT));
        Verdict::new(self.classified(status, headers, by_table), pushback)
    }

    #[inline]
    fn is_grpc(&self) -> bool {
        self.asked.is(Asked::GRPC)
    }

    #[inline]
    fn classified(&self, status: StatusCode, headers: &HeaderMap, by_table: Outcome) -> Outcome {
        self.excused(self.classify.outcome(&Head { grpc: self.is_grpc(), status, headers }, by_table))
    }

    /// A failure that follows from what the client did to its own request body is none of the service's.
    #[inline]
    fn excused(&self, outcome: Outcome) -> Outcome {
        match &self.upload {
            Some(upload) if outcome == Outcome::Failure && upload.has_failed() => Outcome::Ignored,
            _ => outcome,
        }
    }

    fn judge_error<Err>(&self, error: &Err) -> Verdict
    where
        M: Refuse<Err>,
    {
        let verdict = self.mode.judge(error);
        Verdict { outcome: self.excused(verdict.outcome), ..verdict }
    }

    /// The verdict of gRPC trailers, or of a body that ended without any.
    fn judge_trailers(&self, trailers: Option<&HeaderMap>) -> (Outcome, Option<Pushback>) {
        let none = HeaderMap::new();
        let trailers = trailers.unwrap_or(&none);
        let (by_table, pushback) = outcome::of_grpc(StatusCode::OK, trailers, self.asked.is(Asked::SHORT));
        (self.classified(StatusCode::OK, trailers, by_table), pushback)
    }

    /// Whether the response has no body, whatever its headers say (RFC 9110, 6.4.1).
    fn is_bodiless(&self, status: StatusCode) -> bool {
        self.asked.is(Asked::HEAD) || status.is_informational() || matches!(status.as_u16(), 204 | 304)
    }

    /// Whether the connection goes on as a tunnel.
    fn is_tunnel(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || (self.asked.is(Asked::CONNECT) && status.is_success())
    }
}

impl<M: Refuse<Infallible>, C> HttpCall<M, C> {
    /// The whole response that a refusal becomes: for who answers by himself, with no layer in between.
    pub fn refusal(&self, rejection: Rejection) -> Response<Bytes> {
        let Ok(res) = self.mode.refuse(rejection, self.asked.ask());
        res
    }
}

impl<M, C, B, Err> Call<Response<B>, Err> for HttpCall<M, C>
where
    M: Refuse<Err>,
    C: Classify,
    B: ResponseBody,
{
    type Answer = Response<Bytes>;
    type Response<G: Settle, T: Cut> = Response<Tracked<B, G, T, HttpCall<M, C>>>;
    type Tie<G: Settle> = Tie<G, Self>;

    fn judge(&self, result: Result<&Response<B>, &Err>) -> Verdict {
        match result {
            Ok(res) => {
                let ended = res.body().is_end_stream() || self.is_bodiless(res.status());
                self.judge_head(res.status(), res.headers(), res.extensions(), ended)
            }
            Err(error) => self.judge_error(error),
        }
    }

    #[inline]
    fn waits_for_client(&self, cx: &std::task::Context<'_>) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.waits(cx))
    }

    #[inline]
    fn upload(&self) -> Option<&Upload> {
        self.upload.as_ref()
    }

    fn answer<G: Settle, T: Cut>(self, answer: Response<Bytes>) -> Self::Response<G, T> {
        answer.map(|bytes| Tracked::own(bytes, self))
    }

    fn reject<G: Settle, T: Cut>(self, rejection: Rejection) -> Result<Self::Response<G, T>, Err> {
        Ok(self.mode.refuse(rejection, self.asked.ask())?.map(|bytes| Tracked::own(bytes, self)))
    }

    #[inline]
    fn tie<G: Settle>(self, result: Result<&mut Response<B>, &Err>, guard: &mut Option<G>) -> Tie<G, Self> {
        match result {
            _ if guard.is_none() => Tie::settled(self),
            Ok(res) => self.hold(res, guard),
            Err(error) => {
                let verdict = self.judge_error(error);
                tell_refused(guard, verdict.rejection);
                settle_in_place(guard, verdict.outcome, verdict.pushback);
                Tie::settled(self)
            }
        }
    }

    #[inline]
    fn bind<G: Settle, T: Cut>(res: Response<B>, tie: Tie<G, Self>, cut: T) -> Self::Response<G, T> {
        let (head, body) = res.into_parts();
        Response::from_parts(head, Tracked::inner(cut.cover(body), tie))
    }
}

impl<M, C: Classify> HttpCall<M, C> {
    /// Takes `guard` for the body of `res`, or settles it where nothing is to come.
    #[inline]
    fn hold<B: ResponseBody, G: Settle>(self, res: &mut Response<B>, guard: &mut Option<G>) -> Tie<G, Self> {
        let grpc = self.is_grpc() && answers_grpc(res.headers());
        let ended = res.body().is_end_stream() || self.is_bodiless(res.status());
        let verdict = self.judge_head(res.status(), res.headers(), res.extensions(), ended);
        tell_refused(guard, verdict.rejection);
        if G::HEEDS_DEGRADED
            && let (Some(guard), Some(degraded)) = (&mut *guard, Degraded::of(res))
        {
            guard.degraded(degraded);
        }
        if G::HEEDS_STATUS
            && let Some(guard) = guard
        {
            guard.status(Status::Http(res.status().as_u16()));
            if grpc && verdict.end {
                guard.status(Status::Grpc(grpc::code(res.status(), res.headers()).unwrap_or(grpc::INTERNAL)));
            }
        }
        if self.is_tunnel(res.status())
            && let Some(mut guard) = guard.take()
        {
            guard.head();
            guard.conclude(verdict.outcome, verdict.pushback);
            Tunnel::hold(res.extensions_mut(), guard);
            return Tie::settled(self);
        }
        if ended {
            settle_in_place(guard, verdict.outcome, verdict.pushback);
            return Tie::settled(self);
        }
        if let Some(guard) = guard {
            guard.head();
            if !grpc {
                guard.timed(verdict.outcome);
            }
        }
        let left = if grpc { u64::MAX } else { declared_length(res) };
        if left == 0 {
            settle_in_place(guard, verdict.outcome, verdict.pushback);
            return Tie::settled(self);
        }
        let known = verdict.end.then_some((verdict.outcome, verdict.pushback));
        Tie::new(guard.take(), known, left, self)
    }
}

/// Whether a response speaks gRPC. What the *request* called itself is not enough: a client could make every good answer of a
/// plain HTTP service a failure, and open its breaker for all others.
fn answers_grpc(headers: &HeaderMap) -> bool {
    headers.contains_key(grpc::STATUS) || is_grpc(headers)
}

/// How many bytes the body will have: its own exact hint, else `Content-Length`; `u64::MAX` when nobody says.
#[inline]
fn declared_length<B: Body>(res: &Response<B>) -> u64 {
    res.body().size_hint().exact().unwrap_or_else(|| {
        let length = res.headers().get(header::CONTENT_LENGTH);
        length.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(u64::MAX)
    })
}
