//! When calls come: a Poisson process, whether or not those before are answered, paced by a thread of its own.
//!
//! Tokio's timers know milliseconds; at 3000 calls a second three would come at once. The thread parks until shortly before an
//! arrival and spins for the rest.

use buttress_core::Draw;
use std::{
    hint,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::time::Instant;

/// A parked thread wakes up late by 50 us (Linux: timer slack) and a little.
const SPIN: Duration = Duration::from_micros(80);

/// So long there are so many calls a second.
pub type Phase = (Duration, f64);

/// The moments at which calls come, from the beginning on.
pub struct Arrivals {
    draw: Draw,
    phases: Vec<Phase>,
    /// Seconds.
    at: f64,
}

impl Arrivals {
    pub fn new(seed: u64, phases: &[Phase]) -> Self {
        Self { draw: Draw::new(seed), phases: phases.to_vec(), at: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let mut end = 0.0;
        for (length, rate) in &self.phases {
            end += length.as_secs_f64();
            if self.at >= end {
                continue;
            }
            // Without memory: a gap that reaches into another rate is drawn anew from there.
            let next = self.at + exponential(&self.draw) / rate;
            if next < end {
                self.at = next;
                return Some(Duration::from_secs_f64(next));
            }
            self.at = end;
        }
        None
    }
}

/// With mean 1.
fn exponential(draw: &Draw) -> f64 {
    let uniform = ((draw.draw() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln()
}

/// Hands each arrival over at its time, in a thread of its own. Who is late catches up: arrivals are never moved.
pub fn pace(arrivals: Arrivals, began: Instant, mut hand_over: impl FnMut(Instant) + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        for at in arrivals {
            let due = began + at;
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                match left.checked_sub(SPIN) {
                    Some(rest) if !rest.is_zero() => thread::park_timeout(rest),
                    _ => hint::spin_loop(),
                }
            }
            hand_over(due);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn gaps(rate: f64) -> Vec<f64> {
        let arrivals: Vec<_> = Arrivals::new(7, &[(Duration::from_secs(60), rate)]).collect();
        arrivals.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }

    #[test]
    fn gaps_are_those_of_a_poisson_process() {
        let gaps = gaps(4000.0);
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        assert!((mean / 250e-6 - 1.0).abs() < 0.01, "mean {mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "CV {}", variance.sqrt() / mean);
    }

    #[test]
    fn each_phase_has_its_own_rate() {
        let second = Duration::from_secs(1);
        let arrivals: Vec<_> = Arrivals::new(7, &[(second * 10, 100.0), (second * 10, 1000.0)]).collect();
        let early = arrivals.iter().filter(|at| **at < second * 10).count() as f64;
        let late = arrivals.len() as f64 - early;
        assert!((early / 1000.0 - 1.0).abs() < 0.1, "{early}");
        assert!((late / 10_000.0 - 1.0).abs() < 0.05, "{late}");
        assert!(arrivals.is_sorted() && *arrivals.last().unwrap() < second * 20);
    }

    #[test]
    fn the_same_seed_gives_the_same_calls() {
        assert_eq!(gaps(100.0), gaps(100.0));
    }

    #[test]
    fn arrivals_are_paced_and_none_is_left_out() {
        let began = Instant::now();
        let phases = [(Duration::from_millis(200), 2000.0)];
        let (send, receive) = mpsc::channel();
        let thread = pace(Arrivals::new(7, &phases), began, move |due| send.send((due, Instant::now())).unwrap());
        let handed: Vec<_> = receive.iter().collect();
        thread.join().unwrap();
        let due: Vec<_> = handed.iter().map(|(due, _)| *due - began).collect();
        assert_eq!(due, Arrivals::new(7, &phases).collect::<Vec<_>>());
        assert!(handed.iter().all(|(due, at)| at >= due), "never early");
    }
}
