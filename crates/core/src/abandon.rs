use crate::Outcome;
use std::cell::Cell;

thread_local!(static WHY: Cell<Outcome> = const { Cell::new(Outcome::Ignored) });

/// Drops a call on purpose, by running `end`, and says what that means: permits dropped meanwhile learn it from
/// [`abandoned`]. A deadline that passes accuses what it cuts off, however many layers lie between: every call that is dropped
/// with it, also one that it merely carried along.
pub fn abandon<T>(outcome: Outcome, end: impl FnOnce() -> T) -> T {
    struct Restore(Outcome);
    impl Drop for Restore {
        fn drop(&mut self) {
            WHY.set(self.0);
        }
    }
    let _restore = Restore(WHY.replace(outcome));
    end()
}

/// What it means that a call is dropped right now, without an outcome of its own: a panic is a failure, a layer that
/// [`abandon`]s it says why, and a caller that went away says nothing.
pub fn abandoned() -> Outcome {
    if std::thread::panicking() { Outcome::Failure } else { WHY.get() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_holds_while_the_call_is_dropped_and_no_longer_even_in_a_panic() {
        assert_eq!(abandoned(), Outcome::Ignored);
        abandon(Outcome::Failure, || {
            assert_eq!(abandoned(), Outcome::Failure);
            abandon(Outcome::Ignored, || assert_eq!(abandoned(), Outcome::Ignored));
            assert_eq!(abandoned(), Outcome::Failure);
        });
        let caught = std::panic::catch_unwind(|| abandon(Outcome::Failure, || panic!("in a drop")));
        assert!(caught.is_err());
        assert_eq!(abandoned(), Outcome::Ignored);
    }
}
