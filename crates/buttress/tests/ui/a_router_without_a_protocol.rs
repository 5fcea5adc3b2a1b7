use buttress::BulkheadLayer;

fn main() {
    let _: axum::Router = axum::Router::new().layer(BulkheadLayer::new(4));
}
