//! A config that is wrong says what is wrong, where, and what would be right. (Whole answers: `golden`.)

use crate::process::{binary, check, config_file};

const FINE: &str = r#"
[listener.main]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[cluster.a]
endpoints = "127.0.0.1:9001"
[route.a]
prefix = "/"
cluster = "a"
"#;

/// What is wrong, a line each.
fn wrong(text: &str) -> Vec<String> {
    let path = config_file(text);
    let output = binary().args(["check", "--format", "json", "-c"]).arg(&path).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let list: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let said = list.iter().filter(|entry| entry["severity"] == "error").map(|entry| {
        assert_eq!(text(&entry["file"]), path.display().to_string());
        format!("{}, {}", text(&entry["message"]), text(&entry["fix"]))
    });
    said.collect()
}

#[test]
fn a_fine_config_passes_and_so_does_the_sample_without_a_warning() {
    assert!(check(FINE).status.success());
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.toml");
    let output = binary().args(["check", "--strict", "-c", sample]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_config_is_named_with_or_without_an_option() {
    let path = config_file(FINE);
    let file = path.to_str().unwrap();
    for command in ["check", "print-config"] {
        let [plain, long, short, both] = [&[file][..], &["--config", file], &["-c", file], &["-c", file, file]]
            .map(|args| binary().arg(command).args(args).output().unwrap());
        assert!(plain.status.success() && !plain.stdout.is_empty());
        assert_eq!([&long.stdout, &short.stdout], [&plain.stdout; 2]);
        assert!(!both.status.success() && both.stdout.is_empty(), "one of them");
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_wrong_field_is_named_with_its_value_and_what_is_allowed() {
    for (from, to, said) in [
        ("prefix = \"/\"", "prefix = \"api\"", "`route.a.prefix` is \"api\", allowed: a path that begins with `/`"),
        ("cluster = \"a\"", "cluster = \"b\"", "`route.a.cluster` is \"b\", allowed: the name of a cluster: \"a\""),
        (
            "[admin]\naddress = \"127.0.0.1:0\"",
            "[admin]\naddress = \"0.0.0.0:1\"",
            "`admin.address` is 0.0.0.0:1, allowed: a loopback",
        ),
        ("[admin]", "[limits]\nconnections = 0\n[admin]", "`limits.connections` is 0, allowed: 1 to 1000000"),
        (
            "[admin]",
            "[limits]\nheader_timeout = \"0s\"\n[admin]",
            "`limits.header_timeout` is 0s, allowed: more than 0s",
        ),
        ("[admin]", "[drain]\nmin = \"1h\"\n[admin]", "`drain.min` is 1h, allowed: at most `drain.max`, 30s"),
        (
            "[route.a]",
            "connect_timeout = \"0s\"\n[route.a]",
            "`cluster.a.connect_timeout` is 0s, allowed: more than 0s",
        ),
        (
            "[route.a]",
            "breaker = { failure_rate = 1.5 }\n[route.a]",
            "`cluster.a.breaker.failure_rate` is 1.5, allowed: more than 0 and at most 1",
        ),
        (
            "[route.a]",
            "bulkhead = { limit = 4294967295 }\n[route.a]",
            "`cluster.a.bulkhead.limit` is 4294967295, allowed: 0 to 2147483647",
        ),
        (
            "[route.a]",
            "deadline = { per_try = \"0s\" }\n[route.a]",
            "`cluster.a.deadline.per_try` is 0s, allowed: more than 0",
        ),
        (
            "[route.a]",
            "deadline = { per_try = \"60s\" }\n[route.a]",
            "`cluster.a.deadline.per_try` is 1m, allowed: less than `route.a.deadline.total`, 30s",
        ),
        ("127.0.0.1:9001", "nowhere", "`cluster.a.endpoints`: \"nowhere\" is not an endpoint, allowed: host:port"),
        ("127.0.0.1:9001", "u@h:1", "\"u@h:1\" is not an endpoint, allowed: host:port"),
        ("\"127.0.0.1:9001\"", "[]", "an empty list, allowed: at least one endpoint"),
        ("\"127.0.0.1:9001\"", "[\"h:1\", \"h:01\"]", "is \"h:01\" twice, allowed: each endpoint once"),
        ("\"127.0.0.1:9001\"", "[\"h:1\", \"h\"]", "\"h\" is not an endpoint, allowed: host:port"),
        ("\"127.0.0.1:9001\"", "9001", "`cluster.a.endpoints` is 9001, allowed: host:port, as in"),
        ("[route.a]", "balance = { picks = 0 }\n[route.a]", "`cluster.a.balance.picks` is 0, allowed: 1 to 16"),
        (
            "cluster = \"a\"",
            "cluster = \"a\"\nretry = { max_attempts = 0 }",
            "`route.a.retry.max_attempts` is 0, allowed: 1 (no retries) to 15",
        ),
        (
            "cluster = \"a\"",
            "cluster = \"a\"\nretry = { budget = { ratio = 3.0 } }",
            "`route.a.retry.budget.ratio` is 3, allowed: 0.000001 to 2",
        ),
        (
            "cluster = \"a\"",
            "cluster = \"a\"\nretry = { backoff = { kind = \"constant\", delay = \"2h\" } }",
            "`route.a.retry.backoff.delay` is 2h, allowed: 0s to 1h",
        ),
        (
            "cluster = \"a\"",
            "cluster = \"a\"\nretry = { statuses = [404] }",
            "`route.a.retry.statuses` is 404, allowed: 408, 429, 500 to 599",
        ),
        ("127.0.0.1:9001", "h:0", "\"h:0\" is not an endpoint, allowed: host:port"),
        ("address = \"127.0.0.1:0\"", "address = \"8080\"", "\"8080\" is not an address, allowed: an IP and a port"),
        ("[admin]", "[limits]\nbody_timeout = \"0s\"\n[admin]", "`limits.body_timeout` is 0s, allowed: more than 0s"),
        (
            "[route.a]",
            "deadline = { per_try = \"2s\" }\n[route.b]\nprefix = \"/b\"\ncluster = \"a\"\ndeadline = { total = \"2s\" }\n[route.a]",
            "`cluster.a.deadline.per_try` is 2s, allowed: less than `route.b.deadline.total`, 2s",
        ),
        ("[admin]", "[drain]\nmax = \"soon\"\n[admin]", "`soon` is not a duration, allowed: a number and a unit"),
        (
            "[route.a]",
            "deadline = { per_try = 5 }\n[route.a]",
            "5 is not a duration, allowed: a number and a unit, as in \"5ms\" or \"5s\"",
        ),
        ("[route.a]", "breaker = { window = \"10s\" }\n[route.a]", "{ time = \"10s\" } or { count = 100 }"),
        ("[route.a]", "breaker = { window = 10 }\n[route.a]", "{ time = \"10s\" } or { count = 100 }"),
        ("[route.a]", "breaker = 5\n[route.a]", "allowed: a table, or `false` to switch the layer off"),
        ("[route.a]", "breaker = true\n[route.a]", "a layer that is not written has its defaults"),
        ("cluster = \"a\"", "cluster = \"a\"\nbreaker = {}", "`breaker` belongs to a cluster"),
        (
            "\"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"",
            "\"127.0.0.1:7000\"\n[admin]\naddress = \"127.0.0.1:7000\"",
            "`admin.address` is 127.0.0.1:7000, allowed: an address of its own; `listener.main.address` has this one",
        ),
        ("[admin]", "[limits]\nconections = 1\n[admin]", "`limits.conections` is unknown, did you mean `connections`?"),
        ("[route.a]", "braker = {}\n[route.a]", "`cluster.a.braker` is unknown, did you mean `breaker`?"),
        (
            "[route.a]",
            "breaker = { min_cals = 1 }\n[route.a]",
            "`cluster.a.breaker.min_cals` is unknown, did you mean `min_calls`?",
        ),
        ("prefix = \"/\"\ncluster = \"a\"", "prefix = \"/\"", "`route.a.cluster` is missing"),
        ("cluster = \"a\"", "cluster = 5", "`route.a.cluster` is 5, allowed: a text"),
    ] {
        let text = FINE.replacen(from, to, 1);
        assert_ne!(text, FINE);
        let errors = wrong(&text);
        assert!(errors.iter().any(|error| error.contains(said)), "{to}: {errors:#?}");
        assert_eq!(errors.len(), 1, "nothing that follows from it: {errors:#?}");
    }
}

#[test]
fn all_wrong_values_are_said_at_once() {
    let text = FINE.replace("prefix = \"/\"", "prefix = \"x\"").replace("cluster = \"a\"", "cluster = \"zzz\"");
    let errors = wrong(&text);
    assert_eq!(errors.len(), 2, "{errors:#?}");

    let layers = FINE.replace("[route.a]", "breaker = { min_calls = 0 }\nbulkhead = { stripes = 65 }\n[route.a]");
    let errors = wrong(&layers).join("\n");
    assert!(errors.contains("breaker.min_calls") && errors.contains("bulkhead.stripes"), "{errors}");
}

#[test]
fn all_unreadable_values_are_said_at_once_each_with_its_line() {
    let text = FINE
        .replace("[admin]", "[limits]\nheader_timeout = 5\nconections = 1\n[admin]")
        .replace("cluster = \"a\"", "cluster = 5\nbreaker = {}");
    let error = String::from_utf8(check(&text).stderr).unwrap();
    for said in ["5 is not a duration", "`limits.conections`", "allowed: a text", "`breaker` belongs to a cluster"] {
        assert_eq!(error.matches(said).count(), 1, "{said}: {error}");
    }
    assert_eq!(error.matches("Error: ").count(), 4, "and nothing that follows from them: {error}");
    for line in ["5:18", "6:1", "13:11", "14:1"] {
        assert!(error.contains(&format!(".toml:{line} ]")), "{line}: {error}");
    }
}

#[test]
fn check_shows_every_chain_with_the_values_that_hold() {
    let said = |text: &str| {
        let output = check(text);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let [text, warnings] = said(FINE);
    for line in [
        "is fine: 1 route, 1 cluster\n",
        "route.a: / -> cluster.a\n  deadline  total=30s  read=grpc-timeout\n  bulkhead  limit=256\n",
        "cluster.a: 127.0.0.1:9001, HTTP/1\n  shed      limit=adaptive  initial=20  min=20  max=10000  queue=1000  burst_wait=250ms  critical_wait=",
        "sheddable_wait=5ms  lowest_wait=120ms  reserve=0.005  release=head\n  breaker   failure_rate=0.5  hang_after=",
        "window=10s  min_calls=20  open_for=5s  max_open=1m  probes=3  ramp=from 0.1\n",
        "  bulkhead  limit=256\n  deadline  emit=grpc-timeout\n",
        "pressure: mode=observe_only sources=memory,lag every=250ms lag=500ms sheddable=0.8..0.9 normal=0.9..1 retry_after=1s\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(warnings, "");
    let [text, _] = said(&FINE.replace("cluster = \"a\"", "cluster = \"a\"\nrate_limit = { permits = 5 }"));
    assert!(text.contains("  rate_limit  permits=5  period=1s  by=client  capacity=100000\n"), "{text}");

    let off = FINE
        .replace("[route.a]", "breaker = false\n[cluster.b]\nendpoints = \"[::1]:1\"\nbulkhead = false\n[route.a]")
        .replace("cluster = \"a\"", "cluster = \"a\"\ndeadline = false");
    let [text, warnings] = said(&off);
    for line in ["1 route, 2 clusters", "breaker   off\n", "bulkhead  off\n", "deadline  off\n"] {
        assert_eq!(text.matches(line).count(), 1, "{line}: {text}");
    }
    assert!(warnings.contains("Warning: no route leads to `cluster.b`"), "{warnings}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = binary().args(["run", "-c", "/nowhere/gateway.toml"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error.starts_with("Error: /nowhere/gateway.toml: "), "{error}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (table, field) in [("[listener.main]", "listener"), ("[admin]", "admin.address")] {
        let address_of = |address: &str| format!("{table}\naddress = \"{address}\"");
        let text = FINE.replace(&address_of("127.0.0.1:0"), &address_of(&address.to_string()));
        let path = config_file(&text);
        let output = binary().args(["run", "-c"]).arg(&path).output().unwrap();
        std::fs::remove_file(path).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let said = format!("cannot listen on {address} (`{field}");
        assert!(output.status.code() == Some(1) && error.contains(&said), "{error}");
    }
}

#[test]
fn a_wrong_config_does_not_run_and_all_its_errors_are_said() {
    let path = config_file(&FINE.replace("prefix = \"/\"", "prefix = \"x\"\nretry = { max_attempts = 0 }"));
    let output = binary().args(["run", "-c"]).arg(&path).output().unwrap();
    std::fs::remove_file(path).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("`route.a.prefix`") && error.contains("`route.a.retry.max_attempts`"), "{error}");
    assert!(output.stdout.is_empty(), "nothing has started");
}

#[test]
fn warnings_are_errors_where_that_is_asked_for() {
    let path = config_file(&FINE.replace("[route.a]", "[cluster.b]\nendpoints = \"h:1\"\n[route.a]"));
    let code = |args: &[&str]| binary().arg("check").args(args).arg("-c").arg(&path).output().unwrap().status.code();
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["--strict"]), Some(2));
    assert_eq!(code(&["--strict", "--format", "json"]), Some(2));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_print_config_prints_is_a_config_and_prints_the_same_again() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.toml");
    let print = |path: &std::path::Path, args: &[&str]| {
        let output = binary().arg("print-config").args(args).arg("-c").arg(path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = print(sample.as_ref(), &[]);
    let path = config_file(&printed);
    assert!(check(&printed).status.success());
    assert_eq!(print(&path, &[]), printed);
    std::fs::remove_file(path).unwrap();

    let with_origin = print(sample.as_ref(), &["--origin"]);
    let without = with_origin.lines().map(|line| line.split("  # ").next().unwrap().trim_end());
    assert!(without.eq(printed.lines()), "the comments are all that it adds");
    for (value, origin) in [
        ("picks ", "  # default"),
        ("limit     = 512", "  # gateway.toml:"),
        ("total     = \"none\"", "  # policy streams, gateway.toml:"),
    ] {
        assert!(with_origin.lines().any(|line| line.starts_with(value) && line.contains(origin)), "{with_origin}");
    }
}
