use super::{Backup, Instead};
use buttress_core::Cause;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::{Future, Ready, ready},
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Sleep;

/// Answers with clones of `value`: a default, an empty list. Over HTTP it is an `http::Response<Bytes>`; a `StaticResponse` knows more
/// of HTTP.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use buttress_core::Error;
/// use buttress_fallback::{FallbackConfig, FallbackLayer, backup};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// let broken = service_fn(|_: ()| async { Err::<Vec<u64>, _>(Error::Inner(std::io::Error::other("down"))) });
/// let service = FallbackLayer::new(FallbackConfig::default(), backup::value(Vec::new())).layer(broken);
/// assert_eq!(service.oneshot(()).await.unwrap(), []);
/// # }
/// ```
pub fn value<T: Clone + Send + Sync + 'static>(value: T) -> AnswerValue<T> {
    AnswerValue(value)
}

/// The backup that [`value`] makes.
#[derive(Clone, Copy, Debug)]
pub struct AnswerValue<T>(T);

impl<Req, Res, T: Clone + Send + Sync + 'static> Backup<Req, Res, T> for AnswerValue<T> {
    type Kept = ();
    type Future = Ready<Option<Instead<Res, T>>>;

    #[inline]
    fn keep(&self, _: &Req) {}

    fn answer(&self, (): (), _: Cause) -> Self::Future {
        ready(Some(Instead::Own(self.0.clone())))
    }
}

/// Answers with what `answer` makes of what `keep` took of the request, and of the cause; at once. `None`: there is no answer.
///
/// ```
/// use buttress_core::Cause;
/// use buttress_fallback::backup;
/// # struct Query { user: u64 }
/// # struct Rows(Vec<String>);
///
/// let by_user = backup::from_fn(
///     |query: &Query| query.user,
///     |user, cause: &Cause| match cause {
///         Cause::Refused(_) => Some(Rows(vec![format!("user {user} comes back later")])),
///         _ => None,
///     },
/// );
/// # let _ = by_user;
/// ```
pub fn from_fn<Req, K, Own, F, G>(keep: F, answer: G) -> AnswerBy<F, G>
where
    F: Fn(&Req) -> K + Clone + Send + Sync + 'static,
    G: Fn(K, &Cause) -> Option<Own> + Clone + Send + Sync + 'static,
{
    AnswerBy { keep, answer }
}

/// The backup that [`from_fn`] makes.
#[derive(Clone, Copy)]
pub struct AnswerBy<F, G> {
    keep: F,
    answer: G,
}

impl<Req, Res, Own, K, F, G> Backup<Req, Res, Own> for AnswerBy<F, G>
where
    F: Fn(&Req) -> K + Clone + Send + Sync + 'static,
    G: Fn(K, &Cause) -> Option<Own> + Clone + Send + Sync + 'static,
{
    type Kept = K;
    type Future = Ready<Option<Instead<Res, Own>>>;

    #[inline]
    fn keep(&self, req: &Req) -> K {
        (self.keep)(req)
    }

    fn answer(&self, kept: K, cause: Cause) -> Self::Future {
        ready((self.answer)(kept, &cause).map(Instead::Own))
    }
}

impl<F, G> fmt::Debug for AnswerBy<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBy").finish_non_exhaustive()
    }
}

/// Answers with what the future of `answer` gives within `timeout`; an error, or being too late, is no answer.
///
/// ```
/// use buttress_core::Cause;
/// use buttress_fallback::backup;
/// use std::time::Duration;
/// # struct Query { user: u64 }
/// # async fn look_up(user: u64) -> Result<String, std::io::Error> { Ok(user.to_string()) }
///
/// let from_disk = backup::from_async(
///     |query: &Query| query.user,
///     |user, _: Cause| async move { look_up(user).await },
///     Duration::from_millis(200),
/// );
/// # let _ = from_disk;
/// ```
pub fn from_async<Req, K, Own, E, F, G, Fut>(keep: F, answer: G, timeout: Duration) -> AnswerLater<F, G>
where
    F: Fn(&Req) -> K + Clone + Send + Sync + 'static,
    G: Fn(K, Cause) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Own, E>>,
{
    AnswerLater { keep, answer, timeout }
}

/// The backup that [`from_async`] makes.
#[derive(Clone, Copy)]
pub struct AnswerLater<F, G> {
    keep: F,
    answer: G,
    timeout: Duration,
}

impl<Req, Res, Own, E, K, F, G, Fut> Backup<Req, Res, Own> for AnswerLater<F, G>
where
    F: Fn(&Req) -> K + Clone + Send + Sync + 'static,
    G: Fn(K, Cause) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Own, E>>,
{
    type Kept = K;
    type Future = AnswerLaterFuture<Fut, Res>;

    #[inline]
    fn keep(&self, req: &Req) -> K {
        (self.keep)(req)
    }

    fn answer(&self, kept: K, cause: Cause) -> Self::Future {
        AnswerLaterFuture { answer: (self.answer)(kept, cause), timeout: Timeout::new(self.timeout), res: PhantomData }
    }
}

impl<F, G> fmt::Debug for AnswerLater<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerLater").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`AnswerLater`].
    pub struct AnswerLaterFuture<F, Res> {
        #[pin]
        answer: F,
        timeout: Timeout,
        res: PhantomData<fn() -> Res>,
    }
}

impl<F, Res, Own, E> Future for AnswerLaterFuture<F, Res>
where
    F: Future<Output = Result<Own, E>>,
{
    type Output = Option<Instead<Res, Own>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.answer.poll(cx) {
            Poll::Ready(answer) => Poll::Ready(answer.ok().map(Instead::Own)),
            Poll::Pending => this.timeout.poll(cx).map(|()| None),
        }
    }
}

impl<F, Res> fmt::Debug for AnswerLaterFuture<F, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerLaterFuture").finish_non_exhaustive()
    }
}

/// A time-out whose timer is made when somebody waits: an answer that is there at once needs none.
#[derive(Debug)]
pub(super) struct Timeout {
    after: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Timeout {
    pub(super) fn new(after: Duration) -> Self {
        Self { after, timer: None }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let after = self.after;
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(after))).as_mut().poll(cx)
    }
}
