use super::{Backup, Instead, function::Timeout};
use buttress_core::Cause;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tower_service::Service;

/// How long another service gets where nothing else is known.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers with what `service` says to the request that `keep` makes, within `timeout` ([`DEFAULT_TIMEOUT`] is a good one): its readiness is
/// waited for in it, too. An error, a bad answer and being too late are no answer.
///
/// `keep` runs for every request, so make it cheap. The deadline of the call that failed does not bind this one: an outer layer's does.
///
/// ```
/// # #[cfg(feature = "http")] {
/// use buttress_fallback::backup;
/// use http::{Request, Response};
/// use tower::service_fn;
/// # type Body = String;
///
/// let cache = service_fn(|_: Request<Body>| async { Ok::<_, std::convert::Infallible>(Response::new(Body::new())) });
/// let from_cache = backup::service(
///     |req: &Request<Body>| Request::get(req.uri().clone()).body(Body::new()).unwrap_or_default(),
///     cache,
///     backup::DEFAULT_TIMEOUT,
/// );
/// # let _ = from_cache;
/// # }
/// ```
pub fn service<Req, R, F, S>(keep: F, service: S, timeout: Duration) -> AnswerByService<F, S>
where
    F: Fn(&Req) -> R + Clone + Send + Sync + 'static,
    S: Service<R> + Clone + Send + Sync + 'static,
{
    AnswerByService { keep, service, timeout }
}

/// The backup that [`service`] makes.
#[derive(Clone, Copy)]
pub struct AnswerByService<F, S> {
    keep: F,
    service: S,
    timeout: Duration,
}

impl<Req, Res, Own, R, F, S> Backup<Req, Res, Own> for AnswerByService<F, S>
where
    F: Fn(&Req) -> R + Clone + Send + Sync + 'static,
    S: Service<R, Response = Res> + Clone + Send + Sync + 'static,
{
    type Kept = R;
    type Future = AnswerByServiceFuture<S, R, Own>;

    #[inline]
    fn keep(&self, req: &Req) -> R {
        (self.keep)(req)
    }

    fn answer(&self, kept: R, _: Cause) -> Self::Future {
        let calling = Calling::Unready { service: Some((self.service.clone(), kept)) };
        AnswerByServiceFuture { calling, timeout: Timeout::new(self.timeout), own: PhantomData }
    }
}

impl<F, S> fmt::Debug for AnswerByService<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerByService").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`AnswerByService`].
    pub struct AnswerByServiceFuture<S, R, Own>
    where
        S: Service<R>,
    {
        #[pin]
        calling: Calling<S, R, S::Future>,
        timeout: Timeout,
        own: PhantomData<fn() -> Own>,
    }
}

pin_project! {
    #[project = CallingProj]
    enum Calling<S, R, F> {
        Unready { service: Option<(S, R)> },
        Called { #[pin] future: F },
    }
}

impl<S: Service<R>, R, Own> Future for AnswerByServiceFuture<S, R, Own> {
    type Output = Option<Instead<S::Response, Own>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let polled = match this.calling.as_mut().project() {
                CallingProj::Unready { service } => {
                    let Some((ready, _)) = service else { return Poll::Ready(None) };
                    match ready.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {
                            if let Some((mut ready, req)) = service.take() {
                                let future = ready.call(req);
                                this.calling.set(Calling::Called { future });
                            }
                            continue;
                        }
                        Poll::Ready(Err(_)) => Poll::Ready(None),
                        Poll::Pending => Poll::Pending,
                    }
                }
                CallingProj::Called { future } => future.poll(cx).map(Result::ok),
            };
            return match polled {
                Poll::Ready(answer) => Poll::Ready(answer.map(Instead::Other)),
                Poll::Pending => this.timeout.poll(cx).map(|()| None),
            };
        }
    }
}

impl<S: Service<R>, R, Own> fmt::Debug for AnswerByServiceFuture<S, R, Own> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerByServiceFuture").finish_non_exhaustive()
    }
}
