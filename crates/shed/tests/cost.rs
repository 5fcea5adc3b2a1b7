//! What a call costs: `cargo test --release -p buttress-shed --test cost -- --ignored --nocapture`.
use buttress_core::{Clock, Enqueue, Outcome, Settle, TokioClock};
use buttress_shed::{
    Algorithm, QueueConfig, Shed, ShedConfig,
    limit::{Fixed, Limit, Span, Window},
};
use std::hint::black_box;

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn measure(name: &str, calls: u32, mut call: impl FnMut()) {
    let mut samples: Vec<f64> = (0..15)
        .map(|_| {
            let start = std::time::Instant::now();
            (0..calls).for_each(|_| call());
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    println!("{name:40} {:6.1} ns (min {:.1})", samples[7], samples[0]);
}

/// Wants to see every call.
#[derive(Debug)]
struct Every(Fixed);

impl Limit for Every {
    fn limit(&self) -> u32 {
        self.0.limit()
    }
    fn span(&self) -> Span {
        Span { looks: [(u32::MAX, std::time::Duration::ZERO); 3], until: None }
    }
    fn observe(&mut self, window: &Window) {
        self.0.observe(window);
    }
    fn name(&self) -> &'static str {
        "every"
    }
}

#[test]
#[ignore = "a measurement, for --release"]
fn what_a_call_costs() {
    measure("a look at the clock", 400_000, || {
        black_box(TokioClock.now());
    });
    let waits = std::time::Duration::from_secs(60);
    let queue = QueueConfig::default().burst_wait(waits).normal_wait(waits);
    for queue in [queue.clone().max(0), queue] {
        println!("queue of {}", queue.max);
        let shed = ShedConfig::default().limit(Algorithm::Fixed(100)).queue(queue.clone()).build().unwrap();
        let call = || black_box(shed.try_acquire()).unwrap().settle(Outcome::Success, None);
        measure("acquire + release, sampled", 400_000, call);
        println!("  one in {}", shed.snapshot().timed_one_in);
        let slow =
            Shed::with_limit(ShedConfig::default().queue(queue.clone()), |_| Box::new(Every(Fixed(100)))).unwrap();
        measure("acquire + release, every call timed", 400_000, || {
            black_box(slow.try_acquire()).unwrap().settle(Outcome::Success, None)
        });
        println!("  one in {}", slow.snapshot().timed_one_in);
        let held: Vec<_> = (0..100).map(|_| shed.try_acquire().unwrap()).collect();
        measure("refused at once", 400_000, || {
            black_box(shed.try_acquire()).unwrap_err();
        });
        let enqueue = || Enqueue::<()>::enqueue(&shed, &mut (), &());
        let waiting: Vec<_> = (0..queue.max).map(|_| enqueue().unwrap()).collect();
        measure("refused by the queue", 100_000, || {
            black_box(enqueue()).unwrap_err();
        });
        drop((waiting, held));
    }
}
