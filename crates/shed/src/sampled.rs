//! A number that is worked out anew now and then, by whoever finds it due.

use buttress_core::sync::{
    AtomicU64,
    Ordering::{AcqRel, Relaxed},
};

const VALUE_BITS: u32 = 24;
/// The highest value.
pub(crate) const FULL: u64 = (1 << VALUE_BITS) - 1;
/// 34 years, in milliseconds.
const LAST: u64 = u64::MAX >> VALUE_BITS;

/// For so many intervals a task that [drives](Sampled::seize) a value may be late before others work it out.
pub(crate) const PATIENCE: u64 = 10;

/// `[ when it is due, in ms 40 | value 24 ]`: who moves the time is the one who works it out, and all others read what was last. A new one is 0, and due.
#[derive(Debug, Default)]
pub(crate) struct Sampled(AtomicU64);

/// The right to say what the value is, until somebody else has it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Claim(u64);

#[inline]
fn value_of(word: u64) -> u64 {
    word & FULL
}

#[inline]
fn due_of(word: u64) -> u64 {
    word >> VALUE_BITS
}

fn word_of(due: u64, value: u64) -> u64 {
    due.min(LAST) << VALUE_BITS | value
}

impl Sampled {
    /// The value as it was worked out last.
    #[inline]
    pub(crate) fn last(&self) -> u64 {
        value_of(self.0.load(Relaxed))
    }

    /// The value at `now`, in milliseconds; `Err`: it is due, and this caller's to work out.
    #[inline]
    pub(crate) fn read(&self, now: u64, every: u64) -> Result<u64, Claim> {
        let word = self.0.load(Relaxed);
        let due = due_of(word);
        // One that is due later than anybody sets it was set by a clock that was ahead: it would stand still until then.
        if now < due && due - now <= (PATIENCE + 1) * every {
            Ok(value_of(word))
        } else {
            self.claim(word, now + every)
        }
    }

    #[cold]
    fn claim(&self, word: u64, due: u64) -> Result<u64, Claim> {
        let claimed = word_of(due, value_of(word));
        match self.0.compare_exchange(word, claimed, AcqRel, Relaxed) {
            Ok(_) => Err(Claim(claimed)),
            Err(seen) => Ok(value_of(seen)),
        }
    }

    /// Claims it, whoever has it and whenever it is due; for others it is due then.
    pub(crate) fn seize(&self, due: u64) -> Claim {
        let mut word = self.0.load(Relaxed);
        loop {
            // Another word in any case, so that a claim on the one before is void.
            let due = if due == due_of(word) { due + 1 } else { due };
            let claimed = word_of(due, value_of(word));
            match self.0.compare_exchange_weak(word, claimed, AcqRel, Relaxed) {
                Ok(_) => return Claim(claimed),
                Err(seen) => word = seen,
            }
        }
    }

    /// Says what the value is. False: somebody has claimed it since, and knows more.
    pub(crate) fn write(&self, claim: Claim, value: u64) -> bool {
        let word = word_of(due_of(claim.0), value);
        self.0.compare_exchange(claim.0, word, AcqRel, Relaxed).is_ok()
    }

    /// It is due at once.
    pub(crate) fn expire(&self) {
        self.0.fetch_and(FULL, AcqRel);
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_finds_it_due_works_it_out_and_nobody_else() {
        let sampled = Sampled::default();
        let claim = sampled.read(0, 10).unwrap_err();
        assert_eq!(sampled.read(0, 10).unwrap(), 0, "somebody does");
        assert!(sampled.write(claim, 7));
        assert_eq!([0, 9].map(|now| sampled.read(now, 10).unwrap()), [7, 7]);
        let slow = sampled.read(10, 10).unwrap_err();
        let next = sampled.read(20, 10).unwrap_err();
        assert!(!sampled.write(slow, 1), "another one knows more");
        assert!(sampled.write(next, FULL));
        assert_eq!(sampled.last(), FULL);
    }

    #[test]
    fn what_was_seized_holds_and_what_a_clock_ahead_has_seen_does_not() {
        let sampled = Sampled::default();
        let slow = sampled.read(0, 10).unwrap_err();
        let other = sampled.seize(10);
        assert!(!sampled.write(slow, 1), "although it is due at the same time");
        assert!(sampled.write(other, 2));
        let driven = sampled.seize(100);
        assert!(sampled.write(driven, 3));
        assert_eq!([0, 99].map(|now| sampled.read(now, 10).unwrap()), [3, 3]);
        assert!(sampled.read(100, 10).is_err(), "the task is late");

        let ahead = sampled.read(1_000_000, 10).unwrap_err();
        assert!(sampled.write(ahead, 4));
        assert!(sampled.read(120, 10).is_err());
        assert_eq!(sampled.read(121, 10).unwrap(), 4);
        sampled.expire();
        assert!(sampled.read(122, 10).is_err());
    }
}
