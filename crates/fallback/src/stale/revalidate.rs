use super::{CacheControl, Stale, entry::Stored, future::begin, request::Asked};
use buttress_core::{
    Call, Clock, Context, Cut, TokioClock,
    http::{CutBody, ResponseBody},
};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use std::{future::poll_fn, pin::pin, sync::Arc};
use tower_service::Service;

/// Asks for a stored answer anew, in the background: once at a time, if the budget pays for it.
pub(super) fn revalidate<S, K, B, R>(
    policy: &Arc<Stale>,
    inner: &S,
    call: K,
    req: Request<B>,
    asked: &Asked,
    stored: &Stored,
) where
    S: Service<Request<B>, Response = Response<R>, Future: Send> + Clone + Send + 'static,
    S::Error: Send,
    K: Call<Response<R>, S::Error, Answer = Response<Bytes>> + Send + 'static,
    B: Default + Send + 'static,
    R: ResponseBody,
{
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let Some(flight) = policy.revalidations.lead::<(), ()>(asked.key.clone()) else { return };
    let Some(token) = policy.pay() else { return };
    let req = conditional(req, stored);
    let asked = Asked {
        key: asked.key.clone(),
        front: asked.front.clone(),
        is_head: false,
        headers: req.headers().clone(),
        said: CacheControl { no_store: asked.said.no_store, ..CacheControl::default() },
        begun: TokioClock.now(),
    };
    let (policy, mut inner) = (policy.clone(), inner.clone());
    let work = async move {
        let _token = token;
        if poll_fn(|cx| inner.poll_ready(cx)).await.is_err() {
            return;
        }
        let Ok(res) = inner.call(req).await else { return };
        let verdict = call.judge(Ok(&res));
        let record = begin(&policy, &asked, &verdict, &res);
        let mut body = pin!(record.cover(res.into_body()));
        // A body that is not kept is not read, either.
        while body.is_recording() {
            if !matches!(poll_fn(|cx| body.as_mut().poll_piece(cx, &mut None)).await, Some(Ok(_))) {
                return;
            }
        }
    };
    flight.launch(Box::pin(async move { (work.await, ()) }));
    runtime.spawn(flight);
}

/// The same request, asking whether the answer has changed. Nobody waits for it: it is under nobody's deadline.
fn conditional<B: Default>(req: Request<B>, stored: &Stored) -> Request<B> {
    let (mut head, _) = req.into_parts();
    head.method = Method::GET;
    for name in [
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
        header::CACHE_CONTROL,
        header::PRAGMA,
    ] {
        head.headers.remove(name);
    }
    head.headers.extend(stored.validators());
    if let Some(context) = head.extensions.get_mut::<Context>() {
        context.deadline = None;
        context.enforced = None;
        context.upload = None;
    }
    Request::from_parts(head, B::default())
}
