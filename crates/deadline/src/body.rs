use crate::{
    client::Client,
    future::has_fired,
    policy::{Force, Limit, Plan, SharedLease, idle_reason},
    watch::{Reader, Watch},
};
use buttress_core::{
    BoxError, Clock, Cut, Rejection, TokioClock,
    http::{CutBody, ResponseBody},
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    time::{Instant as TokioInstant, Sleep, sleep_until},
};

/// A body that declares at most so many bytes usually comes in one frame. Whoever polls it once has all of it then, and it needs
/// no task of its own; one that goes on after its first frame gets one.
const SMALL: u64 = 64 * 1024;

/// Ends a response body at its deadline, or when it makes no progress.
pub struct Cutoff {
    plan: Plan,
    lease: SharedLease,
    client: Option<Box<Client>>,
}

impl Cutoff {
    #[inline]
    pub(crate) fn new(plan: Plan, lease: SharedLease, client: Option<Box<Client>>) -> Self {
        Self { plan, lease, client }
    }
}

impl fmt::Debug for Cutoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cutoff").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Cut for Cutoff {
    type Body<B>
        = Covered<B>
    where
        B: ResponseBody;

    #[inline]
    fn cover<B: ResponseBody>(self, body: B) -> Covered<B> {
        let Self { plan, lease, client } = self;
        let (idle, absolute) = (lease.idle.get(), lease.absolute.get());
        let is_unbound = plan.limit == Limit::Never && idle.is_none() && absolute.is_none();
        if is_unbound || plan.force == Force::Off || body.is_end_stream() {
            return Covered { kind: Kind::Plain { body } };
        }
        if body.size_hint().exact().is_none_or(|bytes| bytes > SMALL)
            && let Ok(runtime) = Handle::try_current()
        {
            let now = TokioClock.now();
            let watch = Watch { at: end_of(plan.limit, absolute, now), idle, plan, lease, client };
            let body = Box::pin(Boxed { body, bounds: None });
            return Covered { kind: Kind::Watched { reader: Reader::spawn(body, watch, now, &runtime) } };
        }
        let bounds =
            Inline { plan, idle, absolute, end: None, timer: None, is_idle_next: false, is_stale: true, lease, client };
        Covered { kind: Kind::Inline { boxed: Some(Box::pin(Boxed { body, bounds: Some(bounds) })) } }
    }
}

/// When a body must be over that may take `absolute` from `now` on.
fn end_of(limit: Limit, absolute: Option<Duration>, now: Instant) -> Option<Instant> {
    let limit = match limit {
        Limit::Never => None,
        Limit::In(span) => now.checked_add(span),
        Limit::At(at) => Some(at),
    };
    let absolute = absolute.and_then(|span| now.checked_add(span));
    limit.into_iter().chain(absolute).min()
}

pin_project! {
    /// A response body under a deadline. A body of more than 64 KiB, or of unknown length, is watched by a task, so it ends
    /// even if nobody polls it; a smaller one only if it goes on after its first frame.
    pub struct Covered<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Plain { #[pin] body: B },
        Inline { boxed: Option<Pin<Box<Boxed<B>>>> },
        Watched { reader: Reader<Boxed<B>> },
        Gone,
    }
}

pin_project! {
    /// A body where a task can take it over, and what bounds it until then. One box for both: what lies in a response moves
    /// through every layer with it.
    struct Boxed<B> {
        #[pin]
        body: B,
        // `None`: a task watches it.
        bounds: Option<Inline>,
    }
}

impl<B: ResponseBody> Body for Boxed<B> {
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The bounds of a body that is watched while it is polled.
struct Inline {
    plan: Plan,
    idle: Option<Duration>,
    absolute: Option<Duration>,
    /// When the timer fires; without a runtime there is none, and the clock is asked at every poll.
    end: Option<Instant>,
    /// Boxed, so that a body that is `Unpin` stays so, and is small while it needs no timer.
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer fires for want of progress.
    is_idle_next: bool,
    /// There was progress since the timer was set.
    is_stale: bool,
    lease: SharedLease,
    client: Option<Box<Client>>,
}

impl Inline {
    /// When it ends if no frame comes.
    fn next_end(&mut self, now: Instant) -> Option<Instant> {
        let end = end_of(self.plan.limit, self.absolute.take(), now);
        self.plan.limit = end.map_or(Limit::Never, Limit::At);
        let idle = self.idle.and_then(|span| now.checked_add(span));
        self.is_idle_next = idle.is_some_and(|idle| end.is_none_or(|end| idle < end));
        if self.is_idle_next { idle } else { end }
    }

    /// Pending: whether that was too long.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Rejection> {
        // A deadline stays where it is; idleness begins anew with every frame.
        if self.is_stale && (self.end.is_none() || self.idle.is_some()) {
            self.end = self.next_end(TokioClock.now());
            match (&mut self.timer, self.end.map(TokioInstant::from_std)) {
                (Some(timer), Some(end)) => timer.as_mut().reset(end),
                (timer, end) => {
                    let end = end.filter(|_| Handle::try_current().is_ok());
                    *timer = end.map(|end| Box::pin(sleep_until(end)));
                }
            }
        }
        self.is_stale = false;
        let is_over = match &mut self.timer {
            Some(timer) => has_fired(timer.as_mut(), cx),
            None => self.end.is_some_and(|end| TokioClock.now() >= end),
        };
        if !is_over {
            return Poll::Pending;
        }
        if self.plan.force == Force::End {
            let client = self.client.as_deref();
            let reason =
                if self.is_idle_next { idle_reason(client, self.end) } else { self.plan.reason(client, self.end) };
            return Poll::Ready(self.lease.cut(reason, self.is_idle_next));
        }
        self.lease.observe();
        (self.plan.limit, self.idle, self.timer, self.end) = (Limit::Never, None, None, None);
        Poll::Pending
    }
}

/// A body that goes on after its first frame may be left there: from here on a task watches it.
fn hand_over<B: ResponseBody>(mut boxed: Pin<Box<Boxed<B>>>) -> Kind<B> {
    let now = TokioClock.now();
    if let Ok(runtime) = Handle::try_current()
        && let Some(bounds) = boxed.as_mut().project().bounds.take()
    {
        let Inline { plan, idle, absolute, lease, client, .. } = bounds;
        let watch = Watch { at: end_of(plan.limit, absolute, now), idle, plan, lease, client };
        return Kind::Watched { reader: Reader::spawn(boxed, watch, now, &runtime) };
    }
    Kind::Inline { boxed: Some(boxed) }
}

impl<B> fmt::Debug for Covered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Plain { .. } => "plain",
            Kind::Inline { .. } => "inline",
            Kind::Watched { .. } => "watched",
            Kind::Gone => "gone",
        };
        f.debug_tuple("Covered").field(&kind).finish()
    }
}

impl<B: ResponseBody> CutBody<B> for Covered<B> {
    type Error = BoxError;

    #[inline]
    fn poll_piece(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cut: &mut Option<Rejection>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut kind = self.project().kind;
        let frame = match kind.as_mut().project() {
            KindProj::Plain { body } => ready!(body.poll_frame(cx)),
            KindProj::Inline { boxed } => {
                let Some(inside) = boxed.as_mut().map(|boxed| boxed.as_mut().project()) else {
                    return Poll::Ready(None);
                };
                match (inside.body.poll_frame(cx), inside.bounds) {
                    (Poll::Ready(frame), bounds) => {
                        bounds.iter_mut().for_each(|bounds| bounds.is_stale = true);
                        let is_data = matches!(&frame, Some(Ok(frame)) if frame.is_data());
                        if is_data && let Some(boxed) = boxed.take_if(|boxed| !boxed.is_end_stream()) {
                            kind.set(hand_over(boxed));
                        }
                        frame
                    }
                    (Poll::Pending, Some(bounds)) => {
                        *cut = Some(ready!(bounds.poll_end(cx)));
                        None
                    }
                    (Poll::Pending, None) => return Poll::Pending,
                }
            }
            KindProj::Watched { reader } => ready!(reader.poll_piece(cx, cut)),
            KindProj::Gone => None,
        };
        if cut.is_some() {
            kind.set(Kind::Gone);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn cut_error(rejection: Rejection) -> BoxError {
        rejection.into()
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Plain { body } => body.is_end_stream(),
            Kind::Inline { boxed } => boxed.as_ref().is_none_or(|boxed| boxed.is_end_stream()),
            Kind::Watched { reader } => reader.is_end_stream(),
            Kind::Gone => true,
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Plain { body } => body.size_hint(),
            Kind::Inline { boxed } => boxed.as_ref().map(|boxed| boxed.size_hint()).unwrap_or_default(),
            Kind::Watched { reader } => reader.size_hint(),
            Kind::Gone => SizeHint::with_exact(0),
        }
    }
}
