use super::{Config, Loaded, RateKey, read};
use buttress::shed::{Algorithm, limit::AdaptiveConfig};
use proptest::{
    arbitrary::any,
    collection::vec,
    option, prop_oneof, proptest,
    sample::{Index, select},
    strategy::{Just, Strategy},
};
use std::{collections::BTreeMap, path::Path, time::Duration};

const SAMPLE: &str = include_str!("../../gateway.toml");

const BASE: &str = r#"
[listener.main]
address = "127.0.0.1:0"
[cluster.c]
endpoints = "127.0.0.1:9001"
[route.r]
prefix = "/"
cluster = "c"
"#;

fn load(text: &str) -> Loaded {
    read::read(Path::new("gateway.toml"), text, Path::new("")).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// What is wrong, a line each.
fn faults(text: &str) -> Vec<String> {
    let problems = read::read(Path::new("gateway.toml"), text, Path::new("")).expect_err(text);
    problems.iter().map(ToString::to_string).collect()
}

/// Where the value of `path` came from.
fn origin(loaded: &Loaded, path: &str) -> String {
    loaded.origins.find(&path.split('.').collect::<Vec<_>>()).to_string()
}

#[test]
fn a_deadlines_table_changes_what_it_names_and_keeps_its_defaults() {
    let loaded = load(&BASE.replace("cluster = \"c\"", "cluster = \"c\"\ndeadline = { idle = \"5s\" }"));
    let deadline = &loaded.config.routes["r"].deadline.config;
    assert_eq!((deadline.total, deadline.idle), (Some(Duration::from_secs(30)), Some(Duration::from_secs(5))));
    assert!(deadline.read.as_ref().is_some_and(|read| read.grpc_timeout));
    assert!(loaded.config.clusters["c"].deadline.config.emit.is_some());
    assert_eq!(origin(&loaded, "route.r.deadline.idle"), "gateway.toml:9");
    assert_eq!(origin(&loaded, "route.r.deadline.total"), "default");
}

#[test]
fn an_entry_overrides_its_policy_and_a_policy_its_parent_key_by_key() {
    let text = BASE.replace("cluster = \"c\"", "cluster = \"c\"\npolicy = \"child\"\nretry = { max_attempts = 5 }")
        + "[policy.parent.route]\npriority = \"critical\"\nretry = { max_attempts = 2, max_body = 1, min_attempt = \"2ms\" }\n\
           [policy.child]\ninherits = \"parent\"\nroute.retry.max_body = 7\n";
    let loaded = load(&text);
    let route = &loaded.config.routes["r"];
    let retry = &route.retry.config;
    assert_eq!((retry.max_attempts, retry.max_body, retry.min_attempt), (5, 7, Duration::from_millis(2)));
    assert_eq!(route.priority, buttress::Priority::Critical);
    assert_eq!(origin(&loaded, "route.r.retry.max_attempts"), "gateway.toml:10");
    assert_eq!(origin(&loaded, "route.r.retry.max_body"), "policy child, gateway.toml:16");
    assert_eq!(origin(&loaded, "route.r.retry.min_attempt"), "policy parent, gateway.toml:13");
    assert_eq!(origin(&loaded, "route.r.priority"), "policy parent, gateway.toml:12");
}

#[test]
fn the_value_of_a_key_is_replaced_as_a_whole() {
    let text = BASE.replace("cluster = \"c\"", "cluster = \"c\"\nretry.budget = { capacity = 7 }")
        + "[policy.default.route.retry]\nbudget = { ratio = 0.5 }\n";
    let budget = &load(&text).config.routes["r"].retry.config.budget;
    assert_eq!((budget.capacity, budget.ratio), (7, 0.1));
}

#[test]
fn a_rate_limit_is_inherited_key_by_key() {
    let policy = "[policy.default.route.rate_limit]\npermits = 7\nperiod = \"2s\"\nby = { header = \"x-tenant\" }\n";
    let with = |line: &str| load(&(BASE.to_owned() + line + "\n" + policy)).config.routes["r"].rate_limit.clone();
    let limit = with("rate_limit.burst = 9").unwrap();
    assert_eq!((limit.permits, limit.period, limit.burst), (7, Duration::from_secs(2), Some(9)));
    assert!(matches!(limit.by, RateKey::Header(_)));
    let limit = with("rate_limit = { permits = 1, by = \"route\" }").unwrap();
    assert_eq!((limit.permits, limit.period, limit.by), (1, Duration::from_secs(2), RateKey::Route));
    assert!(with("rate_limit = \"none\"").is_none() && with("").is_some());
}

#[test]
fn what_is_said_of_an_adaptive_limit_changes_what_it_names_and_a_number_replaces_it() {
    let with = |own: &str, policy: &str| {
        let text = BASE.replace("endpoints", &format!("{own}\nendpoints"));
        load(&(text + "[policy.default.cluster]\n" + policy)).config.clusters["c"].shed.config.limit.clone()
    };
    let adaptive = |initial: Option<u32>, min, max| {
        let config = AdaptiveConfig::default().min(min).max(max);
        Algorithm::Adaptive(initial.into_iter().fold(config, AdaptiveConfig::initial))
    };
    assert_eq!(with("", ""), adaptive(None, 20, 10_000));
    assert_eq!(with("shed.limit.adaptive.max = 500", ""), adaptive(None, 20, 500));
    assert_eq!(with("shed = { limit = { adaptive = { initial = 40 } } }", ""), adaptive(Some(40), 20, 10_000));
    assert_eq!(with("shed.limit = { adaptive = {} }", ""), adaptive(None, 20, 10_000));
    let policy = "shed.limit.adaptive = { min = 4, max = 300 }";
    assert_eq!(with("shed.limit.adaptive.initial = 50", policy), adaptive(Some(50), 4, 300));
    assert_eq!(with("shed.limit.adaptive.min = 1", policy), adaptive(None, 1, 300));
    assert_eq!(with("shed.queue.max = 3", policy), adaptive(None, 4, 300));
    // What is something else, or begins anew.
    assert_eq!(with("shed.limit = 64", policy), Algorithm::Fixed(64));
    assert_eq!(with("shed.limit.fixed = 65", policy), Algorithm::Fixed(65));
    assert_eq!(with("shed.limit = \"adaptive\"", policy), adaptive(None, 20, 10_000));
    assert_eq!(with("shed.limit.adaptive.max = 500", "shed.limit = 64"), adaptive(None, 20, 500));
}

#[test]
fn a_gate_that_nothing_is_said_of_believes_that_a_call_hangs_when_the_breakers_do() {
    let with = |lines: &str| {
        let text = BASE.replace("endpoints = \"127.0.0.1:9001\"", &format!("endpoints = [\"h:1\", \"h:2\"]\n{lines}"));
        let loaded = load(&text);
        let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        (loaded.config.clusters["c"].gate.config.hang_after.as_secs(), warnings.len(), warnings.join("\n"))
    };
    assert_eq!(with("").0, 5);
    assert_eq!(with("breaker.hang_after = \"30s\"\ndeadline.per_try = \"14s\""), (30, 0, String::new()));
    assert_eq!(with("breaker.slow_after = \"20s\"\nbreaker.slow_rate = 0.5").0, 20);
    let (hang, _, said) = with("breaker.hang_after = \"30s\"\ngate.hang_after = \"3s\"\ndeadline.per_try = \"14s\"");
    assert!(hang == 3 && said.contains("per_try` allows 14s, and the gate counts a call that takes 3s"), "{said}");
    // One warning says it of both.
    let (_, warnings, said) = with("deadline.per_try = \"14s\"");
    assert!(warnings == 1 && said.contains("the breaker counts"), "{said}");
    let (_, warnings, said) = with("breaker = false\ndeadline.per_try = \"14s\"");
    assert!(warnings == 1 && said.contains("the gate counts"), "{said}");
    assert_eq!(with("gate = false\nbreaker = false\ndeadline.per_try = \"14s\"").1, 0);
}

#[test]
fn a_layer_is_switched_off_and_on_again_with_its_own_defaults() {
    let text = "[policy.off.route]\ndeadline = false\nretry = false\n\
                [policy.on]\ninherits = \"off\"\nroute.deadline.idle = \"1s\"\n[policy.on.route.retry]\n"
        .to_owned()
        + BASE
        + "policy = \"on\"\n[route.off]\nprefix = \"/off\"\ncluster = \"c\"\npolicy = \"off\"\n";
    let loaded = load(&text);
    let (on, off) = (&loaded.config.routes["r"], &loaded.config.routes["off"]);
    assert!(!off.deadline.on && !off.retry.on);
    assert!(on.deadline.on && on.retry.on);
    assert_eq!(on.deadline.config.total, Some(Duration::from_secs(30)), "what the layer has by default");
    assert_eq!(origin(&loaded, "route.off.retry"), "policy off, gateway.toml:3");
}

#[test]
fn a_policy_named_default_holds_for_those_that_name_none() {
    let text = BASE.to_owned()
        + "[route.other]\nprefix = \"/o\"\ncluster = \"c\"\npolicy = \"other\"\n\
           [route.free]\nprefix = \"/f\"\ncluster = \"c\"\npolicy = \"none\"\n\
           [policy.default.route.bulkhead]\nlimit = 9\n[policy.other.route]\n";
    let loaded = load(&text);
    let limit = |name: &str| loaded.config.routes[name].bulkhead.config.limit;
    assert_eq!([limit("r"), limit("other"), limit("free")], [9, 256, 256]);
}

#[test]
fn none_takes_away_what_would_hold_otherwise() {
    let text = BASE.replace("cluster = \"c\"", "cluster = \"c\"\ndeadline.total = \"none\"")
        + "[policy.default.cluster.breaker]\nfailure_rate = \"none\"\nconsecutive = 3\n[limits]\nbody_timeout = \"none\"\n";
    let loaded = load(&text);
    assert_eq!(loaded.config.routes["r"].deadline.config.total, None);
    assert_eq!(loaded.config.clusters["c"].breaker.config.failure_rate, None);
    assert_eq!(loaded.config.body_timeout(&loaded.config.routes["r"]), Duration::from_secs(10));
    assert_eq!(origin(&loaded, "cluster.c.breaker.failure_rate"), "policy default, gateway.toml:11");
}

#[test]
fn a_bad_table_hides_no_other_and_nothing_follows_from_it() {
    let text = BASE.replace("endpoints = \"127.0.0.1:9001\"", "endpoints = 5\nhttp2 = 1") + "[drain]\nmax = \"0s\"\n";
    let faults = faults(&text);
    assert_eq!(faults.len(), 3, "{faults:#?}");
}

#[test]
fn files_are_relative_to_the_config() {
    let folder = std::env::temp_dir().join(format!("buttress-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "0123456789abcdef\n").unwrap();
    let config = folder.join("gateway.toml");
    std::fs::write(&config, BASE.to_owned() + "[admin]\naddress = \"0.0.0.0:1\"\ntoken_file = \"token\"\n").unwrap();
    let loaded = Config::read(&config);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(loaded.unwrap().config.admin.token_file, Some(folder.join("token")));
}

#[test]
fn columns_count_characters_and_any_line_end_ends_a_line() {
    let text = BASE.replace("\n", "\r\n") + "[limits]\r\n\"connectiöns\" = 1 # ü\r\nstreams = 0\r\n";
    let problems = read::read(Path::new("gateway.toml"), &text, Path::new("")).unwrap_err();
    let list: Vec<serde_json::Value> = serde_json::from_str(&problems.json()).unwrap();
    let places: Vec<_> =
        list.iter().map(|d| (d["line"].as_u64(), d["column"].as_u64(), d["end_column"].as_u64())).collect();
    assert_eq!(places, [(Some(10), Some(1), Some(14)), (Some(11), Some(11), Some(12))]);
    let text = problems.to_string();
    assert!(text.contains("gateway.toml:10:1 ]") && text.contains("gateway.toml:11:11 ]"), "{text}");
}

/// What one table says of a layer.
#[derive(Clone, Debug)]
enum Said {
    Nothing,
    Off,
    Keys(BTreeMap<&'static str, u32>),
}

impl Said {
    fn line(&self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Off => "bulkhead = false\n".to_owned(),
            Self::Keys(keys) => {
                let keys: Vec<_> = keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
                format!("bulkhead = {{ {} }}\n", keys.join(", "))
            }
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    let keys = proptest::collection::btree_map(select(vec!["limit", "max_queue", "stripes"]), 1_u32..60, 0..3);
    prop_oneof![Just(Said::Nothing), Just(Said::Off), keys.prop_map(Said::Keys)]
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    /// Later tables win, key by key; `false` forgets what was said before.
    #[test]
    fn merging_is_what_a_naive_model_says(line in vec(said(), 1..6)) {
        let mut model: Option<BTreeMap<&str, u32>> = Some(BTreeMap::new());
        let mut text = BASE.to_owned() + &line[0].line();
        for (i, said) in line.iter().enumerate().skip(1) {
            if i == 1 {
                text += "policy = \"p1\"\n";
            }
            text += &format!("[policy.p{i}]\n");
            if i + 1 < line.len() {
                text += &format!("inherits = \"p{}\"\n", i + 1);
            }
            text += &format!("[policy.p{i}.route]\n{}", said.line());
        }
        for said in line.iter().rev() {
            match said {
                Said::Nothing => {}
                Said::Off => model = None,
                Said::Keys(keys) => model.get_or_insert_default().extend(keys),
            }
        }
        let bulkhead = &load(&text).config.routes["r"].bulkhead;
        assert_eq!(bulkhead.on, model.is_some(), "{text}");
        let model = model.unwrap_or_default();
        let of = |key| model.get(key).copied();
        let (config, default) = (&bulkhead.config, buttress::BulkheadConfig::default());
        if bulkhead.on {
            assert_eq!(config.limit, of("limit").unwrap_or(256), "{text}");
        }
        assert_eq!(config.max_queue, of("max_queue").unwrap_or(default.max_queue), "{text}");
        assert_eq!(config.stripes, of("stripes").unwrap_or(default.stripes), "{text}");
    }

    #[test]
    fn of_what_was_read_a_gateway_can_be_built(text in config()) {
        if let Err(error) = crate::proxy::Gateway::build(&load(&text).config) {
            panic!("{error}\n{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same(text in config()) {
        let loaded = load(&text);
        for origin in [false, true] {
            let printed = loaded.effective(origin).to_string();
            let again = load(&printed);
            assert_eq!(shape(&again.config), shape(&loaded.config), "{text}\n{printed}");
            assert_eq!(again.effective(false).to_string(), loaded.effective(false).to_string());
        }
    }

    #[test]
    fn whatever_is_read_nothing_panics(edits in vec((any::<Index>(), edit()), 1..6)) {
        let mut text = SAMPLE.to_owned();
        for (place, edit) in edits {
            edit.apply(&mut text, place);
        }
        match read::read(Path::new("gateway.toml"), &text, Path::new("")) {
            Ok(loaded) => {
                assert!(crate::proxy::Gateway::build(&loaded.config).is_ok(), "{text}");
                load(&loaded.effective(true).to_string());
            }
            Err(problems) => {
                assert!(!problems.to_string().is_empty());
                assert!(problems.json().starts_with('['));
            }
        }
    }
}

#[test]
fn the_sample_reads_back_as_the_same() {
    let loaded = load(SAMPLE);
    assert_eq!(loaded.warnings.iter().count(), 0);
    let again = load(&loaded.effective(true).to_string());
    assert_eq!(shape(&again.config), shape(&loaded.config));
}

/// A config without the names of policies: what is printed has none.
fn shape(config: &Config) -> String {
    let mut config = config.clone();
    config.routes.values_mut().for_each(|route| route.policy = None);
    config.clusters.values_mut().for_each(|cluster| cluster.policy = None);
    format!("{config:#?}")
}

const ROUTE_KEYS: [&str; 19] = [
    "rate_limit = { permits = 3, period = \"2s\", burst = 9, by = { header = \"x-tenant\" }, headers = true }",
    "rate_limit.by = \"route\"",
    "rate_limit = \"none\"",
    "priority = \"sheddable\"",
    "body_bytes = \"3MB\"",
    "upgrades = []",
    "deadline.total = \"none\"",
    "deadline.idle = \"1500ms\"",
    "deadline.read = { header = \"x-timeout-ms\", grpc_timeout = false }",
    "deadline.read = \"none\"",
    "bulkhead = false",
    "bulkhead.limit = 7",
    "bulkhead.order = \"lifo\"",
    "retry = false",
    "retry.backoff = { kind = \"decorrelated_jitter\", base = \"3ms\", cap = \"7s\" }",
    "retry.statuses = []",
    "retry.budget = { ratio = 0.125, max_concurrent = 3 }",
    "retry.seed = 18446744073709551615",
    "retry.name = \"a \\\"name\\\" \\\\ \\u0001\"",
];

const CLUSTER_KEYS: [&str; 20] = [
    "shed = false",
    "shed = { limit = { fixed = 9 }, release = \"body_end\" }",
    "shed.queue = { max = 0, reserve = 0.25 }",
    "shed.limit.adaptive = { initial = 30, max = 90 }",
    "shed.limit = 64",
    "shed.limit = \"adaptive\"",
    "gate = false",
    "gate.probe_every = \"70ms\"",
    "http2 = true",
    "connect_timeout = \"123us\"",
    "balance.picks = 2",
    "breaker = false",
    "breaker.window = { count = 50 }",
    "breaker.window = { time = \"90s\" }",
    "breaker.consecutive = 5",
    "breaker.slow_after = \"1s\"",
    "bulkhead = { limit = 3, max_queue = 2 }",
    "deadline = false",
    "deadline.per_try = \"29s\"",
    "deadline.emit = \"none\"",
];

/// Lines that can stand in one table: one for each layer or value.
fn lines(keys: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::subsequence(keys, 0..6).prop_map(|lines| {
        let name = |line: &str| line.split([' ', '.']).next().unwrap_or_default().to_owned();
        let by_name: BTreeMap<_, _> = lines.iter().map(|line| (name(line), *line)).collect();
        by_name.into_values().fold(String::new(), |text, line| text + line + "\n")
    })
}

/// Configs of policies that inherit each other, and of entries that name some of them.
fn config() -> impl Strategy<Value = String> {
    let policy = (option::of(0_usize..3), lines(&ROUTE_KEYS), lines(&CLUSTER_KEYS));
    let entry = (option::of(0_usize..3), lines(&ROUTE_KEYS), lines(&CLUSTER_KEYS));
    (vec(policy, 3), vec(entry, 2)).prop_map(|(policies, entries)| {
        let mut text = "name = \"gw\"\n[listener.\"a.b\"]\naddress = \"[::1]:0\"\n".to_owned();
        for (i, (parent, route, cluster)) in policies.iter().enumerate() {
            text += &format!("[policy.p{i}]\n");
            // Only earlier ones: no circles.
            if let Some(parent) = parent.filter(|parent| *parent < i) {
                text += &format!("inherits = \"p{parent}\"\n");
            }
            text += &format!("[policy.p{i}.route]\n{route}[policy.p{i}.cluster]\n{cluster}");
        }
        for (i, (policy, route, cluster)) in entries.iter().enumerate() {
            let policy = policy.map(|policy| format!("policy = \"p{policy}\"\n")).unwrap_or_default();
            text += &format!("[cluster.c{i}]\nendpoints = [\"h:1\", \"[::1]:2\"]\n{policy}{cluster}");
            text += &format!(
                "[route.r{i}]\nprefix = \"/{i}\"\nheaders = {{ x-a = \"*\" }}\ncluster = \"c{i}\"\n{policy}{route}"
            );
        }
        text
    })
}

#[derive(Clone, Debug)]
enum Edit {
    Take(usize),
    Put(String),
    /// Writes a line of the text again, elsewhere.
    Line(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let pieces = vec![
        "\"",
        "[",
        "]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\n",
        "#",
        "none",
        "false",
        "[[",
        "'''",
        "\u{0}",
        "ü",
        "-1",
        "1e999",
        "nan",
        "[policy.default]",
        "inherits = \"default\"",
        "99999999999999999999",
        "1979-05-27",
        "\"none\"",
        "deadline = false\n",
    ];
    prop_oneof![
        (1_usize..12).prop_map(Edit::Take),
        select(pieces).prop_map(|piece| Edit::Put(piece.to_owned())),
        any::<Index>().prop_map(Edit::Line),
    ]
}

impl Edit {
    fn apply(&self, text: &mut String, place: Index) {
        let boundary = |text: &str, mut at: usize| {
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let at = boundary(text, place.index(text.len() + 1));
        match self {
            Self::Take(len) => {
                let end = boundary(text, (at + len).min(text.len()));
                text.replace_range(at..end.max(at), "");
            }
            Self::Put(piece) => text.insert_str(at, piece),
            Self::Line(line) => {
                let lines: Vec<_> = text.lines().collect();
                if !lines.is_empty() {
                    let line = format!("\n{}\n", lines[line.index(lines.len())]);
                    text.insert_str(at, &line);
                }
            }
        }
    }
}
