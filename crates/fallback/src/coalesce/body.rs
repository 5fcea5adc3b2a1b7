use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

pin_project! {
    /// A response body of which the beginning may have been read already. Its frames and errors are the inner body's own.
    pub struct SharedBody<B>
    where
        B: Body,
    {
        #[pin]
        content: Content<B>,
    }
}

pin_project! {
    #[project = ContentProj]
    enum Content<B>
    where
        B: Body,
    {
        Whole { #[pin] body: B },
        Begun { begun: Box<Begun<B>> },
    }
}

/// A body that is being collected.
pub(super) struct Begun<B: Body> {
    read: VecDeque<Result<Frame<Bytes>, B::Error>>,
    /// Bytes in `read`.
    len: usize,
    body: Pin<Box<SharedBody<B>>>,
}

impl<B: Body> SharedBody<B> {
    #[inline]
    pub(super) fn whole(body: B) -> Self {
        Self { content: Content::Whole { body } }
    }
}

impl<B: Body<Data = Bytes>> Begun<B> {
    pub(super) fn new(body: SharedBody<B>) -> Self {
        Self { read: VecDeque::new(), len: 0, body: Box::pin(body) }
    }

    /// Whether all of it is here; `false`: it failed, it has trailers, or it is too large.
    pub(super) fn poll_collected(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<bool> {
        while !self.body.is_end_stream() {
            let Some(frame) = ready!(self.body.as_mut().poll_frame(cx)) else { break };
            let data = frame.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
            self.read.push_back(frame);
            let Some(len) = data else { return Poll::Ready(false) };
            self.len += len;
            if self.len > most {
                return Poll::Ready(false);
            }
        }
        Poll::Ready(true)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.read.back().is_some_and(Result::is_err)
    }

    /// What was read, if it is whole.
    pub(super) fn into_bytes(self) -> Bytes {
        let mut parts = self.read.into_iter().filter_map(|frame| frame.ok()?.into_data().ok());
        let first = parts.next().unwrap_or_default();
        let Some(second) = parts.next() else { return first };
        let mut all = BytesMut::with_capacity(self.len);
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        parts.for_each(|part| all.extend_from_slice(&part));
        all.freeze()
    }

    /// What was read, and the rest: of a body that is not whole.
    pub(super) fn into_body(self) -> SharedBody<B> {
        SharedBody { content: Content::Begun { begun: Box::new(self) } }
    }
}

impl<B: Body<Data = Bytes>> Body for SharedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().content.project() {
            ContentProj::Whole { body } => body.poll_frame(cx),
            ContentProj::Begun { begun } => match begun.read.pop_front() {
                Some(frame) => {
                    begun.len -= frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
                    Poll::Ready(Some(frame))
                }
                None => begun.body.as_mut().poll_frame(cx),
            },
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole { body } => body.is_end_stream(),
            Content::Begun { begun } => begun.read.is_empty() && begun.body.is_end_stream(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        let Content::Begun { begun } = &self.content else {
            let Content::Whole { body } = &self.content else { return SizeHint::default() };
            return body.size_hint();
        };
        let (rest, read) = (begun.body.size_hint(), begun.len as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B: Body> fmt::Debug for SharedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBody").finish_non_exhaustive()
    }
}
