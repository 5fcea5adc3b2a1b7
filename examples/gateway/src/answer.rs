//! The body that a client gets.

use crate::chain::ResponseBody;
use buttress::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

/// A body with an error of a name: the compiler forgets inside of async blocks that a boxed one is `'static`, and then takes no
/// layer around it.
pub(crate) struct AnswerBody(pub(crate) ResponseBody);

/// Why a body ended before its end.
#[derive(Debug)]
pub(crate) struct AnswerError(BoxError);

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(AnswerError)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for AnswerError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}
