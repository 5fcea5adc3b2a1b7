use super::VoteConfig;
use buttress_core::{
    ConfigError, Handle, Lease, Measure, Mode, ModeCell, Series, Striped, Value,
    sync::{AtomicU64, Ordering::Relaxed},
};
use std::{borrow::Cow, fmt, sync::Arc};

/// What a [`VoteLayer`](super::VoteLayer) has seen of its versions, and its handle.
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | asks all, and gives the answer that enough of them agree on |
/// | `Disabled` | asks the first version alone, and takes its word |
/// | `Enforcing(p)` | as `Auto`, but of the calls without enough equal answers only `p` percent are refused; the others get the answer of the first version that gave one; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
pub struct Vote {
    shared: Striped<Shared>,
}

pub(super) struct Shared {
    pub(super) config: VoteConfig,
    pub(super) need: usize,
    pub(super) mode: ModeCell,
    pub(super) versions: Vec<Version>,
    pub(super) elected: AtomicU64,
    pub(super) hung: AtomicU64,
    pub(super) passed: AtomicU64,
}

pub(super) struct Version {
    pub(super) name: Cow<'static, str>,
    pub(super) agreed: AtomicU64,
    pub(super) dissented: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) cancelled: AtomicU64,
}

/// What a [`Vote`] shows.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct VoteSnapshot {
    /// What an operator told it.
    pub mode: Mode,
    /// How many equal answers it takes.
    pub need: usize,
    /// Calls whose versions are being asked.
    pub in_flight: u64,
    /// Calls with enough equal answers.
    pub elected_total: u64,
    /// Calls without.
    pub hung_total: u64,
    /// Those of them that got an answer all the same, because a mode said so.
    pub passed_total: u64,
    /// The service inside, then the others in order.
    pub versions: Vec<VersionSnapshot>,
}

/// One version of a [`VoteSnapshot`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct VersionSnapshot {
    /// Its name.
    pub name: Cow<'static, str>,
    /// How often it gave the answer that was taken.
    pub agreed_total: u64,
    /// How often it gave another one.
    pub dissented_total: u64,
    /// How often it gave none that counts.
    pub failed_total: u64,
    /// How often nobody waited for its answer.
    pub cancelled_total: u64,
}

/// The target of events.
pub(super) const TARGET: &str = "buttress::fallback";

impl Vote {
    pub(super) fn new(config: VoteConfig, others: Vec<Cow<'static, str>>) -> Self {
        let names = [config.first.clone()].into_iter().chain(others);
        let versions: Vec<_> = names.map(Version::new).collect();
        let shared = Shared {
            need: config.need.of(versions.len()),
            config,
            mode: ModeCell::new(0),
            versions,
            elected: AtomicU64::new(0),
            hung: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        };
        Self { shared: Striped::new(shared, Striped::<()>::default_stripes()) }
    }

    pub(super) fn lease(&self) -> Arc<Lease<Shared>> {
        self.shared.lease()
    }

    /// The config.
    pub fn config(&self) -> VoteConfig {
        self.shared.config.clone()
    }

    /// All there is to know.
    pub fn snapshot(&self) -> VoteSnapshot {
        let shared = &*self.shared;
        VoteSnapshot {
            mode: shared.mode.get(),
            need: shared.need,
            in_flight: self.shared.leased() as u64,
            elected_total: shared.elected.load(Relaxed),
            hung_total: shared.hung.load(Relaxed),
            passed_total: shared.passed.load(Relaxed),
            versions: shared.versions.iter().map(Version::snapshot).collect(),
        }
    }
}

impl Version {
    fn new(name: Cow<'static, str>) -> Self {
        let [agreed, dissented, failed, cancelled] = [0; 4].map(AtomicU64::new);
        Self { name, agreed, dissented, failed, cancelled }
    }

    fn snapshot(&self) -> VersionSnapshot {
        VersionSnapshot {
            name: self.name.clone(),
            agreed_total: self.agreed.load(Relaxed),
            dissented_total: self.dissented.load(Relaxed),
            failed_total: self.failed.load(Relaxed),
            cancelled_total: self.cancelled.load(Relaxed),
        }
    }
}

impl Handle for Vote {
    fn kind(&self) -> &'static str {
        "vote"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let seen = self.snapshot();
        let sum = |read: fn(&VersionSnapshot) -> u64| Value::Count(seen.versions.iter().map(read).sum());
        show("in_flight", Value::Gauge(seen.in_flight));
        show("elected_total", Value::Count(seen.elected_total));
        show("hung_total", Value::Count(seen.hung_total));
        show("passed_total", Value::Count(seen.passed_total));
        show("dissented_total", sum(|version| version.dissented_total));
        show("failed_total", sum(|version| version.failed_total));
        show("cancelled_total", sum(|version| version.cancelled_total));
    }

    fn measure(&self, show: &mut dyn FnMut(Series<'_>)) {
        let name = &*self.shared.config.name;
        for version in self.snapshot().versions {
            for (vote, count) in [
                ("agreed", version.agreed_total),
                ("dissented", version.dissented_total),
                ("failed", version.failed_total),
                ("cancelled", version.cancelled_total),
            ] {
                show(Series {
                    family: "buttress_vote_version_calls",
                    help: "Calls of a version in a vote, by what became of its answer.",
                    labels: &[("vote", name), ("version", &version.name), ("result", vote)],
                    measure: Measure::Count(count),
                });
            }
        }
    }

    fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        if mode == Mode::ForcedOpen {
            return Err(ConfigError::new("mode", mode.as_str(), "auto, disabled, enforcing"));
        }
        self.shared.mode.set(mode)
    }
}

impl fmt::Debug for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vote").field("need", &self.shared.need).field("mode", &self.mode()).finish_non_exhaustive()
    }
}
