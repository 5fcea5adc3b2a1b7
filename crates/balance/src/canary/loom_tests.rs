use super::word::Word;
use buttress_core::sync::Arc;
use loom::thread;

#[test]
fn loom_one_of_two_verdicts_trips() {
    loom::model(|| {
        let word = Arc::new(Word::new(50.0));
        let other = word.clone();
        let thread = thread::spawn(move || other.trip(0));
        let here = word.trip(0);
        assert!(here != thread.join().unwrap() && word.load().is_tripped());
    });
}

#[test]
fn loom_a_verdict_on_what_was_before_undoes_no_new_weight() {
    loom::model(|| {
        let word = Arc::new(Word::new(50.0));
        let other = word.clone();
        let thread = thread::spawn(move || other.trip(0));
        word.renew(100.0);
        thread.join().unwrap();
        let seen = word.load();
        assert!(!seen.is_tripped() && seen.generation() == 1 && seen.takes(u64::MAX));
    });
}

#[test]
fn loom_who_sees_a_generation_sees_where_it_starts() {
    use buttress_core::sync::{AtomicU64, Ordering::Relaxed};
    loom::model(|| {
        let shared = Arc::new((Word::new(50.0), AtomicU64::new(0)));
        let other = shared.clone();
        let thread = thread::spawn(move || {
            other.1.store(7, Relaxed);
            other.0.renew(50.0);
        });
        if shared.0.load().generation() == 1 {
            assert_eq!(shared.1.load(Relaxed), 7);
        }
        thread.join().unwrap();
    });
}
