use buttress::prelude::*;

fn main() {
    let io = tower::service_fn(|id: u64| async move { Ok::<_, std::io::Error>(id) });
    let _ = tower::ServiceBuilder::new().opaque().bulkhead(4).service_for::<u64, _>(io);
}
