//! Random numbers that belong to what they are for: the n-th call has the same arrival and the same work whatever stands
//! between it and its upstream.

use buttress_core::Draw;
use std::f64::consts::TAU;

/// A sequence of numbers for one purpose.
pub(super) struct Stream(Draw);

impl Stream {
    /// The sequence of `purpose` in the world of `seed`.
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        Self(Draw::new(mix(seed, name(purpose))))
    }

    /// The numbers of one thing: the `n`-th attempt of the call `id`, say.
    pub(super) fn of(seed: u64, purpose: u64, id: u64, n: u64) -> Self {
        Self(Draw::new(mix(mix(mix(seed, purpose), id), n)))
    }

    /// Uniform in (0, 1).
    pub(super) fn uniform(&self) -> f64 {
        ((self.0.draw() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Exponential with mean 1.
    pub(super) fn exponential(&self) -> f64 {
        -self.uniform().ln()
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller, 1958).
    pub(super) fn normal(&self) -> f64 {
        (2.0 * self.exponential()).sqrt() * (TAU * self.uniform()).cos()
    }

    /// An index, each with the probability of its weight.
    pub(super) fn pick(&self, weights: &[f64]) -> usize {
        let mut left = self.uniform() * weights.iter().sum::<f64>();
        weights
            .iter()
            .position(|weight| {
                left -= weight;
                left < 0.0
            })
            .unwrap_or(weights.len().saturating_sub(1))
    }
}

/// A purpose as a number.
pub(super) fn name(purpose: &str) -> u64 {
    purpose.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn mix(a: u64, b: u64) -> u64 {
    Draw::new(a.rotate_left(23) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).draw()
}
