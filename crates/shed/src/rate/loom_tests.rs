//! The word of a bucket under every interleaving of calls, and an update.

use super::gcra::{Bucket, Rate};
use buttress_core::sync::Arc;
use loom::thread::spawn;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn check(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 20_000;
    model.check(test);
}

#[test]
fn loom_of_three_calls_as_many_pass_as_there_are_permits() {
    check(|| {
        let bucket = Arc::new(Bucket::new(Rate::new(1, SECOND, 2)));
        let threads = [(); 2].map(|()| {
            let bucket = bucket.clone();
            spawn(move || bucket.take(5).is_ok())
        });
        let here = bucket.take(5).is_ok();
        let passed = threads.into_iter().map(|thread| thread.join().unwrap()).filter(|passed| *passed);
        assert_eq!(passed.count() + usize::from(here), 2);
    });
}

#[test]
fn loom_a_call_that_an_update_overtakes_keeps_nobody_out_for_the_old_time() {
    check(|| {
        let bucket = Arc::new(Bucket::new(Rate::new(1, 3600 * SECOND, 1)));
        let call = {
            let bucket = bucket.clone();
            spawn(move || bucket.take(5).is_ok())
        };
        bucket.set_rate(Rate::new(10, SECOND, 1), 5);
        assert!(call.join().unwrap());
        let tenth = SECOND / 10;
        assert!(bucket.take(5).is_err_and(|wait| wait <= tenth));
        assert!(bucket.take(5 + tenth.as_nanos() as u64 + 1).is_ok());
    });
}
