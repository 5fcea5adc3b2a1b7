use super::flights::{FlightCounts, Flights, Landed, Member};
use proptest::prelude::*;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Work that is over when it is told so; it keeps the waker of whoever polled it last.
#[derive(Clone, Default)]
struct Work(Arc<WorkState>);

#[derive(Default)]
struct WorkState {
    done: AtomicBool,
    panics: AtomicBool,
    polls: AtomicU32,
    waker: Mutex<Option<Waker>>,
    dropped: AtomicBool,
}

impl Work {
    fn finish(&self) {
        self.0.done.store(true, Relaxed);
        let waker = self.0.waker.lock().unwrap().take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn run(&self) -> Pin<Box<dyn Future<Output = (u32, u32)> + Send>> {
        Box::pin(Running(self.clone()))
    }
}

struct Running(Work);

impl Future for Running {
    type Output = (u32, u32);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(u32, u32)> {
        let state = &self.0.0;
        state.polls.fetch_add(1, Relaxed);
        if !state.done.load(Relaxed) {
            *state.waker.lock().unwrap() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        assert!(!state.panics.load(Relaxed), "the work panics");
        Poll::Ready((1, 2))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.dropped.store(true, Relaxed);
    }
}

/// A task as an executor keeps it: polled only when it was woken.
struct Task {
    member: Member<u8, u32, u32>,
    woken: Arc<Flag>,
    polls: u32,
}

#[derive(Default)]
struct Flag {
    is_set: AtomicBool,
    wakes: AtomicU32,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.is_set.store(true, Relaxed);
        self.wakes.fetch_add(1, Relaxed);
    }
}

impl Task {
    fn new(member: Member<u8, u32, u32>) -> Self {
        let woken = Arc::new(Flag { is_set: AtomicBool::new(true), wakes: AtomicU32::new(0) });
        Self { member, woken, polls: 0 }
    }

    fn run(&mut self) -> Poll<Landed<u32, u32>> {
        if !self.woken.is_set.swap(false, Relaxed) {
            return Poll::Pending;
        }
        self.polls += 1;
        let waker = self.woken.clone().into();
        Pin::new(&mut self.member).poll(&mut Context::from_waker(&waker))
    }
}

struct World {
    flights: Flights<u8>,
    counts: Arc<FlightCounts>,
    works: Vec<Work>,
}

impl World {
    fn new() -> Self {
        let counts = Arc::<FlightCounts>::default();
        Self { flights: Flights::new(counts.clone()), counts, works: Vec::new() }
    }

    fn join(&mut self) -> Task {
        let member = self.flights.join(0);
        if member.leads() {
            let work = Work::default();
            member.launch(work.run());
            self.works.push(work);
        }
        Task::new(member)
    }

    fn flying(&self) -> u64 {
        self.counts.flying.load(Relaxed)
    }
}

#[test]
fn who_joins_is_polled_when_the_result_is_there_and_not_before() {
    let mut world = World::new();
    let mut tasks: Vec<_> = (0..10_000).map(|_| world.join()).collect();
    assert_eq!(world.works.len(), 1);
    for task in &mut tasks {
        assert!(task.run().is_pending());
    }
    // The work may wake its leader as often as it likes.
    for _ in 0..5 {
        let waker = world.works[0].0.waker.lock().unwrap().take();
        waker.unwrap().wake();
        let ran = tasks
            .iter_mut()
            .filter(|task| task.woken.is_set.load(Relaxed))
            .map(|task| assert!(task.run().is_pending()));
        assert_eq!(ran.count(), 1);
    }
    world.works[0].finish();
    assert_eq!(tasks[0].run(), Poll::Ready(Landed::Own(1)));
    for task in &mut tasks[1..] {
        assert_eq!(task.run(), Poll::Ready(Landed::Shared(Arc::new(2))));
        assert_eq!((task.polls, task.woken.wakes.load(Relaxed)), (2, 1));
    }
    assert_eq!(world.flying(), 0);
}

#[test]
fn a_leader_that_leaves_hands_the_same_work_over_to_the_one_who_waits_longest() {
    let mut world = World::new();
    let (mut a, mut b, mut c) = (world.join(), world.join(), world.join());
    for task in [&mut a, &mut b, &mut c] {
        assert!(task.run().is_pending());
    }
    drop(a);
    assert_eq!((b.woken.wakes.load(Relaxed), c.woken.wakes.load(Relaxed)), (1, 0));
    assert!(b.run().is_pending());
    assert_eq!(world.works[0].0.polls.load(Relaxed), 2, "it goes on");
    world.works[0].finish();
    assert_eq!(b.run(), Poll::Ready(Landed::Own(1)));
    assert_eq!(c.run(), Poll::Ready(Landed::Shared(Arc::new(2))));
    assert_eq!((world.works.len(), world.counts.handed_over.load(Relaxed)), (1, 1));
}

#[test]
fn work_that_nobody_waits_for_is_dropped() {
    let mut world = World::new();
    let (a, b) = (world.join(), world.join());
    drop(a);
    assert!(!world.works[0].0.dropped.load(Relaxed));
    drop(b);
    assert!(world.works[0].0.dropped.load(Relaxed));
    assert_eq!(world.flying(), 0);
    let _next = world.join();
    assert_eq!(world.works.len(), 2);
}

#[test]
fn a_panic_is_the_leaders_and_the_others_hear_of_it() {
    let mut world = World::new();
    let (mut a, mut b) = (world.join(), world.join());
    assert!(a.run().is_pending() && b.run().is_pending());
    world.works[0].0.panics.store(true, Relaxed);
    world.works[0].finish();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| a.run())).unwrap_err();
    // It is not dropped yet: whoever caught it may keep it.
    assert_eq!(b.run(), Poll::Ready(Landed::Panicked));
    assert!(world.works[0].0.dropped.load(Relaxed));
    assert_eq!(world.flying(), 0);
    drop(a);
    // One whose work was never made, as what was to make it panicked.
    let unlaunched = world.flights.join::<u32, u32>(0);
    let mut waits = Task::new(world.flights.join(0));
    assert!(waits.run().is_pending());
    drop(unlaunched);
    assert_eq!(waits.run(), Poll::Ready(Landed::Panicked));
    assert_eq!(world.flying(), 0);
}

#[test]
fn who_is_alone_when_it_is_asked_stays_alone() {
    let mut world = World::new();
    let a = world.join();
    let b = world.join();
    let crew = a.member.crew();
    assert!(!crew.close_if_alone());
    drop(b);
    assert!(crew.close_if_alone());
    let c = world.join();
    assert_eq!((world.works.len(), world.flying()), (2, 2), "who comes later makes another call");
    drop(a);
    let _d = world.join();
    assert_eq!(world.works.len(), 2, "and the end of the one before leaves that one alone");
    drop(c);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join,
    /// Runs a task if it was woken.
    Run(usize),
    /// Runs one that was not: executors may.
    Disturb(usize),
    Drop(usize),
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Join),
        4 => (0..8usize).prop_map(Step::Run),
        1 => (0..8usize).prop_map(Step::Disturb),
        2 => (0..8usize).prop_map(Step::Drop),
        1 => Just(Step::Finish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever joins, leaves and finishes in which order: nobody sleeps on, one work at a time is polled, and nothing is left.
    #[test]
    fn nobody_sleeps_on(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        let mut tasks: Vec<Task> = Vec::new();
        let mut own = 0;
        let mut run = |tasks: &mut Vec<Task>, at: usize| {
            if let Poll::Ready(landed) = tasks[at].run() {
                own += u32::from(landed == Landed::Own(1));
                prop_assert_ne!(landed, Landed::Panicked);
                tasks.remove(at);
            }
            Ok(())
        };
        for step in steps {
            match step {
                Step::Join => tasks.push(world.join()),
                Step::Run(at) if at < tasks.len() => run(&mut tasks, at)?,
                Step::Disturb(at) if at < tasks.len() => {
                    tasks[at].woken.is_set.store(true, Relaxed);
                    run(&mut tasks, at)?;
                }
                Step::Drop(at) if at < tasks.len() => drop(tasks.remove(at)),
                Step::Finish => world.works.last().into_iter().for_each(Work::finish),
                _ => {}
            }
            let running = world.works.iter().filter(|work| !work.0.dropped.load(Relaxed)).count();
            prop_assert!(running <= 1, "{} works at once", running);
            prop_assert_eq!(world.flying(), running as u64);
        }
        world.works.last().into_iter().for_each(Work::finish);
        while let Some(at) = tasks.iter().position(|task| task.woken.is_set.load(Relaxed)) {
            run(&mut tasks, at)?;
        }
        prop_assert!(tasks.is_empty(), "{} sleep on", tasks.len());
        prop_assert!(world.works.iter().all(|work| work.0.dropped.load(Relaxed)));
        prop_assert!(own <= world.works.len() as u32);
        prop_assert_eq!(world.flying(), 0);
    }
}

/// The same with real threads.
#[test]
fn nobody_sleeps_on_where_tasks_are_aborted_at_random() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let counts = Arc::<FlightCounts>::default();
    let flights = Flights::<u8>::new(counts.clone());
    let works = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for i in 0..6000u64 {
            let (flights, works) = (flights.clone(), works.clone());
            let key = (i % 3) as u8;
            tasks.push(tokio::spawn(async move {
                let member = flights.join::<u64, u64>(key);
                if member.leads() {
                    works.fetch_add(1, Relaxed);
                    member.launch(Box::pin(async move {
                        for _ in 0..i % 7 {
                            tokio::task::yield_now().await;
                        }
                        (i, i)
                    }));
                }
                member.await
            }));
            if i % 5 == 0 {
                let at = (i * 7919 % (i + 1)) as usize;
                tasks[at].abort();
            }
            if i % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let all = async {
            for task in tasks {
                match task.await {
                    Ok(landed) => assert_ne!(landed, Landed::Panicked),
                    Err(error) => assert!(error.is_cancelled()),
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("somebody sleeps on");
    });
    assert_eq!(counts.flying.load(Relaxed), 0);
    assert!(works.load(Relaxed) < 6000, "some are shared");
}
