use crate::{
    limit::{Limit, Span, Window},
    meter::{End, Meter},
};
use buttress_core::{Clock, TokioClock, sync::Arc};
use loom::thread;
use std::time::Duration;

fn explore(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    // Two show what three would, in a tenth of the time: each thread does little.
    model.preemption_bound = Some(2);
    model.check(test);
}

/// Adds up what it is shown. Nothing else happens under its lock, so loom need not know it.
#[derive(Clone, Debug, Default)]
struct Adds(std::sync::Arc<std::sync::Mutex<[u64; 4]>>);

impl Limit for Adds {
    fn limit(&self) -> u32 {
        1 + self.0.lock().unwrap()[0] as u32
    }

    fn span(&self) -> Span {
        Span { looks: [(2, Duration::ZERO), (9, Duration::MAX), (9, Duration::MAX)], until: None }
    }

    fn observe(&mut self, window: &Window) {
        assert!(window.timed_out <= window.censored && window.censored <= window.samples);
        let mut sums = self.0.lock().unwrap();
        sums[0] += u64::from(window.samples);
        sums[1] += window.total.as_nanos() as u64 / 16;
        sums[2] += u64::from(window.timed_out);
        sums[3] += window.completed;
    }

    fn name(&self) -> &'static str {
        "adds"
    }
}

/// A call ends, and whoever ends a window shows it.
fn end(meter: &Meter, units: u64, end: End, completed: u64) {
    if meter.add(16 * units, end, 1, 0) {
        meter.close(0, || completed);
    }
}

#[test]
fn loom_every_sample_is_in_one_window() {
    explore(|| {
        let adds = Adds::default();
        let meter = Arc::new(Meter::new(Box::new(adds.clone()), TokioClock.now()));
        let other = {
            let meter = meter.clone();
            thread::spawn(move || end(&meter, 1, End::TimedOut, 0))
        };
        end(&meter, 100, End::TimedOut, 0);
        end(&meter, 1_000, End::Whole, 0);
        other.join().unwrap();
        // What may be left, and enough to end it.
        end(&meter, 10_000, End::Whole, 0);
        end(&meter, 10_000, End::Whole, 3);
        let [samples, units, timed_out, completed] = *adds.0.lock().unwrap();
        let left = 5 - samples;
        assert!(left <= 1, "{left} are left");
        assert_eq!(units, 1_101 + 10_000 * (2 - left));
        assert_eq!((timed_out, completed), (2, if left == 0 { 3 } else { completed }));
        assert!(u64::from(meter.limit()) == 1 + samples, "what was published last is what was seen last");
    });
}

#[test]
fn loom_a_restart_beside_an_end_leaves_whole_windows() {
    explore(|| {
        let (old, new) = (Adds::default(), Adds::default());
        let meter = Arc::new(Meter::new(Box::new(old.clone()), TokioClock.now()));
        let other = {
            let meter = meter.clone();
            thread::spawn(move || {
                end(&meter, 1, End::TimedOut, 1);
                end(&meter, 1, End::TimedOut, 2);
            })
        };
        meter.restart(Some(Box::new(new.clone())), 0, 0);
        other.join().unwrap();
        let (old, new) = (*old.0.lock().unwrap(), *new.0.lock().unwrap());
        assert!(old[0] + new[0] == 2 || old[0] + new[0] == 0, "{old:?} {new:?}");
        assert_eq!(u64::from(meter.limit()), 1 + new[0]);
    });
}
