//! What `/metrics` shows is what Prometheus reads.
#![cfg(all(feature = "prometheus", feature = "telemetry", feature = "http"))]

use axum::{Router, body::Body, http::header::CONTENT_TYPE, routing::get};
use buttress::{core::Settle, prelude::*};
use http::Request;
use http_body_util::BodyExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tower::{ServiceBuilder, ServiceExt as _};

type Labels = BTreeMap<String, String>;

/// A family as it was read: everything strict, or a panic that says what is wrong.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: bool,
    unit: Option<String>,
    samples: Vec<(String, Labels, f64)>,
}

fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut closed = BTreeSet::new();
    let mut current = String::new();
    let lines = text.strip_suffix("# EOF\n").expect("it ends with EOF").lines();
    let name_fits = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    for line in lines {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(name_fits(name), "{line}");
            if name != current {
                assert!(closed.insert(name.to_owned()), "`{name}` stands twice");
                assert_eq!(what, "HELP", "a family begins with its HELP: {line}");
                current = name.to_owned();
            }
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.samples.is_empty(), "after samples: {line}");
            match what {
                "HELP" => assert!(!std::mem::replace(&mut family.help, true) && !rest.is_empty(), "{line}"),
                "TYPE" => assert_eq!(std::mem::replace(&mut family.kind, rest.to_owned()), "", "{line}"),
                "UNIT" => {
                    assert!(family.unit.replace(rest.to_owned()).is_none() && name.ends_with(&format!("_{rest}")))
                }
                other => panic!("`{other}` is unknown"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, parse_labels(labels.strip_suffix('}').expect("closed"))),
            None => (series, Labels::new()),
        };
        assert!(name_fits(name) && labels.keys().all(|label| name_fits(label)), "{line}");
        let family = families.get_mut(&current).expect("a sample of no family");
        let allowed: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_sum", "_count", "_bucket"],
            other => panic!("`{other}` is no type"),
        };
        assert!(allowed.iter().any(|suffix| name == format!("{current}{suffix}")), "`{name}` in `{current}`");
        family.samples.push((name.to_owned(), labels, value.parse().expect("a number")));
    }
    families
}

fn parse_labels(text: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect("a value in quotes");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("a closing quote") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect("an escape").1 {
                    'n' => value.push('\n'),
                    c @ ('"' | '\\') => value.push(c),
                    other => panic!("`\\{other}` is no escape"),
                },
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "`{name}` twice: {text}");
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}

/// What must hold whatever is shown.
fn check(families: &BTreeMap<String, Family>) {
    let mut all = BTreeSet::new();
    for (name, family) in families {
        assert!(family.help && !family.kind.is_empty(), "`{name}` has no HELP or no TYPE");
        for (sample, labels, value) in &family.samples {
            assert!(all.insert((sample.clone(), labels.clone())), "twice: {sample} {labels:?}");
            assert!(*value >= 0.0 && value.is_finite(), "{sample} {value}");
        }
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
}

fn check_histogram(name: &str, family: &Family) {
    let of =
        |suffix: &'static str| family.samples.iter().filter(move |(sample, ..)| *sample == format!("{name}{suffix}"));
    for (_, labels, count) in of("_count") {
        let buckets = of("_bucket").filter_map(|(_, own, value)| {
            let mut own = own.clone();
            let le: f64 = own.remove("le")?.parse().expect("a bound");
            (own == *labels).then_some((le, *value))
        });
        let buckets: Vec<_> = buckets.collect();
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)));
        assert_eq!(of("_sum").filter(|(_, own, _)| own == labels).count(), 1);
    }
}

fn value(families: &BTreeMap<String, Family>, series: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let samples = families.values().flat_map(|family| &family.samples);
    samples.filter(|(name, own, _)| name == series && *own == wanted).map(|(.., value)| *value).next()
}

#[tokio::test]
async fn an_axum_server_shows_its_metrics_and_every_series_from_the_start() {
    let registry = Registry::new();
    let shown = registry.clone();
    let chain = ServiceBuilder::new()
        .http_server()
        .registry(&registry)
        .named("api")
        .telemetry(TelemetryConfig::server().route("/{id}").build().unwrap())
        .bulkhead(4);
    let bulkhead = registry.get("api.bulkhead").unwrap();
    let app = Router::new()
        .route("/{id}", get(async || "hello"))
        .layer(chain)
        .route("/metrics", get(async move || ([(CONTENT_TYPE, Registry::OPENMETRICS)], shown.encode_prometheus())));
    let ask = async |path: &str| {
        let response = app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let kind = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        (kind, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap())
    };

    let (kind, before) = ask("/metrics").await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let before = parse(&before);
    check(&before);

    ask("/1").await;
    bulkhead.set_mode(Mode::ForcedOpen).unwrap();
    ask("/2").await;
    let after = parse(&ask("/metrics").await.1);
    check(&after);

    let series = |families: &BTreeMap<String, Family>| -> BTreeSet<_> {
        let samples = families.values().flat_map(|family| &family.samples);
        samples.map(|(name, labels, _)| (name.clone(), labels.clone())).collect()
    };
    assert_eq!(series(&before), series(&after), "no series comes later");

    let mine =
        |more: &[(&'static str, &'static str)]| [&[("name", "api.telemetry"), ("http_route", "/{id}")], more].concat();
    let read = |families, series, labels: &[(&'static str, &'static str)]| value(families, series, &mine(labels));
    for (series, labels, was, is) in [
        ("http_server_request_duration_seconds_count", &[("outcome", "success")][..], 0.0, 1.0),
        ("http_server_request_duration_seconds_count", &[("outcome", "ignored")], 0.0, 1.0),
        ("http_server_request_duration_seconds_count", &[("outcome", "failure")], 0.0, 0.0),
        ("buttress_telemetry_refusals_total", &[("error_type", "at_capacity")], 0.0, 1.0),
        ("buttress_telemetry_refusals_total", &[("error_type", "breaker_open")], 0.0, 0.0),
        ("buttress_telemetry_responses_total", &[("class", "2xx")], 0.0, 1.0),
        ("buttress_telemetry_responses_total", &[("class", "5xx")], 0.0, 1.0),
        ("buttress_telemetry_grpc_responses_total", &[("rpc_grpc_status_code", "14")], 0.0, 0.0),
        ("buttress_telemetry_head_duration_seconds_count", &[], 0.0, 2.0),
    ] {
        assert_eq!((read(&before, series, labels), read(&after, series, labels)), (Some(was), Some(is)), "{series}");
    }
    let modes = |families| {
        ["auto", "forced_open"]
            .map(|mode| value(families, "buttress_bulkhead_mode", &[("name", "api.bulkhead"), ("mode", mode)]))
    };
    assert_eq!((modes(&before), modes(&after)), ([Some(1.0), Some(0.0)], [Some(0.0), Some(1.0)]));
    let limit = value(&after, "buttress_bulkhead_limit", &[("name", "api.bulkhead")]);
    assert_eq!(limit, Some(4.0));
    let both = ["buttress_bulkhead_over_limit_current", "buttress_bulkhead_over_limit_total"];
    assert_eq!(both.map(|series| value(&after, series, &[("name", "api.bulkhead")])), [Some(0.0); 2]);
}

#[cfg(all(feature = "balance", feature = "breaker", feature = "bulkhead", feature = "deadline", feature = "retry"))]
#[test]
fn the_handles_of_whole_stacks_share_families_and_no_series_stands_twice() {
    let registry = Registry::new();
    buttress::stack::server().build().unwrap().register(&registry, "in");
    for name in ["orders", "users/10.0.0.1:80", "odd \"name\" \\ of\nlines"] {
        buttress::stack::client().build().unwrap().register(&registry, name);
    }
    let telemetry = Arc::new(Telemetry::client());
    registry.add("calls", telemetry.clone());
    telemetry.begin().settle(Outcome::Failure, None);
    let families = parse(&registry.encode_prometheus());
    check(&families);
    let open = |name| value(&families, "buttress_breaker_state", &[("name", name), ("state", "open")]);
    assert_eq!((open("orders.breaker"), open("odd \"name\" \\ of\nlines.breaker")), (Some(0.0), Some(0.0)));
    let labels = [("name", "calls"), ("outcome", "failure")];
    assert_eq!(value(&families, "http_client_request_duration_seconds_count", &labels), Some(1.0));
    let names: Vec<_> = families.keys().filter(|name| name.starts_with("buttress_deadline_")).collect();
    assert!(names.iter().any(|name| *name == "buttress_deadline_per_try_seconds"), "{names:?}");
}

#[test]
fn what_others_call_strangely_or_alike_breaks_nothing() {
    struct Odd(Value);
    impl Handle for Odd {
        fn kind(&self) -> &'static str {
            "odd-kind"
        }
        fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
            show("a reading", self.0);
            show("a:state", Value::State("x", &["x", "y"]));
        }
    }
    use buttress::{Handle, Value};
    let registry = Registry::new();
    for value in [Value::Gauge(u64::MAX), Value::Count(1), Value::Ratio(0.5)] {
        registry.add("odd", Arc::new(Odd(value)));
    }
    let families = parse(&registry.encode_prometheus());
    check(&families);
    assert_eq!(value(&families, "buttress_odd_kind_a_reading", &[("name", "odd-3")]), Some(0.5));
    assert_eq!(value(&families, "buttress_odd_kind_a_state", &[("name", "odd"), ("state", "x")]), Some(1.0));
}

#[cfg(all(
    feature = "balance",
    feature = "breaker",
    feature = "bulkhead",
    feature = "chaos",
    feature = "deadline",
    feature = "fallback",
    feature = "retry",
    feature = "shed"
))]
#[tokio::test]
async fn every_reading_of_ours_has_a_help_that_says_what_it_is() {
    use buttress::{
        Balance, Budget, CanaryConfig, Chaos, Coalesce, DeadlineConfig, Endpoint, FailoverConfig, FallbackConfig,
        Handle, Keyed, KeyedConfig, LevelsConfig, PressureGateConfig, RampedGateConfig, Retry, ShedConfig, StaleConfig,
        ThrottleConfig, ToggleConfig, VoteConfig, shed::pressure::PressureConfig, telemetry::RequestSpanLayer,
    };
    use std::time::Duration;
    use tower::service_fn;

    let second = Duration::from_secs(1);
    let echo = || service_fn(async |n: u64| Ok::<_, Error<std::io::Error>>(n));
    let pressure = PressureConfig::default().build().unwrap();
    let shed = Arc::new(ShedConfig::default().build().unwrap());
    let breaker = Arc::new(BreakerConfig::default().min_calls(1).slow_after(second).build().unwrap());
    // What is shown only once there were calls.
    shed.call(buttress::Ask::new(), async { Ok::<_, ()>(()) }).await.unwrap();
    breaker.call(async { Ok::<_, ()>(()) }).await.unwrap();
    let deadline = DeadlineConfig::new(second * 3).per_try(second).idle(second).absolute(second * 2);
    let keyed: Keyed<u64, Bulkhead, _> = KeyedConfig::new(4).build(|n: &u64| *n, |_| Bulkhead::from(8)).unwrap();
    let handles: Vec<Arc<dyn Handle>> = vec![
        Balance::new([Endpoint::new("a", echo())]).unwrap().handle(),
        breaker,
        Arc::new(Budget::default()),
        Arc::new(Bulkhead::from(8)),
        Arc::new(CanaryConfig::new(5.0).build().unwrap()),
        Arc::new(Chaos::default()),
        Arc::new(Coalesce::default()),
        Arc::new(deadline.build().unwrap()),
        FailoverConfig::default().backup("backup", echo()).build().unwrap().handle(),
        Arc::new(FallbackConfig::default().build().unwrap()),
        Arc::new(keyed),
        Arc::new(LevelsConfig::new("full").level("less", 0.7).build().unwrap()),
        Arc::new(PressureGateConfig::default().build(&pressure).unwrap()),
        Arc::new(pressure),
        Arc::new(RampedGateConfig::default().build().unwrap()),
        Arc::new(RateLimitConfig::per_second(8).build().unwrap()),
        RequestSpanLayer::new().handle(),
        Arc::new(Retry::default()),
        shed,
        Arc::new(StaleConfig::default().build().unwrap()),
        Arc::new(Telemetry::server()),
        Arc::new(ThrottleConfig::default().build().unwrap()),
        Arc::new(ToggleConfig::new("feature").build().unwrap()),
        VoteConfig::default().build([("second", echo()), ("third", echo())]).unwrap().handle(),
    ];
    let registry = Registry::new();
    let kinds: BTreeSet<_> = handles.iter().map(|handle| handle.kind()).collect();
    assert_eq!(kinds.len(), handles.len());
    for handle in handles {
        registry.add(handle.kind(), handle);
    }
    // The same kind, with more to show.
    registry
        .add("tenants", Arc::new(RateLimitConfig::per_second(8).keyed(KeyedConfig::new(8), |key: &u64| *key).unwrap()));
    let text = registry.encode_prometheus();
    let helps: Vec<_> = text.lines().filter(|line| line.starts_with("# HELP buttress_")).collect();
    assert!(helps.len() > 150, "{}", helps.len());
    for help in helps {
        let said = help.splitn(4, ' ').nth(3).unwrap();
        assert!(!said.starts_with("What a ") && said.ends_with('.'), "{help}");
    }
    let families = parse(&text);
    check(&families);
    let idle = ["buttress_deadline_idle_seconds", "buttress_deadline_idle_total"];
    assert_eq!(idle.map(|series| value(&families, series, &[("name", "deadline")])), [Some(1.0), Some(0.0)]);
}
