//! What happens when: the faults of every endpoint, and what is said about them.

use super::overload;
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// What an endpoint does to its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Answers, but after any caller's patience.
    Slow,
    /// Answers 503 to everything; a canary 500.
    Errors,
    /// Nobody listens.
    Refuses,
    /// Takes calls and never answers.
    Hangs,
    /// Sends half of what it has declared, and closes the connection.
    Cuts,
    /// All workers but one are gone, that one is slow, and the queue is short.
    Overload,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Slow, Self::Errors, Self::Refuses, Self::Hangs, Self::Cuts, Self::Overload];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Slow => "slow",
            Self::Errors => "errors",
            Self::Refuses => "refuses",
            Self::Hangs => "hangs",
            Self::Cuts => "cuts bodies",
            Self::Overload => "overloaded",
        })
    }
}

/// A fault, from one share of the demo to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) fault: Fault,
}

const fn scene(from: f64, to: f64, fault: Fault) -> Scene {
    Scene { from, to, fault }
}

/// An endpoint and what becomes of it.
#[derive(Debug)]
pub(crate) struct Role {
    /// Of its cluster.
    pub(crate) cluster: &'static str,
    pub(crate) name: &'static str,
    scenes: &'static [Scene],
}

/// Every endpoint that clients are to reach. One of each cluster works at any time, but for [`DOWN`]; and has worked for
/// [`REST`] when another begins to fail.
pub(crate) const CAST: [Role; 8] = [
    Role { cluster: "a", name: "a/1", scenes: &[scene(0.06, 0.24, Fault::Errors), scene(0.50, 0.70, Fault::Hangs)] },
    Role { cluster: "a", name: "a/2", scenes: &[scene(0.18, 0.36, Fault::Cuts), scene(0.62, 0.80, Fault::Refuses)] },
    Role { cluster: "a", name: "a/3", scenes: &[scene(0.30, 0.48, Fault::Slow), scene(0.76, 0.90, Fault::Errors)] },
    Role {
        cluster: "b",
        name: "b/1",
        scenes: &[scene(0.08, 0.26, Fault::Refuses), scene(0.50, 0.68, Fault::Overload)],
    },
    Role { cluster: "b", name: "b/2", scenes: &[scene(0.20, 0.40, Fault::Hangs), scene(0.74, 0.90, Fault::Slow)] },
    Role {
        cluster: "b",
        name: "b/3",
        scenes: &[scene(0.04, 0.13, Fault::Errors), scene(0.36, 0.56, Fault::Errors), scene(0.62, 0.76, Fault::Cuts)],
    },
    Role {
        cluster: "c",
        name: "c/1",
        scenes: &[scene(0.08, 0.26, Fault::Overload), DOWN, scene(0.62, 0.77, Fault::Errors)],
    },
    Role {
        cluster: "c",
        name: "c/2",
        scenes: &[DOWN, scene(0.40, 0.57, Fault::Errors), scene(0.82, 0.90, Fault::Refuses)],
    },
];

/// A new version of `a`, of which some calls are to show whether it is any good.
pub(crate) const CANARY: Role = Role { cluster: "a-next", name: "a-next", scenes: &[scene(0.54, 0.93, Fault::Errors)] };

/// How long a breaker may stay open after the fault is over.
pub(crate) const REST: f64 = 0.05;

/// No endpoint of `c` works.
const DOWN: Scene = scene(0.29, 0.3475, Fault::Errors);

/// When many ask `b` for reports at once.
pub(crate) const BURST: (f64, f64) = (0.45, 0.48);

/// What is said, from when on, with protection and without; none is longer than a line.
const CAPTIONS: [(f64, &str, &str); 13] = [
    (0.0, "Every endpoint answers in a few milliseconds.", "Every endpoint answers in a few milliseconds."),
    (
        0.06,
        "a/1 says 503, b/1 refuses, c/1 drowns: their neighbours take the calls.",
        "a/1 says 503, b/1 refuses, c/1 drowns: whoever is sent there has bad luck.",
    ),
    (0.18, "a/2 cuts its bodies short: what a client has half seen nobody can repeat.", "a/2 cuts its bodies short."),
    (
        0.24,
        "b/2 hangs: deadlines cut calls off, then its breaker keeps them away.",
        "b/2 hangs: its clients wait until they give up.",
    ),
    (
        0.29,
        "All of c is down: readers get its last answers, marked, and extras go off.",
        "All of c is down for a moment.",
    ),
    (
        0.37,
        "A third of a is slow, a third of b and soon half of c fails.",
        "A third of a is slow, a third of b and soon half of c fails.",
    ),
    (0.45, "Many want reports from b at once: a bulkhead lets eight of them in.", "Many want reports from b at once."),
    (0.50, "a/1 hangs, b/1 is overloaded: tried now and then, else left alone.", "a/1 hangs, b/1 is overloaded."),
    (0.54, "a-next, a canary, says 500 to all, and soon gets no calls any more.", "a/1 hangs, b/1 is overloaded."),
    (
        0.62,
        "Five of eight endpoints fail, each in its way: three carry everything.",
        "Five of eight endpoints fail, each in its way.",
    ),
    (0.70, "Whoever works again gets calls again: probes find out.", "Some work again, others fail."),
    (
        overload::SCENE.0,
        "Three times what d can do comes in: what matters least is shed first.",
        "Three times what d can do comes in, and all of it waits.",
    ),
    (0.90, "Every endpoint works again, and the last breakers close.", "Every endpoint works again."),
];

impl Role {
    /// What it does to callers at this share of the demo.
    pub(crate) fn fault(&self, share: f64) -> Option<Fault> {
        self.scenes.iter().find(|scene| (scene.from..scene.to).contains(&share)).map(|scene| scene.fault)
    }

    /// When what it does changes next.
    pub(crate) fn next_change(&self, share: f64) -> Option<f64> {
        self.scenes.iter().flat_map(|scene| [scene.from, scene.to]).find(|change| *change > share)
    }
}

/// What is said at this share of the demo.
pub(crate) fn caption(share: f64, protection: bool) -> &'static str {
    let scene = CAPTIONS.iter().rfind(|(from, ..)| *from <= share);
    scene.map_or("", |(_, with, without)| if protection { with } else { without })
}

/// When the demo began and how long it goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) start: Instant,
    pub(crate) length: Duration,
}

impl Stage {
    pub(crate) fn at(&self, share: f64) -> Instant {
        self.start + self.length.mul_f64(share)
    }

    pub(crate) fn end(&self) -> Instant {
        self.at(1.0)
    }

    pub(crate) fn share(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.start).as_secs_f64() / self.length.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares() -> impl Iterator<Item = f64> {
        (0..1000).map(|i| f64::from(i) / 1000.0)
    }

    #[test]
    fn scenes_come_in_order_and_all_is_well_before_and_after() {
        for role in CAST.iter().chain([&CANARY]) {
            let times: Vec<f64> = role.scenes.iter().flat_map(|scene| [scene.from, scene.to]).collect();
            assert!(times.is_sorted(), "{}", role.name);
            assert_eq!((role.fault(0.0), role.fault(0.95)), (None, None), "{}", role.name);
        }
    }

    #[test]
    fn one_endpoint_of_each_cluster_works_but_in_the_outage() {
        for share in shares() {
            for cluster in ["a", "b", "c"] {
                let works = CAST.iter().any(|role| role.cluster == cluster && role.fault(share).is_none());
                let out = cluster == "c" && (DOWN.from..DOWN.to).contains(&share);
                assert_eq!(works, !out, "{cluster} at {share}");
            }
        }
    }

    #[test]
    fn one_that_works_has_had_its_rest_when_another_begins_to_fail() {
        for role in &CAST {
            for scene in role.scenes.iter().filter(|scene| scene.from != DOWN.from) {
                let rested = |other: &&Role| {
                    let times = [scene.from, scene.from - REST / 2.0, scene.from - REST + 0.001];
                    times.iter().all(|at| other.fault(*at).is_none())
                };
                let others = CAST.iter().filter(|other| other.cluster == role.cluster && other.name != role.name);
                assert!(others.into_iter().any(|other| rested(&other)), "{} at {}", role.name, scene.from);
            }
        }
    }

    #[test]
    fn more_than_a_third_of_all_is_faulty_and_every_fault_is_shown() {
        let faults: Vec<Fault> = CAST.iter().flat_map(|role| shares().filter_map(|at| role.fault(at))).collect();
        assert!(faults.len() * 3 > 1000 * CAST.len(), "{}", faults.len());
        assert!(Fault::ALL.iter().all(|fault| faults.contains(fault)));
    }

    #[test]
    fn captions_fit_a_line_and_come_in_order() {
        assert!(CAPTIONS.iter().all(|(_, with, without)| with.len().max(without.len()) <= 76));
        assert!(CAPTIONS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(caption(0.34, true).starts_with("All of c"));
    }
}
