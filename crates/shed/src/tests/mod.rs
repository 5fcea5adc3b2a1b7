//! The limiter on its own: windows, what each outcome teaches, modes, config.
mod meter;
mod outcomes;
mod policy;

use crate::limit::{Limit, Span, Window};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Keeps every window it is shown, and says what it is told to.
#[derive(Clone, Debug)]
pub(crate) struct Scribe(Arc<Mutex<Notes>>);

#[derive(Debug)]
struct Notes {
    limit: u32,
    span: Span,
    windows: Vec<Window>,
}

impl Scribe {
    pub(crate) fn new(limit: u32, calls: u32) -> Self {
        let span = Span { looks: [(calls, Duration::ZERO), (20, ms(500)), (5, ms(2_000))], until: None };
        Self(Arc::new(Mutex::new(Notes { limit, span, windows: Vec::new() })))
    }

    pub(crate) fn set_limit(&self, limit: u32) {
        self.0.lock().unwrap().limit = limit;
    }

    pub(crate) fn set_span(&self, span: Span) {
        self.0.lock().unwrap().span = span;
    }

    pub(crate) fn windows(&self) -> Vec<Window> {
        self.0.lock().unwrap().windows.clone()
    }
}

impl Limit for Scribe {
    fn limit(&self) -> u32 {
        self.0.lock().unwrap().limit
    }

    fn span(&self) -> Span {
        self.0.lock().unwrap().span
    }

    fn observe(&mut self, window: &Window) {
        self.0.lock().unwrap().windows.push(*window);
    }

    fn name(&self) -> &'static str {
        "scribe"
    }
}
