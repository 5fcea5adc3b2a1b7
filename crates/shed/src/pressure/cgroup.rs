//! Where the process's cgroup is: [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html).

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// The directories of one controller of the process's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) is_v2: bool,
    /// Its own and those of its parents as far as they are seen: a limit of any of them is a limit.
    pub(super) levels: Vec<PathBuf>,
}

impl Group {
    /// The cgroup in which `controller` counts this process, below `root`; `None` where there is none.
    pub(super) fn find(root: &Path, controller: &str) -> Option<Self> {
        let cgroups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
        // In a hybrid tree a controller is in the old hierarchy or in the new one, and the old one says so.
        let old = member(&cgroups, |controllers| controllers.split(',').any(|one| one == controller));
        let old = old.and_then(|path| Some((path, mount(&mounts, Some(controller))?, false)));
        let new = || Some((member(&cgroups, str::is_empty)?, mount(&mounts, None)?, true));
        let (path, mount, is_v2) = old.or_else(new)?;
        Some(Self { is_v2, levels: levels(root, &path, &mount) })
    }
}

/// The path of the process in the hierarchy whose controllers are these: `4:cpu,cpuacct:/user.slice`.
fn member(cgroups: &str, is_it: impl Fn(&str) -> bool) -> Option<PathBuf> {
    cgroups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        is_it(controllers).then(|| PathBuf::from(path))
    })
}

struct Mount {
    /// What part of the hierarchy is mounted.
    root: PathBuf,
    at: PathBuf,
}

/// Where the hierarchy of `controller` is mounted, or the new one: [proc_pid_mountinfo(5)](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html).
fn mount(mounts: &str, controller: Option<&str>) -> Option<Mount> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let kind = filesystem.next()?;
        let is_it = match controller {
            None => kind == "cgroup2",
            Some(controller) => kind == "cgroup" && filesystem.nth(1)?.split(',').any(|option| option == controller),
        };
        let mut fields = mount.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        is_it.then(|| Mount { root: root.into(), at: at.into() })
    })
}

/// The directory of `path` and its parents, up to where the hierarchy is mounted.
fn levels(root: &Path, path: &Path, mount: &Mount) -> Vec<PathBuf> {
    let at = root.join(mount.at.strip_prefix("/").unwrap_or(&mount.at));
    // In a container the path may lie outside of what is mounted (`/../..`), or be the host's name for what is mounted as the root.
    let inside = path.strip_prefix(&mount.root).unwrap_or(Path::new(""));
    let inside =
        if inside.components().all(|part| matches!(part, Component::Normal(_))) { inside } else { Path::new("") };
    let own = at.join(inside);
    let own = if own.is_dir() { own } else { at.clone() };
    own.ancestors().take_while(|level| level.starts_with(&at)).map(Path::to_owned).collect()
}

/// A file that is one number. `max` and other words are none.
pub(super) fn number(path: PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number of `key` in a file of keys and numbers: `usage_usec 1234`, `MemTotal:  1234 kB`.
pub(super) fn entry(path: PathBuf, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()?.trim_end_matches(':') == key).then(|| words.next()?.parse().ok())?
    })
}
