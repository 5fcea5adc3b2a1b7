use buttress_core::{Clock, TokioClock, http::Upload};
use std::{
    task::Context,
    time::{Duration, Instant},
};

/// How long a call has waited for its own client to send the rest of the request.
pub(crate) struct Client {
    upload: Upload,
    /// When it was first waited for.
    first: Option<Instant>,
    /// Since when it is waited for now.
    since: Option<Instant>,
    waited: Duration,
}

impl Client {
    pub(crate) fn new(upload: Upload) -> Self {
        Self { upload, first: None, since: None, waited: Duration::ZERO }
    }

    /// The call is not ready; when it begins or ends to wait for its client, it is polled again.
    pub(crate) fn look(&mut self, cx: &Context<'_>) {
        match (self.upload.waits(cx), self.since) {
            (true, None) => {
                let now = TokioClock.now();
                self.first.get_or_insert(now);
                self.since = Some(now);
            }
            (false, Some(since)) => {
                self.waited += TokioClock.now().saturating_duration_since(since);
                self.since = None;
            }
            _ => {}
        }
    }

    /// Whether it is the client's doing that the call is not over at `end`: it is waited for now, or for more than half of the
    /// time since it first was.
    pub(crate) fn excuses(&self, end: Option<Instant>) -> bool {
        let whole = self.first.zip(end).map(|(first, end)| end.saturating_duration_since(first));
        self.upload.is_waiting() || whole.is_some_and(|whole| self.waited > whole / 2)
    }
}
