//! Who runs on the track.

use std::str::FromStr;

/// What stands between clients and upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contestant {
    /// Nothing. Where a scenario has attempts, clients make them at once.
    None,
    /// tower's `ConcurrencyLimit` and `LoadShed`, with a limit that suits the capacity in good health.
    Tower,
    /// The same with four times that limit.
    TowerTimes4,
    /// The same with a fourth of it.
    TowerBy4,
    /// Knows how many calls are inside the upstream, and what its capacity is and becomes.
    Oracle,
    /// The published limits.
    Aimd,
    Vegas,
    Gradient2,
    Envoy,
    /// A circuit breaker with its defaults.
    Breaker,
    Ours,
}

impl Contestant {
    pub const ALL: [Self; 11] = [
        Self::None,
        Self::Tower,
        Self::TowerTimes4,
        Self::TowerBy4,
        Self::Aimd,
        Self::Vegas,
        Self::Gradient2,
        Self::Envoy,
        Self::Breaker,
        Self::Oracle,
        Self::Ours,
    ];

    /// Who does not run when it is to go quickly.
    pub const LEFT_OUT: [Self; 4] = [Self::TowerTimes4, Self::TowerBy4, Self::Aimd, Self::Vegas];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tower => "tower",
            Self::TowerTimes4 => "tower-x4",
            Self::TowerBy4 => "tower-/4",
            Self::Oracle => "oracle",
            Self::Aimd => "aimd",
            Self::Vegas => "vegas",
            Self::Gradient2 => "grad2",
            Self::Envoy => "envoy",
            Self::Breaker => "breaker",
            Self::Ours => "ours",
        }
    }

    /// Its name in the table, in six letters.
    pub fn column(self) -> &'static str {
        match self {
            Self::TowerTimes4 => "tow*4",
            Self::TowerBy4 => "tow/4",
            Self::Breaker => "break",
            other => other.name(),
        }
    }
}

impl FromStr for Contestant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| format!("allowed: {}", names()))
    }
}
