use crate::{
    line::{CLASSES, LineMode, class},
    shared::{Cause, Shared, mode_name},
};
use buttress_core::{Measure, Mode, Priority, Series, Value, permits::Line, sync::Ordering::Relaxed};
use std::time::Duration;

/// What a shedder shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShedSnapshot {
    /// The name of the algorithm that says the limit.
    pub algorithm: &'static str,
    /// How many calls may be in flight.
    pub limit: u32,
    /// Calls in flight, with a permit and without.
    pub in_flight: u32,
    /// Calls in flight without a permit, as a mode let them pass.
    pub over_limit: u32,
    /// Calls that wait.
    pub queued: u32,
    /// Whether the queue serves the newest first: it has stood too long.
    pub standing: bool,
    /// For how long the first of them has waited.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub oldest_wait: Duration,
    /// Calls that got a permit.
    pub admitted_total: u64,
    /// Calls that a mode let pass without a permit.
    pub over_limit_total: u64,
    /// What became of the classes: critical, normal, sheddable.
    pub classes: [ClassSnapshot; CLASSES],
    /// The mean time of the calls of the last window; `None`: there was none yet.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub mean: Option<Duration>,
    /// How long a call takes without load, if the algorithm knows.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub base: Option<Duration>,
    /// One call in this many is timed.
    pub timed_one_in: u64,
    /// What an operator told it to do.
    pub mode: Mode,
}

/// What became of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClassSnapshot {
    /// Which.
    pub priority: Priority,
    /// Calls that wait.
    pub queued: u32,
    /// Calls refused as there was no room, and none to wait either.
    pub full_total: u64,
    /// Calls that waited and made room for more important ones.
    pub pushed_out_total: u64,
    /// Calls refused as they could not have made their deadline.
    pub too_late_total: u64,
    /// Calls refused because they had waited too long.
    pub waited_total: u64,
    /// Calls refused because their deadline had passed when they came.
    pub deadline_total: u64,
}

impl ClassSnapshot {
    /// Calls that were shed, for whatever cause.
    pub fn shed_total(&self) -> u64 {
        Cause::ALL.iter().map(|(cause, _)| self.total(*cause)).sum()
    }

    fn total(&self, cause: Cause) -> u64 {
        match cause {
            Cause::Full => self.full_total,
            Cause::PushedOut => self.pushed_out_total,
            Cause::TooLate => self.too_late_total,
            Cause::Waited => self.waited_total,
            Cause::Deadline => self.deadline_total,
        }
    }
}

impl ShedSnapshot {
    /// One after the other, so under load they need not add up exactly.
    pub(crate) fn take(shared: &Shared, now: u64) -> Self {
        let priorities = [Priority::Critical, Priority::Normal, Priority::Sheddable];
        let (waiting, queued, mode, oldest) = shared.permits.with_line(|waiters, _| {
            let waiting = priorities.map(|priority| (priority, waiters.line.waiting(priority)));
            (waiting, waiters.len() as u32, waiters.line.mode(now), waiters.line.oldest_wait(now))
        });
        let (algorithm, base) = shared.meter.algorithm();
        let over_limit = shared.over_limit.load(Relaxed);
        let held = shared.permits.in_flight();
        let mean = shared.meter.mean();
        Self {
            algorithm,
            limit: shared.meter.limit(),
            in_flight: held + over_limit,
            over_limit,
            queued,
            standing: mode == LineMode::Standing,
            oldest_wait: Duration::from_nanos(oldest),
            admitted_total: shared.completed() + u64::from(held),
            over_limit_total: shared.over_limit_total.load(Relaxed),
            classes: waiting.map(|(priority, queued)| {
                let count = |cause: Cause| {
                    let counts = shared.permits.stripes();
                    counts.map(|c| c.shed[class(priority)][cause as usize].load(Relaxed)).sum()
                };
                ClassSnapshot {
                    priority,
                    queued,
                    full_total: count(Cause::Full),
                    pushed_out_total: count(Cause::PushedOut),
                    too_late_total: count(Cause::TooLate),
                    waited_total: count(Cause::Waited),
                    deadline_total: count(Cause::Deadline),
                }
            }),
            mean: (mean > 0).then(|| Duration::from_nanos(mean)),
            base,
            timed_one_in: shared.meter.one_in(),
            mode: shared.mode.get(),
        }
    }

    /// Calls that were shed, of every class and for whatever cause.
    pub fn shed_total(&self) -> u64 {
        self.classes.iter().map(ClassSnapshot::shed_total).sum()
    }

    /// The readings of one class.
    pub fn class(&self, priority: Priority) -> &ClassSnapshot {
        self.classes.iter().find(|class| class.priority == priority).unwrap_or(&self.classes[1])
    }

    pub(crate) fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        show("limit", Value::Gauge(self.limit.into()));
        show("in_flight", Value::Gauge(self.in_flight.into()));
        show("over_limit", Value::Gauge(self.over_limit.into()));
        show("queued", Value::Gauge(self.queued.into()));
        let line = mode_name(if self.standing { LineMode::Standing } else { LineMode::Burst });
        show("line", Value::State(line, &["burst", "standing"]));
        show("oldest_wait", Value::Duration(self.oldest_wait));
        show("admitted_total", Value::Count(self.admitted_total));
        show("shed_total", Value::Count(self.shed_total()));
        show("over_limit_total", Value::Count(self.over_limit_total));
        if let Some(mean) = self.mean {
            show("mean", Value::Duration(mean));
        }
        if let Some(base) = self.base {
            show("base", Value::Duration(base));
        }
    }

    pub(crate) fn measure(&self, name: &str, show: &mut dyn FnMut(Series<'_>)) {
        for class in &self.classes {
            for (cause, label) in Cause::ALL {
                show(Series {
                    family: "buttress_shed_calls",
                    help: "Calls that were shed, by class and cause.",
                    labels: &[("shed", name), ("priority", class.priority.as_str()), ("cause", label)],
                    measure: Measure::Count(class.total(cause)),
                });
            }
        }
    }
}
