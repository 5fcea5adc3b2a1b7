use std::{fmt, future::Future, panic::Location, time::Duration};

/// How long [`eventually`] waits: generous, as a loaded machine is no defect.
pub const BOUND: Duration = Duration::from_secs(10);

/// Waits until `cond` holds. Instead of a sleep in a test: it takes as long as it must and not longer.
///
/// It polls on tokio's clock every few milliseconds, so it works under a paused clock, too (sockets do not: a paused clock
/// runs ahead while a socket waits).
///
/// # Panics
///
/// After [`BOUND`], with `what` and the place it was called from.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering::Relaxed}};
///
/// let done = Arc::new(AtomicBool::new(false));
/// let worker = done.clone();
/// tokio::spawn(async move { worker.store(true, Relaxed) });
/// buttress_sim::eventually("the worker is done", || done.load(Relaxed)).await;
/// # }
/// ```
#[track_caller]
pub fn eventually<'a, D, C>(what: D, mut cond: C) -> impl Future<Output = ()> + use<'a, D, C>
where
    D: fmt::Display + 'a,
    C: FnMut() -> bool + 'a,
{
    let place = Location::caller();
    async move {
        let wait = async {
            while !cond() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(BOUND, wait).await.is_err() {
            panic!("not within {BOUND:?}: {what} ({place})");
        }
    }
}
