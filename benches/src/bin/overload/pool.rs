//! The fixed pool of workers behind the handler: what a database, or threads, are to a real server.

use buttress_core::Draw;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::sleep};

/// Workers that take jobs in order of arrival, and do them whether or not their client is still there.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    workers: Semaphore,
    /// Workers that go when they have done what they are at.
    leaving: AtomicUsize,
    times: Vec<Duration>,
    jobs: AtomicUsize,
}

impl Pool {
    pub fn new(workers: usize, mean: Duration) -> Self {
        Self(Arc::new(Inner {
            workers: Semaphore::new(workers),
            leaving: AtomicUsize::new(0),
            times: times(mean),
            jobs: AtomicUsize::new(0),
        }))
    }

    /// Has a worker do one job. It is done to its end, also if this is dropped.
    pub async fn work(&self) {
        let inner = self.0.clone();
        let job = tokio::spawn(async move {
            let worker = inner.workers.acquire().await.expect("is never closed");
            let job = inner.jobs.fetch_add(1, Relaxed);
            sleep(inner.times[job % inner.times.len()]).await;
            let leaves = inner.leaving.fetch_update(Relaxed, Relaxed, |leaving| leaving.checked_sub(1));
            if leaves.is_ok() {
                worker.forget();
            }
        });
        // It fails only where the runtime ends, and then nobody waits.
        let _ = job.await;
    }

    /// So many workers go, when they have done what they are at.
    pub fn remove(&self, workers: usize) {
        let at_once = self.0.workers.forget_permits(workers);
        self.0.leaving.fetch_add(workers - at_once, Relaxed);
    }

    /// So many come (back).
    pub fn add(&self, workers: usize) {
        let mut stay = 0;
        let _ = self.0.leaving.fetch_update(Relaxed, Relaxed, |leaving| {
            stay = leaving.min(workers);
            Some(leaving - stay)
        });
        self.0.workers.add_permits(workers - stay);
    }
}

/// How long jobs take: one half of it is fixed, the other exponential. They are a thousand quantiles, shuffled, over and over:
/// every contestant has the same work, and a thousand jobs have exactly the mean.
fn times(mean: Duration) -> Vec<Duration> {
    const COUNT: usize = 1000;
    let mut times: Vec<f64> = (0..COUNT).map(|n| -(1.0 - (n as f64 + 0.5) / COUNT as f64).ln()).collect();
    let sum: f64 = times.iter().sum();
    let draw = Draw::new(0x0b5e);
    for n in (1..COUNT).rev() {
        times.swap(n, draw.draw() as usize % (n + 1));
    }
    times.iter().map(|part| mean.mul_f64(0.5 + 0.5 * part * COUNT as f64 / sum)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    const MEAN: Duration = Duration::from_millis(20);

    #[test]
    fn a_thousand_jobs_have_the_mean_and_some_spread() {
        let times: Vec<_> = times(MEAN).iter().map(Duration::as_secs_f64).collect();
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / times.len() as f64;
        assert!((mean - 0.020).abs() < 1e-6, "{mean}");
        assert!((variance.sqrt() / mean - 0.5).abs() < 0.02, "{}", variance.sqrt() / mean);
        assert!(!times.is_sorted());
    }

    /// How long it takes until `jobs` are done that all come at once.
    async fn takes(pool: &Pool, jobs: usize) -> Duration {
        let began = Instant::now();
        let jobs: Vec<_> = (0..jobs)
            .map(|_| {
                tokio::spawn({
                    let pool = pool.clone();
                    async move { pool.work().await }
                })
            })
            .collect();
        for job in jobs {
            job.await.unwrap();
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_jobs_are_done_at_once_than_there_are_workers() {
        let took = takes(&Pool::new(4, MEAN), 1000).await;
        assert!(took > MEAN * 240 && took < MEAN * 280, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn workers_go_when_they_are_done_and_come_back() {
        let pool = Pool::new(5, MEAN);
        let busy = tokio::spawn({
            let pool = pool.clone();
            async move { takes(&pool, 5).await }
        });
        tokio::task::yield_now().await;
        pool.remove(4);
        busy.await.unwrap();
        let took = takes(&pool, 1000).await;
        assert!(took > MEAN * 990, "one is left: {took:?}");
        pool.add(4);
        let took = takes(&pool, 1000).await;
        assert!(took < MEAN * 230, "five again: {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn workers_that_are_called_back_before_they_went_stay() {
        let pool = Pool::new(2, MEAN);
        let busy = tokio::spawn({
            let pool = pool.clone();
            async move { takes(&pool, 2).await }
        });
        tokio::task::yield_now().await;
        pool.remove(1);
        pool.add(1);
        busy.await.unwrap();
        assert_eq!(pool.0.workers.available_permits(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_job_of_a_client_that_left_is_done() {
        let pool = Pool::new(1, MEAN);
        assert!(timeout(Duration::from_millis(1), pool.work()).await.is_err());
        assert_eq!(pool.0.workers.available_permits(), 0);
        tokio::time::sleep(MEAN * 10).await;
        assert_eq!(pool.0.workers.available_permits(), 1);
    }
}
