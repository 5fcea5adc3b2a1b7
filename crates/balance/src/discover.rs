//! Endpoints that come and go by themselves (feature `discover`).

use crate::{Balance, BalanceConfig, Endpoint, Endpoints, balancer::TARGET, endpoints::Shared};
use buttress_core::{
    ConfigError,
    sync::{Ordering::Relaxed, lock},
};
use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    hash::Hash,
    pin::pin,
    sync::{Arc, Weak},
    task::Poll,
};
use tower::discover::{Change, Discover};

/// The task that follows a stream. It ends with the last clone of the balance.
pub(crate) struct Task(tokio::task::AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl BalanceConfig {
    /// A balance over the endpoints that `discover` names: a `tower::discover` stream. `endpoint` makes an endpoint of a key and
    /// a service: it names it, wraps it in layers of its own, and hands over the signal of its breaker.
    ///
    /// A task of the present tokio runtime reads the stream, until it ends or the last clone of the balance is dropped. An
    /// error of the stream is logged and counted; the endpoints stay as they are, and the stream is read on a second later. When it has
    /// ended, they stay for good.
    ///
    /// Until the stream has named its first endpoint, calls wait for it (a deadline further out bounds that); when it has named
    /// some and removed them all, or ended without any, calls are refused at once.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use buttress_balance::{BalanceConfig, Endpoint};
    /// use buttress_core::Error;
    /// use std::io;
    /// use tower::{ServiceExt, discover::Change, service_fn};
    ///
    /// let changes = [("a", 10), ("b", 20)].map(|(key, factor)| Ok::<_, io::Error>(Change::Insert(key, factor)));
    /// let balance = BalanceConfig::default().discover(tokio_stream::iter(changes), |key, factor| {
    ///     let multiply = service_fn(move |n: u64| async move { Ok::<_, Error<io::Error>>(factor * n) });
    ///     Endpoint::new(*key, multiply)
    /// });
    /// let product = balance.unwrap().oneshot(2).await.unwrap();
    /// assert!(product == 20 || product == 40);
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The first field of the config that is out of its range.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn discover<S, D>(
        self,
        discover: D,
        endpoint: impl FnMut(&D::Key, D::Service) -> Endpoint<S> + Send + 'static,
    ) -> Result<Balance<S>, ConfigError>
    where
        S: Clone + Send + Sync + 'static,
        D: Discover<Key: Hash + Send, Service: Send, Error: fmt::Display> + Send + 'static,
    {
        let balance = Balance::empty(self.build()?);
        balance.endpoints().follow(discover, endpoint);
        Ok(balance)
    }
}

impl<S: Clone + Send + Sync + 'static> Endpoints<S> {
    /// Adds and removes endpoints as `discover` says, as [`BalanceConfig::discover`] does; in the place of the stream that was
    /// followed before, whose endpoints stay.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn follow<D>(&self, discover: D, endpoint: impl FnMut(&D::Key, D::Service) -> Endpoint<S> + Send + 'static)
    where
        D: Discover<Key: Hash + Send, Service: Send, Error: fmt::Display> + Send + 'static,
    {
        let following = follow(Arc::downgrade(&self.0), discover, endpoint);
        let task = Task(tokio::spawn(following).abort_handle());
        let before = lock(&self.0.task).replace(task);
        drop(before);
    }
}

/// So many changes are made at once: a stream that is always ready must not keep them back.
const BATCH: usize = 1024;

async fn follow<S, D>(
    shared: Weak<Shared<S>>,
    discover: D,
    mut endpoint: impl FnMut(&D::Key, D::Service) -> Endpoint<S>,
) where
    S: Clone,
    D: Discover<Key: Hash, Error: fmt::Display>,
{
    let mut discover = pin!(discover);
    // The number of each key's endpoint.
    let mut known: HashMap<D::Key, u32> = HashMap::new();
    loop {
        let mut ended = false;
        // All that is there becomes one change of the endpoints.
        let batch = poll_fn(|cx| {
            let mut batch = Vec::new();
            while batch.len() < BATCH {
                match discover.as_mut().poll_discover(cx) {
                    Poll::Ready(Some(change)) => batch.push(change),
                    Poll::Ready(None) => {
                        ended = true;
                        break;
                    }
                    Poll::Pending if batch.is_empty() => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(batch)
        })
        .await;
        // Somebody else's code, so under no lock.
        let batch: Vec<_> = batch
            .into_iter()
            .map(|change| {
                change.map(|change| match change {
                    Change::Insert(key, service) => {
                        let endpoint = endpoint(&key, service);
                        Change::Insert(key, endpoint)
                    }
                    Change::Remove(key) => Change::Remove(key),
                })
            })
            .collect();
        let Some(shared) = shared.upgrade() else { return };
        let mut errors = 0;
        shared.edit(|list| {
            for change in batch {
                match change {
                    Ok(Change::Insert(key, endpoint)) => {
                        let id = list.insert(endpoint);
                        // The same key under another name: the one before goes.
                        if let Some(before) = known.insert(key, id) {
                            list.remove(|node| node.id == before);
                        }
                    }
                    Ok(Change::Remove(key)) => {
                        if let Some(id) = known.remove(&key) {
                            list.remove(|node| node.id == id);
                        }
                    }
                    Err(error) => {
                        errors += 1;
                        let name = shared.balancer.config().name;
                        tracing::warn!(target: TARGET, balance = &*name, %error, "discovery failed");
                    }
                }
            }
        });
        shared.balancer.counts.discovery_errors.fetch_add(errors, Relaxed);
        if ended {
            shared.opened();
            return;
        }
        drop(shared);
        if errors > 0 {
            tokio::time::sleep(AFTER_ERROR).await;
        }
        tokio::task::yield_now().await;
    }
}

/// A stream that has nothing but errors is not asked all the time.
const AFTER_ERROR: std::time::Duration = std::time::Duration::from_secs(1);
