//! The algorithm alone, shown windows of a service that is two lines of arithmetic, and windows of any numbers at all.

use super::*;
use proptest::{collection::vec, prelude::*};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A limit, and the time that passes for it.
struct Subject {
    limit: Adaptive,
    now: Instant,
    /// Milliseconds since the epoch.
    wall: Arc<AtomicU64>,
}

/// So many workers, first come, first served.
#[derive(Clone, Copy)]
struct Service {
    workers: f64,
    /// The first decile of the work of a call, and its mean, in seconds.
    low: f64,
    mean: f64,
    /// Calls a second that come.
    offered: f64,
}

/// 2000 calls a second, and thrice as many come.
const BUSY: Service = Service { workers: 20.0, low: 0.002, mean: 0.01, offered: 6_000.0 };

impl Service {
    /// What is seen of it under a limit: calls in flight, answers a second, first decile, mean, and whether a call found no room.
    fn under(&self, limit: u32) -> (f64, f64, f64, f64, bool) {
        let limit = f64::from(limit);
        let rate = limit.min(self.workers) / self.mean;
        let limited = self.offered > rate;
        let inside = if limited { limit } else { self.offered * self.mean };
        let rate = rate.min(self.offered);
        // By Little's law.
        let wait = (inside - self.workers).max(0.0) * self.mean / self.workers;
        (inside, rate, self.low + wait, self.mean + wait, limited)
    }
}

impl Subject {
    fn new(config: AdaptiveConfig) -> Self {
        let wall = Arc::new(AtomicU64::new(1_700_000_000_000));
        let clock = wall.clone();
        let config = config.wall_clock(WallClock::new(move || Duration::from_millis(clock.load(Relaxed))));
        Self { limit: Adaptive::new(config).unwrap(), now: buttress_core::Clock::now(&buttress_core::TokioClock), wall }
    }

    /// One that has found its limit in front of a service.
    fn settled(service: &Service) -> Self {
        let mut subject = Self::new(AdaptiveConfig::default());
        subject.serve(service, 5.0);
        subject
    }

    fn limit(&self) -> u32 {
        self.limit.limit()
    }

    fn base(&self) -> f64 {
        self.limit.base().unwrap().as_secs_f64()
    }

    fn is_probing(&self) -> bool {
        matches!(self.limit.phase, Phase::Reach(_) | Phase::Yield(_) | Phase::Settle(After::Reach(_) | After::Yield(_)))
    }

    /// Time passes, and a window is over.
    fn see(&mut self, length: f64, fill: impl FnOnce(&mut Window)) {
        let end = self.now + Duration::from_secs_f64(length);
        self.wall.fetch_add((length * 1e3).round() as u64, Relaxed);
        let mut window = Window::empty(self.now, end);
        fill(&mut window);
        self.now = end;
        self.limit.observe(&window);
    }

    /// The service serves until the span's window is over.
    fn turn(&mut self, service: &Service, also: impl FnOnce(&mut Window)) {
        let (inside, rate, low, mean, limited) = service.under(self.limit());
        let span = self.limit.span();
        let looks = span.looks.map(|(calls, age)| (f64::from(calls) / rate).max(age.as_secs_f64()));
        let until = span.until.map_or(f64::INFINITY, |until| (until - self.now).as_secs_f64());
        let length = looks.into_iter().fold(until, f64::min).max(0.001);
        let samples = (rate * length).round().max(1.0);
        self.see(length, |window| {
            *window = Window {
                completed: samples as u64,
                samples: samples as u32,
                total: Duration::from_secs_f64(samples * mean),
                typical: Duration::from_secs_f64(mean),
                low: Duration::from_secs_f64(low),
                shortest: Duration::from_secs_f64(low / 2.0),
                in_flight: inside.round() as u32,
                limited,
                ..*window
            };
            also(window);
        });
    }

    /// So many seconds, and until the end of a probe and of what follows it.
    fn serve(&mut self, service: &Service, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end || !matches!(self.limit.phase, Phase::Follow) {
            self.turn(service, |_| {});
        }
    }
}

#[test]
fn a_start_trebles_as_long_as_that_brings_more() {
    let mut subject = Subject::new(AdaptiveConfig::default());
    let service = Service { workers: 300.0, offered: 1e6, ..BUSY };
    let mut limits = Vec::new();
    while matches!(subject.limit.phase, Phase::Start(_)) {
        limits.push(subject.limit());
        subject.turn(&service, |_| {});
    }
    assert_eq!(limits, [20, 20, 60, 180, 540], "after a first look, which only the fastest can have come back in");
    assert!((290..=350).contains(&subject.limit()), "half of what was too much is given back: {}", subject.limit());
}

#[test]
fn a_start_that_nobody_limits_waits_for_load() {
    let mut subject = Subject::new(AdaptiveConfig::default());
    subject.serve(&Service { offered: 500.0, ..BUSY }, 30.0);
    assert_eq!((subject.limit(), subject.base()), (20, 0.002));
    subject.serve(&Service { workers: 200.0, offered: 1e5, ..BUSY }, 5.0);
    assert!((200..=220).contains(&subject.limit()), "it grows as soon as somebody asks for more: {}", subject.limit());
}

#[test]
fn it_follows_the_workers_up_and_down() {
    for workers in [1.0, 3.0, 20.0, 500.0] {
        let mut subject = Subject::settled(&BUSY);
        let service = Service { workers, offered: 1e6, ..BUSY };
        subject.serve(&service, 30.0);
        let target = workers + f64::max(workers.sqrt(), 2.0);
        let limit = f64::from(subject.limit());
        assert!(limit >= 0.7 * workers && limit <= target + 1.0, "{workers}: {limit}");
        assert!((subject.base() / BUSY.low - 1.0).abs() < 0.2, "{workers}: {}", subject.base());
    }
}

#[test]
fn a_service_whose_calls_all_take_the_same_time_is_used_in_full() {
    let service = Service { low: 0.01, ..BUSY };
    let mut subject = Subject::settled(&service);
    for _ in 0..200 {
        subject.turn(&service, |_| {});
        assert!(subject.is_probing() || (19..=25).contains(&subject.limit()), "{}", subject.limit());
    }
    assert!((subject.base() - 0.01).abs() < 1e-4);
}

#[test]
fn a_queue_that_all_wait_in_shrinks_it_and_a_slow_tail_does_not() {
    let mut subject = Subject::settled(&BUSY);
    let before = subject.limit();
    // One in eight takes a second: the mean is ten times what it was.
    for _ in 0..30 {
        subject.turn(&BUSY, |window| window.total *= 10);
        assert!(subject.is_probing() || subject.limit() >= before - 1, "{} of {before}", subject.limit());
    }
    let mut subject = Subject::settled(&BUSY);
    let before = subject.limit();
    subject.turn(&BUSY, |window| {
        window.low += ms(10);
        window.total += ms(10) * window.samples;
    });
    assert!(subject.limit() < before * 9 / 10 && subject.limit() >= before * 7 / 10, "{} of {before}", subject.limit());
}

/// So much of what was seen timed out.
fn time_outs(share: f64) -> impl Fn(&mut Window) {
    move |window| {
        window.timed_out = (f64::from(window.samples) * share) as u32;
        window.censored = window.timed_out;
        if share > 0.1 {
            // In a queue all wait.
            window.low *= 3;
        }
    }
}

impl Subject {
    /// So often, and what it was cut to each time.
    fn cuts(&mut self, often: usize, share: impl Fn(u32) -> f64) -> Vec<f64> {
        self.cuts_of(often, |limit| time_outs(share(limit)))
    }

    fn cuts_of<F: FnOnce(&mut Window)>(&mut self, often: usize, wrong: impl Fn(u32) -> F) -> Vec<f64> {
        let mut cuts = Vec::new();
        for _ in 0..often {
            let before = self.limit.limit;
            let wrong = wrong(self.limit());
            self.turn(&BUSY, wrong);
            if self.limit.limit < before {
                cuts.push(self.limit.limit / before);
            }
        }
        cuts
    }
}

#[test]
fn more_than_a_tenth_of_time_outs_shrinks_it_by_as_much() {
    for (share, factor) in [(0.15, 0.85), (0.25, 0.75), (0.9, 0.7)] {
        let mut subject = Subject::settled(&BUSY);
        let before = subject.limit.limit;
        subject.turn(&BUSY, time_outs(share));
        assert!((subject.limit.limit / before - factor).abs() < 0.01, "{share}: {} of {before}", subject.limit.limit);
    }
    let mut subject = Subject::settled(&BUSY);
    let cuts = subject.cuts(4, |_| 0.09);
    assert!(cuts.iter().all(|cut| *cut > 0.95), "a few may have other reasons: {cuts:?}");
}

#[test]
fn time_outs_of_calls_that_hang_by_themselves_cut_nothing_however_many() {
    for share in [0.15, 0.5, 0.9] {
        let mut subject = Subject::settled(&BUSY);
        let before = subject.limit.limit;
        let hang = |window: &mut Window| {
            window.timed_out = (f64::from(window.samples) * share) as u32;
            window.censored = window.timed_out;
        };
        for _ in 0..20 {
            subject.turn(&BUSY, hang);
            assert!(subject.is_probing() || subject.limit.limit > 0.9 * before, "{share}: {:?}", subject.limit);
        }
    }
}

#[test]
fn a_probe_waits_until_something_was_seen_under_the_present_limit() {
    let mut subject = Subject::settled(&BUSY);
    let slower = Service { workers: 1.0, ..BUSY };
    for _ in 0..200 {
        let before = subject.limit.limit;
        subject.turn(&slower, |_| {});
        if let Phase::Settle(After::Reach(was)) = subject.limit.phase {
            assert!((was.limit / before - 1.0).abs() <= 0.1, "{} is not {before}", was.limit);
        }
    }
    assert!(subject.base() < 1.5 * BUSY.low, "{}", subject.base());
}

#[test]
fn cuts_go_on_as_long_as_they_help_and_are_taken_back_where_they_do_not() {
    // As many more than it can bear as there are.
    let mut subject = Subject::settled(&BUSY);
    subject.cuts(60, |limit| if limit > 5 { 1.0 - 4.0 / f64::from(limit) } else { 0.0 });
    assert!(subject.limit() <= 7, "{}", subject.limit());

    // However few.
    let mut subject = Subject::settled(&BUSY);
    let (before, began) = (subject.limit.limit, subject.now);
    let mut lowest = before;
    while subject.limit.relief.spared.is_none() {
        subject.turn(&BUSY, time_outs(0.2));
        lowest = lowest.min(subject.limit.limit);
    }
    assert!((lowest / before - 0.8_f64.powi(3)).abs() < 0.02, "three times: {lowest} of {before}");
    assert_eq!(subject.limit.limit, before);
    assert!(subject.now - began < Duration::from_secs(5), "{:?}", subject.now - began);
    let until = subject.limit.relief.spared.unwrap();
    assert_eq!(until - subject.now, SPARED);
    while subject.now < until - Duration::from_secs(1) {
        subject.turn(&BUSY, time_outs(0.2));
        assert_eq!(subject.limit.relief.cuts, 0, "but what looks like a queue is asked about");
    }
    while subject.now < until {
        subject.turn(&BUSY, time_outs(0.2));
    }
    // Probes have found meanwhile that calls are as slow with fewer of them in flight: slower still is what looks like a queue now.
    let cuts = subject.cuts_of(20, |_| {
        |window| {
            time_outs(0.2)(window);
            window.low *= 4;
        }
    });
    assert!(cuts.iter().any(|cut| (cut - 0.8).abs() < 0.01), "then it tries again: {cuts:?}");
    subject.serve(&BUSY, 20.0);
    assert!((18..=26).contains(&subject.limit()), "and all is well when they are over: {}", subject.limit());
}

#[test]
fn what_the_service_refuses_is_given_up() {
    for (refused, factor) in [(0.1, 0.9), (0.25, 0.75), (0.8, 0.7)] {
        let mut subject = Subject::settled(&BUSY);
        let before = subject.limit.limit;
        subject.turn(&BUSY, |window| {
            let refusals = (window.completed as f64 * refused / (1.0 - refused)) as u32;
            window.overloads = refusals;
            window.completed += u64::from(refusals);
        });
        assert!((subject.limit.limit / before - factor).abs() < 0.01, "{refused}: {} of {before}", subject.limit.limit);
    }
}

#[test]
fn probes_reach_and_yield_by_turns_and_all_at_the_same_time() {
    let mut probes = Vec::new();
    for began in [0.0, 0.3, 2.7, 6.1] {
        let mut subject = Subject::new(AdaptiveConfig::default());
        subject.serve(&BUSY, 20.0 + began);
        let settled = subject.now;
        let mut turns = [0, 0];
        while turns[0] < 3 || turns[1] < 3 {
            let (before, planned) = (subject.limit.limit, subject.limit.probe_at);
            subject.turn(&BUSY, |_| {});
            if !subject.is_probing() {
                continue;
            }
            assert!(planned.is_some_and(|at| at <= subject.now));
            let (at, asked) = (subject.wall.load(Relaxed) as f64 / 1e3, subject.now);
            let yields = matches!(subject.limit.phase, Phase::Settle(After::Yield(_)));
            turns[usize::from(yields)] += 1;
            let queue = (before - BUSY.workers).max(0.0);
            let (low, high) =
                if yields { (0.7 * (before - queue), 0.8 * before) } else { (1.3 * before, 1.4 * before) };
            let moved = subject.limit.limit;
            assert!(moved >= low - 1.0 && moved <= high + 1.0, "{moved} of {before}");
            while subject.is_probing() {
                subject.turn(&BUSY, |_| {});
            }
            let length = (subject.now - asked).as_secs_f64();
            assert!((0.03..0.5).contains(&length), "some round trips: {length}");
            let after = subject.limit.limit;
            assert!((after / before - 1.0).abs() < 0.25, "nothing was found: {after} of {before}");
            probes.push((at, yields));
        }
        assert!(subject.now - settled < Duration::from_secs(31), "every 5 s: {:?}", subject.now - settled);
    }
    // In slots of 1.25 s, whoever began when, and at multiples of 10 s they make room.
    for (at, yields) in probes {
        let off = |slot: f64| (at - (at / slot).round() * slot).abs();
        assert!(off(1.25) < 0.05 && yields == (off(10.0) < 0.05), "{at}: {yields}");
    }
}

#[test]
fn what_looks_like_a_queue_and_is_none_takes_nothing_away() {
    let mut subject = Subject::settled(&BUSY);
    let roomy = Service { workers: 1_000.0, offered: 1_500.0, ..BUSY };
    subject.serve(&roomy, 20.0);
    // Ten times slower, and 150 of a thousand workers are enough.
    let slower = Service { low: 0.02, mean: 0.1, ..roomy };
    let (mut least, began) = (subject.limit(), subject.now);
    while roomy.offered * slower.mean > f64::from(subject.limit()) {
        let before = subject.limit();
        subject.turn(&slower, |_| {});
        least = least.min(subject.limit());
        assert!(
            subject.limit() + 1 >= before || subject.is_probing() || before > 3 * 30,
            "{} of {before}",
            subject.limit()
        );
        assert!(subject.now - began < Duration::from_secs(20), "{} by {}", subject.limit(), subject.base());
    }
    assert!(least >= 15, "{least}");
}

#[test]
fn a_slower_service_raises_the_base_by_probes_alone_and_at_most_to_its_double() {
    let mut subject = Subject::settled(&BUSY);
    let slower = Service { low: 0.02, mean: 0.1, ..BUSY };
    let mut raised = 0;
    for _ in 0..2_000 {
        let (before, was_probing) = (subject.base(), matches!(subject.limit.phase, Phase::Reach(_) | Phase::Yield(_)));
        subject.turn(&slower, |_| {});
        assert!(was_probing || subject.base() <= before * (1.0 + 1e-9), "{before} -> {}", subject.base());
        assert!(subject.base() <= 2.0 * before * (1.0 + 1e-6), "{before} -> {}", subject.base());
        raised += u32::from(subject.base() > before);
    }
    assert!(raised >= 4, "{raised}");
    assert!((subject.base() / slower.low - 1.0).abs() < 0.2, "{}", subject.base());
    assert!((15..=27).contains(&subject.limit()), "{}", subject.limit());
}

#[test]
fn a_base_of_nothing_is_no_base_for_ever() {
    // The clock was too coarse for the first calls.
    let mut subject = Subject::new(AdaptiveConfig::default());
    subject.serve(&Service { low: 0.0, mean: 1e-6, offered: 500.0, ..BUSY }, 2.0);
    assert_eq!(subject.base(), 0.0);
    subject.serve(&BUSY, 120.0);
    assert!((18..=26).contains(&subject.limit()), "{} by {}", subject.limit(), subject.base());
}

#[test]
fn few_calls_are_enough_to_come_back_with() {
    // Three seconds a call: at the lowest limit a window of twenty would take a minute.
    let slow = Service { workers: 20.0, low: 1.0, mean: 3.0, offered: 20.0 };
    let mut subject = Subject::settled(&slow);
    subject.serve(&slow, 60.0);
    assert!(subject.limit() >= 15, "{}", subject.limit());
    subject.limit.set(1.0);
    subject.serve(&slow, 180.0);
    assert!(subject.limit() >= 10, "{}", subject.limit());
}

#[test]
fn a_queue_of_long_ago_cuts_nothing_while_hardly_anybody_calls() {
    let mut subject = Subject::settled(&BUSY);
    let crowded = |window: &mut Window| {
        window.low += ms(20);
        window.total += ms(20) * window.samples;
    };
    subject.turn(&BUSY, crowded);
    let before = subject.limit();
    subject.serve(&Service { offered: 3.0, ..BUSY }, 60.0);
    assert!(subject.limit() >= before / 2, "{} of {before}", subject.limit());
}

#[test]
fn a_wrong_config_says_what_is_wrong() {
    let wrong = |config: AdaptiveConfig| Adaptive::new(config).unwrap_err().to_string();
    let config = AdaptiveConfig::default;
    assert_eq!(wrong(config().min(0)), "`min` is 0, allowed: 1 or more");
    assert_eq!(wrong(config().min(30).max(29)), "`max` is 29, allowed: 30 (`min`) to 1000000");
    assert_eq!(wrong(config().max(1_000_001)), "`max` is 1000001, allowed: 1 (`min`) to 1000000");
    assert_eq!(wrong(config().initial(10_001)), "`initial` is 10001, allowed: 10000 (`max`) or less");
    assert_eq!(wrong(config().initial(20).min(21)), "`initial` is 20, allowed: 21 (`min`) or more");
    for (bounds, start) in [(config(), 20), (config().min(21), 21), (config().max(7), 7)] {
        assert_eq!(Adaptive::new(bounds).unwrap().limit(), start, "nobody said where to start");
    }
    let narrow = Adaptive::new(config().initial(7).min(7).max(7)).unwrap();
    assert_eq!((narrow.limit(), narrow.name(), narrow.base()), (7, "adaptive", None));
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A window in which anything was seen, and where the clocks are at its end.
#[derive(Clone, Debug)]
struct Any {
    length: u64,
    wall: u64,
    completed: u64,
    samples: u32,
    mean: u64,
    low: u64,
    typical: u64,
    censored: u32,
    timed_out: u32,
    overloads: u32,
    in_flight: u32,
    limited: bool,
}

/// Zero, ordinary, and as much as there is.
fn any_number(most: u64) -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 1 => Just(most), 3 => 0..=most, 6 => 1..=most.min(1_000)]
}

/// In nanoseconds.
fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![1 => any_number(u64::MAX / 4), 6 => 100_000..1_000_000_000_u64]
}

fn any_window() -> impl Strategy<Value = Any> {
    let u32s = || any_number(u32::MAX.into()).prop_map(|n| n as u32);
    let few = || prop_oneof![2 => Just(0), 1 => u32s()];
    let times = (any_time(), any_time(), any_time(), any_time(), any_time());
    let counts = (any_number(u64::MAX), u32s(), few(), few(), few(), u32s(), any::<bool>());
    (times, counts).prop_map(|((length, wall, mean, low, typical), counts)| {
        let (completed, samples, censored, timed_out, overloads, in_flight, limited) = counts;
        Any { length, wall, completed, samples, mean, low, typical, censored, timed_out, overloads, in_flight, limited }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn whatever_is_seen_it_stays_in_its_bounds_and_grows_only_where_it_was_found(
        windows in vec(any_window(), 1..80),
        min in 1u32..50,
        more in 0u32..5_000,
        initial in 0.0..1.0f64,
    ) {
        let max = min + more;
        let initial = min + (initial * f64::from(more)) as u32;
        let mut subject = Subject::new(AdaptiveConfig::default().min(min).max(max).initial(initial));
        let began = subject.now;
        for seen in windows {
            let before = subject.limit.limit;
            // A probe gives back what it took.
            let allowed = match subject.limit.phase {
                Phase::Reach(was) | Phase::Yield(was) => was.limit.max(before),
                _ => before,
            };
            // So do cuts that were in vain.
            let relief = subject.limit.relief;
            let allowed = if relief.cuts >= CUTS { relief.limit.max(allowed) } else { allowed };
            let end = (subject.now + Duration::from_nanos(seen.length)).min(began + Duration::from_secs(1 << 33));
            subject.wall.store(seen.wall, Relaxed);
            let window = Window {
                completed: seen.completed,
                samples: seen.samples,
                total: Duration::from_nanos(seen.mean).saturating_mul(seen.samples),
                shortest: Duration::from_nanos(seen.low),
                low: Duration::from_nanos(seen.low),
                typical: Duration::from_nanos(seen.typical),
                censored: seen.censored,
                timed_out: seen.timed_out,
                overloads: seen.overloads,
                in_flight: seen.in_flight,
                limited: seen.limited,
                ..Window::empty(subject.now, end)
            };
            subject.now = end;
            subject.limit.observe(&window);
            let limit = subject.limit.limit;
            prop_assert!(limit >= f64::from(min) && limit <= f64::from(max), "{} after {:?}", limit, window);
            prop_assert!(subject.limit.limited || window.limited || limit <= allowed, "{} -> {} after {:?}", before, limit, window);
            let span = subject.limit.span();
            prop_assert!(span.looks.iter().all(|(calls, _)| *calls > 0));
            // Ten times the mean of the latest window, at most.
            let slow = subject.limit.seen.map_or(0.0, |seen| 10.0 * seen.mean).max(2.0) + 0.001;
            prop_assert!(span.looks.iter().any(|(_, age)| age.as_secs_f64() <= slow), "it looks again");
            prop_assert!(subject.limit.base.is_none_or(|base| base.low.is_finite() && base.low >= 0.0));
        }
    }

    #[test]
    fn wherever_it_was_it_finds_a_service_again(windows in vec(any_window(), 0..40), workers in 2u32..100) {
        let mut subject = Subject::new(AdaptiveConfig::default());
        for seen in windows {
            subject.see(0.1, |window| {
                *window = Window {
                    completed: u64::from(seen.samples),
                    samples: seen.samples,
                    // Times of up to a tenth of a second: probes take as long as those say.
                    total: Duration::from_nanos(seen.mean % 100_000_000).saturating_mul(seen.samples),
                    typical: Duration::from_nanos(seen.typical % 100_000_000),
                    low: Duration::from_nanos(seen.low % 100_000_000).min(Duration::from_nanos(seen.mean % 100_000_000)),
                    timed_out: seen.timed_out,
                    overloads: seen.overloads,
                    in_flight: seen.in_flight,
                    limited: seen.limited,
                    ..*window
                };
            });
        }
        let workers = f64::from(workers);
        subject.serve(&Service { workers, offered: 1e5, ..BUSY }, 400.0);
        let limit = f64::from(subject.limit());
        prop_assert!(limit >= 0.6 * workers && limit <= workers + 2.0 * workers.sqrt() + 2.0, "{} for {}", limit, workers);
    }
}

/// Under `inside` calls in flight: the answers of a second, and how long the fastest and most of them take.
fn under(inside: f64, rate: f64, low: f64) -> Window {
    let now = buttress_core::Clock::now(&buttress_core::TokioClock);
    let mut window = Window::empty(now, now + ms(1000));
    window.completed = rate as u64;
    window.samples = rate as u32;
    window.low = Duration::from_secs_f64(low);
    window.typical = Duration::from_secs_f64(3.0 * low);
    window.total = Duration::from_secs_f64(inside);
    window.limited = true;
    window
}

/// What a probe, in a common slot or in one of its own, makes of a base that was learnt from so many calls and is half of what it should be.
fn base_after(probe: fn(Seen) -> Phase, common: bool, learnt_from: f64, limit: f64, after: &Window) -> f64 {
    let mut subject = Adaptive::new(AdaptiveConfig::default()).unwrap();
    let seen =
        |limit: f64, rate: f64, low: f64| Seen { limit, rate, low, mean: 5.0 * low, typical: 3.0 * low, samples: rate };
    subject.base = Some(Base::new(&seen(20.0, learnt_from, 0.001)));
    (subject.common, subject.limit) = (common, limit);
    subject.phase = probe(seen(20.0, 2_000.0, 0.002));
    subject.observe(after);
    subject.base().unwrap().as_secs_f64()
}

#[test]
fn fewer_answers_and_none_sooner_say_that_there_was_no_queue() {
    let base = |common, after: &Window| base_after(Phase::Yield, common, 600.0, 15.0, after);
    let lost = under(15.0, 1_500.0, 0.002);
    assert!(base(true, &lost) > 0.0014, "{}", base(true, &lost));
    assert_eq!(base(false, &lost), 0.001, "alone one makes room for others");
    // As many answers, and sooner.
    assert_eq!(base(true, &under(15.0, 2_000.0, 0.001)), 0.001);
}

#[test]
fn more_answers_say_that_there_was_no_queue_to_who_probes_with_all_others_or_knows_next_to_nothing() {
    let base = |common, learnt_from| base_after(Phase::Reach, common, learnt_from, 27.0, &under(27.0, 2_700.0, 0.002));
    assert!(base(true, 600.0) > 0.0019, "{}", base(true, 600.0));
    assert_eq!(base(false, 600.0), 0.001, "alone one may have got what others had");
    assert!(base(false, 20.0) > 0.0019, "{}", base(false, 20.0));
}

#[test]
fn slots_that_end_every_window_early_do_not_keep_a_limit_low() {
    // Twelve calls a second: fifteen from one slot to the next.
    let service = Service { workers: 4.0, low: 0.04, mean: 0.08, offered: 100.0 };
    let mut subject = Subject::new(AdaptiveConfig::default());
    let (inside, rate, low, mean, _) = service.under(4);
    let seen = Seen { limit: inside, rate, low, mean, typical: mean, samples: 500.0 };
    subject.limit.base = Some(Base::new(&seen));
    (subject.limit.seen, subject.limit.saturated, subject.limit.phase) = (Some(seen), true, Phase::Follow);
    subject.limit.set(1.0);
    subject.limit.plan_probe(1.0, &seen, subject.now);
    subject.serve(&service, 30.0);
    assert!(subject.limit() >= 4, "{}", subject.limit());
}
