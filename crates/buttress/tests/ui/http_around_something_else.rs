use buttress::prelude::*;

fn main() {
    let io = tower::service_fn(|id: u64| async move { Ok::<_, std::io::Error>(id) });
    let client = tower::ServiceBuilder::new().http_server().bulkhead(4).service(io);
    buttress::check::<u64, _>(&client);
}
