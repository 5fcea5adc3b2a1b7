use buttress_core::Lift;
use tower_service::Service;

/// What any service gains.
pub trait ServiceExt: Sized {
    /// Turns the error `E` into [`Error<E>`](crate::Error), so that layers above can refuse. Once, at the bottom of a client
    /// chain; no layer above changes the type again.
    ///
    /// `E` must be `std::error::Error + 'static`, so that a refusal can be found among its sources; a `String` or a type
    /// without that trait becomes one first, with [`map_err`](tower::ServiceExt::map_err).
    ///
    /// ```
    /// use buttress::prelude::*;
    /// use tower::{ServiceBuilder, service_fn};
    ///
    /// let db = service_fn(|id: u64| async move { Ok::<_, std::io::Error>(id) });
    /// let guarded = ServiceBuilder::new().bulkhead(8).service(db.lift_errors());
    /// # buttress::check::<u64, _>(&guarded);
    /// ```
    fn lift_errors(self) -> Lift<Self> {
        Lift::new(self)
    }
}

impl<S> ServiceExt for S {}

/// Asks the compiler whether `service` takes requests of type `Req`, and if not, why.
///
/// Method syntax (`service.oneshot(request)`) hides the reason behind "trait bounds were not satisfied"; this shows it.
/// Over HTTP: `buttress::check::<http::Request<Body>, _>(&client)` with the body type of your requests. It does nothing when
/// it runs.
///
/// ```
/// # use buttress::prelude::*;
/// # use tower::{ServiceBuilder, service_fn};
/// # let inner = service_fn(|id: u64| async move { Ok::<_, std::io::Error>(id) });
/// let service = ServiceBuilder::new().bulkhead(8).service(inner.lift_errors());
/// buttress::check::<u64, _>(&service);
/// ```
pub fn check<Req, S: Service<Req>>(service: &S) {
    let _ = service;
}
