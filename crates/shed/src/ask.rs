use buttress_core::{Context, Deadline, Priority};
use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::LazyLock,
};

/// One for the process: whoever asks for a tenant means the same one, in every queue.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What a call asks for: how important it is, whom it is from, by when it must be over. What is left out is taken from the
/// request's [`Context`], if it has one; else the call is [normal](Priority::Normal), nobody's in particular, and has time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// How important it is.
    pub priority: Option<Priority>,
    /// A hash of whom it is from: inside a class, tenants take turns.
    pub tenant: Option<u64>,
    /// By when it must be over.
    pub deadline: Option<Deadline>,
}

impl Ask {
    /// Nothing said.
    pub const fn new() -> Self {
        Self { priority: None, tenant: None, deadline: None }
    }

    /// It is so important.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// It is from `tenant`: an id, a name. It is hashed with a key that each process draws for itself, so that nobody can choose a name that shares
    /// the turns of another's.
    pub fn tenant(self, tenant: impl Hash) -> Self {
        self.tenant_hash(HASHER.hash_one(tenant))
    }

    /// The same by a hash of one's own, which is taken as it is: a simulation that is to do the same each time, a key that is hashed already. Where
    /// strangers choose their names the hash needs a secret key.
    pub const fn tenant_hash(mut self, hash: u64) -> Self {
        self.tenant = Some(hash);
        self
    }

    /// It must be over by then.
    pub const fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    pub(crate) fn or(self, context: Option<&Context>) -> Self {
        let Some(context) = context else { return self };
        Self {
            priority: self.priority.or(Some(context.priority)),
            deadline: self.deadline.or(context.deadline),
            ..self
        }
    }
}

/// Says what a request asks for: [`FromContext`], or a closure `Fn(&Req) -> Ask`. It is asked only where there is no room.
pub trait Describe<Req>: Send + Sync + 'static {
    /// What `req` asks for.
    fn describe(&self, req: &Req) -> Ask;
}

/// The request's [`Context`] says all there is to say. Requests without one are all alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct FromContext;

impl<Req> Describe<Req> for FromContext {
    fn describe(&self, _: &Req) -> Ask {
        Ask::new()
    }
}

impl<Req, F: Fn(&Req) -> Ask + Send + Sync + 'static> Describe<Req> for F {
    fn describe(&self, req: &Req) -> Ask {
        self(req)
    }
}
