use crate::{
    ConfigError, Draw,
    sync::{AtomicU32, Ordering::Relaxed},
};

/// What an operator told a layer to do, whatever its own state says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// The layer decides.
    #[default]
    Auto,
    /// Every call is refused.
    ForcedOpen,
    /// Every call passes and nothing is measured.
    Disabled,
    /// The layer measures and decides as in [`Auto`](Self::Auto), and refuses this percentage of what it would refuse.
    /// At 0, [`OBSERVE_ONLY`](Self::OBSERVE_ONLY), it observes only. Calls that pass against the decision are counted apart and do not move the state.
    Enforcing(u8),
}

impl Mode {
    /// Observe only: it measures and decides, counts what it would refuse, and refuses nothing. In metrics and snapshots `observe_only`.
    ///
    /// ```
    /// use buttress_core::Mode;
    ///
    /// assert_eq!(Mode::OBSERVE_ONLY, Mode::Enforcing(0));
    /// assert_eq!(Mode::OBSERVE_ONLY.as_str(), "observe_only");
    /// ```
    pub const OBSERVE_ONLY: Self = Self::Enforcing(0);

    /// Every [name](Self::as_str) there is.
    pub const NAMES: [&'static str; 5] = ["auto", "forced_open", "disabled", "observe_only", "enforcing"];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::Enforcing(0) => "observe_only",
            Self::Enforcing(_) => "enforcing",
        }
    }
}

/// Its [name](Mode::as_str), as snapshots show it.
#[cfg(feature = "serde")]
impl serde::Serialize for Mode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The [`Mode`] of a running layer: one word that calls read with a relaxed load.
#[derive(Debug)]
pub struct ModeCell {
    word: AtomicU32,
    draw: Draw,
}

const AUTO: u32 = 0;
const FORCED_OPEN: u32 = 1;
const DISABLED: u32 = 2;
const ENFORCING: u32 = 3;

impl ModeCell {
    /// [`Mode::Auto`]; draws of [`Mode::Enforcing`] follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { word: AtomicU32::new(AUTO), draw: Draw::new(seed) }
    }

    /// The present mode.
    #[inline]
    pub fn get(&self) -> Mode {
        let word = self.word.load(Relaxed);
        match word & 3 {
            FORCED_OPEN => Mode::ForcedOpen,
            DISABLED => Mode::Disabled,
            ENFORCING => Mode::Enforcing((word >> 2) as u8),
            _ => Mode::Auto,
        }
    }

    /// Changes it; calls already admitted are not touched.
    ///
    /// # Errors
    ///
    /// `Enforcing` takes 0 to 100 percent.
    pub fn set(&self, mode: Mode) -> Result<(), ConfigError> {
        let word = match mode {
            Mode::Auto => AUTO,
            Mode::ForcedOpen => FORCED_OPEN,
            Mode::Disabled => DISABLED,
            Mode::Enforcing(percent) if percent > 100 => {
                return Err(ConfigError::new(
                    "mode",
                    format!("enforcing {percent} percent"),
                    "enforcing 0 to 100 percent",
                ));
            }
            Mode::Enforcing(percent) => ENFORCING | u32::from(percent) << 2,
        };
        self.word.store(word, Relaxed);
        Ok(())
    }

    /// Whether nothing was overridden: the one question of the hot path.
    #[inline]
    pub fn is_auto(&self) -> bool {
        self.word.load(Relaxed) == AUTO
    }

    /// Whether a call that the layer would refuse is refused indeed.
    pub fn enforces(&self) -> bool {
        match self.get() {
            Mode::Auto | Mode::ForcedOpen => true,
            Mode::Disabled | Mode::Enforcing(0) => false,
            Mode::Enforcing(percent) => self.draw.draw() % 100 < u64::from(percent),
        }
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    #[test]
    fn enforcing_refuses_its_share_and_the_seed_decides_which() {
        let draws = |seed| {
            let mode = ModeCell::new(seed);
            mode.set(Mode::Enforcing(30)).unwrap();
            (0..10_000).map(|_| mode.enforces()).collect::<Vec<_>>()
        };
        let refused = draws(7).iter().filter(|r| **r).count();
        assert!((2_800..=3_200).contains(&refused), "{refused}");
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }

    #[test]
    fn a_mode_is_kept_and_a_wrong_one_loses_nothing() {
        let mode = ModeCell::new(0);
        for m in [Mode::ForcedOpen, Mode::Disabled, Mode::OBSERVE_ONLY, Mode::Enforcing(100), Mode::Auto] {
            mode.set(m).unwrap();
            assert_eq!(mode.get(), m);
        }
        let error = mode.set(Mode::Enforcing(101)).unwrap_err();
        assert_eq!(error.to_string(), "`mode` is enforcing 101 percent, allowed: enforcing 0 to 100 percent");
        assert_eq!(mode.get(), Mode::Auto);
    }
}
