//! Toggles: who passes, who is answered otherwise, and what switches them.

use buttress_breaker::{BreakerConfig, BreakerLayer};
use buttress_core::{Clock, Error, Handle, Mode, Outcome, Reason, Rejection, Settle, Signal, TokioClock, Value};
use buttress_fallback::{
    Back, LevelsConfig, Switch, SwitchedBy, Toggle, ToggleConfig, ToggleLayer, ToggleState, Toggles, backup,
};
use std::{
    future::{pending, ready},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::time::advance;
use tower::{Layer, Service, ServiceExt, service_fn};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Debug, PartialEq)]
struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("lost")
    }
}
impl std::error::Error for Lost {}

type Res = Result<&'static str, Error<Lost>>;
type Answers = Arc<Mutex<Res>>;

const LOST: Res = Err(Error::Inner(Lost));

/// A service that answers with what it was told.
fn told() -> (Answers, impl Service<(), Response = &'static str, Error = Error<Lost>, Future: Send> + Clone) {
    let answer: Answers = Arc::new(Mutex::new(Ok("good")));
    let say = answer.clone();
    let service = service_fn(move |()| {
        let answer = match &*say.lock().unwrap() {
            Ok(text) => Ok(*text),
            Err(_) => LOST,
        };
        ready(answer)
    });
    (answer, service)
}

fn probed(successes: u32) -> ToggleConfig {
    ToggleConfig::new("feature").first_failure(true).back(Back::Probe { after: ms(100), successes })
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_switches_it_off_and_good_probes_on_again() {
    let toggle = probed(2).build().unwrap();
    let (answer, inner) = told();
    let service = ToggleLayer::new(toggle.clone(), backup::value("instead")).layer(inner);
    let call = || service.clone().oneshot(());
    assert_eq!(call().await, Ok("good"));
    *answer.lock().unwrap() = LOST;
    assert_eq!(call().await, LOST, "a toggle answers in place of nothing that was called");
    assert_eq!((call().await, toggle.is_on()), (Ok("instead"), false));

    advance(ms(99)).await;
    assert_eq!(call().await, Ok("instead"));
    advance(ms(1)).await;
    assert_eq!((call().await, toggle.is_on()), (LOST, false), "a probe");
    assert_eq!(call().await, Ok("instead"), "it was bad");
    *answer.lock().unwrap() = Ok("good");
    advance(ms(100)).await;
    assert_eq!((call().await, toggle.snapshot().state), (Ok("good"), ToggleState::Probing));
    assert_eq!((call().await, toggle.is_on()), (Ok("good"), true));
    let seen = toggle.snapshot();
    assert_eq!((seen.by, seen.lasting), (Some(SwitchedBy::Probe), ms(0)));
    assert_eq!((seen.switched_off(SwitchedBy::FirstFailure), seen.switched_off(SwitchedBy::Probe)), (1, 1));
    assert_eq!((seen.switched_on_total, seen.probes_total, seen.turned_away_total), (1, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn one_probe_at_a_time_and_one_that_hangs_has_failed() {
    let toggle = probed(1).build().unwrap();
    let service = ToggleLayer::new(toggle.clone(), backup::value("instead"));
    let hanging = service.layer(service_fn(|()| pending::<Res>()));
    toggle.admit().unwrap().settle(Outcome::Failure, None);
    advance(ms(100)).await;
    let mut probe = by_hand(hanging.clone().oneshot(()));
    assert!(probe.is_pending() && toggle.snapshot().probe_out);
    assert_eq!(hanging.clone().oneshot(()).await, Ok("instead"), "there is one out");
    probe.give_up();
    assert!(!toggle.snapshot().probe_out, "it gave its place back");

    let mut probe = by_hand(hanging.clone().oneshot(()));
    assert!(probe.is_pending());
    advance(ms(100)).await;
    assert_eq!(hanging.clone().oneshot(()).await, Ok("instead"));
    assert_eq!((toggle.snapshot().state, toggle.snapshot().by), (ToggleState::Off, Some(SwitchedBy::Probe)));
    advance(ms(100)).await;
    let other = toggle.admit().unwrap();
    probe.give_up();
    assert!(other.is_probe() && toggle.snapshot().probe_out, "what was of an older state takes nothing from it");
}

/// A future that is polled by hand.
struct ByHand<F>(Option<std::pin::Pin<Box<F>>>);

fn by_hand<F: Future>(future: F) -> ByHand<F> {
    ByHand(Some(Box::pin(future)))
}

impl<F: Future> ByHand<F> {
    fn is_pending(&mut self) -> bool {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        self.0.as_mut().is_some_and(|future| future.as_mut().poll(&mut cx).is_pending())
    }
    fn give_up(&mut self) {
        self.0 = None;
    }
}

/// Never ready.
#[derive(Clone)]
struct Stuck;

impl Service<()> for Stuck {
    type Response = &'static str;
    type Error = Error<Lost>;
    type Future = std::future::Ready<Res>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Error<Lost>>> {
        std::task::Poll::Pending
    }
    fn call(&mut self, (): ()) -> Self::Future {
        unreachable!("it is not ready")
    }
}

#[tokio::test]
async fn a_level_that_is_reached_frees_those_who_wait_for_the_service() {
    let levels = LevelsConfig::new("full").level("slim", 0.5).build().unwrap();
    let toggle = ToggleConfig::new("feature").level(&levels, "slim").unwrap().build().unwrap();
    let service = ToggleLayer::new(toggle, backup::value("instead")).layer(Stuck);
    let waiting = tokio::spawn(service.oneshot(()));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    levels.pin("slim").unwrap();
    assert_eq!(waiting.await.unwrap(), Ok("instead"));
}

#[tokio::test]
async fn without_a_backup_it_refuses() {
    let toggle = ToggleConfig::new("feature").build().unwrap();
    let (_, inner) = told();
    let service = ToggleLayer::new(toggle.clone(), backup::none()).layer(inner);
    toggle.set(Switch::Off);
    let off = Error::Rejected(Rejection::new(Reason::SwitchedOff, "toggle"));
    assert_eq!(service.clone().oneshot(()).await, Err(off));
    toggle.set(Switch::Auto);
    assert_eq!(service.oneshot(()).await, Ok("good"));
}

#[test]
fn an_operator_wins_and_then_it_begins_anew() {
    let start = TokioClock.now();
    let toggle = probed(1).signal(raised(start)).build_at(&start).unwrap();
    assert!(!toggle.is_on_at(&start), "the signal is raised");
    toggle.set_at(Switch::On, &start);
    let mut permit = toggle.admit_at(&start).unwrap();
    permit.conclude_at(Outcome::Failure, &start);
    assert!(toggle.is_on_at(&start), "whatever fails, and whatever is raised");
    toggle.set_at(Switch::Off, &start);
    assert!(!toggle.is_on_at(&(start + ms(10_000))));
    let before = toggle.snapshot_at(&(start + ms(10_000)));
    assert_eq!((before.switch, before.by, before.lasting), (Switch::Off, Some(SwitchedBy::Operator), ms(10_000)));
}

fn raised(now: Instant) -> Signal {
    let signal = Signal::new(now);
    signal.raise(Signal::OPEN, None);
    signal
}

#[tokio::test(start_paused = true)]
async fn around_a_breaker_it_is_off_while_the_circuit_is_open_and_lets_its_probes_pass() {
    let breaker = BreakerLayer::new(BreakerConfig::default().consecutive(1).build().unwrap());
    let circuit = breaker.handle();
    let config = ToggleConfig::new("feature").back(Back::Probe { after: ms(1), successes: 1 });
    let toggle = config.signal(circuit.signal()).build().unwrap();
    let (answer, inner) = told();
    let service = ToggleLayer::new(toggle.clone(), backup::value("instead")).layer(breaker.layer(inner));
    let call = || service.clone().oneshot(());
    *answer.lock().unwrap() = LOST;
    assert_eq!(call().await, LOST);
    assert_eq!((call().await, toggle.snapshot().by), (Ok("instead"), Some(SwitchedBy::Signal)));

    *answer.lock().unwrap() = Ok("good");
    // Nobody but the calls that pass can close the circuit.
    let mut good = 0;
    for _ in 0..1000 {
        advance(ms(100)).await;
        good += u32::from(call().await == Ok("good"));
    }
    assert!(toggle.is_on() && good > 500, "{good}");
    assert_eq!(circuit.snapshot().state, buttress_breaker::State::Closed);
}

#[test]
fn a_signal_leaves_no_time_to_wait_and_by_hand_it_stays_off() {
    let start = TokioClock.now();
    for (back, comes_back) in [(Back::Ramp { after: ms(1000), over: ms(10) }, true), (Back::Manual, false)] {
        let signal = raised(start);
        let toggle = ToggleConfig::new("feature").back(back).signal(signal.clone()).build_at(&start).unwrap();
        assert!(!toggle.is_on_at(&start));
        signal.clear(Signal::OPEN);
        assert!(!toggle.is_on_at(&start), "its way back begins");
        assert_eq!(toggle.is_on_at(&(start + ms(10))), comes_back);
        toggle.set_at(Switch::Auto, &start);
        assert!(toggle.is_on_at(&start));
    }
}

#[test]
fn a_ramp_lets_a_rising_share_pass() {
    let start = TokioClock.now();
    let back = Back::Ramp { after: ms(100), over: ms(1000) };
    let toggle = ToggleConfig::new("feature").first_failure(true).back(back).seed(7).build_at(&start).unwrap();
    toggle.admit_at(&start).unwrap().conclude_at(Outcome::Failure, &start);
    let share = |millis| (0..1000).filter(|_| toggle.is_on_at(&(start + ms(millis)))).count();
    assert_eq!((share(99), share(100)), (0, 0));
    assert!((200..300).contains(&share(350)) && (700..800).contains(&share(850)));
    let mut call = toggle.admit_at(&(start + ms(1099))).unwrap();
    assert_eq!((share(1100), toggle.snapshot_at(&start).state), (1000, ToggleState::On));
    call.conclude_at(Outcome::Failure, &(start + ms(1100)));
    assert_eq!(share(1100), 0, "a call of the ramp counts still");
}

#[test]
fn who_listens_is_told_outside_of_locks() {
    let toggle = probed(1).build().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (told, asked) = (seen.clone(), toggle.clone());
    toggle.on_change(move |change| {
        asked.set(asked.snapshot().switch);
        told.lock().unwrap().push((change.from, change.to, change.by, asked.config().name));
    });
    toggle.admit().unwrap().settle(Outcome::Failure, None);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1 + 1, "{seen:?}");
    assert_eq!(seen[1], (ToggleState::On, ToggleState::Off, SwitchedBy::FirstFailure, "feature".into()));
}

#[test]
fn a_registry_switches_it_too() {
    let toggle = probed(1).build().unwrap();
    for (mode, switch, state) in
        [(Mode::ForcedOpen, Switch::Off, "off"), (Mode::Disabled, Switch::On, "on"), (Mode::Auto, Switch::Auto, "on")]
    {
        toggle.set_mode(mode).unwrap();
        assert_eq!((toggle.mode(), toggle.snapshot().switch), (mode, switch));
        let mut shown = Vec::new();
        toggle.visit(&mut |name, value| shown.push((name, value)));
        assert_eq!(shown[0], ("state", Value::State(state, &ToggleState::NAMES)));
        assert!(shown[1..].iter().all(|(name, _)| name.ends_with("_total")));
    }
    assert!(toggle.set_mode(Mode::OBSERVE_ONLY).unwrap_err().to_string().starts_with("`mode` is observe_only"));
    assert_eq!(toggle.snapshot().switched_off(SwitchedBy::Operator), 1);
}

#[test]
fn toggles_are_known_by_name_and_each_is_read() {
    let error =
        |made: Result<Toggles, _>| made.map(drop).map_err(|error: buttress_fallback::ConfigError| error.to_string());
    let twice = Toggles::builder().add(ToggleConfig::new("a")).add(ToggleConfig::new("a")).build();
    assert_eq!(error(twice).unwrap_err(), "`toggles` is a, allowed: one toggle of this name");
    let wrong = Toggles::builder().add(ToggleConfig::new("a").min_calls(0)).build();
    assert_eq!(error(wrong).unwrap_err(), "`toggles.a.min_calls` is 0, allowed: at least 1");

    let toggles = Toggles::builder().add(ToggleConfig::new("a")).add(ToggleConfig::new("b")).build().unwrap();
    let unread = |toggles: &Toggles| toggles.check_read().map_err(|error| error.value);
    assert_eq!(unread(&toggles), Err("a".to_owned()));
    let _layer = toggles.layer("a", backup::none()).unwrap();
    toggles.get("b").unwrap().set(Switch::Off);
    assert_eq!(unread(&toggles), Err("b".to_owned()), "an operator is no reader");
    assert!(!toggles.clone().reader("b").unwrap().is_on());
    assert_eq!(unread(&toggles), Ok(()));
    assert_eq!(toggles.layer("c", backup::none()).unwrap_err().to_string(), "`toggle` is c, allowed: a, b");
    let mut states = Vec::new();
    toggles.for_each(|toggle: &Toggle| states.push((toggle.name().to_owned(), toggle.snapshot().state.as_str())));
    assert_eq!(states, [("a".to_owned(), "on"), ("b".to_owned(), "off")]);
    let none = Toggles::builder().build().unwrap();
    assert!(none.is_empty() && none.check_read().is_ok());
    assert!(none.reader("a").unwrap_err().to_string().ends_with("nothing: there are no toggles"));
}

#[test]
fn a_config_is_checked_and_can_change() {
    let said = |config: ToggleConfig| config.build().unwrap_err().to_string();
    let back = |back| said(ToggleConfig::new("a").back(back));
    assert_eq!(
        said(ToggleConfig::new("a").failure_rate(0.0)),
        "`failure_rate` is 0, allowed: more than 0 and at most 1"
    );
    assert_eq!(said(ToggleConfig::new("a").window(ms(999))), "`window` is 999ms, allowed: 1s to 1h");
    assert_eq!(back(Back::Probe { after: ms(0), successes: 1 }), "`back.probe.after` is 0s, allowed: 1ms to 24h");
    assert_eq!(back(Back::Probe { after: ms(1), successes: 64 }), "`back.probe.successes` is 64, allowed: 1 to 63");
    assert_eq!(back(Back::Ramp { after: ms(1), over: ms(0) }), "`back.ramp.over` is 0s, allowed: 1ms to 24h");

    let toggle = ToggleConfig::new("a").build().unwrap();
    toggle.admit().unwrap().settle(Outcome::Failure, None);
    assert!(toggle.is_on());
    toggle.update(ToggleConfig::new("a").first_failure(true)).unwrap();
    toggle.admit().unwrap().settle(Outcome::Failure, None);
    assert!(!toggle.is_on());
    assert!(toggle.update(ToggleConfig::new("b")).unwrap_err().to_string().starts_with("`name` is b, allowed: a"));
    assert!(toggle.update(ToggleConfig::new("a").seed(1)).unwrap_err().to_string().starts_with("`seed` is 1"));
    assert!(toggle.config().first_failure, "nothing changed");
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_as_people_write_it() {
    let text = r#"{"name": "a", "failure_rate": 0.5, "back": {"ramp": {"after": "30s", "over": "1m"}}}"#;
    let config: ToggleConfig = serde_json::from_str(text).unwrap();
    assert_eq!((config.failure_rate, config.back), (Some(0.5), Back::Ramp { after: ms(30_000), over: ms(60_000) }));
    let by_hand: ToggleConfig = serde_json::from_str(r#"{"back": "manual"}"#).unwrap();
    assert_eq!((by_hand.back, &*by_hand.name), (Back::Manual, "toggle"));
    let shown = serde_json::to_value(config.build().unwrap().snapshot()).unwrap();
    assert_eq!((&shown["state"], &shown["switch"]), (&"on".into(), &"auto".into()));
}

#[cfg(feature = "http")]
mod over_http {
    use super::*;
    use axum::body::Body;
    use buttress_core::http::{HttpServer, X_DEGRADED};
    use buttress_fallback::StaticResponse;
    use http::{Request, Response};
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn off_it_gives_the_page_and_says_so() {
        let toggle = ToggleConfig::new("reviews").build().unwrap();
        let page = StaticResponse::new(200, "application/json", "[]").unwrap();
        let inner =
            service_fn(|_: Request<Body>| ready(Ok::<_, std::convert::Infallible>(Response::new(Body::from("[1]")))));
        let service = ToggleLayer::new(toggle.clone(), page).protocol(HttpServer::new()).layer(inner);
        for (switch, mark, body) in
            [(Switch::Auto, None, "[1]"), (Switch::Off, Some("toggle; cause=switched_off"), "[]")]
        {
            toggle.set(switch);
            let res = service.clone().oneshot(Request::new(Body::empty())).await.unwrap();
            assert_eq!(res.headers().get(X_DEGRADED).map(|mark| mark.to_str().unwrap()), mark);
            assert_eq!(res.into_body().collect().await.unwrap().to_bytes(), body);
        }
    }

    #[tokio::test]
    async fn a_call_that_breaks_in_its_body_has_failed() {
        let toggle = probed(1).build().unwrap();
        let broken = || {
            let frames = [Ok("begun"), Err("broken")];
            Body::from_stream(futures_util::stream::iter(frames))
        };
        let inner =
            service_fn(move |_: Request<Body>| ready(Ok::<_, std::convert::Infallible>(Response::new(broken()))));
        let layer = ToggleLayer::new(toggle.clone(), backup::none()).protocol(HttpServer::new());
        let res = layer.layer(inner).oneshot(Request::new(Body::empty())).await.unwrap();
        assert!(toggle.is_on(), "its head is good");
        assert!(res.into_body().collect().await.is_err());
        assert!(!toggle.is_on());
    }
}
