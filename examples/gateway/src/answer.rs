//! The body that a client gets.

use crate::{chain::ResponseBody, upload::Answering};
use buttress::http::BodyError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// A body that layers can stand around inside of async blocks: see [`BodyError`].
pub(crate) struct AnswerBody {
    body: ResponseBody,
    _answering: Answering,
}

impl AnswerBody {
    pub(crate) fn new(body: ResponseBody, answering: Answering) -> Self {
        Self { body, _answering: answering }
    }
}

impl From<ResponseBody> for AnswerBody {
    /// An answer of the gateway's own.
    fn from(body: ResponseBody) -> Self {
        Self::new(body, Answering::nothing())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx).map_err(BodyError::new)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
