use super::{
    End, Measured,
    access::{Ended, Line},
};
use buttress_core::{Call, Degraded, GateFuture, NoCut, Outcome, Pushback, Rejection, Settle, Status, abandoned};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tracing::Span;

/// The target of the spans.
pub(super) const TARGET: &str = "buttress::telemetry";

/// What a call in a span holds to its real end: then the span learns how it went, and closes.
pub struct SpanPermit {
    measured: Measured,
    /// `None`: nobody looks.
    seen: Option<Seen>,
}

struct Seen {
    span: Span,
    record: Option<Box<Line>>,
    status: Option<u16>,
    grpc: Option<u8>,
    rejection: Option<Rejection>,
    degraded: Option<Degraded>,
    head: Option<Duration>,
    over: bool,
}

impl SpanPermit {
    pub(super) fn new(measured: Measured, span: &Span, record: Option<Box<Line>>) -> Self {
        let wanted = !span.is_disabled() || record.is_some();
        let seen = || Seen {
            span: span.clone(),
            record,
            status: None,
            grpc: None,
            rejection: None,
            degraded: None,
            head: None,
            over: false,
        };
        Self { measured, seen: wanted.then(seen) }
    }
}

impl Seen {
    fn headed(&mut self) {
        if self.head.is_none() {
            self.head = self.record.as_ref().map(|record| record.age());
        }
    }

    #[cold]
    fn end(&mut self, end: End) {
        if self.over {
            return;
        }
        self.over = true;
        let span = &self.span;
        if !span.is_disabled() {
            if let Some(status) = self.status {
                span.record("http.response.status_code", status);
            }
            if let Some(code) = self.grpc {
                span.record("rpc.grpc.status_code", code);
            }
            if let Some(rejection) = self.rejection {
                span.record("error.type", rejection.reason.as_str());
            } else if matches!(end, End::Failure | End::Overload) {
                // OpenTelemetry wants the status here where there is no better name.
                match self.grpc.map(u16::from).or(self.status.filter(|status| *status >= 400)) {
                    Some(code) => span.record("error.type", tracing::field::display(code)),
                    None => span.record("error.type", "_OTHER"),
                };
            }
            span.record("outcome", end.as_str());
            if let Some(degraded) = self.degraded {
                span.record("degraded", degraded.by.as_str());
            }
        }
        if let Some(record) = &self.record {
            let Self { status, grpc, rejection, degraded, head, .. } = *self;
            span.in_scope(|| record.show(&Ended { end, status, grpc, rejection, degraded, head }));
        }
    }
}

impl Settle for SpanPermit {
    #[inline]
    fn head(&mut self) {
        self.measured.head();
    }

    const HEEDS_REFUSALS: bool = true;

    fn refused(&mut self, rejection: Rejection) {
        self.measured.refused(rejection);
        if let Some(seen) = &mut self.seen {
            seen.rejection = Some(rejection);
        }
    }

    const HEEDS_DEGRADED: bool = true;

    fn degraded(&mut self, degraded: Degraded) {
        self.measured.degraded(degraded);
        if let Some(seen) = &mut self.seen {
            seen.degraded = Some(degraded);
        }
    }

    const HEEDS_STATUS: bool = true;

    #[inline]
    fn status(&mut self, status: Status) {
        self.measured.status(status);
        if let Some(seen) = &mut self.seen {
            match status {
                Status::Http(status) => {
                    seen.status = Some(status);
                    seen.headed();
                }
                Status::Grpc(code) => seen.grpc = Some(code),
            }
        }
    }

    #[inline]
    fn conclude(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        self.measured.conclude(outcome, pushback);
        if let Some(seen) = &mut self.seen {
            seen.end(End::of(outcome));
        }
    }
}

impl Drop for SpanPermit {
    #[inline]
    fn drop(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.end(End::abandoned(abandoned()));
        }
    }
}

impl fmt::Debug for SpanPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanPermit").field("span", &self.seen.as_ref().map(|seen| &seen.span)).finish_non_exhaustive()
    }
}

pin_project! {
    /// A call in a span, which is entered whenever the call is polled, and when it is dropped.
    pub struct SpanFuture<F, K> {
        // `None`: it is dropped.
        #[pin]
        call: Option<GateFuture<F, SpanPermit, K>>,
        span: Span,
    }

    impl<F, K> PinnedDrop for SpanFuture<F, K> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _entered = this.span.enter();
            this.call.set(None);
        }
    }
}

impl<F, K> SpanFuture<F, K> {
    pub(super) fn new(inner: F, permit: SpanPermit, call: K, span: Span) -> Self {
        Self { call: Some(GateFuture::admitted(inner, permit, call)), span }
    }
}

impl<F, K, Res, Err> Future for SpanFuture<F, K>
where
    F: Future<Output = Result<Res, Err>>,
    K: Call<Res, Err>,
{
    type Output = Result<K::Response<SpanPermit, NoCut>, Err>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        this.call.as_pin_mut().expect("it is there until it is dropped").poll(cx)
    }
}

impl<F, K> fmt::Debug for SpanFuture<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanFuture").field("span", &self.span).finish_non_exhaustive()
    }
}
