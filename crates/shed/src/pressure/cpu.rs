use super::{
    Source,
    cgroup::{Group, entry, number},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The share of the CPU time it may use that the process's cgroup has used since the last look.
///
/// What it may use is its quota (`cpu.max`, `cpu.cfs_quota_us`), and no more than all CPUs it may run on; a quota of a cgroup around it
/// counts with all that is in that one.
///
/// **Without a quota it is the share of all CPUs it may run on, by whomever of its cgroup they are used.** Where that is the root cgroup, as it may be outside of a
/// container, it is the whole machine: busy neighbours then are pressure, and a gate refuses normal calls of a service that is idle itself. Give the
/// process a quota; or let this source refuse sheddable calls alone, by [`.normal(None)`](super::PressureGateConfig::normal); or take
/// [`EventLoopLag`](super::EventLoopLag), which says whether *this* process suffers.
///
/// Where nothing can be read (no Linux, no cgroup) it is unknown, and so it is at the first look.
///
/// It is a mean: a process that uses up its quota at the beginning of each period is stopped for the rest of it, though the mean may be low.
#[derive(Debug)]
pub struct CpuPressure {
    root: PathBuf,
    cpus: f64,
    groups: Option<Groups>,
    last: Option<Last>,
}

/// The old hierarchy counts and limits in two places, which mostly are one.
#[derive(Debug)]
struct Groups {
    usage: Group,
    quota: Group,
}

#[derive(Debug)]
struct Last {
    at: Instant,
    /// Nanoseconds of CPU time, of each level.
    used: Vec<Option<u64>>,
    pressure: Option<f64>,
}

/// Between looks that are closer than this the counters do not move evenly.
const CLOSEST: Duration = Duration::from_millis(1);

impl CpuPressure {
    /// Of this process.
    pub fn new() -> Self {
        Self::under("/")
    }

    /// The same with `/proc` and all that it names below `root`.
    pub fn under(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let cpus = allowed_cpus(&root).unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        Self { root, cpus: cpus as f64, groups: None, last: None }
    }
}

impl Default for CpuPressure {
    fn default() -> Self {
        Self::new()
    }
}

impl Source for CpuPressure {
    fn look(&mut self, now: Instant) -> Option<f64> {
        if let Some(last) = &self.last
            && now.saturating_duration_since(last.at) < CLOSEST
        {
            return last.pressure;
        }
        if self.groups.is_none() {
            self.groups = Groups::find(&self.root);
        }
        let groups = self.groups.as_ref()?;
        let used = groups.used();
        let last = self.last.take();
        if used.first().copied().flatten().is_none() {
            // The process was moved, perhaps: looked for again next time.
            self.groups = None;
            return None;
        }
        let pressure = last.and_then(|last| groups.pressure(&last, &used, now, self.cpus));
        self.last = Some(Last { at: now, used, pressure });
        pressure
    }
}

impl Groups {
    fn find(root: &Path) -> Option<Self> {
        let quota = Group::find(root, "cpu")?;
        let usage = if quota.is_v2 { quota.clone() } else { Group::find(root, "cpuacct")? };
        Some(Self { usage, quota })
    }

    fn used(&self) -> Vec<Option<u64>> {
        let used = |level: &PathBuf| match self.usage.is_v2 {
            true => entry(level.join("cpu.stat"), "usage_usec").map(|micros| micros.saturating_mul(1000)),
            false => number(level.join("cpuacct.usage")),
        };
        self.usage.levels.iter().map(used).collect()
    }

    /// Of the CPU time of each level, the largest share.
    fn pressure(&self, last: &Last, used: &[Option<u64>], now: Instant, cpus: f64) -> Option<f64> {
        let elapsed = now.saturating_duration_since(last.at).as_nanos() as f64;
        let quotas =
            self.quota.levels.iter().map(|level| if self.quota.is_v2 { quota_v2(level) } else { quota_v1(level) });
        let shares =
            quotas.zip(used.iter().zip(&last.used)).enumerate().filter_map(|(level, (quota, (used, before)))| {
                let may_use = match (level, quota) {
                    (0, quota) => quota.unwrap_or(cpus).min(cpus),
                    (_, quota) => quota?,
                };
                Some((*used)?.saturating_sub((*before)?) as f64 / (elapsed * may_use))
            });
        shares.reduce(f64::max)
    }
}

/// How many CPUs the process may run on: [proc_pid_status(5)](https://man7.org/linux/man-pages/man5/proc_pid_status.5.html). Not what std
/// says, which counts a quota as well, and in whole CPUs: 1.9 would be 1.
fn allowed_cpus(root: &Path) -> Option<usize> {
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.trim().split(',').try_fold(0_usize, |sum, range| sum.checked_add(count(range)?))
}

/// In CPUs: `max 100000`, `50000 100000`.
fn quota_v2(level: &Path) -> Option<f64> {
    let text = fs::read_to_string(level.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    cpus(quota.parse().ok()?, period.parse().ok()?)
}

/// In CPUs; a quota of -1 is none.
fn quota_v1(level: &Path) -> Option<f64> {
    cpus(number(level.join("cpu.cfs_quota_us"))?, number(level.join("cpu.cfs_period_us"))?)
}

fn cpus(quota: u64, period: u64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}
