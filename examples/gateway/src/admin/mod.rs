//! The admin listener: is it alive, is it ready, what do its layers do, and what an operator wants of them.

mod acts;
mod guard;
mod pages;

use crate::{proxy::Gateway, server::Phase};
use axum::{
    Router, middleware,
    routing::{get, post},
};
use guard::Guard;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    time::Instant,
};

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct Admin {
    gateway: Arc<Gateway>,
    phases: watch::Receiver<Phase>,
    /// Told to drain.
    drain: Arc<Notify>,
    started: Instant,
}

impl Admin {
    pub(crate) fn new(gateway: Arc<Gateway>, phases: watch::Receiver<Phase>, drain: Arc<Notify>) -> Self {
        Self { gateway, phases, drain, started: Instant::now() }
    }

    /// Serves the pages for as long as the process lives. With a `token`, who bears it may ask; without, who asks from here.
    pub(crate) async fn serve(self, listener: TcpListener, token: Option<String>) {
        let guard = Arc::new(Guard::new(token));
        let app = self.app().layer(middleware::from_fn_with_state(guard, guard::check));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let app = TowerToHyperService::new(app.clone());
            tokio::spawn(async move {
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(5))
                    .serve_connection(TokioIo::new(stream), app)
                    .await;
            });
        }
    }

    fn app(self) -> Router {
        Router::new()
            .route("/", get(pages::index))
            .route("/livez", get(pages::alive))
            .route("/readyz", get(pages::ready))
            .route("/startupz", get(pages::started))
            .route("/status", get(pages::status))
            .route("/metrics", get(pages::metrics))
            .route("/drain", post(acts::drain))
            .route("/breaker/{cluster}", post(acts::breaker))
            .route("/clusters", get(pages::clusters))
            .route("/shed/{cluster}", post(acts::shed))
            .route("/inject/{cluster}", post(acts::inject))
            .route("/canary/{route}", post(acts::canary))
            .route("/toggle/{toggle}", post(acts::toggle))
            .route("/levels", get(pages::levels).post(acts::levels))
            .route("/toggles", get(pages::toggles))
            .route("/failover/{route}", post(acts::failover))
            .route("/mode/{*layer}", post(acts::mode))
            .fallback(pages::nowhere)
            .with_state(self)
    }
}
