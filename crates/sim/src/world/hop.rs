use super::World;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tower::ServiceExt;
use tower_service::Service;

impl World {
    /// `service` as another process sees it: its calls run in tasks of their own, and are dropped with the caller's.
    pub fn hop<S>(&self, service: S) -> Hop<S> {
        Hop { world: self.clone(), service }
    }
}

/// A service behind a network: see [`World::hop`].
#[derive(Clone, Debug)]
pub struct Hop<S> {
    world: World,
    service: S,
}

impl<S, Req> Service<Req> for Hop<S>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
    Req: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Req) -> Self::Future {
        let (mut answer, answered) = tokio::sync::oneshot::channel();
        let service = self.service.clone();
        self.world.spawn(async move {
            tokio::select! {
                biased;
                result = service.oneshot(req) => drop(answer.send(result)),
                () = answer.closed() => {}
            }
        });
        Box::pin(async move {
            match answered.await {
                Ok(result) => result,
                Err(_) => std::future::pending().await,
            }
        })
    }
}
