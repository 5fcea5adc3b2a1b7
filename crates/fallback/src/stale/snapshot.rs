use super::{NotStored, Stale, policy::TARGET};
use buttress_core::{
    ConfigError, Handle, Mode, Value,
    sync::{AtomicU64, Ordering::Relaxed},
};

/// What was done so far.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) stored: AtomicU64,
    pub(super) not_stored: [AtomicU64; NotStored::ALL.len()],
    pub(super) served_stale: AtomicU64,
    pub(super) served_fresh: AtomicU64,
    pub(super) spared: AtomicU64,
    pub(super) missed: AtomicU64,
    pub(super) revalidations: AtomicU64,
    pub(super) unpaid: AtomicU64,
    pub(super) freshened: AtomicU64,
    pub(super) invalidated: AtomicU64,
    pub(super) observed: AtomicU64,
}

/// What a [`Stale`] shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StaleSnapshot {
    /// Resources of which something is stored.
    pub entries: u64,
    /// What they hold, keys and headers included.
    pub bytes: u64,
    /// Bytes of answers that are being copied, heads and bodies, and are not stored yet.
    pub recording: u64,
    /// Answers that were stored.
    pub stored_total: u64,
    /// Answers to GET that were good and not stored, by the reason: in the order of [`NotStored::ALL`].
    pub not_stored_by_why: [u64; NotStored::ALL.len()],
    /// Stored answers given where the service failed, refused or was not asked, though they were stale.
    pub served_stale_total: u64,
    /// Stored answers given while they were fresh.
    pub served_fresh_total: u64,
    /// Of those, fresh and stale, the ones for which the service was not asked.
    pub spared_total: u64,
    /// Failures for which nothing stored could be given.
    pub missed_total: u64,
    /// Requests in the background.
    pub revalidations_total: u64,
    /// Requests in the background that were not made: the budget had no token.
    pub unpaid_total: u64,
    /// Stored answers that a 304 made fresh again.
    pub freshened_total: u64,
    /// Resources whose answers were thrown away: they were changed, or [purged](Stale::purge).
    pub invalidated_total: u64,
    /// Stored answers that were not given, as an operator has it so ([`Mode::Enforcing`]).
    pub observed_total: u64,
    /// What an operator told it to do.
    pub mode: Mode,
}

impl StaleSnapshot {
    /// How many answers were not stored for this reason.
    pub fn not_stored(&self, why: NotStored) -> u64 {
        self.not_stored_by_why[why as usize]
    }
}

impl Stale {
    /// What it holds and has done.
    pub fn snapshot(&self) -> StaleSnapshot {
        let Counts {
            stored,
            not_stored,
            served_stale,
            served_fresh,
            spared,
            missed,
            revalidations,
            unpaid,
            freshened,
            invalidated,
            observed,
        } = &self.counts;
        let (entries, bytes) = self.store.size();
        StaleSnapshot {
            entries,
            bytes,
            recording: self.recording.load(Relaxed),
            stored_total: stored.load(Relaxed),
            not_stored_by_why: std::array::from_fn(|i| not_stored[i].load(Relaxed)),
            served_stale_total: served_stale.load(Relaxed),
            served_fresh_total: served_fresh.load(Relaxed),
            spared_total: spared.load(Relaxed),
            missed_total: missed.load(Relaxed),
            revalidations_total: revalidations.load(Relaxed),
            unpaid_total: unpaid.load(Relaxed),
            freshened_total: freshened.load(Relaxed),
            invalidated_total: invalidated.load(Relaxed),
            observed_total: observed.load(Relaxed),
            mode: self.mode.get(),
        }
    }
}

impl Handle for Stale {
    fn kind(&self) -> &'static str {
        "stale"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        const NOT_STORED: [&str; NotStored::ALL.len()] = [
            "not_stored_status_total",
            "not_stored_range_total",
            "not_stored_no_store_total",
            "not_stored_private_total",
            "not_stored_no_cache_total",
            "not_stored_set_cookie_total",
            "not_stored_vary_total",
            "not_stored_personal_total",
            "not_stored_degraded_total",
            "not_stored_no_use_total",
            "not_stored_too_large_total",
            "not_stored_incomplete_total",
            "not_stored_trailers_total",
            "not_stored_outdated_total",
            "not_stored_busy_total",
        ];
        let snapshot = self.snapshot();
        show("entries", Value::Gauge(snapshot.entries));
        show("bytes", Value::Gauge(snapshot.bytes));
        show("recording", Value::Gauge(snapshot.recording));
        show("stored_total", Value::Count(snapshot.stored_total));
        for (name, count) in NOT_STORED.into_iter().zip(snapshot.not_stored_by_why) {
            show(name, Value::Count(count));
        }
        show("served_stale_total", Value::Count(snapshot.served_stale_total));
        show("served_fresh_total", Value::Count(snapshot.served_fresh_total));
        show("spared_total", Value::Count(snapshot.spared_total));
        show("missed_total", Value::Count(snapshot.missed_total));
        show("revalidations_total", Value::Count(snapshot.revalidations_total));
        show("unpaid_total", Value::Count(snapshot.unpaid_total));
        show("freshened_total", Value::Count(snapshot.freshened_total));
        show("invalidated_total", Value::Count(snapshot.invalidated_total));
        show("observed_total", Value::Count(snapshot.observed_total));
    }

    fn mode(&self) -> Mode {
        self.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        if mode == Mode::ForcedOpen {
            let allowed = "auto, disabled, enforcing: a stale store refuses nothing";
            return Err(ConfigError::new("mode", mode.as_str(), allowed));
        }
        self.mode.set(mode)?;
        tracing::info!(target: TARGET, stale = &*self.config().name, mode = mode.as_str(), "stale mode changed");
        Ok(())
    }
}
