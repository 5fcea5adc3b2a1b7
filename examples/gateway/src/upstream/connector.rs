use buttress::BoxError;
use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::timeout;
use tower::Service;

/// Makes connections to endpoints, over TLS or not.
#[derive(Clone)]
pub(crate) struct Connector {
    connector: HttpsConnector<HttpConnector>,
    /// How long a connection may take to be there: with the name that is looked up, and TLS. (hyper's own time-out is for TCP.)
    patience: Duration,
}

impl Connector {
    pub(crate) fn new(connector: HttpsConnector<HttpConnector>, patience: Duration) -> Self {
        Self { connector, patience }
    }
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connected, patience) = (self.connector.call(uri), self.patience);
        Box::pin(async move {
            timeout(patience, connected).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}
