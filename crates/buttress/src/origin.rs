use buttress_core::ConfigError;
use http::{Request, Uri, uri};
use std::{
    fmt,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// Sends every request to one origin ([RFC 6454](https://www.rfc-editor.org/rfc/rfc6454)): its scheme and its authority, in place
/// of those that the request's URI names, or does not. What a client of several servers puts around its transport, once for each.
///
/// ```
/// use buttress::http::OriginLayer;
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let transport = service_fn(async |req: Request<()>| Ok::<_, std::io::Error>(Response::new(req.uri().to_string())));
/// let users = OriginLayer::new("http://10.0.0.1:8080")?.layer(transport);
/// let response = users.oneshot(Request::get("/users/7?full").body(())?).await?;
/// assert_eq!(response.into_body(), "http://10.0.0.1:8080/users/7?full");
///
/// let error = OriginLayer::new("10.0.0.1").unwrap_err();
/// assert_eq!(error.to_string(), "`origin` is \"10.0.0.1\", allowed: a scheme and an authority, as in \"http://10.0.0.1:8080\"");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct OriginLayer {
    scheme: uri::Scheme,
    authority: uri::Authority,
}

impl OriginLayer {
    /// The layer for `origin`, as in `http://10.0.0.1:8080`.
    ///
    /// # Errors
    ///
    /// It is no URI, or has no scheme, no authority, or a path.
    pub fn new(origin: &str) -> Result<Self, ConfigError> {
        let wrong = || {
            ConfigError::new(
                "origin",
                format!("{origin:?}"),
                "a scheme and an authority, as in \"http://10.0.0.1:8080\"",
            )
        };
        let parts = origin.parse::<Uri>().map_err(|_| wrong())?.into_parts();
        if parts.path_and_query.is_some_and(|path| path != "/") {
            return Err(wrong());
        }
        let (scheme, authority) = parts.scheme.zip(parts.authority).ok_or_else(wrong)?;
        Ok(Self { scheme, authority })
    }
}

impl<S> Layer<S> for OriginLayer {
    type Service = Origin<S>;

    fn layer(&self, inner: S) -> Origin<S> {
        Origin { inner, origin: self.clone() }
    }
}

/// The service of [`OriginLayer`].
#[derive(Clone)]
pub struct Origin<S> {
    inner: S,
    origin: OriginLayer,
}

impl<S> fmt::Debug for Origin<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Origin").field(&self.origin.authority).finish()
    }
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Origin<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut req: Request<B>) -> S::Future {
        let mut parts = std::mem::take(req.uri_mut()).into_parts();
        parts.scheme = Some(self.origin.scheme.clone());
        parts.authority = Some(self.origin.authority.clone());
        parts.path_and_query.get_or_insert_with(|| uri::PathAndQuery::from_static("/"));
        *req.uri_mut() = Uri::from_parts(parts).expect("a scheme, an authority and a path are a URI");
        self.inner.call(req)
    }
}
