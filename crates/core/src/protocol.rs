use crate::{
    ChainError, Outcome, Pushback, Rejection, Settle,
    settle::{settle_in_place, tell_refused},
};

/// What a result says, as far as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Its outcome; where `end` is false, the outcome so far.
    pub outcome: Outcome,
    /// The refusal it stands for, if it is one.
    pub rejection: Option<Rejection>,
    /// What the server says about coming back.
    pub pushback: Option<Pushback>,
    /// Whether that is final. `false`: the head is good, gRPC trailers will decide.
    pub end: bool,
}

impl Verdict {
    /// A final verdict.
    pub fn new(outcome: Outcome, pushback: Option<Pushback>) -> Self {
        Self { outcome, rejection: None, pushback, end: true }
    }

    /// The verdict on a refusal of ours.
    pub fn refused(rejection: Rejection) -> Self {
        Self {
            outcome: rejection.reason.outcome(),
            rejection: Some(rejection),
            pushback: rejection.retry_after.map(Pushback::after),
            end: true,
        }
    }

    /// Good so far.
    #[cfg(feature = "http")]
    pub(crate) fn open() -> Self {
        Self { end: false, ..Self::new(Outcome::Success, None) }
    }

    /// Whether nothing bad is known.
    pub fn is_good(&self) -> bool {
        self.outcome == Outcome::Success
    }
}

/// How a layer speaks: it keeps the little it needs of a request, and the [`Call`] it makes does the rest.
///
/// The values are [`Opaque`] (the default), and with the feature `http` `HttpServer`, `HttpGateway` and `HttpClient`.
/// Sealed: a layer written against it works with all of them.
#[diagnostic::on_unimplemented(
    message = "the protocol `{Self}` does not speak requests of type `{Req}`",
    note = "`HttpServer` and `HttpClient` speak `http::Request<_>`; `Opaque` speaks any request"
)]
pub trait Protocol<Req>: sealed::Sealed {
    /// What is kept of a request while it is served.
    type Call;

    /// A call of `req`.
    fn start(&self, req: &Req) -> Self::Call;

    /// A call that this layer may refuse after the request is gone: keeps what a good refusal needs (`Accept`), too.
    fn start_refusable(&self, req: &Req) -> Self::Call {
        self.start(req)
    }

    /// The context that travels with the request.
    fn context<'a>(&self, req: &'a Req) -> Option<&'a crate::Context> {
        let _ = req;
        None
    }

    /// The same, made if it was not there. `None`: such requests carry no context.
    fn context_mut<'a>(&self, req: &'a mut Req) -> Option<&'a mut crate::Context> {
        let _ = req;
        None
    }
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// One call: it judges a response, refuses, answers by itself, or ties a permit to the real end of the response.
#[diagnostic::on_unimplemented(
    message = "the protocol does not speak responses of type `{Res}` with the error `{Err}`",
    note = "`HttpServer` and `HttpClient` need `http::Response<B>` where `B: http_body::Body<Data = bytes::Bytes> + Send + 'static`",
    note = "`Opaque` (the default) and `HttpClient` need an error that can carry a refusal: `{Err}: ChainError`",
    note = "on a server, write `ServiceBuilder::new().http_server()`, or `.protocol(HttpServer::new())` on the layer"
)]
pub trait Call<Res, Err>: Sized {
    /// What a layer can answer by itself: the response for [`Opaque`], `http::Response<Bytes>` for HTTP.
    type Answer;
    /// The response with a permit and a cut tied to it.
    type Response<G: Settle, T: Cut>;
    /// What ties a permit to a response.
    type Tie<G: Settle>;

    /// Judges a result: an error, a value, a response head.
    fn judge(&self, result: Result<&Res, &Err>) -> Verdict;

    /// Whether the call, which is not ready, waits for its own client to send the rest of the request. If that may still
    /// change, the task of `cx` is woken when it does.
    #[inline]
    fn waits_for_client(&self, cx: &std::task::Context<'_>) -> bool {
        let _ = cx;
        false
    }

    /// The request's body, if it comes from somebody else.
    #[cfg(feature = "http")]
    #[inline]
    fn upload(&self) -> Option<&crate::http::Upload> {
        None
    }

    /// Answers in place of the service.
    fn answer<G: Settle, T: Cut>(self, answer: Self::Answer) -> Self::Response<G, T>;

    /// Refuses: a response on servers, an error elsewhere.
    fn reject<G: Settle, T: Cut>(self, rejection: Rejection) -> Result<Self::Response<G, T>, Err>;

    /// Judges `result` where it lies and takes `guard` for the real end of it.
    ///
    /// A guard that heeds refusals or statuses is told of them first. One whose call is over is settled where it is: moving a permit takes longer than settling it. Either way `guard` is
    /// empty then. Without a guard nothing is judged.
    fn tie<G: Settle>(self, result: Result<&mut Res, &Err>, guard: &mut Option<G>) -> Self::Tie<G>;

    /// Ties what [`tie`](Self::tie) took to the real end of `res`, and lets `cut` end its body early.
    // Apart from `tie`, so that a response, which is large, moves once and after it was judged.
    fn bind<G: Settle, T: Cut>(res: Res, tie: Self::Tie<G>, cut: T) -> Self::Response<G, T>;

    /// Both.
    #[inline]
    fn finish<G: Settle, T: Cut>(
        self,
        mut result: Result<Res, Err>,
        guard: &mut Option<G>,
        cut: T,
    ) -> Result<Self::Response<G, T>, Err> {
        let tie = self.tie(result.as_mut().map_err(|error| &*error), guard);
        result.map(|res| Self::bind(res, tie, cut))
    }
}

/// May end a response body early. Its methods come with the feature `http`; calls without a body are over when they return.
///
/// Sealed in effect: [`NoCut`] and the deadline layer's are the ones there are.
pub trait Cut: Send + 'static {
    /// A body that may end early.
    #[cfg(feature = "http")]
    type Body<B>: crate::http::CutBody<B>
    where
        B: crate::http::ResponseBody;

    /// Watches over `body`.
    #[cfg(feature = "http")]
    fn cover<B>(self, body: B) -> Self::Body<B>
    where
        B: crate::http::ResponseBody;
}

/// Never ends a body early, and leaves its error type alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCut;

impl Cut for NoCut {
    #[cfg(feature = "http")]
    type Body<B>
        = crate::http::Uncut<B>
    where
        B: crate::http::ResponseBody;

    #[cfg(feature = "http")]
    #[inline]
    fn cover<B>(self, body: B) -> Self::Body<B>
    where
        B: crate::http::ResponseBody,
    {
        crate::http::Uncut::new(body)
    }
}

/// What a value or an error of an opaque call says about health. A closure `Fn(Result<&Res, &Err>) -> Outcome` is one.
pub trait ClassifyResult<Res, Err>: Clone {
    /// The outcome of a result that is no refusal of ours. `None`: what everybody thinks of it (`Ok` is a success, `Err` a
    /// failure, unless its sources excuse it).
    fn outcome(&self, result: Result<&Res, &Err>) -> Option<Outcome>;
}

/// `Ok` is a success, `Err` a failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByResult;

impl<Res, Err> ClassifyResult<Res, Err> for ByResult {
    #[inline]
    fn outcome(&self, _: Result<&Res, &Err>) -> Option<Outcome> {
        None
    }
}

impl<Res, Err, F: Fn(Result<&Res, &Err>) -> Outcome + Clone> ClassifyResult<Res, Err> for F {
    #[inline]
    fn outcome(&self, result: Result<&Res, &Err>) -> Option<Outcome> {
        Some(self(result))
    }
}

/// What an error says by its sources.
fn by_cause(error: &impl ChainError) -> Outcome {
    #[cfg(feature = "http")]
    return error.cause().map_or(Outcome::Failure, crate::http::error_outcome);
    #[cfg(not(feature = "http"))]
    {
        let _ = error;
        Outcome::Failure
    }
}

/// Any request, any response; a refusal is an error ([`ChainError`]), `Ok` is a success and `Err` a failure.
///
/// [`classify`](Self::classify) decides otherwise:
///
/// ```
/// use buttress_core::{Error, Opaque, Outcome};
/// # #[derive(Debug)] enum SqlError { NotFound, Lost }
/// let protocol = Opaque::new().classify(|row: Result<&u64, &Error<SqlError>>| match row {
///     Err(Error::Inner(SqlError::NotFound)) => Outcome::Success,
///     Err(_) => Outcome::Failure,
///     Ok(_) => Outcome::Success,
/// });
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Opaque<C = ByResult> {
    classify: C,
}

impl Opaque {
    /// The default protocol.
    pub const fn new() -> Self {
        Self { classify: ByResult }
    }

    /// Judges results with `classify`, a closure `Fn(Result<&Res, &Err>) -> Outcome`. Refusals of ours never reach it.
    pub fn classify<D>(self, classify: D) -> Opaque<D> {
        Opaque { classify }
    }
}

/// A call of [`Opaque`].
#[derive(Clone, Copy, Debug)]
pub struct OpaqueCall<C = ByResult> {
    classify: C,
}

impl<C> sealed::Sealed for Opaque<C> {}

impl<C: Clone, Req> Protocol<Req> for Opaque<C> {
    type Call = OpaqueCall<C>;

    #[inline]
    fn start(&self, _: &Req) -> OpaqueCall<C> {
        OpaqueCall { classify: self.classify.clone() }
    }
}

impl<Res, Err: ChainError, C: ClassifyResult<Res, Err>> Call<Res, Err> for OpaqueCall<C> {
    type Answer = Res;
    type Response<G: Settle, T: Cut> = Res;
    type Tie<G: Settle> = ();

    #[inline]
    fn judge(&self, result: Result<&Res, &Err>) -> Verdict {
        let by_result = match result {
            Ok(_) => Outcome::Success,
            Err(error) => match error.rejection() {
                Some(rejection) => return Verdict::refused(rejection),
                None => by_cause(error),
            },
        };
        Verdict::new(self.classify.outcome(result).unwrap_or(by_result), None)
    }

    fn answer<G: Settle, T: Cut>(self, answer: Res) -> Res {
        answer
    }

    fn reject<G: Settle, T: Cut>(self, rejection: Rejection) -> Result<Res, Err> {
        Err(rejection.into())
    }

    #[inline]
    fn tie<G: Settle>(self, result: Result<&mut Res, &Err>, guard: &mut Option<G>) {
        if guard.is_some() {
            let verdict = self.judge(result.map(|res| &*res));
            tell_refused(guard, verdict.rejection);
            settle_in_place(guard, verdict.outcome, verdict.pushback);
        }
    }

    #[inline]
    fn bind<G: Settle, T: Cut>(res: Res, (): (), _: T) -> Res {
        res
    }
}
