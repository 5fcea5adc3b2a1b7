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

    /// The seed that a config names; if it names none any, which differs from instance to instance.
    pub fn seed(named: Option<u64>) -> u64 {
        named.unwrap_or_else(|| fastrand::u64(..))
    }

    /// The next number, from 0 to less than 1: 53 bits of it are a fraction.
    pub fn unit(&self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
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

    #[test]
    fn fractions_fill_the_unit_and_never_reach_its_end() {
        let draw = Draw::new(1);
        let units: Vec<f64> = (0..10_000).map(|_| draw.unit()).collect();
        let mean = units.iter().sum::<f64>() / 10_000.0;
        assert!(units.iter().all(|unit| (0.0..1.0).contains(unit)) && (0.48..0.52).contains(&mean), "{mean}");
        assert_eq!(Draw::seed(Some(7)), 7);
        assert_ne!(Draw::seed(None), Draw::seed(None));
    }
}
