//! Pressure: how much there is to do, from 0 to 1, and what heeds it.
//!
//! ```
//! use buttress_core::Priority;
//! use buttress_shed::pressure::{CpuPressure, MemoryPressure, PressureConfig, PressureGateConfig, QueueWait};
//! use std::time::Duration;
//!
//! let waits = QueueWait::new(Duration::from_millis(500))?; // so long a wait is all the pressure there can be
//! let pressure = PressureConfig::default().build()?;
//! pressure.source("cpu", CpuPressure::new());
//! pressure.source("memory", MemoryPressure::new());
//! pressure.source("queue", waits.clone());
//!
//! let layer = PressureGateConfig::default().layer(&pressure)?;
//! assert!(layer.handle().decide(Priority::Critical).is_ok());
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! # Sources
//!
//! | source | what it reads | is 1 at |
//! |---|---|---|
//! | [`CpuPressure`] | the CPU time that the process's cgroup has used since the last look (v2, v1, hybrid) | its quota; without one, all CPUs it may use, by whomever of its cgroup they are used: in the root cgroup, or one that is shared, busy neighbours count |
//! | [`MemoryPressure`] | the memory of its cgroup, without file pages that can go at once | its limit; without one, all of the machine's, used by whomever |
//! | [`EventLoopLag`] | how late a timer of tokio fires | a configured time |
//! | [`QueueWait`] | how long calls waited, as somebody says | a configured time |
//! | any `FnMut() -> f64` | | 1 |
//!
//! What a source cannot read is unknown: no pressure, and told apart in the [snapshot](Pressure::snapshot). [`Pressure`] is the highest of all.
//!
//! # Who drives it
//!
//! Whoever asks: at most once [`every`](PressureConfig::every) so long one caller looks at the sources, and all others read what was seen last: one
//! relaxed load and a look at the clock. There is no thread. Reading the files takes some ten microseconds; who wants no request to do it spawns
//! [`drive`](Pressure::drive), and callers read only from then on, unless it is late by ten intervals.
//!
//! # What heeds it
//!
//! * [`PressureLayer`] refuses calls, low priorities first.
//! * [`Threshold`] and [`Scaled`] make an answer or a number of it, for code of yours.
//! * Levels of `buttress-fallback` go up and down with it, and any `Signal` shows it ([`Pressure::tell`]):
//!
//! ```
//! use buttress_fallback::LevelsConfig;
//! use buttress_shed::pressure::{PressureConfig, Scaled};
//! use std::time::Duration;
//!
//! let pressure = PressureConfig::default().build()?;
//! let levels = LevelsConfig::new("full").level("no recommendations", 0.7).level("read only", 0.9).build()?;
//! let says = pressure.clone();
//! levels.source(move || says.current());
//!
//! // Time-outs shrink to a half between 60 and 90 %.
//! let timeout = Duration::from_secs(2).mul_f64(1.0 - 0.5 * Scaled::new(0.6, 0.9)?.of(pressure.current()));
//! assert_eq!(timeout, Duration::from_secs(2));
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```
//!
//! # Where it stands
//!
//! On a server, just outside of the limit that it is the second line to: rate limit > deadline > **pressure** > shed > bulkhead > handler.
//!
//! # When not to use it
//!
//! **Never gate a gateway on CPU alone.** A gateway that is well used has busy CPUs and short waits; what hurts its callers is waiting, and what is
//! slow behind it costs it no CPU at all. CPU says that there is no room for more; [`QueueWait`] and [`EventLoopLag`] say that somebody suffers.
//! Where a limit on concurrency stands as well (it should), pressure is the second line: for what concurrency does not show, like memory.
//!
//! **Without a CPU quota [`CpuPressure`] shows what neighbours use, too**, if they share its cgroup: on a plain machine that may be all there are. Then let it
//! refuse what is sheddable alone, or take [`EventLoopLag`]:
//!
//! ```
//! use buttress_shed::pressure::{PressureConfig, PressureGateConfig};
//!
//! let pressure = PressureConfig::default().build()?;
//! let layer = PressureGateConfig::default().normal(None).layer(&pressure)?;
//! let gate = layer.handle();
//! assert_eq!(gate.snapshot().normal_refused_total, 0);
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```

mod action;
mod cgroup;
mod combined;
mod cpu;
mod gate;
mod lag;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod memory;
mod wait;

pub use action::{Scaled, Threshold};
pub use combined::{Pressure, PressureConfig, PressureSnapshot, Source, SourceSnapshot};
pub use cpu::CpuPressure;
pub use gate::{PressureGate, PressureGateConfig, PressureGateSnapshot, PressureLayer, PressureService};
pub use lag::EventLoopLag;
pub use memory::MemoryPressure;
pub use wait::QueueWait;
