//! The client-side throttle, by an explicit clock.

use buttress_core::{Draw, Handle, KeyedConfig, Mode, Outcome, Reason, Resting, Value};
use buttress_shed::throttle::{Throttle, ThrottleConfig, ThrottlePermit};
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn epoch() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn throttle(config: ThrottleConfig, start: Instant) -> Throttle {
    config.seed(1).build_at(&start).unwrap()
}

/// Every call with its time, in milliseconds, and every answer with the time of its call; the window is the present second and the nine before it.
#[derive(Default)]
struct Naive {
    sent: Vec<u64>,
    refused: Vec<u64>,
    overloads: Vec<u64>,
    ignored: Vec<u64>,
    /// What was worked out last, and until when it holds.
    share: f64,
    due: u64,
}

impl Naive {
    fn counts(&self, now: u64) -> [u64; 4] {
        let seen = |times: &Vec<u64>| times.iter().filter(|at| **at / 1000 + 10 > now / 1000).count() as u64;
        [seen(&self.sent), seen(&self.refused), seen(&self.overloads), seen(&self.ignored)]
    }

    /// Requests and accepts of the book's formula.
    fn requests(&self, now: u64) -> (u64, u64) {
        let [sent, refused, overloads, ignored] = self.counts(now);
        let requests = (sent + refused).saturating_sub(ignored);
        (requests, requests.saturating_sub(refused + overloads))
    }

    fn probability(&self, k: f64, min: u64, now: u64) -> f64 {
        let (requests, accepts) = self.requests(now);
        let share = (requests as f64 - k * accepts as f64) / (requests as f64 + 1.0);
        if requests < min { 0.0 } else { share.max(0.0) }
    }

    fn refresh(&mut self, k: f64, min: u64, now: u64) {
        if now >= self.due {
            self.share = self.probability(k, min, now);
            self.due = now + 10;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Send,
    Settle(usize, Outcome),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Overload), 1 => Just(Outcome::Success), 1 => Just(Outcome::Failure), 1 => Just(Outcome::Ignored)
    ];
    prop_oneof![
        2 => (0_u64..60).prop_map(Step::Wait),
        1 => (500_u64..4000).prop_map(Step::Wait),
        40 => Just(Step::Send),
        20 => (0_usize..8, outcome).prop_map(|(call, outcome)| Step::Settle(call, outcome)),
        2 => (0_usize..8).prop_map(Step::Drop),
    ]
}

proptest! {
    #[test]
    fn it_decides_as_a_list_of_all_calls_does(
        steps in prop::collection::vec(step(), 1..600), k in 1.0_f64..3.0, min in 1_u32..30, seed: u64,
    ) {
        let start = epoch();
        let throttle = ThrottleConfig::default().k(k).min_calls(min).seed(seed).build_at(&start).unwrap();
        let (mut naive, draw, mut now) = (Naive::default(), Draw::new(seed), 0_u64);
        let mut in_flight: VecDeque<(ThrottlePermit, u64)> = VecDeque::new();
        for step in steps {
            let at = start + MS * now as u32;
            // It also makes the window advance, so that no success is counted in a bucket before its own.
            let seen = throttle.snapshot_at(&at);
            prop_assert_eq!((seen.calls, seen.accepted), naive.requests(now));
            prop_assert_eq!(seen.probability, naive.probability(k, min.into(), now));
            match step {
                Step::Wait(millis) => now += millis,
                Step::Send => {
                    let is_drawn = naive.share > 0.0;
                    if is_drawn {
                        naive.refresh(k, min.into(), now);
                    }
                    let refused = is_drawn && (draw.draw() >> 40) < (naive.share * (0xff_ffff as f64)) as u64;
                    match throttle.try_send_at(&at) {
                        Ok(permit) => {
                            prop_assert!(!refused);
                            naive.sent.push(now);
                            in_flight.push_back((permit, now));
                        }
                        Err(rejection) => {
                            prop_assert!(refused);
                            prop_assert_eq!((rejection.reason, rejection.layer), (Reason::Shed, "throttle"));
                            naive.refused.push(now);
                        }
                    }
                }
                Step::Settle(call, outcome) => {
                    let Some((permit, sent)) = in_flight.remove(call) else { continue };
                    permit.settle_at(outcome, &at);
                    match outcome {
                        Outcome::Overload => {
                            naive.overloads.push(sent);
                            naive.refresh(k, min.into(), now);
                        }
                        Outcome::Ignored => naive.ignored.push(sent),
                        _ => {}
                    }
                }
                Step::Drop(call) => {
                    let Some((permit, sent)) = in_flight.remove(call) else { continue };
                    permit.settle_at(Outcome::Ignored, &at);
                    naive.ignored.push(sent);
                }
            }
        }
        in_flight.into_iter().for_each(|(permit, _)| permit.settle_at(Outcome::Success, &start));
    }
}

/// A service that accepts so many calls of each 100 ms, and calls the rest too many. Returns what was sent and accepted.
fn drive(throttle: &Throttle, from: Instant, seconds: u32, offered: u32, accepts: u32) -> (u32, u32) {
    let (mut sent, mut accepted) = (0, 0);
    for tick in 0..seconds * 10 {
        let mut left = accepts;
        for call in 0..offered {
            let now = from + 100 * MS * tick + 100 * MS * call / offered;
            let Ok(permit) = throttle.try_send_at(&now) else { continue };
            sent += 1;
            let outcome = if left > 0 { Outcome::Success } else { Outcome::Overload };
            accepted += u32::from(left > 0);
            left = left.saturating_sub(1);
            permit.settle_at(outcome, &now);
        }
    }
    (sent, accepted)
}

#[test]
fn what_is_sent_settles_at_k_times_what_is_accepted() {
    for k in [1.1, 2.0, 3.0] {
        let start = epoch();
        let throttle = throttle(ThrottleConfig::default().k(k), start);
        drive(&throttle, start, 20, 1000, 100);
        let (sent, accepted) = drive(&throttle, start + 20 * S, 20, 1000, 100);
        let ratio = f64::from(sent) / f64::from(accepted);
        assert!((ratio - k).abs() < 0.1 * k, "{ratio} of {k}");
        // All that the service takes is used, but for what chance leaves to fluctuate.
        assert!(accepted > 20 * 10 * 100 * 9 / 10, "{accepted}");
    }
}

#[test]
fn a_service_that_takes_all_is_never_throttled_and_neither_is_one_that_is_slow_or_broken() {
    let start = epoch();
    let throttle = throttle(ThrottleConfig::default(), start);
    let hung: Vec<_> = (0..2000).map(|call| throttle.try_send_at(&(start + MS * call)).unwrap()).collect();
    for call in 0..2000 {
        let now = start + MS * (2000 + call);
        throttle.try_send_at(&now).unwrap().settle_at(Outcome::Failure, &now);
    }
    let seen = throttle.snapshot_at(&(start + 4 * S));
    assert_eq!((seen.probability, seen.refused_total), (0.0, 0));
    hung.into_iter().for_each(|permit| permit.settle_at(Outcome::Ignored, &(start + 4 * S)));
    assert!(throttle.snapshot_at(&(start + 4 * S)).calls < 2017, "who gave up said nothing");
}

#[test]
fn few_calls_are_all_worth_sending() {
    let start = epoch();
    let throttle = throttle(ThrottleConfig::default().min_calls(20), start);
    for call in 0..19 {
        throttle.try_send_at(&(start + MS * call)).unwrap().settle_at(Outcome::Overload, &(start + 10 * MS * call));
    }
    assert_eq!(throttle.snapshot_at(&(start + S)).probability, 0.0);
    throttle.try_send_at(&(start + S)).unwrap().settle_at(Outcome::Overload, &(start + S));
    let seen = throttle.snapshot_at(&(start + S));
    assert_eq!((seen.calls, seen.probability), (20, 20.0 / 21.0));
}

#[test]
fn an_answer_counts_with_its_call_however_late_it_comes() {
    let start = epoch();
    let throttle = throttle(ThrottleConfig::default(), start);
    let slow: Vec<_> = (0..100).map(|call| throttle.try_send_at(&(start + 10 * MS * call)).unwrap()).collect();
    slow.into_iter().for_each(|permit| permit.settle_at(Outcome::Overload, &(start + 9 * S)));
    assert!(throttle.snapshot_at(&(start + 9 * S)).probability > 0.9);
    // The calls have left the window, and with them what was said of them.
    let (sent, accepted) = drive(&throttle, start + 12 * S, 5, 10, 10);
    assert_eq!((sent, accepted), (500, 500));
    // Calls that end do not hide those that are refused now: nothing is said of calls of long ago.
    let hung: Vec<_> = (0..1000).map(|call| throttle.try_send_at(&(start + 30 * S + MS * call)).unwrap()).collect();
    drive(&throttle, start + 45 * S, 1, 100, 0);
    let before = throttle.snapshot_at(&(start + 46 * S));
    hung.into_iter().for_each(|permit| permit.settle_at(Outcome::Ignored, &(start + 46 * S)));
    let seen = throttle.snapshot_at(&(start + 46 * S));
    assert_eq!((seen.calls, seen.probability), (before.calls, before.probability));
    assert!(seen.calls > 900 && seen.probability > 0.9, "{seen:?}");
}

#[test]
fn it_is_over_when_the_window_is() {
    let start = epoch();
    let throttle = throttle(ThrottleConfig::default(), start);
    drive(&throttle, start, 10, 100, 0);
    assert!(throttle.snapshot_at(&(start + 10 * S)).probability > 0.9);
    let (sent, _) = drive(&throttle, start + 25 * S, 5, 100, 100);
    assert_eq!(sent, 5000);
}

#[test]
fn a_cap_keeps_calls_going_to_a_service_that_refuses_them_all() {
    let start = epoch();
    let throttle = throttle(ThrottleConfig::default().max_refused(0.9), start);
    drive(&throttle, start, 20, 1000, 0);
    let (sent, _) = drive(&throttle, start + 20 * S, 10, 1000, 0);
    assert!((8_000..12_000).contains(&sent), "a tenth of 100 000: {sent}");
}

#[test]
fn an_operator_shuts_it_opens_it_and_looks_on() {
    let start = epoch();
    let overloaded = |mode: Mode| {
        let throttle = throttle(ThrottleConfig::default(), start);
        throttle.set_mode(mode).unwrap();
        let (sent, _) = drive(&throttle, start, 5, 100, 10);
        (sent, throttle.snapshot_at(&(start + 5 * S)))
    };
    let (_, auto) = overloaded(Mode::Auto);
    assert!(auto.refused_total > 3000 && auto.overload_total > 300 && auto.over_total == 0, "{auto:?}");
    let (sent, seen) = overloaded(Mode::OBSERVE_ONLY);
    assert_eq!((sent, seen.refused_total), (5000, 0));
    assert!(seen.over_total > 3000, "what it would have done: {seen:?}");
    assert!((seen.probability - auto.probability).abs() < 0.1, "and so goes on: {seen:?} {auto:?}");
    let (sent, seen) = overloaded(Mode::Disabled);
    assert_eq!((sent, seen.calls, seen.overload_total), (5000, 0, 0), "nothing is measured");
    let (sent, seen) = overloaded(Mode::ForcedOpen);
    assert_eq!((sent, seen.refused_total, seen.calls), (0, 5000, 0));
    let (_, seen) = overloaded(Mode::Enforcing(50));
    let share = seen.refused_total as f64 / (seen.refused_total + seen.over_total) as f64;
    assert!((0.45..0.55).contains(&share), "{share}");
}

#[test]
fn an_update_holds_at_once() {
    let start = epoch();
    let throttle = throttle(ThrottleConfig::default(), start);
    drive(&throttle, start, 5, 100, 60);
    let now = start + 5 * S;
    assert_eq!(throttle.snapshot_at(&now).probability, 0.0, "less than twice of what is accepted is sent");
    throttle.update_at(ThrottleConfig::default().k(1.0), &now).unwrap();
    assert!(throttle.snapshot_at(&now).probability > 0.35);
    let (sent, _) = drive(&throttle, now, 1, 100, 100);
    assert!(sent < 900, "without another \"too much\": {sent}");
    assert!(throttle.update(ThrottleConfig::default().k(f64::NAN)).is_err());
    assert_eq!(throttle.config().k, 1.0);
    throttle.update_at(ThrottleConfig::default().window(S), &(now + S)).unwrap();
    assert_eq!(throttle.snapshot_at(&(now + S)).calls, 0, "another window begins empty");
}

#[test]
fn a_wrong_config_says_what_is_wrong() {
    let said = |config: ThrottleConfig| config.build().unwrap_err().to_string();
    assert_eq!(said(ThrottleConfig::default().k(f64::NAN)), "`k` is NaN, allowed: 1 to 100");
    assert_eq!(said(ThrottleConfig::default().k(101.0)), "`k` is 101, allowed: 1 to 100");
    assert_eq!(said(ThrottleConfig::default().window(Duration::ZERO)), "`window` is 0s, allowed: 100ms to 1m");
    assert_eq!(said(ThrottleConfig::default().min_calls(0)), "`min_calls` is 0, allowed: 1 to 4294967295");
    for cap in [0.0, 1.1, f64::NAN] {
        let allowed = "more than 0 and at most 1";
        assert_eq!(
            said(ThrottleConfig::default().max_refused(cap)),
            format!("`max_refused` is {cap}, allowed: {allowed}")
        );
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_and_written() {
    let read: ThrottleConfig = serde_json::from_str(r#"{"k": 1.5, "window": "30s"}"#).unwrap();
    assert_eq!(read, ThrottleConfig::default().k(1.5).window(30 * S));
    assert!(serde_json::from_str::<ThrottleConfig>(r#"{"K": 1.5}"#).is_err());
    assert_eq!(serde_json::to_value(Throttle::default().snapshot()).unwrap()["probability"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn one_per_host_is_forgotten_when_it_has_nothing_to_remember() {
    let make = |_: &u32| ThrottleConfig::default().min_calls(1).seed(1).build().unwrap();
    let keyed = KeyedConfig::new(10).build(|host: &u32| *host, make).unwrap();
    let host = keyed.entry(&1);
    assert!(host.is_resting());
    let permit = host.try_send().unwrap();
    assert!(!host.is_resting(), "a call is in flight");
    permit.settle_at(Outcome::Overload, &epoch());
    assert!(!host.is_resting(), "it remembers an overload");
    tokio::time::advance(11 * S).await;
    assert!(host.is_resting());
    let mut names = Vec::new();
    host.visit(&mut |name, value| names.push((name, matches!(value, Value::Count(_)))));
    assert!(names.iter().all(|(name, is_count)| *is_count == name.ends_with("_total")), "{names:?}");
}

/// What a service says over HTTP, in the words of a client.
#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn only_too_much_counts_over_http() {
    use buttress_core::{Error, http::HttpClient};
    use http::{Request, Response};
    use http_body_util::Empty;
    use tower::{Layer, ServiceExt, service_fn};

    type Headers = &'static [(&'static str, &'static str)];
    const AFTER: Headers = &[("retry-after", "1")];
    const EXHAUSTED: Headers = &[("grpc-status", "8")];
    const PUSHED_BACK: Headers = &[("grpc-status", "8"), ("grpc-retry-pushback-ms", "1000")];
    const UNAVAILABLE: Headers = &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "1000")];
    let rows: [(u16, Headers, bool); 9] = [
        (429, &[], true),
        (503, AFTER, true),
        (503, &[], false),
        (500, &[], false),
        (404, &[], false),
        (200, &[], false),
        (200, PUSHED_BACK, true),
        (200, EXHAUSTED, false),
        (200, UNAVAILABLE, false),
    ];
    for (status, headers, counts) in rows {
        let grpc = headers.iter().any(|(name, _)| *name == "grpc-status");
        let answer = move |_: Request<()>| {
            let mut res = Response::builder().status(status);
            for (name, value) in headers {
                res = res.header(*name, *value);
            }
            std::future::ready(Ok::<_, Error<std::io::Error>>(res.body(Empty::<bytes::Bytes>::new()).unwrap()))
        };
        let layer = ThrottleConfig::default().seed(1).layer().unwrap().protocol(HttpClient::new());
        let service = layer.layer(service_fn(answer));
        let mut refused = 0;
        for _ in 0..100 {
            tokio::time::advance(20 * MS).await;
            let mut request = Request::new(());
            if grpc {
                *request.method_mut() = http::Method::POST;
                request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            }
            refused += u32::from(service.clone().oneshot(request).await.is_err());
        }
        assert_eq!(refused > 50, counts, "{status} {headers:?}: {refused}");
        assert_eq!(refused > 0, counts);
    }
}

/// `cargo test --release -p buttress-shed --test throttle -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn what_a_decision_costs() {
    let per_call = |name: &str, call: &dyn Fn()| {
        const CALLS: u32 = 3_000_000;
        let best = (0..5).map(|_| {
            let from = epoch();
            (0..CALLS).for_each(|_| call());
            (epoch() - from).as_secs_f64() * 1e9 / f64::from(CALLS)
        });
        println!("{name}: {:.1} ns", best.fold(f64::MAX, f64::min));
    };
    let settle = |throttle: &Throttle, outcome| {
        if let Ok(permit) = throttle.try_send() {
            buttress_core::Settle::settle(permit, outcome, None);
        }
    };
    let healthy = ThrottleConfig::default().build().unwrap();
    per_call("sent and accepted", &|| settle(&healthy, Outcome::Success));
    let refusing = ThrottleConfig::default().build().unwrap();
    (0..100_000).for_each(|_| settle(&refusing, Outcome::Overload));
    per_call("refused (nearly all)", &|| settle(&refusing, Outcome::Overload));
    println!("{:?}", refusing.snapshot());
    let all_too_many = ThrottleConfig::default().max_refused(1e-9).build().unwrap();
    per_call("sent, and too many", &|| settle(&all_too_many, Outcome::Overload));
}
