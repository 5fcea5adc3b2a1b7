//! What contestants put in front of the handler.

use crate::server::Site;
use axum::{Router, error_handling::HandleErrorLayer, http::StatusCode};
use buttress_core::http::HttpServer;
use buttress_deadline::{DeadlineConfig, DeadlineLayer};
use buttress_shed::ShedConfig;
use std::{error::Error, time::Duration};
use tower::{
    BoxError, ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer, timeout::TimeoutLayer,
};
use tower_resilience::adaptive::{AdaptiveLimiterLayer, Aimd, Vegas};

/// Everybody but nobody ends calls when their client is about to leave, and refuses with a 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    None,
    /// tower's `ConcurrencyLimit` and `LoadShed`, with as many calls as there are workers.
    Tower,
    /// The same with four times that limit.
    TowerTimes4,
    /// tower-resilience's adaptive limiter by its own defaults, and tower's `LoadShed`.
    Aimd,
    Vegas,
    /// deadline > shed, by its own defaults.
    Ours,
}

impl Protection {
    pub const ALL: [Self; 6] = [Self::None, Self::Tower, Self::TowerTimes4, Self::Aimd, Self::Vegas, Self::Ours];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tower => "tower, right limit",
            Self::TowerTimes4 => "tower, 4x too high",
            Self::Aimd => "tower-resilience aimd",
            Self::Vegas => "tower-resilience vegas",
            Self::Ours => "buttress",
        }
    }

    pub fn around(self, app: Router, site: Site) -> Result<Router, Box<dyn Error>> {
        let refuse = || HandleErrorLayer::new(async |_: BoxError| StatusCode::SERVICE_UNAVAILABLE);
        let deadline = before(site.time_out);
        let tower = |app: Router, limit| {
            app.layer(
                ServiceBuilder::new()
                    .layer(refuse())
                    .layer(TimeoutLayer::new(deadline))
                    .layer(LoadShedLayer::new())
                    .layer(GlobalConcurrencyLimitLayer::new(limit)),
            )
        };
        Ok(match self {
            Self::None => app,
            Self::Tower => tower(app, site.workers),
            Self::TowerTimes4 => tower(app, 4 * site.workers),
            Self::Aimd => app.layer(
                ServiceBuilder::new()
                    .layer(refuse())
                    .layer(TimeoutLayer::new(deadline))
                    .layer(LoadShedLayer::new())
                    .layer(AdaptiveLimiterLayer::new(Aimd::builder().build()?)),
            ),
            Self::Vegas => app.layer(
                ServiceBuilder::new()
                    .layer(refuse())
                    .layer(TimeoutLayer::new(deadline))
                    .layer(LoadShedLayer::new())
                    .layer(AdaptiveLimiterLayer::new(Vegas::builder().build()?)),
            ),
            Self::Ours => app.layer(
                ServiceBuilder::new()
                    .layer(DeadlineLayer::new(DeadlineConfig::new(deadline).build()?).protocol(HttpServer::new()))
                    .layer(ShedConfig::default().layer()?.protocol(HttpServer::new())),
            ),
        })
    }
}

/// A little shorter than clients wait: or nobody would be there any more to be told.
pub fn before(time_out: Duration) -> Duration {
    time_out.mul_f64(0.98)
}
