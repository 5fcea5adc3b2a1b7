use super::*;
use crate::Outcome;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Everything hyper asks of a body, in the order in which it asks.
fn seen<B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin>(mut body: B) -> Vec<(bool, u64, Option<u64>, Got)> {
    let mut seen = Vec::new();
    loop {
        let (end, hint) = (body.is_end_stream(), body.size_hint());
        let got = poll(&mut body);
        let last = matches!(got, Got::End | Got::Error(_));
        seen.push((end, hint.lower(), hint.upper(), got));
        if last {
            return seen;
        }
    }
}

#[test]
fn every_attempt_looks_like_the_body_at_every_point() {
    for says_end in [false, true] {
        for says_length in [false, true] {
            for with_trailers in [false, true] {
                let feed = || {
                    let frames = [data("one"), data(""), data("three")];
                    let feed = Feed::of(frames.into_iter().chain(with_trailers.then(trailers)));
                    feed.with(|fed| (fed.says_end, fed.says_length) = (says_end, says_length));
                    feed
                };
                let plain = seen(feed().body());
                assert_eq!(seen(ReplayBody::own(feed().body())), plain);
                let attempts = Attempts::of(&feed(), 100);
                for attempt in 0..3 {
                    assert_eq!(seen(attempts.join()), plain, "attempt {attempt}");
                }
            }
        }
    }
}

#[test]
fn an_attempt_goes_on_where_the_one_before_it_broke_off() {
    let feed = Feed::of([data("one"), data("two"), data("three")]);
    feed.with(|fed| fed.says_length = true);
    let attempts = Attempts::of(&feed, 100);
    let mut first = attempts.join();
    assert_eq!(poll(&mut first), got("one"));
    drop(first);
    let mut second = attempts.join();
    assert_eq!(second.size_hint().exact(), Some(11));
    assert_eq!([poll(&mut second), poll(&mut second)], [got("one"), got("two")]);
    assert_eq!((second.size_hint().exact(), attempts.0.buffered()), (Some(5), 6));
    assert_eq!([poll(&mut second), poll(&mut second), poll(&mut second)], [got("three"), Got::End, Got::End]);
    assert!(second.is_end_stream());
    assert!(feed.with(|fed| fed.gone), "a body that was read to its end is not held");
}

#[test]
fn an_attempt_that_asked_for_nothing_leaves_a_body_of_any_size_to_the_next() {
    let feed = Feed::of([data("much more than is kept"), data("of it")]);
    let attempts = Attempts::of(&feed, 0);
    drop(attempts.join());
    drop(attempts.join());
    assert_eq!((feed.with(|fed| fed.polls), attempts.0.lost()), (0, None));
    let mut third = attempts.join();
    assert_eq!([poll(&mut third), poll(&mut third)], [got("much more than is kept"), got("of it")]);
    assert_eq!((poll(&mut third), attempts.0.lost(), attempts.0.buffered()), (Got::End, Some(Lost::TooLarge), 0));
}

#[test]
fn past_the_cap_the_request_goes_through_and_what_was_kept_is_free_at_once() {
    let feed = Feed::of([data("four"), data("more"), data("!"), data("on")]);
    let attempts = Attempts::of(&feed, 8);
    let mut first = attempts.join();
    assert_eq!([poll(&mut first), poll(&mut first)], [got("four"), got("more")]);
    assert_eq!((attempts.0.buffered(), attempts.0.lost()), (8, None), "as much as may be");
    assert_eq!(poll(&mut first), got("!"));
    assert_eq!((attempts.0.buffered(), attempts.0.lost()), (0, Some(Lost::TooLarge)));
    assert_eq!([poll(&mut first), poll(&mut first)], [got("on"), Got::End]);
}

#[test]
fn a_body_that_says_it_is_too_large_is_not_kept_in_vain() {
    let feed = Feed::of([data("four"), data("more"), data("!")]);
    feed.with(|fed| fed.says_length = true);
    let attempts = Attempts::of(&feed, 8);
    let mut first = attempts.join();
    assert_eq!(attempts.0.lost(), None, "nobody has read it");
    assert_eq!(poll(&mut first), got("four"));
    assert_eq!((attempts.0.buffered(), attempts.0.lost()), (0, Some(Lost::TooLarge)));
    assert_eq!([poll(&mut first), poll(&mut first), poll(&mut first)], [got("more"), got("!"), Got::End]);
}

#[test]
fn trailers_count_as_what_is_kept() {
    let feed = Feed::of([data("four"), trailers()]);
    let attempts = Attempts::of(&feed, 15);
    let mut first = attempts.join();
    assert_eq!([poll(&mut first), poll(&mut first)].map(|got| matches!(got, Got::Trailers(_))), [false, true]);
    assert_eq!(attempts.0.lost(), Some(Lost::TooLarge), "4 + 11 + 1 bytes");
}

#[test]
fn a_body_of_tiny_frames_is_large() {
    let frames = |n| Feed::of(std::iter::repeat_n((), n).map(|()| data("x")));
    for (cap, most) in [(100, 16), (6400, 100)] {
        let attempts = Attempts::of(&frames(most), cap);
        seen(attempts.join());
        assert_eq!((attempts.0.lost(), attempts.0.buffered()), (None, most));
        let attempts = Attempts::of(&frames(most + 1), cap);
        seen(attempts.join());
        assert_eq!((attempts.0.lost(), attempts.0.buffered()), (Some(Lost::TooLarge), 0));
    }
}

/// Memory of a transport, and whether it was given back.
struct Lent(Vec<u8>, Arc<AtomicU32>);
impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
impl Drop for Lent {
    fn drop(&mut self) {
        self.1.fetch_sub(1, SeqCst);
    }
}

#[test]
fn a_small_piece_does_not_hold_on_to_the_buffer_it_came_in_and_a_large_one_is_not_copied() {
    let lent = Arc::new(AtomicU32::new(0));
    let slice = |len: usize| {
        lent.fetch_add(1, SeqCst);
        Frame::data(Bytes::from_owner(Lent(vec![7; 8192], lent.clone())).slice(..len))
    };
    let feed = Feed::of([slice(10), slice(10), slice(1023), slice(1024)]);
    let attempts = Attempts::of(&feed, 1 << 20);
    let first = seen(attempts.join());
    assert_eq!(lent.load(SeqCst), 2, "the first, which may well be all, and the large one");
    assert_eq!(seen(attempts.join()), first);
    drop(attempts);
    assert_eq!(lent.load(SeqCst), 0);
}

#[test]
fn what_is_kept_of_many_bodies_never_exceeds_the_cap_of_each() {
    const CAP: usize = 1000;
    let chunk: &'static str = Box::leak("x".repeat(300).into_boxed_str());
    let mut rng = fastrand::Rng::with_seed(7);
    let mut in_flight: Vec<_> = (0..50)
        .map(|_| {
            let attempts = Attempts::of(&Feed::of((0..rng.usize(..8)).map(|_| data(chunk))), CAP);
            let bodies = [attempts.join(), attempts.join()];
            (attempts, bodies)
        })
        .collect();
    let mut most = 0;
    for _ in 0..2000 {
        let (_, bodies) = &mut in_flight[rng.usize(..50)];
        poll(&mut bodies[rng.usize(..2)]);
        let kept: usize = in_flight.iter().map(|(attempts, _)| attempts.0.buffered()).sum();
        assert!(kept <= 50 * CAP);
        most = most.max(kept);
    }
    assert!(most > 10 * CAP, "{most}: something was kept");
}

#[test]
fn once_nobody_may_join_the_last_reader_frees_what_it_reads() {
    let feed = Feed::of([data("one"), data("two"), data("three"), data("four"), data("five")]);
    let attempts = Attempts::of(&feed, 100);
    let (mut first, mut second) = (attempts.join(), attempts.join());
    for _ in 0..3 {
        poll(&mut first);
    }
    assert_eq!(poll(&mut second), got("one"));
    attempts.0.keep_no_more();
    assert_eq!((poll(&mut first), attempts.0.buffered()), (got("four"), 15), "the second still wants it");
    drop(first);
    assert_eq!((poll(&mut second), attempts.0.buffered()), (got("two"), 9));
    assert_eq!((poll(&mut second), attempts.0.buffered()), (got("three"), 4));
    assert_eq!((poll(&mut second), attempts.0.buffered()), (got("four"), 0));
    assert_eq!((poll(&mut second), attempts.0.buffered()), (got("five"), 0));
    assert_eq!((poll(&mut second), attempts.0.lost()), (Got::End, None));
}

#[test]
fn all_who_wait_are_woken_whoever_asked_last_and_even_if_that_one_is_gone() {
    let feed = Feed::default();
    let attempts = Attempts::of(&feed, 100);
    let mut bodies = [attempts.join(), attempts.join(), attempts.join()];
    let tasks = [Task::new(), Task::new(), Task::new()];
    for (body, (_, waker)) in bodies.iter_mut().zip(&tasks) {
        assert_eq!(poll_with(body, waker), Got::Pending);
    }
    // The last one who asked does not ask again: its connection is stuck, say.
    feed.data("one");
    assert_eq!(tasks.each_ref().map(|(task, _)| task.woken()), [1, 1, 1]);
    assert_eq!(poll_with(&mut bodies[0], &tasks[0].1), got("one"));
    assert_eq!(poll_with(&mut bodies[0], &tasks[0].1), Got::Pending);
    assert_eq!(poll_with(&mut bodies[1], &tasks[1].1), got("one"));
    assert_eq!(poll_with(&mut bodies[1], &tasks[1].1), Got::Pending);
    let [first, second, third] = bodies;
    drop(second);
    drop(third);
    feed.close();
    assert_eq!(tasks.each_ref().map(|(task, _)| task.woken() > 0), [true, false, false]);
    let mut first = first;
    assert_eq!(poll(&mut first), Got::End);
}

#[test]
fn a_body_that_only_yields_is_asked_again() {
    for yields in 0..5 {
        let feed = Feed::of([data("one")]);
        feed.with(|fed| fed.yields = yields);
        let mut body = Attempts::of(&feed, 100).join();
        let (task, waker) = Task::new();
        loop {
            match poll_with(&mut body, &waker) {
                Got::Pending => assert!(task.woken() > 0, "it sleeps for ever"),
                frame => break assert_eq!(frame, got("one")),
            }
        }
    }
}

#[test]
fn who_reads_a_frame_wakes_those_who_wait_for_it_and_not_itself() {
    let feed = Feed::default();
    let attempts = Attempts::of(&feed, 100);
    let (mut first, mut second) = (attempts.join(), attempts.join());
    let tasks = [Task::new(), Task::new()];
    assert_eq!(poll_with(&mut first, &tasks[0].1), Got::Pending);
    assert_eq!(poll_with(&mut second, &tasks[1].1), Got::Pending);
    // A body that has something without telling anyone: a timer that a poll finds due.
    feed.with(|fed| fed.coming.push_back(Ok(data("due"))));
    assert_eq!(poll_with(&mut first, &tasks[0].1), got("due"));
    assert_eq!(tasks.each_ref().map(|(task, _)| task.woken()), [0, 1]);
}

#[test]
fn who_comes_while_another_reads_is_woken_when_it_is_done() {
    for frame_there in [false, true] {
        let feed = Feed::default();
        let attempts = Attempts::of(&feed, 100);
        let (mut first, second) = (attempts.join(), Arc::new(Mutex::new(attempts.join())));
        let (task, waker) = Task::new();
        let other = second.clone();
        let meanwhile = move || {
            let mut second = other.lock().unwrap();
            assert_eq!(poll_with(&mut *second, &waker), Got::Pending);
            assert!(!second.is_end_stream());
            assert_eq!(second.size_hint().lower(), 0);
        };
        feed.with(|fed| {
            fed.coming.extend(frame_there.then(|| Ok(data("one"))));
            fed.meanwhile = Some(Box::new(meanwhile));
        });
        assert_eq!(poll(&mut first), if frame_there { got("one") } else { Got::Pending });
        assert!(task.woken() > 0);
        let got_by_second = poll(&mut *second.lock().unwrap());
        assert_eq!(got_by_second, if frame_there { got("one") } else { Got::Pending });
    }
}

#[test]
fn an_attempt_may_end_while_another_reads() {
    let feed = Feed::default();
    let attempts = Attempts::of(&feed, 100);
    let (mut first, second) = (attempts.join(), attempts.join());
    feed.with(|fed| fed.meanwhile = Some(Box::new(move || drop(second))));
    feed.data("one");
    assert_eq!(poll(&mut first), got("one"));
}

#[test]
fn past_the_cap_who_is_ahead_goes_on_and_who_is_behind_is_told() {
    let feed = Feed::of([data("four"), data("more"), data("on")]);
    let attempts = Attempts::of(&feed, 7);
    let (mut ahead, mut behind) = (attempts.join(), attempts.join());
    assert_eq!([poll(&mut ahead), poll(&mut behind)], [got("four"), got("four")]);
    assert_eq!([poll(&mut ahead), poll(&mut ahead), poll(&mut ahead)], [got("more"), got("on"), Got::End]);
    let Got::Error(_) = poll(&mut behind) else { panic!("its part is gone") };
    assert!(behind.is_end_stream());
    assert_eq!(poll(&mut behind), Got::End);
}

fn error_of(body: &mut ReplayBody<Fodder>) -> RequestBodyError {
    match Pin::new(body).poll_frame(&mut Cx::from_waker(Waker::noop())) {
        Poll::Ready(Some(Err(error))) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_of_the_body_reaches_every_attempt_marked_and_ends_the_keeping() {
    let feed = Feed::default();
    let attempts = Attempts::of(&feed, 100);
    let (mut first, mut second) = (attempts.join(), attempts.join());
    feed.data("one");
    let (task, waker) = Task::new();
    assert_eq!([poll(&mut first), poll_with(&mut second, &waker)], [got("one"), got("one")]);
    assert_eq!(poll_with(&mut second, &waker), Got::Pending);
    feed.push(Err("the client is gone"));
    assert!(task.woken() > 0);
    for body in [&mut first, &mut second, &mut attempts.join()] {
        assert!(!body.is_end_stream());
        let error = error_of(body);
        assert_eq!(crate::http::error_outcome(&error), Outcome::Ignored);
        assert!(crate::error::chain(&error).any(|cause| cause.to_string() == "the client is gone"));
        assert_eq!(poll(body), Got::End);
        assert!(body.is_end_stream());
    }
    assert_eq!((attempts.0.lost(), attempts.0.buffered()), (Some(Lost::Failed), 0));
    assert!(feed.with(|fed| fed.gone));
}

#[test]
fn errors_of_a_body_that_is_not_kept_are_marked_too() {
    let feed = Feed::default();
    feed.push(Err("the client is gone"));
    let error = error_of(&mut ReplayBody::own(feed.body()));
    assert_eq!(crate::http::error_outcome(&error), Outcome::Ignored);
}

#[test]
fn an_attempt_that_is_overtaken_accuses_nobody() {
    let attempts = Attempts::of(&Feed::of([data("four")]), 1);
    let (mut ahead, mut behind) = (attempts.join(), attempts.join());
    assert_eq!(poll(&mut ahead), got("four"));
    assert_eq!(crate::http::error_outcome(&error_of(&mut behind)), Outcome::Ignored);
}

#[test]
fn a_body_that_panics_has_failed_for_all() {
    let feed = Feed::default();
    let attempts = Attempts::of(&feed, 100);
    let (mut first, mut second) = (attempts.join(), attempts.join());
    let (task, waker) = Task::new();
    assert_eq!(poll_with(&mut second, &waker), Got::Pending);
    feed.with(|fed| fed.panics = true);
    catch_unwind(AssertUnwindSafe(|| poll(&mut first))).unwrap_err();
    assert_eq!((task.woken(), attempts.0.lost()), (1, Some(Lost::Failed)));
    let Got::Error(_) = poll(&mut second) else { panic!("it cannot go on") };
}

#[test]
fn an_attempt_dropped_at_any_point_leaves_nothing_behind() {
    // The feed keeps the waker it was given, as a channel does: a waker that held the body would keep it for ever.
    for polls in 0..6 {
        let feed = Feed::default();
        ["one", "two", "three"].into_iter().for_each(|text| feed.data(text));
        let attempts = Attempts::of(&feed, 6);
        let (task, waker) = Task::new();
        let (mut first, mut second) = (attempts.join(), attempts.join());
        for _ in 0..polls {
            poll_with(&mut first, &waker);
            poll_with(&mut second, &waker);
        }
        drop((first, second, waker));
        assert_eq!(Arc::strong_count(&attempts.0), 1, "after {polls} polls");
        assert_eq!(Arc::strong_count(&task), 1, "after {polls} polls: nobody is to be woken");
        drop(attempts);
        assert!(feed.with(|fed| fed.gone), "after {polls} polls");
    }
}

#[test]
fn an_attempt_in_place_of_another_gets_all_of_the_body_and_the_other_uses_up_none_of_it() {
    let feed = Feed::of([data("one"), data("two"), data("three")]);
    let attempts = Attempts::of(&feed, 6);
    let mut first = attempts.join();
    assert_eq!(poll(&mut first), got("one"));
    let mut second = attempts.succeed().unwrap();
    assert_eq!(crate::http::error_outcome(&error_of(&mut first)), Outcome::Ignored);
    assert_eq!((poll(&mut first), feed.with(|fed| fed.coming.len())), (Got::End, 2), "it has read nothing");
    assert_eq!([poll(&mut second), poll(&mut second), poll(&mut second)], [got("one"), got("two"), got("three")]);
    assert_eq!((poll(&mut second), attempts.0.lost()), (Got::End, Some(Lost::TooLarge)));
    assert!(attempts.succeed().is_none());
}

#[test]
fn an_attempt_that_cannot_be_succeeded_goes_on() {
    let feed = Feed::of([data("one"), data("two"), data("three")]);
    let attempts = Attempts::of(&feed, 5);
    let mut first = attempts.join();
    assert_eq!([poll(&mut first), poll(&mut first)], [got("one"), got("two")]);
    assert!(attempts.succeed().is_none());
    assert_eq!([poll(&mut first), poll(&mut first)], [got("three"), Got::End]);
}

#[test]
fn an_attempt_that_waits_for_the_body_hears_that_it_is_over() {
    let feed = Feed::default();
    let attempts = Attempts::of(&feed, 100);
    let mut first = attempts.join();
    let (task, waker) = Task::new();
    assert_eq!(poll_with(&mut first, &waker), Got::Pending);
    let second = attempts.succeed().unwrap();
    assert_eq!(task.woken(), 1);
    let Got::Error(_) = poll_with(&mut first, &waker) else { panic!("it is over") };
    drop((first, second));
}

#[test]
fn an_attempt_that_has_sent_all_may_say_so_after_its_time() {
    let feed = Feed::of([data("one")]);
    let attempts = Attempts::of(&feed, 100);
    let (mut first, mut beside) = (attempts.join(), attempts.join());
    assert_eq!([poll(&mut first), poll(&mut beside), poll(&mut beside)], [got("one"), got("one"), Got::End]);
    let mut second = attempts.succeed().unwrap();
    assert_eq!([poll(&mut first), poll(&mut second)], [Got::End, got("one")]);
}

#[test]
fn what_an_attempt_is_reading_when_it_is_over_is_for_the_next_one() {
    for frame_there in [false, true] {
        let feed = Feed::default();
        // Not even that frame would fit.
        let attempts = Arc::new(Attempts::of(&feed, 2));
        let mut first = attempts.join();
        let second = Arc::new(Mutex::new(None));
        let (task, waker) = Task::new();
        let (other, store) = (second.clone(), attempts.clone());
        let meanwhile = move || {
            let mut body = store.succeed().unwrap();
            assert_eq!(poll_with(&mut body, &waker), Got::Pending);
            *other.lock().unwrap() = Some(body);
            store.0.keep_no_more();
        };
        feed.with(|fed| {
            fed.coming.extend(frame_there.then(|| Ok(data("one"))));
            fed.meanwhile = Some(Box::new(meanwhile));
        });
        let Got::Error(_) = poll(&mut first) else { panic!("it is over") };
        assert!(task.woken() > 0);
        if !frame_there {
            feed.data("one");
        }
        assert_eq!(poll(second.lock().unwrap().as_mut().unwrap()), got("one"));
        assert_eq!((attempts.0.buffered(), attempts.0.lost()), (0, None));
    }
}

#[test]
fn what_the_last_attempt_has_passed_is_free_at_once_when_nobody_may_join_or_another_leaves() {
    let feed = Feed::of([data("one"), data("two"), data("three")]);
    let attempts = Attempts::of(&feed, 100);
    let (mut first, mut second) = (attempts.join(), attempts.join());
    (0..3).for_each(|_| drop(poll(&mut first)));
    assert_eq!([poll(&mut second), poll(&mut second)], [got("one"), got("two")]);
    attempts.0.keep_no_more();
    assert_eq!(attempts.0.buffered(), 11);
    drop(first);
    assert_eq!((attempts.0.buffered(), poll(&mut second)), (5, got("three")));

    let feed = Feed::of([data("one"), data("two")]);
    let attempts = Attempts::of(&feed, 100);
    let mut only = attempts.join();
    assert_eq!((poll(&mut only), attempts.0.buffered()), (got("one"), 3));
    attempts.0.keep_no_more();
    assert_eq!((attempts.0.buffered(), poll(&mut only)), (0, got("two")));
}

#[test]
fn a_body_that_is_all_there_needs_no_alarm() {
    let feed = Feed::of([data("one")]);
    let attempts = Attempts::of(&feed, 100);
    let mut body = attempts.join();
    assert_eq!([poll(&mut body), poll(&mut body)], [got("one"), Got::End]);
    assert!(!attempts.0.has_alarm());
    let attempts = Attempts::of(&Feed::default(), 100);
    assert_eq!(poll(&mut attempts.join()), Got::Pending);
    assert!(attempts.0.has_alarm());
}
