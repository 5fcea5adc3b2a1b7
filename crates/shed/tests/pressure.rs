//! Pressure: its sources in trees of files made up, and what heeds it.

use buttress_core::{Admit, Fresh, Handle, Measure, Mode, Priority, Reason, Signal, Value};
use buttress_fallback::LevelsConfig;
use buttress_shed::pressure::{
    CpuPressure, EventLoopLag, MemoryPressure, Pressure, PressureConfig, PressureGateConfig, QueueWait, Scaled, Source,
    Threshold,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn epoch() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A root of files, gone when it is dropped.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn v2(name: &str, path: &str) -> Self {
        let tree = Self::new(name);
        tree.file("proc/self/cgroup", &format!("0::{path}\n"));
        tree.file("proc/self/mountinfo", "30 23 0:26 / /proc rw - proc proc rw\n31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        tree.file("proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:   4096 kB\n");
        tree
    }

    fn v1(name: &str) -> Self {
        let tree = Self::new(name);
        tree.file("proc/self/cgroup", "6:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n0::/job\n");
        tree.file("proc/self/mountinfo", "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        tree.file("proc/meminfo", "MemTotal:       16384 kB\nMemAvailable:   4096 kB\n");
        tree
    }

    fn cpu(&self, cpus: usize) -> CpuPressure {
        self.file("proc/self/status", &format!("Name:\ttest\nCpus_allowed:\tf\nCpus_allowed_list:\t0-{}\n", cpus - 1));
        CpuPressure::under(&self.0)
    }

    fn memory(&self) -> Option<f64> {
        MemoryPressure::under(&self.0).look(epoch())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// To a thousandth.
fn about(seen: Option<f64>, wanted: f64) {
    assert!(seen.is_some_and(|seen| (seen - wanted).abs() < 0.001), "{seen:?} is not {wanted}");
}

#[test]
fn cpu_of_a_v2_cgroup_is_its_time_of_its_quota() {
    let tree = Tree::v2("cpu-v2", "/job");
    tree.file("sys/fs/cgroup/job/cpu.max", "50000 100000\n");
    let used = |micros: u64| {
        tree.file("sys/fs/cgroup/job/cpu.stat", &format!("usage_usec {micros}\nuser_usec 1\nnr_throttled 0\n"));
    };
    used(1_000_000);
    let (mut cpu, start) = (tree.cpu(4), epoch());
    assert_eq!(cpu.look(start), None, "nothing to compare with");
    used(1_250_000);
    about(cpu.look(start + S), 0.5);
    about(cpu.look(start + S + Duration::from_micros(10)), 0.5);
    used(1_750_000);
    about(cpu.look(start + 2 * S), 1.0);
    used(10);
    about(cpu.look(start + 3 * S), 0.0);
    // Without a quota of its own it is of all CPUs.
    tree.file("sys/fs/cgroup/job/cpu.max", "max 100000\n");
    used(2_000_010);
    about(cpu.look(start + 4 * S), 0.5);
    // A quota above what there is to run on says nothing.
    tree.file("sys/fs/cgroup/job/cpu.max", "800000 100000\n");
    used(4_000_010);
    about(cpu.look(start + 5 * S), 0.5);
}

#[test]
fn a_quota_that_is_no_whole_number_of_cpus_is_not_cut_to_one() {
    let start = epoch();
    for (cpus_allowed, quota, wanted) in
        [("0-3", 190_000, 0.5), ("0-3", 150_000, 0.95 / 1.5), ("0,2-3", 400_000, 0.95 / 3.0), ("5", 190_000, 0.95)]
    {
        let tree = Tree::v2("cpu-fraction", "/job");
        tree.file(
            "proc/self/status",
            &format!("Name:\tx\nCpus_allowed_list:\t{cpus_allowed}\nMems_allowed_list:\t0\n"),
        );
        tree.file("sys/fs/cgroup/job/cpu.max", &format!("{quota} 100000\n"));
        tree.file("sys/fs/cgroup/job/cpu.stat", "usage_usec 0\n");
        let mut cpu = CpuPressure::under(&tree.0);
        assert_eq!(cpu.look(start), None);
        tree.file("sys/fs/cgroup/job/cpu.stat", "usage_usec 950000\n");
        about(cpu.look(start + S), wanted);
    }
    // What is no list leaves what std says.
    for status in
        ["", "Cpus_allowed_list:\t\n", "Cpus_allowed_list:\t3-0\n", "Cpus_allowed_list:\t0-99999999999999999999,1\n"]
    {
        let tree = Tree::v2("cpu-status", "/job");
        tree.file("proc/self/status", status).file("sys/fs/cgroup/job/cpu.stat", "usage_usec 0\n");
        let mut cpu = CpuPressure::under(&tree.0);
        cpu.look(start);
        tree.file("sys/fs/cgroup/job/cpu.stat", "usage_usec 500000\n");
        assert!(cpu.look(start + S).is_some_and(|seen| seen > 0.0 && seen <= 0.5));
    }
}

#[test]
fn a_quota_of_a_parent_counts_with_all_that_is_in_it() {
    let tree = Tree::v2("cpu-nested", "/pod/container");
    tree.file("sys/fs/cgroup/pod/cpu.max", "100000 100000").file("sys/fs/cgroup/pod/container/cpu.max", "max 100000");
    let used = |own: u64, all: u64| {
        tree.file("sys/fs/cgroup/pod/container/cpu.stat", &format!("usage_usec {own}"));
        tree.file("sys/fs/cgroup/pod/cpu.stat", &format!("usage_usec {all}"));
    };
    used(0, 0);
    let (mut cpu, start) = (tree.cpu(4), epoch());
    assert_eq!(cpu.look(start), None);
    used(400_000, 900_000);
    about(cpu.look(start + S), 0.9);
}

#[test]
fn cpu_of_a_v1_cgroup() {
    let tree = Tree::v1("cpu-v1");
    let at = "sys/fs/cgroup/cpu,cpuacct/job";
    tree.file(&format!("{at}/cpu.cfs_quota_us"), "200000\n").file(&format!("{at}/cpu.cfs_period_us"), "100000\n");
    let used = |nanos: u64| {
        tree.file(&format!("{at}/cpuacct.usage"), &nanos.to_string());
    };
    used(5_000_000_000);
    let (mut cpu, start) = (tree.cpu(4), epoch());
    assert_eq!(cpu.look(start), None);
    used(6_500_000_000);
    about(cpu.look(start + S), 0.75);
    tree.file(&format!("{at}/cpu.cfs_quota_us"), "-1\n");
    used(8_500_000_000);
    about(cpu.look(start + 2 * S), 0.5);
}

#[test]
fn a_container_that_sees_its_own_cgroup_as_the_root() {
    let tree = Tree::new("container");
    tree.file("proc/self/cgroup", "0::/../../host/name\n");
    tree.file("proc/self/mountinfo", "31 23 0:27 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
    tree.file("sys/fs/cgroup/memory.max", "1000\n").file("sys/fs/cgroup/memory.current", "700\n");
    about(tree.memory(), 0.7);
    tree.file("proc/self/cgroup", "0::/docker/abc/worker\n");
    tree.file("sys/fs/cgroup/worker/memory.max", "1000\n").file("sys/fs/cgroup/worker/memory.current", "800\n");
    about(tree.memory(), 0.8);
    // What lies outside of the mount is somebody else's.
    let tree = Tree::v2("outside", "/../other");
    tree.file("sys/fs/other/memory.max", "1000").file("sys/fs/other/memory.current", "100");
    tree.file("sys/fs/cgroup/memory.max", "1000").file("sys/fs/cgroup/memory.current", "900");
    about(tree.memory(), 0.9);
}

#[test]
fn memory_of_a_v2_cgroup_is_without_what_can_go() {
    let tree = Tree::v2("memory-v2", "/job");
    let job = "sys/fs/cgroup/job";
    tree.file(&format!("{job}/memory.max"), "8388608\n").file(&format!("{job}/memory.current"), "6291456\n");
    about(tree.memory(), 0.75);
    tree.file(&format!("{job}/memory.stat"), "anon 1\ninactive_file 2097152\nactive_file 5\n");
    about(tree.memory(), 0.5);
    // No limit, or one above what the machine has: the machine's.
    for none in ["max", "16777216"] {
        tree.file(&format!("{job}/memory.max"), none);
        about(tree.memory(), 0.75);
    }
    // One of a parent is a limit.
    tree.file("sys/fs/cgroup/memory.max", "10485760").file("sys/fs/cgroup/memory.current", "9437184");
    about(tree.memory(), 0.9);
}

#[test]
fn memory_of_a_v1_cgroup() {
    let tree = Tree::v1("memory-v1");
    let job = "sys/fs/cgroup/memory/job";
    tree.file(&format!("{job}/memory.limit_in_bytes"), "8388608\n");
    tree.file(&format!("{job}/memory.usage_in_bytes"), "6291456\n");
    tree.file(&format!("{job}/memory.stat"), "inactive_file 1\ntotal_inactive_file 2097152\n");
    about(tree.memory(), 0.5);
    tree.file(&format!("{job}/memory.limit_in_bytes"), "9223372036854771712\n");
    about(tree.memory(), 0.75);
}

#[test]
fn a_hybrid_tree_has_some_of_both() {
    let tree = Tree::v1("hybrid");
    tree.file("proc/self/cgroup", "4:cpu,cpuacct:/job\n0::/job\n");
    tree.file("sys/fs/cgroup/unified/job/memory.max", "1000").file("sys/fs/cgroup/unified/job/memory.current", "600");
    about(tree.memory(), 0.6);
    tree.file("sys/fs/cgroup/cpu,cpuacct/job/cpuacct.usage", "0");
    let (mut cpu, start) = (tree.cpu(1), epoch());
    assert_eq!(cpu.look(start), None);
    tree.file("sys/fs/cgroup/cpu,cpuacct/job/cpuacct.usage", "250000000");
    about(cpu.look(start + S), 0.25);
}

#[test]
fn what_cannot_be_read_is_unknown_and_no_pressure() {
    let nothing = Tree::new("nothing");
    let garbage = Tree::v2("garbage", "/job");
    for file in ["memory.max", "memory.current", "memory.stat", "cpu.max", "cpu.stat"] {
        garbage.file(&format!("sys/fs/cgroup/job/{file}"), "usage_usec\n\u{0}\u{1} -5 max max\ninactive_file x");
    }
    garbage.file("proc/meminfo", "MemTotal: many kB\nMemTotal");
    let zeros = Tree::v2("zeros", "/job");
    zeros.file("proc/meminfo", "MemTotal: 0 kB\nMemAvailable: 0 kB").file("sys/fs/cgroup/job/memory.max", "0");
    zeros.file("sys/fs/cgroup/job/memory.current", "5").file("sys/fs/cgroup/job/cpu.max", "0 0");
    let torn = Tree::new("torn");
    torn.file("proc/self/cgroup", "\n:\n::\n0:\n5:cpu")
        .file("proc/self/mountinfo", " - \n - cgroup2\n1 2 3 - cgroup2 x\n\n");
    let start = epoch();
    for tree in [&nothing, &garbage, &zeros, &torn] {
        assert_eq!(tree.memory(), None);
        let mut cpu = tree.cpu(2);
        assert_eq!((cpu.look(start), cpu.look(start + S), cpu.look(start + 2 * S)), (None, None, None));
        let pressure = PressureConfig::default().build_at(&start).unwrap();
        pressure.source("cpu", tree.cpu(2));
        pressure.source("memory", MemoryPressure::under(&tree.0));
        let seen = pressure.snapshot_at(&start);
        assert_eq!((seen.pressure, seen.sources[0].pressure, &*seen.sources[1].name), (0.0, None, "memory"));
    }
    // What comes and goes is found again.
    let tree = Tree::v2("comes", "/job");
    let mut cpu = tree.cpu(1);
    assert_eq!(cpu.look(start), None);
    tree.file("sys/fs/cgroup/job/cpu.stat", "usage_usec 0");
    assert_eq!(cpu.look(start + S), None);
    tree.file("sys/fs/cgroup/job/cpu.stat", "usage_usec 300000");
    about(cpu.look(start + 2 * S), 0.3);
    fs::remove_file(tree.0.join("sys/fs/cgroup/job/cpu.stat")).unwrap();
    assert_eq!(cpu.look(start + 3 * S), None);
}

#[test]
fn this_machine_can_be_read_or_not_but_never_panics() {
    let (mut cpu, start) = (CpuPressure::new(), epoch());
    cpu.look(start);
    let seen = [cpu.look(start + S), MemoryPressure::new().look(start)];
    assert!(seen.into_iter().flatten().all(f64::is_finite), "{seen:?}");
}

/// One source that counts how often it is asked.
fn counted(start: Instant) -> (Pressure, Arc<AtomicU32>, Arc<AtomicU32>) {
    let pressure = PressureConfig::default().every(100 * MS).build_at(&start).unwrap();
    let (percent, looks) = (Arc::new(AtomicU32::new(50)), Arc::new(AtomicU32::new(0)));
    let (says, asked) = (percent.clone(), looks.clone());
    pressure.source("test", move || {
        asked.fetch_add(1, Relaxed);
        f64::from(says.load(Relaxed)) / 100.0
    });
    (pressure, percent, looks)
}

#[test]
fn it_is_the_highest_of_what_its_sources_say_and_who_asks_looks_once_per_interval() {
    let start = epoch();
    let (pressure, percent, looks) = counted(start);
    let signal = Signal::new(start);
    pressure.tell(signal.clone());
    pressure.source("no number", || f64::NAN);
    pressure.source("too low", || -3.0);
    for call in 0..100 {
        about(Some(pressure.current_at(&(start + MS * call))), 0.5);
    }
    assert_eq!(looks.load(Relaxed), 1);
    percent.store(200, Relaxed);
    about(Some(pressure.current_at(&(start + 99 * MS))), 0.5);
    about(Some(pressure.current_at(&(start + 100 * MS))), 1.0);
    assert_eq!((looks.load(Relaxed), signal.pressure()), (2, 1.0));
    let seen = pressure.snapshot_at(&(start + 100 * MS));
    let said: Vec<_> = seen.sources.iter().map(|source| source.pressure).collect();
    assert_eq!(said, [Some(1.0), None, Some(0.0)]);
    let error = PressureConfig::default().every(Duration::ZERO).build().unwrap_err();
    assert_eq!(error.to_string(), "`every` is 0s, allowed: 10ms to 1m");
    let mut readings = Vec::new();
    pressure.visit(&mut |name, value| readings.push((name, value)));
    assert!(readings.contains(&("unknown", Value::Gauge(1))), "{readings:?}");
}

#[test]
fn what_each_source_says_is_a_series() {
    let pressure = PressureConfig::default().build_at(&epoch()).unwrap();
    pressure.source("low", || 0.25);
    pressure.source("high", || 0.75);
    pressure.source("unknown", || f64::NAN);
    pressure.current_at(&(epoch() + 3600 * S));
    let mut shown = Vec::new();
    pressure.measure(&mut |series| {
        let Measure::Ratio(share) = series.measure else { panic!("a share of now") };
        assert_eq!((series.family, series.labels[0].0), ("buttress_pressure_source", "source"));
        shown.push(format!("{} {share}", series.labels[0].1));
    });
    assert_eq!(shown, ["low 0.25", "high 0.75", "unknown NaN"]);
}

#[tokio::test(start_paused = true)]
async fn while_a_task_drives_it_nobody_else_looks() {
    let (pressure, percent, looks) = counted(epoch());
    let task = tokio::spawn(pressure.drive());
    tokio::time::sleep(MS).await;
    assert_eq!(looks.load(Relaxed), 1);
    percent.store(90, Relaxed);
    for _ in 0..10 {
        pressure.current_at(&(epoch() + 998 * MS));
    }
    assert_eq!(looks.load(Relaxed), 1);
    tokio::time::sleep(100 * MS).await;
    assert_eq!(looks.load(Relaxed), 2);
    about(Some(pressure.current()), 0.9);
    percent.store(20, Relaxed);
    about(Some(pressure.current_at(&(epoch() + 1001 * MS))), 0.2);
    assert_eq!(looks.load(Relaxed), 3, "ten times too late, it is stuck, and who asks looks");
    tokio::time::sleep(100 * MS).await;
    assert_eq!(looks.load(Relaxed), 4, "and it goes on");
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    percent.store(10, Relaxed);
    about(Some(pressure.current()), 0.1);
    assert_eq!(looks.load(Relaxed), 5, "and then who asks looks again");
}

#[test]
fn a_look_by_a_clock_that_is_ahead_holds_nothing_back() {
    let start = epoch();
    let (pressure, percent, looks) = counted(start);
    about(Some(pressure.current_at(&(start + 3600 * S))), 0.5);
    percent.store(90, Relaxed);
    about(Some(pressure.current_at(&start)), 0.9);
    about(Some(pressure.current_at(&(start + MS))), 0.9);
    assert_eq!(looks.load(Relaxed), 2);
}

#[test]
fn a_signal_that_nobody_reads_is_let_go() {
    let start = epoch();
    let (pressure, percent, _) = counted(start);
    let kept = Signal::new(start);
    pressure.tell(kept.clone());
    let read_by_nobody = Signal::new(start);
    pressure.tell(read_by_nobody.clone());
    drop(read_by_nobody);
    let last = Signal::new(start);
    pressure.tell(last.clone());
    percent.store(100, Relaxed);
    pressure.current_at(&start);
    assert_eq!((kept.pressure(), last.pressure()), (1.0, 1.0));
    assert!(format!("{pressure:?}").contains("signals: 2"), "{pressure:?}");
}

#[test]
fn waits_of_before_a_lull_are_forgotten() {
    let start = epoch();
    for (every, lull, wanted) in [(250 * MS, 4900 * MS, 0.75), (250 * MS, 5100 * MS, 0.0), (60 * S, 70 * S, 0.75)] {
        let waits = QueueWait::new(200 * MS).unwrap();
        let pressure = PressureConfig::default().every(every).build_at(&start).unwrap();
        pressure.source("queue", waits.clone());
        waits.observe(50 * MS);
        about(Some(pressure.current_at(&start)), 0.25);
        waits.observe(150 * MS);
        about(Some(pressure.current_at(&(start + lull))), wanted);
        waits.observe(100 * MS);
        about(Some(pressure.current_at(&(start + lull + every))), 0.5);
    }
}

#[test]
fn a_wait_counts_until_the_next_look() {
    let mut waits = QueueWait::new(200 * MS).unwrap();
    let feeds = waits.clone();
    assert_eq!(waits.look(epoch()), Some(0.0));
    [50 * MS, 100 * MS, MS].into_iter().for_each(|wait| feeds.observe(wait));
    about(waits.look(epoch()), 0.5);
    assert_eq!(waits.look(epoch()), Some(0.0), "nobody has waited since");
    assert!(QueueWait::new(Duration::ZERO).is_err());
}

#[tokio::test(start_paused = true)]
async fn the_loops_lag_is_how_late_a_timer_fires() {
    let mut lag = EventLoopLag::new(100 * MS).unwrap();
    assert_eq!(lag.look(epoch()), None, "nobody watches");
    let task = tokio::spawn(lag.watch());
    tokio::time::sleep(500 * MS).await;
    assert!(lag.look(epoch()).unwrap() <= 0.01, "{:?}", lag.lag(epoch()));
    // Seen from another thread, while this one is stuck.
    let stuck = lag.look(epoch() + 90 * MS).unwrap();
    assert!((0.69..=0.91).contains(&stuck), "{stuck}");
    // Nothing runs for 70 ms: the timer was due 20 ms after it was set, at the latest, or at this very moment.
    tokio::time::advance(70 * MS).await;
    let going_on = lag.look(epoch()).unwrap();
    assert!((0.49..=0.71).contains(&going_on), "{going_on}");
    tokio::time::sleep(MS).await;
    let seen = lag.look(epoch()).unwrap();
    assert!((0.45..=0.72).contains(&seen), "{seen}");
    tokio::time::sleep(S).await;
    let faded = lag.look(epoch()).unwrap();
    assert!((faded - seen / 2.0).abs() < 0.02, "half in a second: {seen} {faded}");
    task.abort();
    let _ = task.await;
    assert_eq!(lag.look(epoch()), None);
    let error = EventLoopLag::new(MS).unwrap_err();
    assert_eq!(error.to_string(), "`full` is 1ms, allowed: at least 5ms: tokio's timers are right to 1ms");
}

#[tokio::test(start_paused = true)]
async fn who_watches_goes_with_the_last_handle() {
    let lag = EventLoopLag::new(100 * MS).unwrap();
    let task = tokio::spawn(lag.watch());
    tokio::time::sleep(100 * MS).await;
    assert!(!task.is_finished());
    drop(lag);
    tokio::time::sleep(100 * MS).await;
    assert!(task.is_finished());
}

#[test]
fn actions_take_only_bounds_that_are_some() {
    for (from, to, field) in [
        (0.5, 0.5, "to"),
        (0.9, 0.8, "to"),
        (0.5, 1.1, "to"),
        (0.5, f64::NAN, "to"),
        (-0.1, 0.5, "from"),
        (1.0, 1.0, "from"),
        (f64::NAN, 1.0, "from"),
    ] {
        assert_eq!(Scaled::new(from, to).unwrap_err().field, field, "{from} {to}");
    }
    let scaled = Scaled::new(0.0, 0.5).unwrap();
    assert_eq!([-1.0, 0.25, 7.0, f64::NAN].map(|pressure| scaled.of(pressure)), [0.0, 0.5, 1.0, 0.0]);
    for (at, hysteresis, field) in [
        (0.0, 0.0, "at"),
        (f64::NAN, 0.0, "at"),
        (1.1, 0.0, "at"),
        (0.5, 0.5, "hysteresis"),
        (0.5, f64::NAN, "hysteresis"),
    ] {
        assert_eq!(Threshold::new(at, hysteresis).unwrap_err().field, field);
    }
    let threshold = Threshold::new(0.5, 0.1).unwrap();
    assert_eq!(
        [f64::NAN, 0.5, f64::NAN, 0.41, 0.39].map(|p| threshold.is_reached(p)),
        [false, true, true, true, false]
    );
}

const CLASSES: [Priority; 3] = [Priority::Sheddable, Priority::Normal, Priority::Critical];

/// How many of a thousand calls of each class are refused at this pressure.
fn refused(config: PressureGateConfig, at: u32) -> [u32; 3] {
    let start = epoch();
    let (pressure, percent, _) = counted(start);
    percent.store(at, Relaxed);
    let gate = config.seed(1).build(&pressure).unwrap();
    CLASSES.map(|class| (0..1000).filter(|_| gate.decide_at(class, &start).is_err()).count() as u32)
}

#[test]
fn low_classes_go_first_and_critical_calls_never() {
    let near = |seen: [u32; 3], wanted: [u32; 3]| {
        let is_near = seen.iter().zip(wanted).all(|(seen, wanted)| seen.abs_diff(wanted) < 50);
        assert!(is_near, "{seen:?} {wanted:?}");
    };
    let config = PressureGateConfig::default;
    assert_eq!(refused(config(), 79), [0; 3]);
    assert_eq!(refused(config(), 80), [0; 3]);
    near(refused(config(), 85), [500, 0, 0]);
    assert_eq!(refused(config(), 90), [1000, 0, 0]);
    near(refused(config(), 95), [1000, 500, 0]);
    assert_eq!(refused(config(), 100), [1000, 1000, 0]);
    let last = config().critical(Scaled::new(0.98, 1.0).unwrap());
    near(refused(last.clone(), 99), [1000, 900, 500]);
    assert_eq!(refused(last, 100), [1000; 3]);
    assert_eq!(refused(config().normal(None), 100), [1000, 0, 0]);
    assert_eq!(refused(config().normal(None).sheddable(None), 100), [0; 3]);
}

#[test]
fn a_refusal_says_when_to_come_back_and_not_all_at_once() {
    let start = epoch();
    let (pressure, percent, _) = counted(start);
    percent.store(100, Relaxed);
    let gate = PressureGateConfig::default().retry_after(2 * S).seed(7).build(&pressure).unwrap();
    let rejections: Vec<_> = (0..100).map(|_| gate.decide_at(Priority::Normal, &start).unwrap_err()).collect();
    let after: Vec<_> = rejections.iter().map(|refused| refused.retry_after.unwrap()).collect();
    assert_eq!((rejections[0].reason, rejections[0].layer), (Reason::Shed, "pressure"));
    assert!(after.iter().all(|after| (2 * S..4 * S).contains(after)));
    assert!(after.iter().max().unwrap().saturating_sub(*after.iter().min().unwrap()) > S, "{after:?}");
    gate.update(PressureGateConfig::default().retry_after(10 * S)).unwrap();
    let refused = gate.decide_at(Priority::Normal, &start).unwrap_err();
    assert!((10 * S..20 * S).contains(&refused.retry_after.unwrap()));
}

#[test]
fn an_operator_shuts_it_opens_it_and_looks_on() {
    let start = epoch();
    let (pressure, percent, _) = counted(start);
    percent.store(100, Relaxed);
    let gate = PressureGateConfig::default().seed(1).build(&pressure).unwrap();
    let refused = |class, mode| {
        gate.set_mode(mode).unwrap();
        (0..1000).filter(|_| gate.decide_at(class, &start).is_err()).count()
    };
    assert_eq!(refused(Priority::Normal, Mode::Disabled), 0);
    assert_eq!(gate.snapshot_at(&start).over_total, 0);
    assert_eq!(refused(Priority::Normal, Mode::OBSERVE_ONLY), 0);
    assert_eq!(gate.snapshot_at(&start).over_total, 1000);
    assert!((400..600).contains(&refused(Priority::Normal, Mode::Enforcing(50))));
    assert_eq!(refused(Priority::Critical, Mode::Enforcing(50)), 0);
    assert_eq!(refused(Priority::Critical, Mode::ForcedOpen), 1000);
    assert_eq!(refused(Priority::Sheddable, Mode::Auto), 1000);
    let seen = gate.snapshot_at(&start);
    assert_eq!((seen.sheddable_refused_total, seen.critical_refused_total, seen.pressure), (1000, 1000, 1.0));
    assert!(gate.admit(&mut (), &"any request").is_err(), "each is a normal one");
    assert_eq!(gate.fresh().snapshot_at(&start).sheddable_refused_total, 0);

    gate.update(PressureGateConfig::default().sheddable(None).normal(None)).unwrap();
    assert_eq!(refused(Priority::Sheddable, Mode::Auto), 0);
    let mut names = Vec::new();
    gate.visit(&mut |name, value| names.push((name, matches!(value, Value::Count(_)))));
    assert!(names.iter().all(|(name, is_count)| *is_count == name.ends_with("_total")), "{names:?}");
}

#[test]
fn a_wrong_config_says_what_is_wrong() {
    let pressure = PressureConfig::default().build().unwrap();
    let said = |config: PressureGateConfig| config.build(&pressure).unwrap_err().to_string();
    let config = PressureGateConfig::default;
    let scaled = |from, to| Scaled::new(from, to).unwrap();
    let early = "`normal.to` is 0.85, allowed: at least 0.9, where `sheddable` ends: lower priorities go first";
    assert_eq!(said(config().normal(scaled(0.8, 0.85))), early);
    let alone = "`normal` is 0.9 to 1, allowed: none, as `sheddable` has none: lower priorities go first";
    assert_eq!(said(config().sheddable(None)), alone);
    assert!(said(config().critical(scaled(0.5, 1.0))).starts_with("`critical.from` is 0.5, allowed: at least 0.9"));
    let mut inverted = scaled(0.1, 0.2);
    inverted.from = 0.3;
    let wrong = "`sheddable.to` is 0.2, allowed: more than `from`, which is 0.3, and at most 1";
    assert_eq!(said(config().sheddable(inverted)), wrong);
    inverted.from = f64::NAN;
    assert!(said(config().critical(inverted)).starts_with("`critical.from` is NaN"));
    assert_eq!(said(config().retry_after(Duration::ZERO)), "`retry_after` is 0s, allowed: more than 0 and at most 1h");
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_and_written() {
    let text = r#"{"normal": {"from": 0.92, "to": 1.0}, "retry_after": "3s"}"#;
    let read: PressureGateConfig = serde_json::from_str(text).unwrap();
    assert_eq!(read, PressureGateConfig::default().normal(Scaled::new(0.92, 1.0).unwrap()).retry_after(3 * S));
    assert!(serde_json::from_str::<PressureGateConfig>(r#"{"normal": {"form": 0.9, "to": 1.0}}"#).is_err());
    assert_eq!(serde_json::from_str::<PressureConfig>("{}").unwrap(), PressureConfig::default());
    let shown = serde_json::to_value(PressureConfig::default().build().unwrap().snapshot()).unwrap();
    assert_eq!(shown["pressure"], 0.0);
}

#[test]
fn levels_go_up_and_down_with_it() {
    let start = epoch();
    let (pressure, percent, _) = counted(start);
    let config = LevelsConfig::new("full").level("slim", 0.7).worse_after(Duration::ZERO).better_after(Duration::ZERO);
    let levels = config.build_at(&start).unwrap();
    let (says, clock) = (pressure.clone(), Arc::new(AtomicU32::new(0)));
    let seconds = clock.clone();
    levels.source(move || says.current_at(&(start + S * seconds.load(Relaxed))));
    let level = |second: u32, at: u32| {
        clock.store(second, Relaxed);
        percent.store(at, Relaxed);
        levels.current_at(&(start + S * second))
    };
    assert_eq!([level(1, 50), level(2, 75), level(3, 65), level(4, 10)], [0, 1, 1, 0]);
}
