use super::store::{Place, Store, Turn};
use crate::{BoxError, Parked, http::RequestBodyError};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

pin_project! {
    /// The request body of an attempt.
    ///
    /// The only attempt of a request reads the body itself. Attempts of a request that may be sent again share it: what one of
    /// them has read of it is kept, up to a cap, and the others read that first; whoever is ahead reads on. Nothing is read before
    /// an attempt asks for it, so an attempt that never got a connection leaves the body whole, whatever its size. Data is not
    /// copied (but pieces below 1 KiB, which could each hold on to a large buffer), and every attempt sends the same
    /// frames with the same size hints. Past the cap nothing is kept any more: the attempt that is ahead goes on, one behind it fails,
    /// and the request cannot be sent again ([`Lost`](crate::Lost)). An attempt that another was made in place of fails when it asks
    /// for more: it must not use up what the other is to send.
    ///
    /// Its errors are marked: they never accuse the service that was to read it.
    ///
    /// It is what a service inside of a retry gets: hyper's clients take it as they take any body (`Client<_, ReplayBody<B>>`, where
    /// the type must be written), and for a service that asks for a body of its own `http::Request::map` makes one of it, in tower's
    /// `MapRequestLayer` (`tonic::body::Body::new`).
    pub struct ReplayBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindPin]
    enum Kind<B> {
        Own { #[pin] body: B },
        Empty,
        Shared { reader: Reader<B> },
    }
}

impl<B> ReplayBody<B> {
    /// `body` itself, for the one who reads it.
    #[inline]
    pub(super) fn own(body: B) -> Self {
        Self { kind: Kind::Own { body } }
    }

    pub(super) fn empty() -> Self {
        Self { kind: Kind::Empty }
    }

    pub(super) fn shared(reader: Reader<B>) -> Self {
        Self { kind: Kind::Shared { reader } }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = RequestBodyError;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match self.project().kind.project() {
            KindPin::Own { body } => body.poll_frame(cx).map_err(RequestBodyError::new),
            KindPin::Empty => Poll::Ready(None),
            KindPin::Shared { reader } => reader.poll_frame(cx),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own { body } => body.is_end_stream(),
            Kind::Empty => true,
            Kind::Shared { reader } => reader.is_end_stream(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own { body } => body.size_hint(),
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Shared { reader } => reader.size_hint(),
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Own { .. } => "own",
            Kind::Empty => "empty",
            Kind::Shared { .. } => "shared",
        };
        f.debug_tuple("ReplayBody").field(&kind).finish()
    }
}

/// One attempt's way through a [`Store`].
pub(super) struct Reader<B> {
    store: Arc<Store<B>>,
    place: Place,
    /// How many bytes it has read.
    bytes: u64,
    over: bool,
    parked: Parked,
}

impl<B> Reader<B> {
    /// An attempt beside those there are.
    pub(super) fn new(store: &Arc<Store<B>>) -> Self {
        Self::at(store, store.join())
    }

    /// An attempt in place of those there are, if enough of the body is kept.
    pub(super) fn succeed(store: &Arc<Store<B>>) -> Option<Self> {
        store.succeed().map(|place| Self::at(store, place))
    }

    fn at(store: &Arc<Store<B>>, place: Place) -> Self {
        Self { store: store.clone(), place, bytes: 0, over: false, parked: Parked::default() }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.store.is_end(self.place.frames)
    }

    fn size_hint(&self) -> SizeHint {
        if self.over { SizeHint::with_exact(0) } else { self.store.size_hint(self.place.frames, self.bytes) }
    }
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = match self.store.turn(self.place, cx) {
            Turn::Frame(frame) => Some(Ok(frame)),
            Turn::Read(body) => ready!(body.read(&mut self.parked, cx)),
            Turn::Wait => return Poll::Pending,
            Turn::End => None,
            Turn::Failed(error) => Some(Err(error)),
        };
        match &frame {
            Some(Ok(frame)) => {
                self.place.frames += 1;
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Some(Err(_)) | None => self.over = true,
        }
        Poll::Ready(frame)
    }
}

impl<B> Drop for Reader<B> {
    fn drop(&mut self) {
        self.store.leave(self.place);
    }
}
