use super::{Classify, Http, RequestBodyError};
use crate::{BoxError, Replay};
use ::http::{Request, request::Parts};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

pin_project! {
    /// The body of an attempt.
    pub struct ReplayBody<B> {
        #[pin]
        body: B,
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>>> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        self.project().body.poll_frame(cx).map_err(RequestBodyError::new)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is kept of a request, to send it again.
pub struct KeptRequest<B> {
    #[allow(dead_code)]
    head: Parts,
    #[allow(dead_code)]
    body: Option<B>,
}

impl<M: Clone, C: Classify, B> Replay<Request<B>> for Http<M, C>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Attempt = Request<ReplayBody<B>>;
    type Kept = KeptRequest<B>;

    fn once(&self, req: Request<B>) -> Request<ReplayBody<B>> {
        req.map(|body| ReplayBody { body })
    }

    fn record(&self, req: Request<B>, _cap: usize) -> (Request<ReplayBody<B>>, KeptRequest<B>) {
        let (head, body) = req.into_parts();
        (Request::from_parts(head.clone(), ReplayBody { body }), KeptRequest { head, body: None })
    }

    fn again(&self, _: &mut KeptRequest<B>, _attempt: u32) -> Option<Request<ReplayBody<B>>> {
        None
    }
}
