use super::Telemetry;
use buttress_core::ConfigError;
use std::borrow::Cow;

/// On which side of a call a layer measures: it names the family of the durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Side {
    /// Requests that come in: `http_server_request_duration_seconds`.
    Server,
    /// Requests that go out: `http_client_request_duration_seconds`.
    Client,
    /// What is no HTTP: `buttress_call_duration_seconds`.
    #[default]
    Other,
}

/// What a [`Telemetry`] is made from.
///
/// ```
/// use buttress::telemetry::TelemetryConfig;
///
/// let telemetry = TelemetryConfig::server().route("/users/{id}").build()?;
/// # let _: buttress::Telemetry = telemetry;
///
/// let error = TelemetryConfig::server().stripes(100).build().unwrap_err();
/// assert_eq!(error.to_string(), "`stripes` is 100, allowed: 0 to 64");
/// # Ok::<(), buttress::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct TelemetryConfig {
    /// On which side of a call it stands. Default: [`Side::Other`].
    pub side: Side,
    /// The label `http_route`: the route's template, never a path of a request. Default: empty, no such label.
    pub route: Cow<'static, str>,
    /// Over how many stripes the counts are spread: 0 (the default) is one per core, at most 8; else 1 to 64, rounded up to a
    /// power of two. Each takes 13 KiB.
    pub stripes: u32,
}

impl TelemetryConfig {
    /// Of calls that are no HTTP.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of requests that come in.
    pub fn server() -> Self {
        Self { side: Side::Server, ..Self::default() }
    }

    /// Of requests that go out.
    pub fn client() -> Self {
        Self { side: Side::Client, ..Self::default() }
    }

    buttress_core::setters! {
        /// Sets the label `http_route`.
        route: impl Into<Cow<'static, str>> => route.into();
        /// Sets the number of stripes.
        stripes: u32 => stripes;
    }

    /// Makes it.
    ///
    /// # Errors
    ///
    /// More than 64 stripes; a route of more than 256 bytes, or with control characters.
    pub fn build(self) -> Result<Telemetry, ConfigError> {
        if self.stripes > 64 {
            return Err(ConfigError::new("stripes", self.stripes, "0 to 64"));
        }
        if self.route.len() > 256 || self.route.chars().any(char::is_control) {
            let allowed = "at most 256 bytes, without control characters";
            return Err(ConfigError::new("route", format!("{:?}", self.route), allowed));
        }
        Ok(Telemetry::of(self))
    }
}
