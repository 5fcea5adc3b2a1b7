//! What tower has against overload.

use super::{Chain, Entry, Site};
use buttress_core::{BoxError, Error, Reason, Rejection};
use buttress_sim::world::Fault;
use tower::{
    ServiceBuilder, ServiceExt,
    limit::GlobalConcurrencyLimitLayer,
    load_shed::{LoadShedLayer, error::Overloaded},
};

/// `ConcurrencyLimit` and `LoadShed`, with so many times the right limit: a tenth more than there are workers, of which each
/// gateway has its part.
pub fn enter(site: &Site<'_>, times: f64) -> Entry {
    let right = f64::from(site.story.workers) * 1.1 / f64::from(site.story.gateways);
    let limit = (right * times).round().max(1.0) as usize;
    let chain = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(limit))
        .service(site.upstream.clone());
    Entry::naive(site, Chain::new(chain.map_err(lower)))
}

/// tower boxes its errors.
pub fn lower(error: BoxError) -> Error<Fault> {
    if error.is::<Overloaded>() {
        return Error::Rejected(Rejection::new(Reason::AtCapacity, "tower"));
    }
    error.downcast::<Error<Fault>>().map_or(Error::Inner(Fault::Failed), |error| *error)
}
