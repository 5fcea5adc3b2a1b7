use crate::sync::{Arc, Mutex, lock};
use std::{
    fmt,
    task::{Context, Waker},
};

/// Tasks parked on something else (an inner service that is not ready) that want to hear of a change here.
///
/// Only tasks that are parked anyway take its lock.
#[derive(Clone, Default)]
pub struct Wakers(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    /// Places that nobody's [`Parked`] points to.
    free: Vec<usize>,
}

impl Wakers {
    /// Wakes everyone. Nothing is called under the lock.
    pub fn wake_all(&self) {
        let parked: Vec<Waker> = lock(&self.0).wakers.iter_mut().filter_map(Option::take).collect();
        parked.into_iter().for_each(Waker::wake);
    }

    /// How many are parked.
    pub fn len(&self) -> usize {
        lock(&self.0).wakers.iter().flatten().count()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Wakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakers").field("parked", &self.len()).finish()
    }
}

/// One task's place among [`Wakers`]; dropped, it leaves.
#[derive(Debug, Default)]
pub struct Parked(Option<(Wakers, usize)>);

impl Parked {
    /// Parks the task of `cx` among `wakers`, in the place it had before if it had one.
    pub fn park(&mut self, wakers: &Wakers, cx: &Context<'_>) {
        let (wakers, place) = self.0.get_or_insert_with(|| {
            let mut places = lock(&wakers.0);
            let place = places.free.pop().unwrap_or(places.wakers.len());
            if place == places.wakers.len() {
                places.wakers.push(None);
            }
            drop(places);
            (wakers.clone(), place)
        });
        // A waker is cloned and dropped outside the lock: it may be anyone's code.
        let mine = cx.waker().clone();
        let before = lock(&wakers.0).wakers[*place].replace(mine);
        drop(before);
    }

    /// Leaves.
    pub fn leave(&mut self) {
        if let Some((wakers, place)) = self.0.take() {
            let mut places = lock(&wakers.0);
            let waker = places.wakers[place].take();
            places.free.push(place);
            drop(places);
            drop(waker);
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    struct Count(AtomicU32);
    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn every_parked_task_is_woken_once_and_a_dropped_one_gives_its_place_back() {
        let wakers = Wakers::default();
        let count = std::sync::Arc::new(Count(AtomicU32::new(0)));
        let waker = count.clone().into();
        let cx = Context::from_waker(&waker);
        let (mut a, mut b) = (Parked::default(), Parked::default());
        a.park(&wakers, &cx);
        a.park(&wakers, &cx);
        b.park(&wakers, &cx);
        assert_eq!(wakers.len(), 2);
        drop(a);
        let mut c = Parked::default();
        c.park(&wakers, &cx);
        assert_eq!(lock(&wakers.0).wakers.len(), 2, "the place is used again");
        wakers.wake_all();
        assert_eq!((count.0.load(Relaxed), wakers.len()), (2, 0));
    }
}
