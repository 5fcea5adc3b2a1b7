use super::{
    Source,
    cgroup::{Group, entry, number},
};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// The share of the memory it may use that the process's cgroup uses, without file pages that were not used lately: those go before anything is killed.
///
/// What it may use is its limit (`memory.max`, `memory.limit_in_bytes`) or that of a cgroup around it, whichever is closer. Without a limit it is
/// the machine's memory, used by whomever. Where nothing can be read (no Linux) it is unknown.
#[derive(Debug)]
pub struct MemoryPressure {
    root: PathBuf,
    group: Option<Group>,
}

impl MemoryPressure {
    /// Of this process.
    pub fn new() -> Self {
        Self::under("/")
    }

    /// The same with `/proc` and all that it names below `root`.
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), group: None }
    }
}

impl Default for MemoryPressure {
    fn default() -> Self {
        Self::new()
    }
}

impl Source for MemoryPressure {
    fn look(&mut self, _: Instant) -> Option<f64> {
        let meminfo = self.root.join("proc/meminfo");
        let total = entry(meminfo.clone(), "MemTotal").and_then(|kib| kib.checked_mul(1024)).filter(|total| *total > 0);
        // Who has no limit has one that is larger than any machine, in the old hierarchy.
        let most = total.unwrap_or(u64::MAX);
        if self.group.as_ref().is_none_or(|group| !group.levels[0].is_dir()) {
            self.group = Group::find(&self.root, "memory");
        }
        let shares = self.group.iter().flat_map(|group| {
            group
                .levels
                .iter()
                .filter_map(move |level| if group.is_v2 { share_v2(level, most) } else { share_v1(level, most) })
        });
        shares.reduce(f64::max).or_else(|| {
            let free = entry(meminfo, "MemAvailable")?.checked_mul(1024)?;
            Some(total?.saturating_sub(free) as f64 / total? as f64)
        })
    }
}

fn share_v2(level: &Path, most: u64) -> Option<f64> {
    let limit = number(level.join("memory.max"))?;
    let used = number(level.join("memory.current"))?;
    share(used, entry(level.join("memory.stat"), "inactive_file"), limit, most)
}

fn share_v1(level: &Path, most: u64) -> Option<f64> {
    let limit = number(level.join("memory.limit_in_bytes"))?;
    let used = number(level.join("memory.usage_in_bytes"))?;
    share(used, entry(level.join("memory.stat"), "total_inactive_file"), limit, most)
}

fn share(used: u64, inactive: Option<u64>, limit: u64, most: u64) -> Option<f64> {
    (limit > 0 && limit < most).then(|| used.saturating_sub(inactive.unwrap_or(0)) as f64 / limit as f64)
}
