//! How far it is, and for how long it will go on.

use buttress_core::Clock;
use std::time::{Duration, Instant};

/// Runs since a moment.
pub struct Progress(Instant);

impl Progress {
    /// From now on.
    pub fn new(clock: &impl Clock) -> Self {
        Self(clock.now())
    }

    /// What is left takes as long as what is done, run by run: they differ, so it is about so long.
    pub fn line(&self, done: usize, all: usize, clock: &impl Clock) -> String {
        let elapsed = clock.now().saturating_duration_since(self.0);
        let taken = text(elapsed);
        if done == 0 || done >= all {
            return format!("{done} of {all} runs in {taken}");
        }
        let left = elapsed.mul_f64((all - done) as f64 / done as f64);
        format!("{done} of {all} runs in {taken}, about {} left", text(left))
    }
}

fn text(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buttress_core::TokioClock;

    #[test]
    fn what_is_left_follows_from_what_is_done() {
        let now = TokioClock.now();
        let progress = Progress::new(&now);
        let line = |done, seconds| progress.line(done, 40, &(now + Duration::from_secs(seconds)));
        assert_eq!(line(10, 25), "10 of 40 runs in 25 s, about 1 min 15 s left");
        assert_eq!(line(40, 90), "40 of 40 runs in 1 min 30 s");
    }
}
