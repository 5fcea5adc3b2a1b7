//! Answers on HTTP/2 streams whose clients do not take them.
//!
//! A socket that takes nothing is timed where it is written to. A client that leaves the window of a stream shut stops no
//! socket, and hyper does not ask for more of the answer: its body, and the places that it holds, would wait for ever.

use buttress::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// A body that is dropped when nobody has asked for its next frame for too long.
pub(crate) struct Taken<B> {
    inner: Arc<Mutex<Inner<B>>>,
    /// Most answers are one frame: nobody watches those.
    is_watched: bool,
    patience: Duration,
}

struct Inner<B> {
    /// `None`: it took too long.
    body: Option<Pin<Box<B>>>,
    /// Since when the client has had a frame and not asked for the next. `None`: it waits for one.
    idle_since: Option<Instant>,
}

fn lock<B>(inner: &Mutex<Inner<B>>) -> MutexGuard<'_, Inner<B>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B> Taken<B> {
    pub(crate) fn new(body: B, patience: Duration) -> Self {
        let inner = Inner { body: Some(Box::pin(body)), idle_since: None };
        Self { inner: Arc::new(Mutex::new(inner)), is_watched: false, patience }
    }
}

/// Drops the body when its time is over.
async fn watch<B>(inner: Weak<Mutex<Inner<B>>>, patience: Duration) {
    let mut due = Instant::now() + patience;
    loop {
        sleep_until(due).await;
        let Some(inner) = inner.upgrade() else { return };
        let mut inner = lock(&inner);
        let now = Instant::now();
        due = inner.idle_since.unwrap_or(now) + patience;
        if due <= now {
            let late = inner.body.take();
            drop(inner);
            drop(late);
            tracing::debug!(?patience, "a client took nothing of an answer for too long");
            return;
        }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static> Body for Taken<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut inner = lock(&this.inner);
        inner.idle_since = None;
        let Some(body) = &mut inner.body else {
            let late = io::Error::new(io::ErrorKind::TimedOut, "the client took nothing for too long");
            return Poll::Ready(Some(Err(late.into())));
        };
        let frame = ready!(body.as_mut().poll_frame(cx));
        if matches!(frame, Some(Ok(_))) && !body.is_end_stream() {
            inner.idle_since = Some(Instant::now());
            if !std::mem::replace(&mut this.is_watched, true) {
                tokio::spawn(watch(Arc::downgrade(&this.inner), this.patience));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.inner).body.as_ref().is_some_and(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.inner).body.as_ref().map_or_else(SizeHint::new, |body| body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use std::convert::Infallible;
    use tokio::{
        sync::mpsc,
        time::{sleep, timeout},
    };
    use tokio_stream::{StreamExt, wrappers::ReceiverStream};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// What sends its frames, the body, and a sign of whether it is still there.
    fn body() -> (mpsc::Sender<&'static str>, Pin<Box<impl Body<Data = Bytes, Error = BoxError>>>, Weak<()>) {
        let (sender, receiver) = mpsc::channel(8);
        let held = Arc::new(());
        let sign = Arc::downgrade(&held);
        let frames = ReceiverStream::new(receiver).map(move |text: &'static str| {
            let _ = &held;
            Ok::<_, Infallible>(Frame::data(Bytes::from(text)))
        });
        (sender, Box::pin(Taken::new(StreamBody::new(frames), PATIENCE)), sign)
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_dropped() {
        let (sender, mut body, sign) = body();
        for text in ["one", "two", "three"] {
            sender.try_send(text).unwrap();
        }
        for text in ["one", "two"] {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), text);
            sleep(PATIENCE - Duration::from_millis(1)).await;
            assert!(sign.upgrade().is_some());
        }
        sleep(Duration::from_millis(2)).await;
        assert!(sign.upgrade().is_none());
        assert!(body.frame().await.unwrap().is_err(), "it is no whole body");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_next_frame_may_wait() {
        let (sender, mut body, _sign) = body();
        for text in ["one", "two", "three"] {
            assert!(timeout(20 * PATIENCE, body.frame()).await.is_err());
            sender.try_send(text).unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), text);
        }
        drop(sender);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_away_leaves_nothing_behind() {
        let (sender, mut body, sign) = body();
        sender.try_send("one").unwrap();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert!(sign.upgrade().is_none());
    }
}
