//! Votes over HTTP: whole bodies.

use super::ballot::{Ask, Ballot, private::Sealed};
use ::http::{HeaderMap, Request, Response, StatusCode, header, request, response};
use buttress_core::{
    BoxError, Call, NoCut, Protocol, Reason, Rejection, Verdict,
    http::{Classify, Http, HttpCall, Refuse, ResponseBody, Tracked, grpc},
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    borrow::Cow,
    convert::Infallible,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// A body that was read to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VoteBody {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

impl VoteBody {
    /// What is left of it: all, until somebody reads it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its trailers, until somebody reads them.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }
}

impl Body for VoteBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(mem::take(&mut self.bytes)))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// A response with all of its body. Two are equal if their statuses, bodies, gRPC statuses and all lines of `Content-Type`, `Content-Encoding`,
/// `Location` and `Set-Cookie` are: a redirect is where it leads. Versions that give cookies of their own need a [key](super::VoteLayer::by) that leaves these out.
#[derive(Debug)]
pub struct WholeResponse(Response<VoteBody>);

impl WholeResponse {
    /// The response.
    pub fn get_ref(&self) -> &Response<VoteBody> {
        &self.0
    }

    fn grpc_status(&self) -> Option<&header::HeaderValue> {
        let in_head = self.0.headers().get(grpc::STATUS);
        in_head.or_else(|| self.0.body().trailers()?.get(grpc::STATUS))
    }
}

/// The headers that are a part of the answer.
const COMPARED: [header::HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::LOCATION, header::SET_COOKIE];

impl PartialEq for WholeResponse {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |name| self.0.headers().get_all(name).iter().eq(other.0.headers().get_all(name));
        self.0.status() == other.0.status()
            && self.0.body().bytes == other.0.body().bytes
            && COMPARED.iter().all(is_same)
            && self.grpc_status() == other.grpc_status()
    }
}

/// An extension of the response of a vote: the versions that ended before it was decided, and not with this answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dissent(pub Vec<Cow<'static, str>>);

/// The head of a message that its body is added to.
#[doc(hidden)]
pub trait Head {
    type Message;
    fn with(self, body: VoteBody) -> Self::Message;
}

impl Head for request::Parts {
    type Message = Request<VoteBody>;
    fn with(self, body: VoteBody) -> Request<VoteBody> {
        Request::from_parts(self, body)
    }
}

impl Head for response::Parts {
    type Message = WholeResponse;
    fn with(self, body: VoteBody) -> WholeResponse {
        WholeResponse(Response::from_parts(self, body))
    }
}

/// Reads a message to its end.
#[doc(hidden)]
pub struct Collect<H, B> {
    head: Option<H>,
    body: Pin<Box<B>>,
    cap: usize,
    /// The only piece so far: it is not copied.
    piece: Bytes,
    /// All of them, where there are several.
    pieces: Vec<u8>,
}

/// What cannot be read to its end.
enum Unread {
    TooLarge,
    Broken,
}

impl<H: Head, B: Body<Data = Bytes>> Collect<H, B> {
    fn new(head: H, body: B, cap: usize) -> Self {
        Self { head: Some(head), body: Box::pin(body), cap, piece: Bytes::new(), pieces: Vec::new() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<H::Message, Unread>> {
        let trailers = loop {
            let frame = match ready!(self.body.as_mut().poll_frame(cx)) {
                None => break None,
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Err(Unread::Broken)),
            };
            match frame.into_data().map_err(Frame::into_trailers) {
                Ok(data) if data.len() > self.cap => return Poll::Ready(Err(Unread::TooLarge)),
                Ok(data) => {
                    self.cap -= data.len();
                    self.add(data);
                }
                Err(Ok(trailers)) => break Some(trailers),
                // A frame of a kind that is not known.
                Err(Err(_)) => {}
            }
        };
        let bytes =
            if self.pieces.is_empty() { mem::take(&mut self.piece) } else { mem::take(&mut self.pieces).into() };
        Poll::Ready(Ok(self.head.take().expect("polled after it had completed").with(VoteBody { bytes, trailers })))
    }

    fn add(&mut self, data: Bytes) {
        if self.pieces.is_empty() && self.piece.is_empty() {
            self.piece = data;
            return;
        }
        if self.pieces.is_empty() {
            self.pieces.extend_from_slice(&mem::take(&mut self.piece));
        }
        self.pieces.extend_from_slice(&data);
    }
}

impl<B: Body<Data = Bytes>> Future for Collect<request::Parts, B> {
    type Output = Result<Request<VoteBody>, Reason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Collect::poll(&mut self, cx).map_err(|unread| match unread {
            Unread::TooLarge => Reason::BodyTooLarge,
            Unread::Broken => Reason::UploadBroken,
        })
    }
}

impl<B: Body<Data = Bytes>> Future for Collect<response::Parts, B> {
    type Output = Option<WholeResponse>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Collect::poll(&mut self, cx).map(Result::ok)
    }
}

impl<H, B> fmt::Debug for Collect<H, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collect").finish_non_exhaustive()
    }
}

impl<M, C> Sealed for Http<M, C> {}

impl<M: Clone, C: Clone, B: Body<Data = Bytes>> Ask<Request<B>> for Http<M, C> {
    type Copy = Request<VoteBody>;
    type Gather = Collect<request::Parts, B>;

    fn gather(req: Request<B>, cap: usize) -> Self::Gather {
        let (head, body) = req.into_parts();
        Collect::new(head, body, cap)
    }
}

impl<M, C, B, R, Err> Ballot<Request<B>, Response<R>, Err> for Http<M, C>
where
    M: Refuse<Err>,
    C: Classify,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: ResponseBody,
{
    type Answer = WholeResponse;
    type Response = Response<Tracked<VoteBody, (), NoCut, HttpCall<M, C>>>;
    type Collect = Collect<response::Parts, R>;

    fn collect(res: Response<R>, cap: usize) -> Self::Collect {
        let (head, body) = res.into_parts();
        Collect::new(head, body, cap)
    }

    fn judge(call: &<Self as Protocol<Request<B>>>::Call, result: Result<&WholeResponse, &Err>) -> Verdict {
        let verdict = Call::<Response<VoteBody>, Err>::judge(call, result.map(|answer| &answer.0));
        let trailers = match result {
            Ok(answer) if !verdict.end => answer.0.body().trailers().cloned(),
            _ => return verdict,
        };
        // gRPC: as if the status that came last had come first. One that did not come at all is a failure: the body is over.
        let mut res = Response::new(VoteBody::default());
        *res.status_mut() = StatusCode::OK;
        *res.headers_mut() = trailers.unwrap_or_default();
        res.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
        Call::<Response<VoteBody>, Err>::judge(call, Ok(&res))
    }

    fn give(
        call: <Self as Protocol<Request<B>>>::Call,
        result: Result<WholeResponse, Err>,
        dissenters: Vec<Cow<'static, str>>,
    ) -> Result<Self::Response, Err> {
        let mut result = result.map(|answer| answer.0);
        if let Ok(res) = &mut result
            && !dissenters.is_empty()
        {
            res.extensions_mut().insert(Dissent(dissenters));
        }
        call.finish(result, &mut None, NoCut)
    }

    fn reject(call: <Self as Protocol<Request<B>>>::Call, rejection: Rejection) -> Result<Self::Response, Err> {
        Call::<Response<VoteBody>, Err>::reject(call, rejection)
    }
}
