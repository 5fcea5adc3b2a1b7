//! What a balancer knows of one endpoint, whatever its service is.

use crate::{
    load::{Load, Tuning},
    now::Now,
};
use buttress_core::{Clock, Signal};
use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Instant,
};

/// One endpoint. What a pick reads comes first, and is one cache line: with many endpoints each is a miss.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Node {
    pub(crate) load: Load,
    pub(crate) signals: Box<[Signal]>,
    pub(crate) tuning: Arc<Tuning>,
    /// Its number in [`Tried`](buttress_core::Tried): no two endpoints of a process have the same.
    pub(crate) id: u32,
    pub(crate) name: Cow<'static, str>,
    /// It was removed: who waits for it looks elsewhere.
    gone: AtomicBool,
}

/// Whether an endpoint takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// Its circuit is open, and the time for a probe has come.
    Due,
    /// Its circuit is open, or it is ejected.
    Shut,
}

const SHUT: u16 = Signal::OPEN | Signal::EJECTED;

impl Node {
    pub(crate) fn new(name: Cow<'static, str>, signals: Box<[Signal]>, tuning: Arc<Tuning>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Relaxed);
        Self { load: Load::new(), id, tuning, signals, name, gone: AtomicBool::new(false) }
    }

    /// An open circuit stays open until a call comes, so one whose time has come must get one.
    #[inline]
    pub(crate) fn state<C: Clock>(&self, now: &Now<C>) -> State {
        let mut state = State::Open;
        for signal in &self.signals {
            if signal.is(SHUT) {
                if signal.until() > now.exact() {
                    return State::Shut;
                }
                state = State::Due;
            }
        }
        state
    }

    /// When it may take calls again: the last of its signals decides.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.signals.iter().filter(|signal| signal.is(SHUT)).map(Signal::until).max()
    }

    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.signals.iter().any(|signal| signal.is(Signal::LIMITED))
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    pub(crate) fn remove(&self) {
        self.gone.store(true, Relaxed);
    }
}
