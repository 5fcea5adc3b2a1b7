//! Chains inside spawned async blocks: `Send`, and general enough for the compiler.

use buttress::prelude::*;
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};

#[tokio::test]
async fn a_chain_with_boxed_errors_can_be_awaited_in_a_spawned_block() {
    let inner = service_fn(|id: u64| async move { Ok::<_, buttress::BoxError>(id) });
    let mut client = ServiceBuilder::new().bulkhead(8).service(inner);
    let spawned = tokio::spawn(async move { client.ready().await?.call(7).await });
    assert_eq!(spawned.await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn a_whole_chain_with_boxed_errors_can_be_awaited_in_a_spawned_block() {
    let inner = service_fn(|id: u64| async move { Ok::<_, buttress::BoxError>(id) });
    let client = ServiceBuilder::new()
        .deadline(std::time::Duration::from_secs(1))
        .breaker(Breaker::default())
        .queued_bulkhead(8)
        .service(inner);
    let spawned = tokio::spawn(async move { client.oneshot(7).await });
    assert_eq!(spawned.await.unwrap().unwrap(), 7);
}
