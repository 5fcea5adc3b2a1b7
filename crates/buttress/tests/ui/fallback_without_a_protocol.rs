//! A fallback that speaks no HTTP around a router.

use axum::{Router, routing::get};
use buttress::{FallbackConfig, FallbackLayer, StaticResponse};

fn main() {
    let sorry = StaticResponse::new(503, "text/plain", "back soon").unwrap();
    let _app: Router = Router::new()
        .route("/", get(async || "hello"))
        .layer(FallbackLayer::new(FallbackConfig::default(), sorry));
}
