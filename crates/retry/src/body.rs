use buttress_core::Token;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

pin_project! {
    /// A response body that holds the budget's token of its attempt until it is at its end, and that may have been looked into. Its
    /// frames and errors are the inner body's own.
    pub struct RetryBody<B>
    where
        B: Body,
    {
        #[pin]
        content: Content<B>,
        token: Option<Token>,
    }
}

pin_project! {
    #[project = ContentProj]
    enum Content<B>
    where
        B: Body,
    {
        Whole { #[pin] body: B },
        Begun { begun: Begun<B> },
    }
}

/// What a body has given so far: nothing, a frame or an error, its end.
type First<B> = Option<Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>>;

/// A body whose first frame was taken already.
struct Begun<B: Body> {
    first: First<B>,
    body: Pin<Box<B>>,
    /// As it was before.
    hint: SizeHint,
}

impl<B: Body> RetryBody<B> {
    #[inline]
    pub(crate) fn whole(body: B) -> Self {
        Self { content: Content::Whole { body }, token: None }
    }

    pub(crate) fn begun(first: Option<Result<Frame<B::Data>, B::Error>>, body: Pin<Box<B>>, hint: SizeHint) -> Self {
        Self { content: Content::Begun { begun: Begun { first: Some(first), body, hint } }, token: None }
    }

    #[inline]
    pub(crate) fn hold(&mut self, token: Token) {
        self.token = Some(token);
    }
}

impl<B: Body<Data = Bytes>> Body for RetryBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = match this.content.as_mut().project() {
            ContentProj::Whole { body } => ready!(body.poll_frame(cx)),
            ContentProj::Begun { begun: Begun { first, body, .. } } => match first.take() {
                Some(first) => first,
                None => ready!(body.as_mut().poll_frame(cx)),
            },
        };
        // A body that says it is at its end is often not asked again.
        if this.token.is_some() && (!matches!(frame, Some(Ok(_))) || this.content.is_end_stream()) {
            *this.token = None;
        }
        Poll::Ready(frame)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole { body } => body.size_hint(),
            Content::Begun { begun: Begun { first, body, hint } } => match first {
                Some(_) => *hint,
                None => body.size_hint(),
            },
        }
    }
}

impl<B: Body> Content<B> {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { body } => body.is_end_stream(),
            Self::Begun { begun: Begun { first, body, .. } } => match first {
                None => body.is_end_stream(),
                Some(None) => true,
                Some(Some(_)) => false,
            },
        }
    }
}

impl<B: Body> fmt::Debug for RetryBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBody").field("token", &self.token).finish_non_exhaustive()
    }
}
