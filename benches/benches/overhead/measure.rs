//! Samples of all contestants in turn, on one thread and on two that share a layer's state.

use crate::{
    alloc,
    contest::{Contestant, Fate},
    traffic::Caller,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// How long and how often to look.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub samples: usize,
    pub batch: Duration,
}

impl Effort {
    pub const FULL: Self = Self { samples: 31, batch: Duration::from_millis(2) };
    /// Shows that everything runs; its figures are rough.
    pub const QUICK: Self = Self { samples: 3, batch: Duration::from_micros(200) };
}

/// What a contestant costs by itself, inner service and all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Nanoseconds per call: the median of the samples.
    pub ns: f64,
    /// Allocations per call: the fewest of a sample (tables that grow once are not the call's).
    pub allocs: f64,
}

/// The costs on one thread and on two.
pub type Costs = [Cost; 2];

/// Measures all, interleaved: what disturbs the machine for a while disturbs everyone.
pub fn measure(rows: &mut [Contestant], effort: Effort, runtime: &Handle) -> Vec<Costs> {
    let partner = Partner::start(runtime.clone());
    let calls: Vec<u64> = rows.iter_mut().map(|row| calls_of_a_batch(row, effort.batch)).collect();
    let mut samples: Vec<[Vec<Cost>; 2]> = vec![Default::default(); rows.len()];
    for _ in 0..effort.samples {
        for ((row, samples), &calls) in rows.iter_mut().zip(&mut samples).zip(&calls) {
            samples[0].push(alone(row, calls));
            samples[1].push(partner.together(row, calls, effort.batch * 3));
        }
    }
    samples.into_iter().map(|threads| threads.map(typical)).collect()
}

fn typical(mut samples: Vec<Cost>) -> Cost {
    samples.sort_by(|a, b| a.ns.total_cmp(&b.ns));
    let allocs = samples.iter().map(|sample| sample.allocs).fold(f64::MAX, f64::min);
    Cost { ns: samples[samples.len() / 2].ns, allocs }
}

/// Calls run in chunks, so that two threads can stop together.
const CHUNK: u64 = 128;

fn calls_of_a_batch(row: &mut Contestant, batch: Duration) -> u64 {
    let mut calls = CHUNK;
    loop {
        let lap = Lap::run(&mut *row.callers[0], calls, |_| false);
        lap.check(row);
        if lap.took * 2 >= batch || calls > 1 << 24 {
            let scale = batch.as_secs_f64() / lap.took.as_secs_f64().max(1e-9);
            return ((calls as f64 * scale) as u64).next_multiple_of(CHUNK).max(CHUNK);
        }
        calls *= 2;
    }
}

fn alone(row: &mut Contestant, calls: u64) -> Cost {
    let lap = Lap::run(&mut *row.callers[0], calls, |_| false);
    lap.check(row);
    lap.cost()
}

/// What one thread did.
#[derive(Clone, Copy)]
struct Lap {
    calls: u64,
    good: u64,
    took: Duration,
    allocs: u64,
}

impl Lap {
    /// Runs `calls` calls, or fewer when `over` says so of the time it has taken.
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]
    fn run(caller: &mut dyn Caller, calls: u64, over: impl Fn(Duration) -> bool) -> Self {
        let (mut done, mut good) = (0, 0);
        let allocs = alloc::count();
        let start = Instant::now();
        while done < calls && !over(start.elapsed()) {
            good += caller.run(CHUNK);
            done += CHUNK;
        }
        Self { calls: done, good, took: start.elapsed(), allocs: alloc::count() - allocs }
    }

    fn and(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            good: self.good + other.good,
            took: self.took + other.took,
            allocs: self.allocs + other.allocs,
        }
    }

    fn cost(&self) -> Cost {
        Cost { ns: self.took.as_nanos() as f64 / self.calls as f64, allocs: self.allocs as f64 / self.calls as f64 }
    }

    fn check(&self, row: &Contestant) {
        let want = match row.fate {
            Fate::Admitted => self.calls,
            Fate::Refused => 0,
        };
        assert_eq!(self.good, want, "{:?} {} {:?}: {:?} calls", row.title, row.protocol, row.path, row.fate);
    }
}

/// The second thread. It lives as long as the run, so that its number (by which layers choose a stripe) stays the same.
struct Partner {
    work: mpsc::Sender<Job>,
    done: mpsc::Receiver<(Box<dyn Caller>, Lap)>,
}

type Job = (Box<dyn Caller>, Arc<Duel>);

/// Both start together, and when one is done both stop: the time that is counted is all contended.
struct Duel {
    calls: u64,
    /// Some contestants take fifty times as long as on one thread.
    limit: Duration,
    ready: AtomicUsize,
    over: AtomicBool,
}

impl Duel {
    fn new(calls: u64, limit: Duration) -> Self {
        Self { calls, limit, ready: AtomicUsize::new(0), over: AtomicBool::new(false) }
    }

    fn run(&self, caller: &mut dyn Caller) -> Lap {
        self.ready.fetch_add(1, Ordering::AcqRel);
        while self.ready.load(Ordering::Acquire) < 2 {
            std::hint::spin_loop();
        }
        let lap = Lap::run(caller, self.calls, |took| self.over.load(Ordering::Relaxed) || took > self.limit);
        self.over.store(true, Ordering::Relaxed);
        lap
    }
}

impl Partner {
    fn start(runtime: Handle) -> Self {
        let (work, jobs) = mpsc::channel::<Job>();
        let (report, done) = mpsc::channel();
        thread::spawn(move || {
            let _inside = runtime.enter();
            for (mut caller, duel) in jobs {
                let lap = duel.run(&mut *caller);
                if report.send((caller, lap)).is_err() {
                    return;
                }
            }
        });
        Self { work, done }
    }

    fn together(&self, row: &mut Contestant, calls: u64, limit: Duration) -> Cost {
        /// A busy machine may run one thread after the other, which says nothing about two at once.
        const TRIES: usize = 8;
        let mut tries = 0;
        loop {
            let (one, other) = self.duel(row, calls, limit);
            tries += 1;
            let is_overlapped = one.calls.min(other.calls) * 8 > one.calls.max(other.calls);
            if is_overlapped || tries == TRIES {
                return one.and(other).cost();
            }
        }
    }

    fn duel(&self, row: &mut Contestant, calls: u64, limit: Duration) -> (Lap, Lap) {
        let duel = Arc::new(Duel::new(calls, limit));
        let second = row.callers.pop().expect("two callers");
        self.work.send((second, duel.clone())).expect("the partner lives");
        let one = duel.run(&mut *row.callers[0]);
        let (second, other) = self.done.recv().expect("the partner lives");
        row.callers.push(second);
        one.and(other).check(row);
        (one, other)
    }
}
