//! What the layers did, read from their handles as any status page reads them.

use crate::proxy::Gateway;
use buttress::{Handle, Value};
use std::{fmt, sync::Arc};

/// An upstream and its route.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    A,
    B,
    C,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What the layers around one upstream did in some time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acts {
    /// The states of the breaker, in order, from the one at the start.
    pub(crate) states: Vec<&'static str>,
    /// Calls that the open breaker refused.
    pub(crate) refused: u64,
    /// Calls that a full bulkhead refused.
    pub(crate) full: u64,
    /// Calls that the deadline cut off.
    pub(crate) cut: u64,
    /// Further attempts that were made.
    pub(crate) retried: u64,
    /// Further attempts that the budget did not pay for.
    pub(crate) denied: u64,
}

impl Acts {
    /// Whether the breaker came into `state` from another one.
    pub(crate) fn became(&self, state: &str) -> bool {
        self.states.iter().skip(1).any(|s| *s == state)
    }

    /// What followed.
    pub(crate) fn add(&mut self, later: &Self) {
        let fresh = later.states.iter().skip(usize::from(!self.states.is_empty()));
        self.states.extend(fresh);
        self.refused += later.refused;
        self.full += later.full;
        self.cut += later.cut;
        self.retried += later.retried;
        self.denied += later.denied;
    }
}

impl fmt::Display for Acts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let path = self.states.join(">").replace("half_open", "half");
        // A row has room for so much.
        let room = if self.full > 0 && self.cut > 0 { 14 } else { 20 };
        match self.states.as_slice() {
            ["closed"] | [] => {}
            [first, .., last] if path.len() > room => {
                parts.push(format!("{first}>..>{last}").replace("half_open", "half"))
            }
            _ => parts.push(path),
        }
        for (count, what) in [
            (self.refused, "refused"),
            (self.full, "full"),
            (self.cut, "cut"),
            (self.retried, "retried"),
            (self.denied, "denied"),
        ] {
            if count > 0 {
                parts.push(format!("{what} {count}"));
            }
        }
        f.write_str(&parts.join(", "))
    }
}

/// Watches the layers around one upstream, those that there are.
pub(crate) struct Watch {
    breaker: Option<Arc<dyn Handle>>,
    bulkhead: Option<Arc<dyn Handle>>,
    deadline: Option<Arc<dyn Handle>>,
    retry: Option<Arc<dyn Handle>>,
    states: Vec<&'static str>,
    /// The counts when they were last asked: refused, full, cut, retried, denied.
    last: [u64; 5],
}

impl Watch {
    pub(crate) fn new(gateway: &Gateway, side: Side) -> Self {
        let of_upstream = |layer| gateway.controls().registry.get(&format!("cluster.{}.{layer}", side.name()));
        Self {
            breaker: of_upstream("breaker"),
            bulkhead: of_upstream("bulkhead"),
            deadline: of_upstream("deadline"),
            retry: gateway.controls().registry.get(&format!("route.{}.retry", side.name())),
            states: Vec::new(),
            last: [0; 5],
        }
    }

    /// Looks at the breaker; often, so that a short visit to a state is not missed.
    pub(crate) fn sample(&mut self) {
        if let Some(Value::State(state, _)) = reading(&self.breaker, "state")
            && self.states.last() != Some(&state)
        {
            self.states.push(state);
        }
    }

    /// What happened since this was last asked.
    pub(crate) fn take(&mut self) -> Acts {
        self.sample();
        let now = [
            count(&self.breaker, "refused_total"),
            count(&self.bulkhead, "refused_total"),
            count(&self.deadline, "passed_total"),
            count(&self.retry, "retries_total"),
            count(&self.retry, "gave_up_budget_empty_total"),
        ];
        let [refused, full, cut, retried, denied] = std::array::from_fn(|i| now[i] - self.last[i]);
        self.last = now;
        let last = self.states.last().copied();
        let states = std::mem::replace(&mut self.states, last.into_iter().collect());
        Acts { states, refused, full, cut, retried, denied }
    }
}

fn reading(handle: &Option<Arc<dyn Handle>>, wanted: &str) -> Option<Value> {
    let mut found = None;
    handle.as_ref()?.visit(&mut |name, value| {
        if name == wanted {
            found = Some(value);
        }
    });
    found
}

fn count(handle: &Option<Arc<dyn Handle>>, wanted: &str) -> u64 {
    match reading(handle, wanted) {
        Some(Value::Count(n)) => n,
        _ => 0,
    }
}
