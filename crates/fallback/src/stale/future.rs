use super::{
    Record, Stale,
    request::{Asked, Key},
};
use buttress_core::{Call, Cause, Outcome, Rejection, Verdict, http::ResponseBody};
use bytes::Bytes;
use http::{Response, StatusCode, Uri, header};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

pin_project! {
    /// The future of [`StaleService`](crate::StaleService).
    pub struct StaleFuture<F, K> {
        #[pin]
        state: State<F>,
        call: Option<K>,
        course: Course,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Running { #[pin] inner: F },
        Answered { answer: Option<Box<Response<Bytes>>> },
        Refused { rejection: Rejection },
        Done,
    }
}

/// What an answer is to the store.
pub(super) enum Course {
    Pass,
    /// It is stored, or one that is stored is given in its place.
    Read(Arc<Stale>, Box<Asked>),
    /// It tells that a resource was changed.
    Write(Arc<Stale>, Box<(Uri, Key)>),
}

impl<F, K> StaleFuture<F, K> {
    pub(super) fn running(inner: F, call: K, course: Course) -> Self {
        Self { state: State::Running { inner }, call: Some(call), course }
    }

    pub(super) fn answered(answer: Response<Bytes>, call: K) -> Self {
        let answer = Some(Box::new(answer));
        Self { state: State::Answered { answer }, call: Some(call), course: Course::Pass }
    }

    pub(super) fn refused(rejection: Rejection, call: K) -> Self {
        Self { state: State::Refused { rejection }, call: Some(call), course: Course::Pass }
    }
}

impl<F, K> fmt::Debug for StaleFuture<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleFuture").finish_non_exhaustive()
    }
}

const DONE: &str = "a future was polled after it had completed";

impl<F, K, R, Err> Future for StaleFuture<F, K>
where
    F: Future<Output = Result<Response<R>, Err>>,
    K: Call<Response<R>, Err, Answer = Response<Bytes>>,
    R: ResponseBody,
{
    type Output = Result<K::Response<(), Record>, Err>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = match this.state.as_mut().project() {
            StateProj::Running { inner } => ready!(inner.poll(cx)),
            StateProj::Answered { answer } => {
                let answer = answer.take().expect(DONE);
                return Poll::Ready(Ok(this.call.take().expect(DONE).answer(*answer)));
            }
            StateProj::Refused { rejection } => return Poll::Ready(this.call.take().expect(DONE).reject(*rejection)),
            StateProj::Done => panic!("{DONE}"),
        };
        // What the call holds is free before anyone hears of its end.
        this.state.set(State::Done);
        let call = this.call.take().expect(DONE);
        Poll::Ready(match std::mem::replace(this.course, Course::Pass) {
            Course::Pass => call.finish(result, &mut None, Record::nothing()),
            Course::Read(policy, asked) => read(&policy, &asked, call, result),
            Course::Write(policy, resource) => {
                if let Ok(res) = &result
                    && (res.status().is_success() || res.status().is_redirection())
                {
                    policy.changed(&resource.0, &resource.1, res.headers());
                }
                call.finish(result, &mut None, Record::nothing())
            }
        })
    }
}

/// What the caller gets of a GET or a HEAD.
fn read<K, R, Err>(
    policy: &Arc<Stale>,
    asked: &Asked,
    call: K,
    mut result: Result<Response<R>, Err>,
) -> Result<K::Response<(), Record>, Err>
where
    K: Call<Response<R>, Err, Answer = Response<Bytes>>,
    R: ResponseBody,
{
    let verdict = call.judge(result.as_ref());
    if let Some(cause) = failure(&verdict, result.as_ref()) {
        match policy.find(asked, true) {
            Some(found) => {
                if let Some(answer) = policy.give(asked, &found, Some(cause)) {
                    // First what it stands in place of, with all that it holds.
                    drop(result);
                    return Ok(call.answer(answer));
                }
            }
            None => policy.missed(),
        }
        return call.finish(result, &mut None, Record::nothing());
    }
    let record = match &mut result {
        Ok(res) => {
            let record = begin(policy, asked, &verdict, res);
            if policy.is_cache() {
                let why = if asked.said.no_cache { "request" } else { "miss" };
                policy.say(res.headers_mut(), format_args!("fwd={why}"));
            }
            record
        }
        Err(_) => Record::nothing(),
    };
    call.finish(result, &mut None, record)
}

/// What keeps an answer, if it is to be kept.
pub(super) fn begin<R: ResponseBody>(
    policy: &Arc<Stale>,
    asked: &Asked,
    verdict: &Verdict,
    res: &Response<R>,
) -> Record {
    if res.status() == StatusCode::NOT_MODIFIED {
        policy.freshen(asked, res.headers());
        return Record::nothing();
    }
    if asked.is_head || !(verdict.is_good() && verdict.end) {
        return Record::nothing();
    }
    let declared = match declared(res) {
        Ok(declared) => declared,
        Err(why) => {
            policy.not_stored(why);
            return Record::nothing();
        }
    };
    let max_body = policy.max_body();
    let head = match policy.head(asked, res) {
        Ok(_) if declared.is_some_and(|declared| declared > max_body) => Err(super::NotStored::TooLarge),
        head => head,
    };
    let begun = head.and_then(|head| Record::begin(policy.clone(), asked.key.clone(), head, declared, max_body));
    begun.unwrap_or_else(|why| {
        policy.not_stored(why);
        Record::nothing()
    })
}

/// How long the body says that it is; an error: it says two things.
fn declared<R: ResponseBody>(res: &Response<R>) -> Result<Option<usize>, super::NotStored> {
    let mut lengths = res.headers().get_all(header::CONTENT_LENGTH).iter();
    let field = match lengths.next() {
        Some(length) => match length.to_str().ok().and_then(|length| length.parse::<u64>().ok()) {
            Some(length) if lengths.next().is_none() => Some(length),
            _ => return Err(super::NotStored::Incomplete),
        },
        None => None,
    };
    let hint = res.body().size_hint().exact();
    if field.is_some() && hint.is_some() && field != hint {
        return Err(super::NotStored::Incomplete);
    }
    Ok(field.or(hint).map(|length| usize::try_from(length).unwrap_or(usize::MAX)))
}

/// What a stored answer may stand in place of: a failure, or a refusal that is not the client's own doing.
fn failure<R, Err>(verdict: &Verdict, result: Result<&Response<R>, &Err>) -> Option<Cause> {
    let is_failure = |status: u16| matches!(status, 500 | 502 | 503 | 504);
    match (verdict.rejection, result) {
        (Some(rejection), _) => (!rejection.reason.accuses_request()).then_some(Cause::Refused(rejection)),
        (None, Ok(res)) => {
            let failed = is_failure(res.status().as_u16());
            failed.then(|| Cause::of(verdict).unwrap_or(Cause::Failure))
        }
        // An error that accuses nobody is the client's.
        (None, Err(_)) => (verdict.outcome != Outcome::Ignored).then(|| Cause::of(verdict).unwrap_or(Cause::Failure)),
    }
}
