use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Random numbers without a lock, the same ones for the same seed: a counter and a hash of it (SplitMix64; Steele, Lea and
/// Flood, OOPSLA 2014). Not for secrets.
#[derive(Debug)]
pub struct Draw(AtomicU64);

impl Draw {
    /// Draws that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number, of all there are.
    pub fn draw(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(GAMMA, Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_reference() {
        // Vigna's splitmix64.c from the seed 1234567.
        let draw = Draw::new(1_234_567);
        let want = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([(); 3].map(|()| draw.draw()), want);
    }
}
