use super::{
    body::{Begun, SharedBody},
    flights::Work,
    policy::Terms,
    share::{Common, LAYER, Share},
};
use crate::stale::{CacheControl, vary};
use buttress_core::{
    Call, Context, Degraded, NoCut, Reason, Rejection,
    http::{Classify, Http, HttpCall, Refuse, ResponseBody, is_grpc, opens_tunnel},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use std::future::Future;

/// An answer that many get.
#[derive(Debug)]
#[doc(hidden)]
pub struct Kept {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    degraded: Option<Degraded>,
    body: Bytes,
}

/// What the caller gets who made the call.
#[derive(Debug)]
#[doc(hidden)]
pub enum Own<R: Body, Err> {
    /// A response whose body was collected.
    Whole(Response<Bytes>),
    /// One of which nothing, or only the beginning, was.
    Inner(Result<Response<SharedBody<R>>, Err>),
}

type Answer<K, R, Err> = <K as Call<Response<SharedBody<R>>, Err>>::Response<(), NoCut>;

impl<M, C, B, R, Err> Share<Request<B>, Response<R>, Err> for Http<M, C>
where
    M: Refuse<Err>,
    C: Classify,
    B: Body,
    R: ResponseBody<Error: Send>,
    Err: Send + 'static,
{
    type Response = Answer<HttpCall<M, C>, R, Err>;
    type Own = Own<R, Err>;
    type Kept = Kept;

    fn prepare(&self, req: &mut Request<B>) -> bool {
        let is_read = matches!(*req.method(), Method::GET | Method::HEAD);
        if !is_read || !req.body().is_end_stream() || opens_tunnel(req) {
            return false;
        }
        // Who says so wants an answer of his own (RFC 9111, 5.2.1.4 and 5.2.1.5).
        let said = CacheControl::of_request(req.headers());
        if said.no_cache || said.no_store {
            return false;
        }
        // It may outlive its caller: who enforces that one's deadline does not enforce it for all.
        if let Some(context) = req.extensions_mut().get_mut::<Context>() {
            context.enforced = None;
        }
        true
    }

    fn fly<F>(
        call: HttpCall<M, C>,
        inner: F,
        alone: impl FnOnce() -> bool + Send + 'static,
        terms: Terms,
    ) -> Work<Own<R, Err>, Common<Kept>>
    where
        F: Future<Output = Result<Response<R>, Err>> + Send + 'static,
    {
        Box::pin(async move {
            let result = inner.await.map(|res| res.map(SharedBody::whole));
            if alone() {
                return (Own::Inner(result), Common::Apart);
            }
            let rejection = call.judge(result.as_ref()).rejection;
            match result {
                Err(_) => (Own::Inner(result), Common::failed(rejection)),
                Ok(_) if rejection.is_some() => (Own::Inner(result), Common::failed(rejection)),
                Ok(res) => collect(res, terms).await,
            }
        })
    }

    fn own(call: HttpCall<M, C>, own: Own<R, Err>) -> Result<Self::Response, Err> {
        match own {
            Own::Whole(res) => Ok(Call::<Response<SharedBody<R>>, Err>::answer(call, res)),
            Own::Inner(result) => call.finish(result, &mut None, NoCut),
        }
    }

    fn copy(call: HttpCall<M, C>, kept: &Kept) -> Self::Response {
        let mut res = Response::new(kept.body.clone());
        *res.status_mut() = kept.status;
        *res.version_mut() = kept.version;
        *res.headers_mut() = kept.headers.clone();
        if let Some(degraded) = kept.degraded {
            res.extensions_mut().insert(degraded);
        }
        Call::<Response<SharedBody<R>>, Err>::answer(call, res)
    }

    fn reject(call: HttpCall<M, C>, rejection: Rejection) -> Result<Self::Response, Err> {
        Call::<Response<SharedBody<R>>, Err>::reject(call, rejection)
    }

    fn single(call: HttpCall<M, C>, result: Result<Response<R>, Err>) -> Result<Self::Response, Err> {
        call.finish(result.map(|res| res.map(SharedBody::whole)), &mut None, NoCut)
    }
}

/// Whether an answer may be given to others, by its head.
fn is_common<R: Body>(res: &Response<R>, max_body: usize) -> bool {
    let headers = res.headers();
    let said = CacheControl::of_answer(headers);
    let declared = || headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let least = match res.body().is_end_stream() {
        // Of what it declares nothing comes: an answer to HEAD.
        true => 0,
        false => declared().unwrap_or(0u64).max(res.body().size_hint().lower()),
    };
    let is_stream = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/event-stream");
    !(res.status().is_informational()
        || is_grpc(headers)
        || headers.get(header::CONTENT_TYPE).is_some_and(is_stream)
        || headers.contains_key(header::SET_COOKIE)
        || said.private
        || said.no_cache
        || said.no_store
        || vary(headers).is_none()
        || least > max_body as u64)
}

async fn collect<R, Err>(res: Response<SharedBody<R>>, terms: Terms) -> (Own<R, Err>, Common<Kept>)
where
    R: ResponseBody<Error: Send>,
{
    if !is_common(&res, terms.max_body) {
        return (Own::Inner(Ok(res)), Common::Apart);
    }
    let (head, body) = res.into_parts();
    let mut begun = Begun::new(body);
    let collecting = std::future::poll_fn(|cx| begun.poll_collected(cx, terms.max_body));
    let common = match tokio::time::timeout(terms.collect_within, collecting).await {
        Ok(true) => {
            let body = begun.into_bytes();
            let kept = Kept {
                status: head.status,
                version: head.version,
                headers: head.headers.clone(),
                degraded: head.extensions.get().copied(),
                body: body.clone(),
            };
            return (Own::Whole(Response::from_parts(head, body)), Common::Answer(kept));
        }
        Ok(false) if begun.has_failed() => Common::Refused(Rejection::new(Reason::SharedCallFailed, LAYER)),
        _ => Common::Apart,
    };
    (Own::Inner(Ok(Response::from_parts(head, begun.into_body()))), common)
}
