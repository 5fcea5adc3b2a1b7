//! What a fallback answers with is a backup, and not a text.

use axum::{Router, routing::get};
use buttress::prelude::*;
use tower::ServiceBuilder;

fn main() {
    let chain = ServiceBuilder::new().http_server().fallback("back soon");
    let _app: Router = Router::new().route("/", get(async || "hello")).layer(chain);
}
