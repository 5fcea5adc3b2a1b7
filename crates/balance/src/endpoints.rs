use crate::{Balancer, balancer::TARGET, node::Node, pick::Roster};
use arc_swap::ArcSwap;
use buttress_core::{
    Signal, Wakers,
    sync::{AtomicBool, Mutex, Ordering::AcqRel, Ordering::Acquire, lock},
};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

/// One of the services that a [`Balance`](crate::Balance) spreads calls over.
///
/// ```
/// use buttress_balance::Endpoint;
/// # let (transport, now) = ((), { use buttress_core::Clock; buttress_core::TokioClock.now() });
/// # let signal = buttress_core::Signal::new(now);
/// let endpoint = Endpoint::new("10.0.0.1:8080", transport).signal(signal);
/// assert_eq!(endpoint.name(), "10.0.0.1:8080");
/// ```
#[derive(Clone, Debug)]
pub struct Endpoint<S> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) service: S,
    signals: Vec<Signal>,
}

impl<S> Endpoint<S> {
    /// An endpoint. Its name tells it from the others: an address, usually.
    pub fn new(name: impl Into<Cow<'static, str>>, service: S) -> Self {
        Self { name: name.into(), service, signals: Vec::new() }
    }

    /// A signal that says whether it takes calls: that of its circuit breaker, of an ejector, of a limiter. There may be
    /// several.
    ///
    /// [`Signal::OPEN`] and [`Signal::EJECTED`] keep calls away until the time of the next probe, [`Signal::LIMITED`] makes it
    /// the second choice.
    pub fn signal(mut self, signal: Signal) -> Self {
        self.signals.push(signal);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same with another service around, or in place of, this one.
    pub fn map<T>(self, map: impl FnOnce(S) -> T) -> Endpoint<T> {
        Endpoint { name: self.name, service: map(self.service), signals: self.signals }
    }
}

/// The services at one moment, each at the place of its node.
pub(crate) struct Members<S> {
    pub(crate) roster: Arc<Roster>,
    pub(crate) services: Box<[S]>,
}

/// What all clones of a [`Balance`](crate::Balance) share.
pub(crate) struct Shared<S> {
    pub(crate) members: ArcSwap<Members<S>>,
    pub(crate) balancer: Arc<Balancer>,
    /// Calls that wait for an endpoint: they hear of changes among them.
    pub(crate) wakers: Wakers,
    /// Nobody has said yet which endpoints there are.
    opening: AtomicBool,
    /// Held by who changes the members.
    edit: Mutex<()>,
    #[cfg(feature = "discover")]
    pub(crate) task: Mutex<Option<crate::discover::Task>>,
}

impl<S> Shared<S> {
    pub(crate) fn new(balancer: Arc<Balancer>) -> Self {
        let members = Members { roster: Arc::default(), services: Box::default() };
        Self {
            members: ArcSwap::from_pointee(members),
            balancer,
            wakers: Wakers::default(),
            opening: AtomicBool::new(true),
            edit: Mutex::new(()),
            #[cfg(feature = "discover")]
            task: Mutex::new(None),
        }
    }

    pub(crate) fn is_opening(&self) -> bool {
        self.opening.load(Acquire)
    }

    /// It is known which endpoints there are, if any.
    pub(crate) fn opened(&self) {
        if self.opening.swap(false, AcqRel) {
            self.wakers.wake_all();
        }
    }
}

impl<S: Clone> Shared<S> {
    /// Changes the members, all at once.
    pub(crate) fn edit<T>(&self, change: impl FnOnce(&mut List<'_, S>) -> T) -> T {
        let guard = lock(&self.edit);
        let before = self.members.load_full();
        let members = before.roster.nodes.iter().cloned().zip(before.services.iter().cloned()).collect();
        let mut list = List { members, places: None, balancer: &self.balancer, changed: false, removed: Vec::new() };
        let said = change(&mut list);
        if list.changed {
            let removed = list.removed;
            let (nodes, services): (Vec<_>, Vec<_>) = list.members.into_iter().unzip();
            let is_empty = nodes.is_empty();
            let roster = Arc::new(Roster { nodes: nodes.into() });
            self.members.store(Arc::new(Members { roster: roster.clone(), services: services.into() }));
            self.balancer.enlist(roster);
            drop(guard);
            // What a service does when it goes is somebody else's code.
            drop((before, removed));
            if !is_empty {
                self.opened();
            }
            self.wakers.wake_all();
        }
        said
    }
}

/// The members while somebody changes them.
pub(crate) struct List<'a, S> {
    members: Vec<(Arc<Node>, S)>,
    /// Where each name is, once several are looked for.
    places: Option<HashMap<Cow<'static, str>, usize>>,
    balancer: &'a Balancer,
    changed: bool,
    removed: Vec<(Arc<Node>, S)>,
}

impl<S> List<'_, S> {
    /// Adds an endpoint, in the place of one with the same name. Its number.
    pub(crate) fn insert(&mut self, endpoint: Endpoint<S>) -> u32 {
        let Endpoint { name, service, signals } = endpoint;
        tracing::debug!(target: TARGET, endpoint = &*name, "endpoint added");
        let node = Arc::new(Node::new(name, signals.into(), self.balancer.tuning.clone()));
        let id = node.id;
        self.changed = true;
        let next = self.members.len();
        let members = &self.members;
        let places = self.places.get_or_insert_with(|| {
            members.iter().enumerate().map(|(place, (node, _))| (node.name.clone(), place)).collect()
        });
        match *places.entry(node.name.clone()).or_insert(next) {
            place if place < next => {
                self.removed.push(std::mem::replace(&mut self.members[place], (node, service)));
            }
            _ => self.members.push((node, service)),
        }
        id
    }

    /// Removes those of which `gone` says so. How many.
    pub(crate) fn remove(&mut self, gone: impl Fn(&Node) -> bool) -> usize {
        let (goes, stays): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.members).into_iter().partition(|(node, _)| gone(node));
        self.members = stays;
        for (node, _) in &goes {
            tracing::debug!(target: TARGET, endpoint = &*node.name, "endpoint removed");
        }
        let removed = goes.len();
        self.changed |= removed > 0;
        if removed > 0 {
            self.places = None;
        }
        self.removed.extend(goes);
        removed
    }
}

/// The endpoints of a running [`Balance`](crate::Balance): add, replace and remove them while calls run. Clones change the same.
pub struct Endpoints<S>(pub(crate) Arc<Shared<S>>);

impl<S: Clone> Endpoints<S> {
    /// Adds an endpoint. One with the same name is replaced: its calls go on to their ends, and what was known of it is
    /// forgotten.
    pub fn insert(&self, endpoint: Endpoint<S>) {
        self.0.edit(|list| list.insert(endpoint));
    }

    /// Removes the endpoint of this name; its calls go on to their ends. Whether there was one.
    pub fn remove(&self, name: &str) -> bool {
        self.0.edit(|list| list.remove(|node| node.name == name)) > 0
    }

    /// Exactly these from now on: endpoints whose names stay are replaced.
    pub fn set(&self, endpoints: impl IntoIterator<Item = Endpoint<S>>) {
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        let names: HashSet<_> = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        self.0.edit(|list| {
            list.remove(|node| !names.contains(&node.name));
            for endpoint in endpoints {
                list.insert(endpoint);
            }
        });
        self.0.opened();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.members.load().services.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<S> Clone for Endpoints<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> fmt::Debug for Endpoints<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.0.members.load();
        f.debug_list().entries(members.roster.nodes.iter().map(|node| &node.name)).finish()
    }
}
