//! A row of the table: a service, what it must do, and how to see that nothing of it is left behind.

use crate::traffic::{Caller, Calls, Inner, Nothing, Reads, Script, Switch, Traffic, assert_cut_off, switch};
use std::{
    any::Any,
    future::Future,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Waker},
    time::Duration,
};
use tokio::runtime::Handle;
use tower::Service;

/// Whose layer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The service without a layer: what every row is compared with.
    Bare,
    Buttress,
    Tower,
    TowerResilience,
}

impl Who {
    /// Its name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Buttress => "buttress",
            Self::Tower => "tower",
            Self::TowerResilience => "tower-resilience",
        }
    }
}

/// What becomes of each measured call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Admitted,
    Refused,
}

/// How the inner service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Ready,
    Suspends,
}

impl Path {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ready, Self::Suspends];

    /// Its name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Suspends => "suspends",
        }
    }

    fn script(self) -> Script {
        match self {
            Self::Ready => Script::Ready,
            Self::Suspends => Script::Suspends,
        }
    }
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Title {
    pub case: &'static str,
    pub config: &'static str,
    pub who: Who,
}

/// One row.
pub struct Contestant {
    pub title: Title,
    pub protocol: &'static str,
    pub path: Path,
    pub fate: Fate,
    /// Clones of one service, which share its state: one for each thread.
    pub callers: Vec<Box<dyn Caller>>,
    rest: Box<dyn Fn()>,
    /// Calls that fill the layer while others are refused.
    held: Vec<Box<dyn Any>>,
}

impl Contestant {
    /// Asserts that nothing is left behind once all calls are over and their services gone.
    pub fn assert_at_rest(&mut self) {
        self.callers.clear();
        self.held.clear();
        (self.rest)();
    }
}

/// The rows that share a protocol and a path.
pub struct Field<'a, T> {
    path: Path,
    rows: &'a mut Vec<Contestant>,
    traffic: std::marker::PhantomData<fn() -> T>,
}

impl<'a, T: Traffic + Reads<T::Response>> Field<'a, T> {
    /// Adds to `rows`.
    pub fn new(path: Path, rows: &'a mut Vec<Contestant>) -> Self {
        Self { path, rows, traffic: std::marker::PhantomData }
    }

    /// The services that all others are compared with.
    pub fn bare(&mut self) {
        let title = |case| Title { case, config: "-", who: Who::Bare };
        self.admitted(title("bare"), |inner| (inner, || ()));
        if self.path == Path::Ready {
            self.push(title("bare-refusal"), Fate::Refused, Nothing::<T>::new(), || (), Vec::new());
        }
    }

    /// A service that lets every call through. `build` gives it and an assertion that no permit is out.
    pub fn admitted<S, R>(&mut self, title: Title, build: impl FnOnce(Inner<T>) -> (S, R))
    where
        S: Service<T::Request> + Clone + Send + 'static,
        T: Reads<S::Response>,
        R: Fn() + 'static,
    {
        let (service, rest) = build(Inner::new(switch(self.path.script())));
        self.push(title, Fate::Admitted, service, rest, Vec::new());
    }

    /// A service that has seen so many failures in a row that it lets nothing through. Refusals never reach the inner service,
    /// so they have one path only.
    pub fn tripped<S, R>(&mut self, title: Title, build: impl FnOnce(Inner<T>) -> (S, R))
    where
        S: Service<T::Request> + Clone + Send + 'static,
        T: Reads<S::Response>,
        R: Fn() + 'static,
    {
        const FAILURES: u64 = 10_000;
        if self.path != Path::Ready {
            return;
        }
        let switch = switch(Script::Fails);
        let (service, rest) = build(Inner::new(switch));
        assert_eq!(Calls::<T, S>::new(service.clone()).run(FAILURES), 0, "{title:?}: every call fails");
        set(switch, Script::Ready);
        self.push(title, Fate::Refused, service, rest, Vec::new());
    }

    /// A service behind which every call fails, and that has seen so many failures that it lets nearly nothing through.
    pub fn failing<S, R>(&mut self, title: Title, build: impl FnOnce(Inner<T>) -> (S, R))
    where
        S: Service<T::Request> + Clone + Send + 'static,
        T: Reads<S::Response>,
        R: Fn() + 'static,
    {
        if self.path == Path::Ready {
            let (service, rest) = build(Inner::new(switch(Script::Fails)));
            Calls::<T, S>::new(service.clone()).run(10_000);
            self.push(title, Fate::Refused, service, rest, Vec::new());
        }
    }

    /// A service with room for one call, which is taken.
    pub fn full<S, R>(&mut self, title: Title, build: impl FnOnce(Inner<T>) -> (S, R))
    where
        S: Service<T::Request, Future: 'static> + Clone + Send + 'static,
        T: Reads<S::Response>,
        R: Fn() + 'static,
    {
        if self.path != Path::Ready {
            return;
        }
        let switch = switch(Script::Suspends);
        let (service, rest) = build(Inner::new(switch));
        let mut cx = Context::from_waker(Waker::noop());
        let mut holder = service.clone();
        assert!(holder.poll_ready(&mut cx).is_ready());
        let mut call = Box::pin(holder.call(T::request()));
        assert!(call.as_mut().poll(&mut cx).is_pending(), "{title:?}: the first call is admitted and waits");
        set(switch, Script::Ready);
        self.push(title, Fate::Refused, service, rest, vec![Box::new((call, holder))]);
    }

    /// A service that ends calls after `Duration`: a short one must end a call that hangs, a long one is measured.
    pub fn timed<S>(&mut self, title: Title, build: impl Fn(Inner<T>, Duration) -> S)
    where
        S: Service<T::Request> + Clone + Send + 'static,
        T: Reads<S::Response>,
    {
        let short = build(Inner::new(switch(Script::Hangs)), Duration::from_millis(1));
        Handle::current().block_on(assert_cut_off::<T, S>(short));
        self.admitted(title, |inner| (build(inner, Duration::from_secs(30)), || ()));
    }

    fn push<S>(&mut self, title: Title, fate: Fate, service: S, rest: impl Fn() + 'static, held: Vec<Box<dyn Any>>)
    where
        S: Service<T::Request> + Clone + Send + 'static,
        T: Reads<S::Response>,
    {
        let caller = |service| Box::new(Calls::<T, S>::new(service)) as Box<dyn Caller>;
        self.rows.push(Contestant {
            title,
            protocol: T::PROTOCOL,
            path: self.path,
            fate,
            callers: vec![caller(service.clone()), caller(service)],
            rest: Box::new(rest),
            held,
        });
    }
}

fn set(switch: Switch, script: Script) {
    switch.store(script as u8, Relaxed);
}
