use crate::LAYER;
use buttress_core::{
    BoxError, Cut, Reason, Rejection,
    http::{CutBody, ResponseBody},
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Ends a response body with an error after so many bytes; `None`: leaves it whole.
#[derive(Clone, Copy, Debug)]
pub struct Cutting(pub(crate) Option<u64>);

impl Cut for Cutting {
    type Body<B>
        = Shortened<B>
    where
        B: ResponseBody;

    #[inline]
    fn cover<B: ResponseBody>(self, body: B) -> Shortened<B> {
        // What is empty has nothing to lose.
        let left = self.0.filter(|_| !body.is_end_stream());
        Shortened { body: Some(body), left: left.unwrap_or(WHOLE), owed: false }
    }
}

/// It is not cut.
const WHOLE: u64 = u64::MAX;

pin_project! {
    /// A response body that may fail before its end.
    #[derive(Debug)]
    pub struct Shortened<B> {
        // `None`: it was cut.
        #[pin]
        body: Option<B>,
        // Bytes that it still gives.
        left: u64,
        // Some of a frame were left out: it is not at its end, whatever it says.
        owed: bool,
    }
}

impl<B: ResponseBody> CutBody<B> for Shortened<B> {
    type Error = BoxError;

    #[inline]
    fn poll_piece(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cut: &mut Option<Rejection>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        if *this.owed || *this.left == 0 && !is_over(&*body) {
            *cut = Some(Rejection::new(Reason::BodyCut, LAYER));
            // Here, where it accuses nobody: the service behind it did nothing wrong.
            this.body.set(None);
            return Poll::Ready(None);
        }
        let mut frame = ready!(body.poll_frame(cx));
        if *this.left != WHOLE
            && let Some(Ok(frame)) = &mut frame
        {
            *this.owed = shorten(frame, this.left);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn cut_error(rejection: Rejection) -> BoxError {
        rejection.into()
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        !self.owed && self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(_) if self.owed => SizeHint::new(),
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// Whether nothing is to come that could be cut.
fn is_over<B: ResponseBody>(body: &B) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// Takes the bytes of `frame` from those that are `left`; those that are too many are left out, and then this is true.
fn shorten(frame: &mut Frame<Bytes>, left: &mut u64) -> bool {
    let Some(data) = frame.data_mut() else { return false };
    let length = data.len() as u64;
    // It fits into memory, as it is less than what lies there.
    data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
    let is_short = length > *left;
    *left = left.saturating_sub(length);
    is_short
}
