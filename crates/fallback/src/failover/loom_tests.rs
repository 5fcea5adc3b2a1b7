use super::word::{Terms, Turn, Word};
use buttress_core::sync::{Arc, AtomicU64, Ordering::Relaxed};
use loom::thread;

const TERMS: Terms = Terms { fail_after: 2, return_after: 1 };

#[test]
fn loom_one_of_two_results_makes_the_turn() {
    loom::model(|| {
        let word = Arc::new(Word::new());
        let other = word.clone();
        let thread = thread::spawn(move || other.told(0, false, TERMS, || {}));
        let turns = [word.told(0, false, TERMS, || {}), thread.join().unwrap()];
        assert_eq!(turns.into_iter().flatten().collect::<Vec<_>>(), [Turn::Over]);
        assert!(word.load().is_over() && word.load().generation() == 1);
    });
}

#[test]
fn loom_a_result_of_before_undoes_no_word_of_an_operator() {
    loom::model(|| {
        let word = Arc::new(Word::new());
        word.told(0, false, TERMS, || {});
        let other = word.clone();
        let thread = thread::spawn(move || other.told(0, false, TERMS, || {}));
        word.prefer(Some(2));
        thread.join().unwrap();
        let seen = word.load();
        assert_eq!((seen.is_over(), seen.preferred()), (false, Some(2)));
    });
}

#[test]
fn loom_who_sees_that_it_is_over_sees_when_the_next_probe_is_due() {
    loom::model(|| {
        let shared = Arc::new((Word::new(), AtomicU64::new(0)));
        let other = shared.clone();
        let once = Terms { fail_after: 1, ..TERMS };
        let thread = thread::spawn(move || other.0.told(0, false, once, || _ = other.1.fetch_max(7, Relaxed)));
        if shared.0.load().is_over() {
            assert_eq!(shared.1.load(Relaxed), 7);
        }
        thread.join().unwrap();
    });
}
