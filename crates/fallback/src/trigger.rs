/// A kind of result that a [fallback](crate::fallback) answers in place of, and that sends a call to the next tier of a
/// [failover](crate::failover).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Trigger {
    /// A layer further in refused the call.
    Refused,
    /// It failed.
    Failure,
    /// What was called said "too much".
    Overload,
}

impl Trigger {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Failure, Self::Overload];
}

/// A set of [`Trigger`]s; in a config the list of their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "Vec<Trigger>", from = "Vec<Trigger>"))]
pub struct Triggers(u8);

impl Triggers {
    /// Every trigger.
    pub const ALL: Self = Self(0b111);
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether `trigger` is one of them.
    pub const fn has(self, trigger: Trigger) -> bool {
        self.0 & 1 << trigger as u8 != 0
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn of_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }
}

impl FromIterator<Trigger> for Triggers {
    fn from_iter<I: IntoIterator<Item = Trigger>>(triggers: I) -> Self {
        Self(triggers.into_iter().fold(0, |bits, trigger| bits | 1 << trigger as u8))
    }
}

impl From<Triggers> for Vec<Trigger> {
    fn from(triggers: Triggers) -> Self {
        Trigger::ALL.into_iter().filter(|trigger| triggers.has(*trigger)).collect()
    }
}

impl From<Vec<Trigger>> for Triggers {
    fn from(triggers: Vec<Trigger>) -> Self {
        triggers.into_iter().collect()
    }
}
