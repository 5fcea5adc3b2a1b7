//! Levels: up and down a step at a time, by pressure and by an operator.

use buttress_breaker::{BreakerConfig, BreakerLayer};
use buttress_core::{BoxError, Clock, Handle, Measure, Signal, TokioClock, Value};
use buttress_fallback::{LevelConfig, Levels, LevelsConfig, SteppedBy, ToggleConfig, ToggleLayer, ToggleState, backup};
use buttress_sim::Script;
use proptest::prelude::*;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tower::{Layer, ServiceExt};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config() -> LevelsConfig {
    LevelsConfig::new("full").level("no recommendations", 0.6).level("read only", 0.8).level("static", 0.9)
}

/// Levels whose pressure is a number of percent.
fn under_pressure(config: LevelsConfig, start: &impl Clock) -> (Levels, Arc<AtomicU64>) {
    let percent = Arc::new(AtomicU64::new(0));
    let levels = config.build_at(start).unwrap();
    let source = percent.clone();
    levels.source(move || source.load(SeqCst) as f64 / 100.0);
    (levels, percent)
}

#[test]
fn pressure_moves_them_a_step_at_a_time_and_back() {
    let start = TokioClock.now();
    let (levels, percent) = under_pressure(config(), &start);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    // It may ask the levels themselves: nothing is locked.
    let asked = levels.clone();
    levels.on_change(move |change| {
        told.lock().unwrap().push((change.from.to_string(), change.to.to_string(), change.by, asked.config().name));
    });
    percent.store(100, SeqCst);
    let at = |millis| levels.current_at(&(start + ms(millis)));
    assert_eq!((at(0), at(900), at(1000)), (0, 0, 1), "it must hold for a second");
    assert_eq!((at(1100), at(2000), at(2100)), (1, 1, 2), "every step takes its time");
    assert_eq!((at(9000), at(9100), at(20_000)), (2, 2, 3), "however long nobody asks, no level is left out");
    percent.store(0, SeqCst);
    assert_eq!((at(30_000), at(39_900), at(40_000)), (3, 3, 2));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[3], ("static".into(), "read only".into(), SteppedBy::Pressure, "levels".into()));
}

#[test]
fn a_level_is_left_when_the_pressure_is_well_below_it() {
    let start = TokioClock.now();
    let (levels, percent) = under_pressure(config().worse_after(ms(0)).better_after(ms(0)).hysteresis(0.25), &start);
    let at = |millis, pressure| {
        percent.store(pressure, SeqCst);
        levels.current_at(&(start + ms(millis)))
    };
    assert_eq!((at(0, 60), at(100, 79), at(200, 35), at(300, 34)), (1, 1, 1, 0));
}

#[test]
fn sources_are_looked_at_as_often_as_said() {
    let start = TokioClock.now();
    let looks = Arc::new(AtomicU64::new(0));
    let levels = config().every(ms(50)).build_at(&start).unwrap();
    let count = looks.clone();
    levels.source(move || {
        count.fetch_add(1, SeqCst);
        0.0
    });
    for millis in 0..200 {
        levels.current_at(&(start + ms(millis)));
    }
    assert_eq!(looks.load(SeqCst), 4);
    levels.pin("static").unwrap();
    levels.current_at(&(start + ms(1000)));
    assert_eq!(looks.load(SeqCst), 4, "pinned, nobody looks");
}

#[test]
fn the_highest_pressure_counts_and_an_open_circuit_is_all_there_is() {
    let start = TokioClock.now();
    let levels = config().worse_after(ms(0)).build_at(&start).unwrap();
    let (low, breaker) = (Signal::new(start), Signal::new(start));
    levels.watch(low.clone());
    levels.watch(breaker.clone());
    levels.source(|| f64::NAN);
    low.set_pressure(0.7);
    let seen = |millis| {
        levels.current_at(&(start + ms(millis)));
        levels.snapshot_at(&(start + ms(millis))).pressure
    };
    assert!((seen(0) - 0.7).abs() < 0.001);
    breaker.raise(Signal::OPEN, None);
    assert_eq!(seen(100), 1.0);
    assert_eq!(levels.current_at(&(start + ms(200))), 3);
}

#[test]
fn an_operator_pins_a_level_and_from_there_it_goes_on() {
    let start = TokioClock.now();
    let (levels, _) = under_pressure(config().better_after(ms(0)), &start);
    let changes = Arc::new(AtomicU64::new(0));
    let count = changes.clone();
    levels.on_change(move |_| {
        count.fetch_add(1, SeqCst);
    });
    levels.pin_at("static", &start).unwrap();
    levels.pin_at("static", &start).unwrap();
    assert_eq!(changes.load(SeqCst), 1);
    let later = |millis| levels.current_at(&(start + ms(millis)));
    assert_eq!((later(10_000), levels.snapshot_at(&start).pinned), (3, true));
    levels.unpin();
    levels.unpin();
    assert_eq!((later(20_000), later(20_100), later(20_200), later(20_300)), (2, 1, 0, 0), "step by step");
    let error = levels.pin("static page").unwrap_err();
    assert_eq!(error.to_string(), "`level` is static page, allowed: full, no recommendations, read only, static");
}

#[test]
fn a_level_without_pressure_is_an_operators() {
    let start = TokioClock.now();
    let config = LevelsConfig::new("full").level("slim", 0.5).level("maintenance", None);
    let (levels, percent) = under_pressure(config.worse_after(ms(0)).better_after(ms(0)), &start);
    percent.store(100, SeqCst);
    let at = |millis| levels.current_at(&(start + ms(millis)));
    assert_eq!((at(0), at(100), at(200)), (1, 1, 1));
    levels.pin("maintenance").unwrap();
    levels.unpin();
    assert_eq!((at(300), at(400)), (1, 1), "back to what the pressure says");
}

#[test]
fn a_toggle_is_off_from_its_level_on_and_on_again_at_once() {
    let start = TokioClock.now();
    let (levels, percent) = under_pressure(config().worse_after(ms(0)).better_after(ms(0)), &start);
    let toggle = ToggleConfig::new("cart").level(&levels, "read only").unwrap().build_at(&start).unwrap();
    percent.store(100, SeqCst);
    let is_on = |millis| toggle.is_on_at(&(start + ms(millis)));
    assert_eq!((is_on(0), is_on(100), is_on(200)), (true, false, false));
    let seen = toggle.snapshot_at(&(start + ms(250)));
    assert_eq!((seen.state, seen.by.unwrap().as_str(), seen.lasting), (ToggleState::Off, "level", ms(50)));
    percent.store(65, SeqCst);
    assert_eq!((is_on(300), is_on(400), is_on(500)), (false, true, true));
    assert_eq!(levels.at_least("read only").unwrap().name(), "read only");
    let error = ToggleConfig::new("cart").level(&levels, "readonly").unwrap_err();
    assert_eq!(error.to_string(), "`level` is readonly, allowed: full, no recommendations, read only, static");
}

#[test]
fn what_contradicts_itself_is_said_when_it_is_built() {
    let said = |config: LevelsConfig| config.build().unwrap_err().to_string();
    assert_eq!(said(LevelsConfig::new("full")), "`levels` is 1 levels, allowed: 2 to 64 levels");
    assert_eq!(said(config().level("static", 0.95)), "`levels[4].name` is static, allowed: one level of this name");
    assert_eq!(said(config().level("off", 0.9)), "`levels[4].at` is 0.9, allowed: more than 0.9 and at most 1");
    assert_eq!(said(LevelsConfig::new("a").level("b", 0.0)), "`levels[1].at` is 0, allowed: more than 0 and at most 1");
    assert!(said(LevelsConfig::new("a").level("b", None).level("c", 0.5)).contains("reached by an operator only"));
    assert!(said(LevelsConfig::new("a").level("b", f64::NAN)).starts_with("`levels[1].at` is NaN"));
    assert_eq!(
        said(config().hysteresis(0.6)),
        "`hysteresis` is 0.6, allowed: 0 to less than 0.6, where the first level begins"
    );
    assert_eq!(said(config().every(ms(0))), "`every` is 0s, allowed: 1ms to 1m");
    assert_eq!(said(config().better_after(ms(3_600_001))), "`better_after` is 3600001ms, allowed: 0s to 1h");
    let mut first = config();
    first.levels[0] = LevelConfig::new("full", 0.1);
    assert!(said(first).starts_with("`levels[0].at` is 0.1, allowed: nothing"));
}

#[test]
fn an_update_keeps_the_level_and_the_names() {
    let start = TokioClock.now();
    let (levels, percent) = under_pressure(config().worse_after(ms(0)), &start);
    percent.store(70, SeqCst);
    assert_eq!(levels.current_at(&start), 1);
    levels.update(config().worse_after(ms(0)).hysteresis(0.0).better_after(ms(0))).unwrap();
    percent.store(59, SeqCst);
    assert_eq!(levels.current_at(&(start + ms(100))), 0);
    assert!(levels.update(config().level("more", 0.95)).unwrap_err().to_string().ends_with("while it runs"));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_presses_only_until_it_is_to_be_tried() {
    let signal = Signal::new(TokioClock.now());
    let levels = LevelsConfig::new("full").level("less", 0.5).worse_after(ms(0)).better_after(ms(0)).build().unwrap();
    levels.watch(signal.clone());
    signal.raise(Signal::OPEN, Some(TokioClock.now() + ms(500)));
    assert_eq!(levels.current(), 1);
    tokio::time::advance(ms(400)).await;
    assert_eq!(levels.current(), 1);
    tokio::time::advance(ms(100)).await;
    assert_eq!(levels.current(), 0, "it is due: only a call can close it");
    signal.set_pressure(0.7);
    tokio::time::advance(ms(100)).await;
    assert_eq!(levels.current(), 1, "what it says of the pressure is heeded all the same");
    signal.set_pressure(0.0);
    signal.raise(Signal::OPEN, None);
    tokio::time::advance(ms(3_600_000)).await;
    assert_eq!(levels.current(), 1, "one that is forced open is never due");
}

#[tokio::test(start_paused = true)]
async fn a_level_that_heeds_a_circuit_lets_the_call_through_that_closes_it() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let shop: Script<u32, u32> = Script::new(move |n| {
        let down = is_down.load(SeqCst);
        async move { if down { Err(BoxError::from("down")) } else { Ok(n) } }
    });
    let breaker = BreakerLayer::new(BreakerConfig::default().consecutive(2).open_for(ms(1000)).build().unwrap());
    let levels =
        LevelsConfig::new("full").level("less", 0.5).worse_after(ms(0)).better_after(ms(1000)).build().unwrap();
    levels.watch(breaker.handle().signal());
    let toggle = ToggleConfig::new("shop").level(&levels, "less").unwrap().build().unwrap();
    let service = ToggleLayer::new(toggle, backup::none()).layer(breaker.layer(shop.clone()));
    for _ in 0..20 {
        let _ = service.clone().oneshot(1).await;
        tokio::time::advance(ms(50)).await;
    }
    assert_eq!((levels.current_name(), shop.probe().calls()), ("less", 2));
    down.store(false, SeqCst);
    for _ in 0..60 {
        let _ = service.clone().oneshot(1).await;
        tokio::time::advance(ms(1000)).await;
    }
    assert_eq!((service.oneshot(7).await.unwrap(), levels.current_name()), (7, "full"));
}

#[test]
fn a_registry_sees_the_level_as_a_number_and_the_names_as_labels() {
    let levels = config().name("shop").build().unwrap();
    levels.pin("read only").unwrap();
    let mut readings = Vec::new();
    levels.visit(&mut |name, value| readings.push((name, value)));
    assert!(readings.contains(&("level", Value::Gauge(2))) && readings.contains(&("pinned", Value::Gauge(1))));
    let mut series = Vec::new();
    levels.measure(&mut |one| {
        let Measure::Count(count) = one.measure else { panic!("a count") };
        series.push((one.labels[0].1.to_owned(), one.labels[1].1.to_owned(), count));
    });
    assert_eq!(series.len(), 4);
    assert_eq!(series[2], ("shop".to_owned(), "read only".to_owned(), 1));
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_read_as_people_write_it() {
    let text = r#"{"levels": [{"name": "full"}, {"name": "slim", "at": 0.5}], "worse_after": "2s"}"#;
    let config: LevelsConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config, LevelsConfig::new("full").level("slim", 0.5).worse_after(ms(2000)));
    let snapshot = config.build().unwrap().snapshot();
    assert_eq!(serde_json::to_value(&snapshot).unwrap()["levels"][1]["at"], 0.5);
}

/// What the documentation says, told of the whole past at once.
struct Model {
    starts: [f64; 3],
    hysteresis: f64,
    worse_after: u64,
    better_after: u64,
    level: usize,
    /// Every observation since the last step.
    seen: Vec<(u64, f64)>,
}

impl Model {
    fn observe(&mut self, now: u64, pressure: f64) {
        self.seen.push((now, pressure));
        let lasts = |is_so: &dyn Fn(f64) -> bool, long: u64| {
            let first = self.seen.iter().rev().take_while(|(_, pressure)| is_so(*pressure)).last();
            first.is_some_and(|(since, _)| now - since >= long)
        };
        let worse = self.level < 3 && lasts(&|p| p >= self.starts[self.level], self.worse_after);
        let better = self.level > 0 && lasts(&|p| p < self.starts[self.level - 1] - self.hysteresis, self.better_after);
        if worse || better {
            self.level = if worse { self.level + 1 } else { self.level - 1 };
            self.seen.clear();
        }
    }
}

proptest! {
    #[test]
    fn they_do_what_the_model_does(
        worse_after in 0..500u64,
        better_after in 0..500u64,
        steps in prop::collection::vec((0..200u64, 0..=100u64), 1..200),
    ) {
        let start = TokioClock.now();
        let config = config().worse_after(ms(worse_after)).better_after(ms(better_after)).every(ms(1));
        let (levels, percent) = under_pressure(config, &start);
        let mut model = Model {
            starts: [0.6, 0.8, 0.9],
            hysteresis: 0.1,
            worse_after,
            better_after,
            level: 0,
            seen: Vec::new(),
        };
        let mut now = 0;
        for (passed, pressure) in steps {
            now += passed + 1;
            percent.store(pressure, SeqCst);
            model.observe(now, pressure as f64 / 100.0);
            prop_assert_eq!(levels.current_at(&(start + ms(now))), model.level);
        }
    }
}
