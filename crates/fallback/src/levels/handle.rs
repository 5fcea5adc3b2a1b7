use super::Levels;
use buttress_core::{Clock, Handle, Measure, Series, TokioClock, Value, sync::lock};
use std::time::Duration;

/// What [`Levels`] show of themselves.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LevelsSnapshot {
    /// What they are called.
    pub name: String,
    /// The level that holds: 0 is the full service.
    pub current: usize,
    /// Whether an operator holds it.
    pub pinned: bool,
    /// The pressure that was seen last.
    pub pressure: f64,
    /// How long the level has held.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub lasting: Duration,
    /// All of them, the full service first.
    pub levels: Vec<LevelSnapshot>,
}

/// One level of [`LevelsSnapshot`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LevelSnapshot {
    /// What it is called.
    pub name: String,
    /// The pressure from which on it holds.
    pub at: Option<f64>,
    /// How often it was reached, from either side.
    pub entered_total: u64,
}

impl Levels {
    /// The present readings.
    pub fn snapshot(&self) -> LevelsSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> LevelsSnapshot {
        let current = self.current_at(clock);
        let lasting = self.lasting_at(clock);
        let state = lock(&self.inner().state);
        let levels = state.config.levels.iter().zip(&state.entered).map(|(level, entered)| LevelSnapshot {
            name: level.name.clone().into_owned(),
            at: level.at,
            entered_total: *entered,
        });
        LevelsSnapshot {
            name: state.config.name.clone().into_owned(),
            current,
            pinned: state.is_pinned,
            pressure: state.pressure,
            lasting,
            levels: levels.collect(),
        }
    }
}

/// The level is its number: names are the label of the series that says how often each was reached.
impl Handle for Levels {
    fn kind(&self) -> &'static str {
        "levels"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let seen = self.snapshot();
        show("level", Value::Gauge(seen.current as u64));
        show("pinned", Value::Gauge(seen.pinned.into()));
        show("pressure", Value::Ratio(seen.pressure));
        show("lasting", Value::Duration(seen.lasting));
    }

    fn measure(&self, show: &mut dyn FnMut(Series<'_>)) {
        let seen = self.snapshot();
        for level in &seen.levels {
            show(Series {
                family: "buttress_levels_entered",
                help: "How often a level was reached.",
                labels: &[("levels", &seen.name), ("level", &level.name)],
                measure: Measure::Count(level.entered_total),
            });
        }
    }
}
