use super::{ByAnswer, VoteLayer, policy::Vote};
use buttress_core::{ConfigError, Opaque};
use std::{borrow::Cow, collections::HashSet, fmt, sync::Arc};

/// How many equal answers it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(from = "Written", into = "Written"))]
#[non_exhaustive]
pub enum Need {
    /// More than half of all versions: 2 of 3, 3 of 4.
    #[default]
    Majority,
    /// So many: `f + 1` of `3 f + 1` replicas that agree among themselves, of which `f` may lie.
    Count(u32),
}

/// `"majority"`, or a number.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Written {
    Count(u32),
    Word(Word),
}

#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Majority,
}

#[cfg(feature = "serde")]
impl From<Written> for Need {
    fn from(written: Written) -> Self {
        match written {
            Written::Count(count) => Self::Count(count),
            Written::Word(Word::Majority) => Self::Majority,
        }
    }
}

#[cfg(feature = "serde")]
impl From<Need> for Written {
    fn from(need: Need) -> Self {
        match need {
            Need::Count(count) => Self::Count(count),
            Need::Majority => Self::Word(Word::Majority),
        }
    }
}

impl Need {
    /// The number, of so many versions.
    pub fn of(self, versions: usize) -> usize {
        match self {
            Self::Majority => versions / 2 + 1,
            // No version is a number above this.
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Majority => f.write_str("a majority"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// Who is asked, and how many must agree.
///
/// ```
/// use buttress_fallback::{Need, VoteConfig, VoteLayer};
///
/// # let (b, c) = ((), ());
/// let layer: VoteLayer<_> = VoteConfig::default().build([("b", b), ("c", c)])?; // 2 of 3, the service inside included
///
/// let error = VoteConfig::default().need(Need::Count(3)).build([("b", ())]).unwrap_err();
/// assert_eq!(error.to_string(), "`need` is 3, allowed: 1 to 2, of 2 versions");
/// # let _ = layer;
/// # Ok::<_, buttress_fallback::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct VoteConfig {
    /// How many equal answers it takes. Default: more than half.
    pub need: Need,
    /// Whether bad answers vote, too: a 500 that all versions give alike is the answer then. Errors and refusals never vote. Default: no.
    pub failures_vote: bool,
    /// The most bytes of an HTTP request's body, which is read before anybody is asked: up to 64 MiB. A larger one is refused. Default: 64 KiB.
    pub max_body: usize,
    /// The most bytes of the body of one HTTP response: up to 64 MiB. A version that gives more has failed. Default: 1 MiB.
    pub max_response: usize,
    /// The name of the service inside, among the versions. Default: `"first"`.
    pub first: Cow<'static, str>,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"vote"`.
    pub name: Cow<'static, str>,
}

impl Default for VoteConfig {
    fn default() -> Self {
        Self {
            need: Need::Majority,
            failures_vote: false,
            max_body: 64 * 1024,
            max_response: 1024 * 1024,
            first: Cow::Borrowed("first"),
            name: Cow::Borrowed("vote"),
        }
    }
}

const MOST_VERSIONS: usize = 16;
const MOST_BODY: usize = 64 * 1024 * 1024;

impl VoteConfig {
    buttress_core::setters! {
        /// Sets [`need`](Self#structfield.need).
        need: Need => need;
        /// Sets [`failures_vote`](Self#structfield.failures_vote).
        failures_vote: bool => failures_vote;
        /// Sets [`max_body`](Self#structfield.max_body).
        max_body: usize => max_body;
        /// Sets [`max_response`](Self#structfield.max_response).
        max_response: usize => max_response;
        /// Sets [`first`](Self#structfield.first).
        first: impl Into<Cow<'static, str>> => first.into();
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The layer that asks these versions beside the service inside. They are of one type: versions whose types differ, as those of two
    /// closures do, are boxed (`tower::util::BoxCloneService`).
    ///
    /// # Errors
    ///
    /// The first field that is out of its range: no other version, more than 15, a name that two have, more votes than versions.
    pub fn build<N, C>(self, others: impl IntoIterator<Item = (N, C)>) -> Result<VoteLayer<C>, ConfigError>
    where
        N: Into<Cow<'static, str>>,
    {
        let (names, others): (Vec<_>, Vec<_>) = others.into_iter().map(|(name, other)| (name.into(), other)).unzip();
        self.validate(&names)?;
        let policy = Arc::new(Vote::new(self, names));
        Ok(VoteLayer { policy, others, protocol: Opaque::new(), same: ByAnswer })
    }

    /// Whether a layer with other versions of these names can be built.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self, others: &[Cow<'static, str>]) -> Result<(), ConfigError> {
        let versions = others.len() + 1;
        if !(2..=MOST_VERSIONS).contains(&versions) {
            return Err(ConfigError::new("versions", versions, "2 to 16, the service inside included"));
        }
        let mut names = HashSet::from([&self.first]);
        for (i, name) in others.iter().enumerate() {
            if !names.insert(name) {
                let field = format!("versions[{}].name", i + 1);
                return Err(ConfigError::new(field, name, "a name that no other version has"));
            }
        }
        if !(1..=versions).contains(&self.need.of(versions)) {
            return Err(ConfigError::new("need", self.need, format!("1 to {versions}, of {versions} versions")));
        }
        for (field, value) in [("max_body", self.max_body), ("max_response", self.max_response)] {
            if value > MOST_BODY {
                return Err(ConfigError::new(field, value, "0 to 67108864 bytes"));
            }
        }
        Ok(())
    }
}
