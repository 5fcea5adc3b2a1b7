use super::{
    Joined, Place, Verdict,
    waiting::{Fixed, Full, Waiting, join, permits},
};
use crate::sync::{
    Arc, AtomicU32,
    Ordering::{AcqRel, Acquire},
};
use loom::{sync::Notify, thread};
use std::task::{Context, Poll, Wake, Waker};

fn explore(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

/// Permits, and an eye on how many are out.
struct Watched {
    permits: Fixed,
    out: AtomicU32,
}

impl Watched {
    fn new(limit: u32, stripes: usize) -> Arc<Self> {
        Arc::new(Self { permits: permits(limit, stripes, false), out: AtomicU32::new(0) })
    }

    fn taken(&self, at_most: u32) {
        assert!(self.out.fetch_add(1, AcqRel) < at_most, "more than {at_most} at once");
    }

    fn release(&self, home: usize) {
        self.out.fetch_sub(1, AcqRel);
        self.permits.release(home, || ());
    }

    fn wait(&self, home: usize, at_most: u32) {
        match join(&self.permits, home, usize::MAX) {
            Ok(Joined::Now) => {}
            Ok(Joined::Later(mut place)) => assert_eq!(self.block_on(&mut place), Verdict::Permit),
            Err(Full) => unreachable!(),
        }
        self.taken(at_most);
    }

    /// A lost wake-up is a deadlock here, and loom finds it.
    fn block_on(&self, place: &mut Place<Waiting>) -> Verdict<&'static str> {
        struct Unpark(Notify);
        impl Wake for Unpark {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.notify();
            }
        }
        let unpark = std::sync::Arc::new(Unpark(Notify::new()));
        let waker = Waker::from(unpark.clone());
        loop {
            match place.poll(&Context::from_waker(&waker)) {
                Poll::Ready(grant) => return grant,
                Poll::Pending => unpark.0.wait(),
            }
        }
    }
}

#[test]
fn loom_never_more_than_the_limit_and_all_come_back() {
    explore(|| {
        let watched = Watched::new(1, 1);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let watched = watched.clone();
                thread::spawn(move || {
                    if watched.permits.try_acquire(0, || ()) {
                        watched.taken(1);
                        watched.release(0);
                    }
                })
            })
            .collect();
        if watched.permits.try_acquire(0, || ()) {
            watched.taken(1);
            watched.release(0);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        watched.permits.assert_at_rest(1);
    });
}

#[test]
fn loom_everyone_who_waits_gets_a_turn() {
    explore(|| {
        let watched = Watched::new(1, 1);
        assert!(watched.permits.try_acquire(0, || ()));
        watched.taken(1);
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let watched = watched.clone();
                thread::spawn(move || {
                    watched.wait(0, 1);
                    watched.release(0);
                })
            })
            .collect();
        watched.release(0);
        waiters.into_iter().for_each(|thread| thread.join().unwrap());
        watched.permits.assert_at_rest(1);
    });
}

#[test]
fn loom_a_newcomer_does_not_overtake_a_waiter() {
    explore(|| {
        let watched = Watched::new(1, 1);
        assert!(watched.permits.try_acquire(0, || ()));
        let Ok(Joined::Later(mut place)) = join(&watched.permits, 0, 1) else { panic!("there is no room") };
        let newcomer = {
            let watched = watched.clone();
            thread::spawn(move || assert!(!watched.permits.try_acquire(0, || ()), "it overtook the waiter"))
        };
        watched.permits.release(0, || ());
        assert_eq!(watched.block_on(&mut place), Verdict::Permit);
        newcomer.join().unwrap();
        watched.permits.release(0, || ());
        watched.permits.assert_at_rest(1);
    });
}

#[test]
fn loom_a_waiter_that_leaves_takes_nothing_with_it() {
    explore(|| {
        let watched = Watched::new(1, 1);
        assert!(watched.permits.try_acquire(0, || ()));
        watched.taken(1);
        let Ok(Joined::Later(place)) = join(&watched.permits, 0, 2) else { panic!("there is no room") };
        let stays = {
            let watched = watched.clone();
            thread::spawn(move || {
                watched.wait(0, 1);
                watched.release(0);
            })
        };
        let leaves = {
            let watched = watched.clone();
            thread::spawn(move || {
                if let Some(grant) = watched.permits.leave(&place, || ()) {
                    assert_eq!(grant, Verdict::Permit);
                    watched.permits.release(0, || ());
                }
            })
        };
        watched.release(0);
        stays.join().unwrap();
        leaves.join().unwrap();
        watched.permits.assert_at_rest(1);
    });
}

#[test]
fn loom_a_higher_limit_lets_waiters_in() {
    for stripes in [1, 2] {
        explore(move || {
            let watched = Watched::new(1, stripes);
            assert!(watched.permits.try_acquire(0, || ()));
            watched.taken(2);
            let waiter = {
                let watched = watched.clone();
                thread::spawn(move || watched.wait(stripes - 1, 2))
            };
            watched.permits.set_limit(|| 2, ());
            waiter.join().unwrap();
            watched.release(0);
            watched.release(stripes - 1);
            watched.permits.assert_at_rest(2);
        });
    }
}

#[test]
fn loom_a_lower_limit_admits_nobody_until_it_is_reached() {
    for stripes in [1, 2] {
        explore(move || {
            let watched = Watched::new(2, stripes);
            assert!(watched.permits.try_acquire(0, || ()) && watched.permits.try_acquire(stripes - 1, || ()));
            let ended = Arc::new(AtomicU32::new(0));
            let calls = {
                let (watched, ended) = (watched.clone(), ended.clone());
                thread::spawn(move || {
                    for home in [0, stripes - 1] {
                        ended.fetch_add(1, AcqRel);
                        watched.permits.release(home, || ());
                    }
                })
            };
            watched.permits.set_limit(|| 1, ());
            if watched.permits.try_acquire(0, || ()) {
                assert_eq!(ended.load(Acquire), 2, "two were still in flight, or one and the limit is one");
                watched.permits.release(0, || ());
            }
            calls.join().unwrap();
            watched.permits.assert_at_rest(1);
        });
    }
}

#[test]
fn loom_resizes_that_cross_keep_every_permit() {
    for stripes in [1, 2] {
        explore(move || {
            let watched = Watched::new(2, stripes);
            let shrinks = {
                let watched = watched.clone();
                thread::spawn(move || watched.permits.set_limit(|| 1, ()))
            };
            let calls = {
                let watched = watched.clone();
                thread::spawn(move || {
                    if watched.permits.try_acquire(0, || ()) {
                        watched.permits.release(0, || ());
                    }
                })
            };
            watched.permits.set_limit(|| 3, ());
            shrinks.join().unwrap();
            calls.join().unwrap();
            let limit = watched.permits.limit();
            assert!(limit == 1 || limit == 3);
            watched.permits.assert_at_rest(limit);
        });
    }
}

#[test]
fn loom_steals_never_exceed_the_limit_and_lose_nothing() {
    explore(|| {
        let watched = Watched::new(2, 2);
        let other = {
            let watched = watched.clone();
            thread::spawn(move || {
                assert!(watched.permits.try_acquire(0, || ()), "there are two permits for two calls");
                watched.taken(2);
                watched.release(0);
            })
        };
        // Both live in stripe 0: the one who comes second must find the permit in stripe 1.
        assert!(watched.permits.try_acquire(0, || ()), "there are two permits for two calls");
        watched.taken(2);
        watched.release(0);
        other.join().unwrap();
        watched.permits.assert_at_rest(2);
    });
}

#[test]
fn loom_three_thieves_never_exceed_the_limit() {
    explore(|| {
        let watched = Watched::new(2, 2);
        let threads: Vec<_> = [0, 1]
            .map(|home| {
                let watched = watched.clone();
                thread::spawn(move || {
                    if watched.permits.try_acquire(home, || ()) {
                        watched.taken(2);
                        watched.release(home);
                    }
                })
            })
            .into_iter()
            .collect();
        if watched.permits.try_acquire(0, || ()) {
            watched.taken(2);
            watched.release(0);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        watched.permits.assert_at_rest(2);
    });
}

#[test]
fn loom_permits_between_stripes_are_not_lost_to_waiters() {
    explore(|| {
        // Shares 4 and 3. Stripe 0 is full, and so is the compartment with the three calls that come: no call ends.
        let watched = Watched::new(7, 2);
        (0..4).for_each(|_| assert!(watched.permits.try_acquire(0, || ())));
        let threads: Vec<_> = (0..2)
            .map(|home| {
                let watched = watched.clone();
                thread::spawn(move || watched.wait(home, 7))
            })
            .collect();
        watched.wait(1, 7);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(watched.permits.in_flight(), 7);
        assert!(!watched.permits.try_acquire(0, || ()) && !watched.permits.try_acquire(1, || ()));
    });
}

#[test]
fn loom_a_thief_hands_over_what_it_carries_past_a_waiter() {
    explore(|| {
        let watched = Watched::new(7, 2);
        (0..4).for_each(|_| assert!(watched.permits.try_acquire(0, || ())));
        assert!(watched.permits.try_acquire(1, || ()), "two are left in stripe 1");
        assert!(watched.permits.try_acquire(1, || ()));
        watched.permits.release(1, || ());
        watched.permits.release(1, || ());
        let thief = {
            let watched = watched.clone();
            thread::spawn(move || watched.permits.try_acquire(0, || ()))
        };
        let waiter = {
            let watched = watched.clone();
            thread::spawn(move || watched.wait(1, 7))
        };
        watched.wait(1, 7);
        waiter.join().unwrap();
        assert!(thief.join().unwrap());
        (0..5).for_each(|_| watched.permits.release(0, || ()));
        (0..2).for_each(|_| watched.permits.release(1, || ()));
        watched.permits.assert_at_rest(7);
    });
}

#[test]
fn loom_one_that_is_turned_away_is_woken_and_the_next_has_its_turn() {
    explore(|| {
        let watched = Watched::new(1, 1);
        assert!(watched.permits.try_acquire(0, || ()));
        watched.taken(1);
        let Ok(Joined::Later(mut late)) = join(&watched.permits, 0, 2) else { panic!("there is no room") };
        watched.permits.with_line(|line, _| line.late = late.id() + 1);
        let next = {
            let watched = watched.clone();
            thread::spawn(move || {
                watched.wait(0, 1);
                watched.release(0);
            })
        };
        let refused = {
            let watched = watched.clone();
            thread::spawn(move || assert_eq!(watched.block_on(&mut late), Verdict::Refused("too late")))
        };
        watched.release(0);
        next.join().unwrap();
        refused.join().unwrap();
        watched.permits.assert_at_rest(1);
    });
}

#[test]
fn loom_who_takes_without_the_lock_overtakes_nobody_and_keeps_nothing_from_him() {
    explore(|| {
        let watched = Watched::new(3, 2);
        (0..2).for_each(|_| assert!(watched.permits.try_acquire(0, || ())));
        assert!(watched.permits.try_acquire(1, || ()));
        watched.permits.release(1, || ());
        let thief = {
            let watched = watched.clone();
            thread::spawn(move || {
                if watched.permits.try_now(0, || ()) {
                    watched.permits.release(0, || ());
                }
            })
        };
        let waiter = {
            let watched = watched.clone();
            thread::spawn(move || {
                watched.wait(1, 3);
                watched.release(1);
            })
        };
        watched.permits.release(0, || ());
        thief.join().unwrap();
        waiter.join().unwrap();
        watched.permits.release(0, || ());
        watched.permits.assert_at_rest(3);
    });
}

#[test]
fn loom_who_waits_passes_once_or_has_a_permit_and_the_permits_are_as_before() {
    explore(|| {
        let watched = Watched::new(1, 1);
        assert!(watched.permits.try_acquire(0, || ()));
        let counted = Arc::new(AtomicU32::new(0));
        let waiters = [(); 2].map(|()| match join(&watched.permits, 0, 2) {
            Ok(Joined::Later(place)) => place,
            _ => panic!("there is no room"),
        });
        let opens = {
            let (watched, counted) = (watched.clone(), counted.clone());
            thread::spawn(move || watched.permits.pass_all((), || _ = counted.fetch_add(1, AcqRel)))
        };
        let [mut first, leaves] = waiters;
        let leaves = {
            let watched = watched.clone();
            thread::spawn(move || {
                let verdict = watched.permits.leave(&leaves, || ());
                if verdict == Some(Verdict::Permit) {
                    watched.permits.release(0, || ());
                }
                verdict == Some(Verdict::Pass)
            })
        };
        watched.permits.release(0, || ());
        let verdict = watched.block_on(&mut first);
        if verdict == Verdict::Permit {
            watched.permits.release(0, || ());
        }
        opens.join().unwrap();
        let passed = u32::from(leaves.join().unwrap()) + u32::from(verdict == Verdict::Pass);
        assert_eq!(counted.load(Acquire), passed, "each who passes is counted, and nobody else");
        watched.permits.assert_at_rest(1);
    });
}
