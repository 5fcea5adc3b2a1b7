use buttress::prelude::*;

#[derive(Debug)]
struct MyError;

fn main() {
    let io = tower::service_fn(|id: u64| async move { Err::<u64, _>(MyError).or(Ok::<_, MyError>(id)) });
    let client = tower::ServiceBuilder::new().bulkhead(4).service(io);
    buttress::check::<u64, _>(&client);
}
